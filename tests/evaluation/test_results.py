"""The table of an evaluation."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from edgetrack.evaluation.results import (
    AnchoredResult,
    AttributeResult,
    EvalResult,
    SequenceFailure,
    SequenceResult,
    StreamingResult,
    eval_table,
)


@pytest.fixture
def result():
    """result("name", ...) is an evaluation on sequences of these names."""

    def make(*names, **changes):
        sequences = [SequenceResult(name=name, frames=4, lost=0, fps=50.0, ao=0.5) for name in names]
        figures = ("ao", "sr50", "sr75", "auc", "precision", "p_norm20", "op50", "op75")
        fields = {
            "bundle": "a", "weights": "untrained", "dataset": "data", "layout": "plain", "averaging": "sequences",
            "device": "cpu", "precision_hint": None, "frames": 4 * len(names), "limit": None, "fps": 50.0, "jobs": 1,
            "threads": 1, "interval": dict.fromkeys(figures), "sequences": sequences, "failures": [], "ao": 0.5,
        }  # fmt: skip
        return EvalResult(**{**fields, **changes})

    return make


def test_names_from_a_data_set_are_no_markup(result) -> None:
    table = eval_table(result("car[a]", "x|y", failures=[SequenceFailure(name="[red]z", error="broken")]))
    shown = io.StringIO()
    table.show(Console(file=shown, width=160))
    assert "car[a]" in shown.getvalue()
    assert "FAILED: [red]z: broken" in shown.getvalue()
    row = next(line for line in table.markdown().splitlines() if "x" in line and "y" in line)
    assert row.startswith("| x\\|y | 4 |")


def test_columns_of_further_tasks_stand_behind_those_of_the_one_pass(result) -> None:
    anchored = AnchoredResult(spacing=2, length=2, runs=4, ao=0.25, interval=(0.125, 0.5))
    streaming = StreamingResult(rate=30.0, latencies="measured", median_ms=9.0, processed=1.0, staleness=1.0, ao=0.75)
    table = eval_table(result("x", anchored=anchored, streaming=streaming))
    assert [column.title for column in table.columns[-2:]] == ["anchored AO", "AO at 30 fps"]
    assert [row[-2:] for row in table.cells()] == [["-", "-"], ["0.250", "0.750"], ["0.12-0.50", ""]]
    assert len(table.columns) == len(eval_table(result("x")).columns) + 2


def test_p_norm_is_the_figure_at_a_fifth_that_papers_print(result) -> None:
    one = SequenceResult(name="x", frames=4, lost=0, fps=50.0, ao=0.5, p_norm=0.25, p_norm20=0.75)
    table = eval_table(result("x", sequences=[one]))
    column = [column.title for column in table.columns].index("P_norm@0.2")
    assert table.cells()[0][column] == "0.750"
    assert any(note.startswith("P_norm@0.2: the normalised precision at 0.2") for note in table.notes)


def test_where_no_sequence_could_be_read_nothing_is_advised_about_servers(result) -> None:
    failures = [SequenceFailure(name="x", error="broken")]
    notes = eval_table(result(ao=None, sequences=[], failures=failures)).notes
    assert not any("server" in note for note in notes)
    assert any("server" in note for note in eval_table(result("x", ao=None)).notes)


@pytest.mark.parametrize(("names", "words"), [(["x"], "1 sequence, 4 frames"), (["x", "y"], "2 sequences, 8 frames")])
def test_one_is_not_counted_as_many(result, names, words) -> None:
    assert eval_table(result(*names)).notes[0].endswith(words)


def test_attributes_are_rows_behind_the_intervals(result) -> None:
    marked = [
        AttributeResult(attribute="FM", sequences=2, ao=0.25, auc=0.125),
        AttributeResult(attribute="LR", sequences=1),
    ]
    table = eval_table(result("x", attributes=marked))
    assert [row[0] for row in table.cells()] == ["x", "all", "95 %", "FM (2)", "LR (1)"]
    assert [len(row) for row in table.cells()] == [len(table.columns)] * 5
    assert table.cells()[3][2] == "0.250"
    assert any(note.startswith("FM to LR: the sequences that the data set marks so") for note in table.notes)
    assert not any("marks so" in note for note in eval_table(result("x")).notes)
