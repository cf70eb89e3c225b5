"""DASTM's procedure against the base tracker's numbers; the gate's weights all the way to JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from edgetrack.box import Box
from edgetrack.bundle import open_bundle
from edgetrack.cli.main import app
from edgetrack.exporting.recipe import find_recipe
from edgetrack.media import open_source
from edgetrack.runtime.backends.base import CompiledGraph
from edgetrack.runtime.decode import CellChooser, hann_closed, size_with_context
from edgetrack.runtime.session import Tracker, load
from edgetrack.runtime.trackers.dastm import ATTENTIONS, GATES, DastmSettings, GateMode, choose_box, followed

SCENE = "synthetic:drift?frames=9&size=160x120"


@pytest.fixture(scope="module")
def settings() -> DastmSettings:
    return msgspec.convert(find_recipe("dastm").procedure, DastmSettings)


@pytest.fixture
def tracker(exported_tiny: Callable[..., Path]) -> Any:
    with load(exported_tiny("dastm", "onnx"), threads=1) as found:
        yield found


def start(tracker: Tracker) -> list[Any]:
    """The frames of the scene; the tracker has taken the first."""
    source = open_source(SCENE)
    assert source.ground_truth is not None
    frames = list(source)
    tracker.init(frames[0], source.ground_truth[0])
    return frames


@pytest.mark.parametrize("case", range(4))
def test_the_state_moves_as_officially(golden: Callable[[str], Any], settings: DastmSettings, case: int) -> None:
    fixture = golden("stm_postprocess").group(f"case{case}")
    scale, (cx, cy), (w, h) = float(fixture["scale"]), fixture["prev_pos"], fixture["prev_size"]
    found = choose_box(
        fixture["score"].reshape(1, 25, 25),
        fixture["box_xyxy"].reshape(1, 25, 25, 4),
        (w * scale, h * scale),
        CellChooser(hann_closed(25), influence=settings.window_influence, penalty=settings.penalty_k),
    )
    assert found is not None
    before = Box(cx - (w - 1) / 2, cy - (h - 1) / 2, w, h)
    box = followed(before, found, scale, (320, 240), settings)
    # The official boxes are float32.
    np.testing.assert_allclose(box, fixture["rect_xywh"], rtol=0, atol=5e-5)
    centre = box.x + (box.w - 1) / 2, box.y + (box.h - 1) / 2
    np.testing.assert_allclose(centre, fixture["new_pos"], rtol=0, atol=2e-5)


def test_memories_are_chosen_as_officially(shared: Path, tracker: Tracker) -> None:
    table = json.loads((shared / "golden/memory_indices.json").read_text())["stmtrack_num_segments4"]
    start(tracker)
    procedure: Any = tracker.procedure
    while procedure.bank.count <= max(map(int, table)):
        t = procedure.bank.count
        for kind, expected in table.get(str(t), {}).items():
            for confident in {"low_conf": [False], "high_conf": [True]}.get(kind, [False, True]):
                procedure.confident = confident
                assert sorted(procedure._wanted()) == sorted(index % t for index in expected), (t, kind)
        procedure.memory.append(procedure.entry, procedure.code)


def test_no_frame_asks_for_more_than_there_is_room_for(tracker: Tracker, settings: DastmSettings) -> None:
    procedure: Any = tracker.procedure
    assert settings.most == len(procedure.step.inputs["memory"])
    for frame in start(tracker)[1:]:
        tracker.update(frame)
        assert procedure.step.inputs["present"].sum() <= settings.most


def test_gate_weights_come_with_every_frame(tracker: Tracker) -> None:
    seen = []
    for frame in start(tracker)[1:]:
        result = tracker.update(frame)
        gate = result.diagnostics["gate"]
        assert tuple(gate) == GATES
        assert sum(gate.values()) == pytest.approx(1, abs=1e-5)
        np.testing.assert_array_equal(list(gate.values()), tracker.graphs["memory"].outputs["gates"][0])
        seen.append(tuple(gate.values()))
    # They are the frame's own.
    assert len(set(seen)) > 1


def test_time_of_both_graphs_is_told_from_the_rest(exported_tiny: Callable[..., Path]) -> None:
    ticks = iter(range(0, 10**9, 1_000_000))
    from edgetrack.bundle import open_bundle
    from edgetrack.runtime.backends.base import BackendOptions

    bundle = open_bundle(exported_tiny("dastm", "onnx"))
    with Tracker(bundle, BackendOptions(), clock=SimpleNamespace(now_ns=lambda: next(ticks))) as tracker:
        timing = tracker.update(start(tracker)[1]).timing
    # A tick for each mark: crop, graphs, decode, graphs, and what is left.
    assert (timing.crop, timing.graphs, timing.decode) == (1.0, 2.0, 2.0)


def test_the_newest_frame_is_read_only_after_a_confident_one(tracker: Tracker) -> None:
    procedure: Any = tracker.procedure
    for frame in start(tracker)[1:]:
        tracker.update(frame)
    assert procedure.bank.count == 9
    newest = {}
    for confident in (False, True):
        procedure.confident = confident
        newest[confident] = 8 in procedure._wanted()
    assert newest == {False: False, True: True}


def test_a_search_goes_on_where_it_is_placed(tracker: Tracker) -> None:
    frames = start(tracker)
    tracker.update(frames[1])
    tracker.reset_box((40, 30, 20, 24))
    procedure: Any = tracker.procedure
    procedure._cut(frames[2], procedure.search)
    crop = procedure.search.copy()
    tracker.reset_box((60, 50, 20, 24))
    procedure._cut(frames[2], procedure.search)
    assert not np.array_equal(crop, procedure.search)


def test_boxes_of_any_size_can_be_started_from(tracker: Tracker) -> None:
    frame = open_source(SCENE)
    image = next(iter(frame))
    for box in ((1e-3, 1e-3, 1e-3, 1e-3), (5 - 1e6, 5 - 1e6, 1e6, 1e6), (0, 0, 1e6, 1e-6), (5, 5, 1e-6, 1e-6)):
        tracker.init(image, box)
        found = tracker.update(image)
        assert all(map(np.isfinite, found.box))


def test_track_writes_the_gate_frame_by_frame(exported_tiny: Callable[..., Path], tmp_path: Path) -> None:
    output = tmp_path / "boxes.json"
    bundle = str(exported_tiny("dastm", "onnx"))
    result = CliRunner().invoke(app, ["track", bundle, SCENE, "--output", str(output), "--json"])
    assert result.exit_code == 0, result.output
    rows = json.loads(output.read_text())["boxes"]
    assert "diagnostics" not in rows[0]
    assert all(sum(row["diagnostics"]["gate"].values()) == pytest.approx(1, abs=1e-5) for row in rows[1:])
    summary = json.loads(result.stdout)["diagnostics"]["gate"]
    assert summary["frames"] == 8
    for part, mean in summary["mean"].items():
        assert mean == pytest.approx(np.mean([row["diagnostics"]["gate"][part] for row in rows[1:]]), abs=1e-6)


def test_eval_reports_which_attention_dominated(exported_tiny: Callable[..., Path], tmp_path: Path) -> None:
    bundle = str(exported_tiny("dastm", "onnx"))
    command = ["eval", bundle, SCENE, "--output", str(tmp_path / "runs"), "--threads", "1"]
    result = CliRunner().invoke(app, [*command, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["results"][0]
    gate = found["diagnostics"]["gate"]
    assert gate["frames"] == 8
    assert sum(gate["largest"].values()) == pytest.approx(1)
    assert sum(gate["mean"].values()) == pytest.approx(1, abs=1e-5)
    entropies = [at["entropy"] for at in gate["temperatures"]]
    assert entropies == sorted(entropies)
    # One sequence: its figures are those of all, with their course over time beside them.
    assert {**found["sequences"][0]["diagnostics"]["gate"], "course": None} == gate
    # The same run, kept on disk, gives the same figures; people get a line of it.
    again = CliRunner().invoke(app, [*command, "--markdown"])
    assert "- gate over 8 frames: " in again.stdout


WINDOW = hann_closed(5)


def chosen(score: Any, boxes: Any, expected: tuple[float, float] = (10.0, 10.0), **changes: float) -> Any:
    chooser = CellChooser(WINDOW, **{"influence": 0.21, "penalty": 0.04, **changes})
    return choose_box(score.reshape(1, 5, 5), boxes.reshape(1, 5, 5, 4), expected, chooser)


def squares(side: float = 10.0) -> Any:
    return np.tile(np.array([0, 0, side - 1, side - 1], np.float32), (25, 1))


@pytest.mark.parametrize("case", range(4))
def test_the_official_cell_is_chosen(golden: Callable[[str], Any], case: int) -> None:
    fixture = golden("stm_postprocess")
    np.testing.assert_allclose(hann_closed(25).ravel(), fixture.arrays["window"], rtol=0, atol=1e-12)
    given_ = fixture.group(f"case{case}")
    scale, (w, h) = float(given_["scale"]), given_["prev_size"]
    found = choose_box(
        given_["score"].reshape(1, 25, 25),
        given_["box_xyxy"].reshape(1, 25, 25, 4),
        (w * scale, h * scale),
        CellChooser(hann_closed(25), influence=0.21, penalty=0.04),
    )
    assert found is not None
    x1, y1, x2, y2 = given_["box_xyxy"].reshape(-1, 4)[int(given_["best_id"])].astype(float)
    assert found[3:] == ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1 + 1, y2 - y1 + 1)
    assert found.windowed == pytest.approx(float(given_["best_pscore"]), abs=1e-6)
    assert found.weight / found.score == pytest.approx(float(given_["penalty_best"]), abs=1e-6)


def test_without_change_and_window_the_score_decides() -> None:
    score = np.linspace(0.1, 0.9, 25, dtype=np.float32)
    found = chosen(score, squares(), influence=0.0)
    assert (found.score, found.weight) == (np.float32(0.9), np.float32(0.9))
    assert found.windowed == pytest.approx(found.score)
    assert (found.x, found.y, found.w, found.h) == (4.5, 4.5, 10.0, 10.0)


def cell_of(score: Any, boxes: Any, **changes: float) -> int:
    chooser = CellChooser(WINDOW, **{"influence": 0.21, "penalty": 0.04, **changes})
    w, h = boxes[:, 2] - boxes[:, 0] + 1, boxes[:, 3] - boxes[:, 1] + 1
    return chooser.choose(score, w, h, size_with_context(10.0, 10.0), 1.0).cell


def test_equal_scores_are_decided_by_the_window_then_the_order() -> None:
    even = np.full(25, 0.5, np.float32)
    assert cell_of(even, squares()) == 12
    assert cell_of(even, squares(), influence=0.0) == 0


@given(factor=st.floats(1.1, 8))
def test_a_change_costs_as_much_as_its_inverse(factor: float) -> None:
    even = np.full(25, 0.5, np.float32)
    larger, smaller = (chosen(even, squares(10.0 * f)).weight / 0.5 for f in (factor, 1 / factor))
    assert larger == pytest.approx(smaller, rel=1e-5)
    assert larger == pytest.approx(np.exp(-(factor - 1) * 0.04), rel=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_decides_nothing(bad: float) -> None:
    even = np.full(25, 0.5, np.float32)
    broken = squares()
    broken[12] = bad
    assert chosen(even, broken) is None or cell_of(even, broken) != 12
    even[3] = bad
    assert chosen(even, squares()) is None or cell_of(even, squares()) != 3


GATE_MODES = get_args(GateMode)


def followed_boxes(bundle: Path, frames: int = 12) -> tuple[list[tuple[float, ...]], list[dict[str, float]]]:
    boxes, gates = [], []
    with load(bundle, threads=1) as tracker, open_source(f"synthetic:drift?frames={frames}") as source:
        for index, frame in enumerate(source):
            if index == 0:
                tracker.init(frame, source.ground_truth[0])
                continue
            result = tracker.update(frame)
            boxes.append(tuple(result.box))
            gates.append(dict(result.diagnostics.get("gate", {})))
    return boxes, gates


@pytest.mark.parametrize("target", ["onnx", "openvino", "torch"])
def test_a_selecting_gate_gives_the_hard_gates_boxes(exported_tiny: Callable[..., Path], target: str) -> None:
    hard, select = (followed_boxes(exported_tiny("dastm", target, gate=mode)) for mode in ("hard", "select"))
    np.testing.assert_allclose(select[0], hard[0], rtol=0, atol=0 if target != "openvino" else 1e-3)
    for one, other in zip(select[1], hard[1], strict=True):
        assert one == pytest.approx(other, abs=1e-6)


@pytest.mark.parametrize("mode", GATE_MODES)
def test_every_configuration_of_the_gate_runs(exported_tiny: Callable[..., Path], mode: str) -> None:
    """Its export has proven parity."""
    bundle = exported_tiny("dastm", "onnx", gate=mode)
    boxes, gates = followed_boxes(bundle, 4)
    assert len(boxes) == 3
    assert all(bool(gate) is (mode in ("soft", "hard", "select", "random")) for gate in gates)
    names = [graph.name for graph in open_bundle(bundle).manifest.graphs]
    assert names == (["memory", "se", "ca", "cbam", "step"] if mode in ("select", "random") else ["memory", "step"])


@pytest.mark.parametrize("mode", ["select", "random"])
def test_only_the_chosen_attention_runs(
    exported_tiny: Callable[..., Path], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = exported_tiny("dastm", "onnx", gate=mode)
    ran: list[str] = []
    run = CompiledGraph.run
    monkeypatch.setattr(CompiledGraph, "run", lambda graph: (ran.append(graph.info.name), run(graph))[1])
    _, gates = followed_boxes(bundle)
    chosen = [max(gate, key=gate.__getitem__) for gate in gates]
    # Behind every run of `memory` one attention at most, and after the first frame's the ones that were reported.
    behind = [after for name, after in zip(ran, [*ran[1:], ""], strict=True) if name == "memory"]
    attended = [name if name in ATTENTIONS else "identity" for name in behind]
    assert attended[-len(chosen) :] == chosen
    assert sum(name in ATTENTIONS for name in ran) == sum(part != "identity" for part in attended)


def test_chance_is_seeded(exported_tiny: Callable[..., Path]) -> None:
    runs = [followed_boxes(exported_tiny("dastm", "onnx", gate="random")) for _ in range(2)]
    other = followed_boxes(exported_tiny("dastm", "onnx", gate="random", gate_seed=1))
    assert runs[0] == runs[1]
    assert other[1] != runs[0][1]
    assert len({max(gate, key=gate.__getitem__) for gate in runs[0][1]}) > 1
    assert all(sorted(gate.values()) == [0, 0, 0, 1] for gate in runs[0][1])


def test_what_chance_chose_is_remembered_with_the_crop(exported_tiny: Callable[..., Path]) -> None:
    kept, again = (
        followed_boxes(exported_tiny("dastm", "onnx", gate="random", memory=memory))
        for memory in ("bounded:64", "exact")
    )
    assert kept == again


def test_the_first_memory_and_the_newest_are_compared(exported_tiny: Callable[..., Path]) -> None:
    with load(exported_tiny("dastm", "onnx"), threads=1) as tracker:
        frames = start(tracker)
        first = tracker.procedure.code.copy()
        for frame in frames[1:4]:
            found = tracker.update(frame).diagnostics["memory"]["cosine"]
            newest = tracker.procedure.code.astype(np.float64)
            expected = (first * newest).sum() / np.sqrt((first.astype(np.float64) ** 2).sum() * (newest**2).sum())
            assert found == pytest.approx(expected, abs=1e-5)


def test_faded_memories_weigh_as_much_as_they_are_told(exported_tiny: Callable[..., Path]) -> None:
    """Two copies of a memory, of which one weighs w, and another: as if the first were there (1 + w) times."""
    with load(exported_tiny("dastm", "onnx", memory="decay:0.5"), threads=1) as tracker:
        frames = start(tracker)
        for frame in frames[1:6]:
            tracker.update(frame)
        held, present = tracker.procedure.memory._held, tracker.procedure.step.inputs["present"][0]
        ages = [None if index is None or index == 0 else 4 - index for index in held]
        for age, value in zip(ages, present, strict=True):
            if value and age is not None:
                assert (1 - value) * -1e4 == pytest.approx(age * np.log(0.5), abs=2e-3)
        assert any(0 < value < 1 for value in present)
