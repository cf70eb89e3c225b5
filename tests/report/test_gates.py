"""The figure of gates: lines or bars, what is annotated below them, and the table of correlations."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from edgetrack.evaluation.results import SequenceResult
from edgetrack.report.gates import correlation_table, gates_plot
from edgetrack.runtime.diagnostics import DiagnosticLog, DiagnosticSummary, add_frame, summarize
from tests.report.test_plots import drawings, texts


def gates(count: int, parts: int = 4, frames: int = 50) -> dict[str, DiagnosticSummary]:
    """So many gates of which part g % parts leads until the middle, and the next one behind it."""
    log: DiagnosticLog = {}
    for frame in range(frames):
        weights = np.full((count, parts), 0.4 / (parts - 1))
        weights[np.arange(count), (np.arange(count) + (frame >= frames // 2)) % parts] = 0.6
        found = {
            f"layer {gate // 6 + 1} map{gate % 6}": {f"part {p}": float(w) for p, w in enumerate(row)}
            for gate, row in enumerate(weights)
        }
        add_frame(log, found)
    return summarize(log, course=True)


def sequence(found: dict[str, DiagnosticSummary], frames: int = 51, **fields: object) -> SequenceResult:
    return SequenceResult(
        name="a",
        frames=frames,
        lost=0,
        fps=1.0,
        diagnostics=found,
        **fields,
    )


@pytest.mark.parametrize("count", [1, 6, 7, 72])
def test_gates_are_lines_or_bars_that_obey_the_page(count: int) -> None:
    markup = gates_plot("g", sequence(gates(count)))
    assert "style=" not in markup
    assert "#0000" not in markup
    for drawing in drawings(markup):
        shown = texts(drawing)
        assert {f"part {p}" for p in range(4)} <= set(shown)
        assert ("layer 1" in shown) == (count > 6)
        labels = [one.get("aria-label") or "" for one in drawing.iter() if one.get("class") == "mark"]
        if count <= 6:
            assert labels[0] == "layer 1 map0, part 0: 0.37 on average"
        else:
            # Each gate changes its part once, in the middle.
            assert len(labels) == 2 * count
            assert labels[:2] == [
                "layer 1 map0, frames 0 to 25: part 0 0.60",
                "layer 1 map0, frames 25 to 50: part 1 0.60",
            ]


def test_gates_without_a_course_are_not_drawn() -> None:
    found = {name: msgspec.structs.replace(one, course=None) for name, one in gates(2).items()}
    assert not gates_plot("g", sequence(found))
    assert not gates_plot("g", sequence({}))
    assert drawings(gates_plot("g", sequence(gates(1, parts=9, frames=1), 2)))


def pointed_at(count: int, **annotated: list[float | None]) -> list[list[str]]:
    """What a reader may point at in each drawing, behind the gates' own."""
    found = []
    for drawing in drawings(gates_plot("g", sequence(gates(count), annotations=annotated))):
        labels = [one.get("aria-label") or "" for one in drawing.iter() if one.get("class") == "mark"]
        found.append([label for label in labels if not label.startswith("layer")])
        assert set(annotated) <= set(texts(drawing))
    return found


@pytest.mark.parametrize("count", [2, 72])
def test_annotations_are_drawn_below_lines_and_bars(count: int) -> None:
    hidden: list[float | None] = [0.0] * 20 + [1.0] * 5 + [0.0] * 25
    speed = [None, *np.linspace(0.0, 0.5, 49)]
    for labels in pointed_at(count, occlusion=hidden, speed=speed, hidden=hidden):
        assert labels == [
            "speed as annotated: up to 0.5 a frame",
            "occlusion, frames 20 to 25: 100% of them",
            "hidden, frames 20 to 25: 100% of them",
        ]


@pytest.mark.parametrize("values", [[None, None], [0.0, None]])
def test_an_amount_that_is_nowhere_above_zero_has_no_row(values: list[float | None]) -> None:
    for drawing in drawings(gates_plot("g", sequence(gates(1), annotations={"speed": values}))):
        assert "speed" not in texts(drawing)


def test_stretches_of_several_frames_say_the_share_that_holds() -> None:
    found = pointed_at(1, **{"background-clutter": [0.0, 0.5, 0.25, 0.0, 0.0]})
    assert found[0] == [
        "background-clutter, frames 10 to 20: 50% of them",
        "background-clutter, frames 20 to 30: 25% of them",
    ]


def test_correlations_are_a_table_of_few_gates() -> None:
    known = {"gate": {"se": {"speed": 0.5, "hidden": -0.25}, "ca": {"speed": -1.0}}}
    table = correlation_table(sequence({}, correlations=known))
    assert table is not None
    assert [column.title for column in table.columns] == ["correlation of", "with speed", "with hidden"]
    assert table.cells() == [["gate se", "0.50", "-0.25"], ["gate ca", "-1.00", "-"]]
    assert correlation_table(sequence({})) is None
    assert correlation_table(sequence({}, correlations={f"layer {i}": known["gate"] for i in range(7)})) is None


@pytest.mark.parametrize("count", [1, 72])
def test_a_figure_of_one_part_is_a_row_and_no_part_of_a_gate(count: int) -> None:
    found = {"memory": summarize({"memory": {"cosine": [1.0, 0.5, 0.25]}}, course=True)["memory"], **gates(count)}
    for drawing in drawings(gates_plot("g", sequence(found))):
        labels = [one.get("aria-label") or "" for one in drawing.iter() if one.get("class") == "mark"]
        assert labels[0] == ("memory, cosine: 0.58 on average" if count == 1 else "memory, frames 0 to 3: cosine 0.58")
        assert ("cosine" in texts(drawing)) == (count == 1), "in the row's name, not among the parts"
