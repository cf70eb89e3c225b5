"""Several targets on graphs that are opened once: the boxes of as many single trackers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

import edgetrack
from edgetrack.bundle.manifest import GraphInfo, LostModel
from edgetrack.bundle.reader import Bundle, open_bundle
from edgetrack.errors import BundleError, InvalidBoxError, UsageError
from edgetrack.media import open_source
from edgetrack.runtime.backends.base import CompiledGraph, allocate
from edgetrack.runtime.backends.onnxruntime.backend import OnnxRuntimeGraph
from edgetrack.runtime.multi import StepBatch
from tests.conftest import export_quietly

BOXES = [(100, 80, 60, 40), (30, 30, 40, 50), (180, 120, 50, 50)]


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    with open_source("synthetic:drift?frames=6") as source:
        return list(source)


@pytest.mark.parametrize("target", ["onnx", "openvino", "torch"])
def test_boxes_are_those_of_single_trackers(
    exported: Callable[..., Path], frames: list[np.ndarray], target: str
) -> None:
    bundle = exported(target)
    expected = []
    for box in BOXES:
        with edgetrack.load(bundle, threads=1) as tracker:
            tracker.init(frames[0], box)
            expected.append([tracker.update(frame).box for frame in frames[1:]])
    with edgetrack.load_many(bundle, 3, threads=1) as many:
        numbers = [many.start(frames[0], box) for box in BOXES]
        found = [many.update(frame) for frame in frames[1:]]
    for number, boxes in zip(numbers, expected, strict=True):
        assert [results[number].box for results in found] == boxes


def test_a_tracker_that_remembers_keeps_targets_apart(
    exported_tiny: Callable[..., Path], frames: list[np.ndarray]
) -> None:
    bundle = exported_tiny("spmtrack_b", "onnx")
    expected = []
    for box in BOXES[:2]:
        with edgetrack.load(bundle, threads=1) as tracker:
            tracker.init(frames[0], box)
            expected.append([tracker.update(frame).box for frame in frames[1:]])
    with edgetrack.load_many(bundle, 2, threads=1) as many:
        numbers = [many.start(frames[0], box) for box in BOXES[:2]]
        found = [many.update(frame) for frame in frames[1:]]
    for number, boxes in zip(numbers, expected, strict=True):
        assert [results[number].box for results in found] == boxes


def test_targets_come_and_go(exported: Callable[..., Path], frames: list[np.ndarray]) -> None:
    with edgetrack.load_many(exported("onnx"), 2, threads=1) as many:
        assert many.update(frames[0]) == {}
        first, second = (many.start(frames[0], box) for box in BOXES[:2])
        with pytest.raises(UsageError, match="all 2 targets are followed; stop one"):
            many.start(frames[0], BOXES[2])
        many.stop(first)
        third = many.start(frames[1], BOXES[2])
        assert many.targets == (second, third)
        assert third not in (first, second)
        assert set(many.update(frames[2])) == {second, third}
        many.reset_box(second, BOXES[0])
        with pytest.raises(UsageError, match=f"there is no target {first}; followed are: {second}, {third}"):
            many.stop(first)
        many.stop(second)
        with pytest.raises(InvalidBoxError):
            many.start(frames[2], (0, 0, 0, 0))
        assert many.targets == (third,)
    with pytest.raises(UsageError, match="closed"):
        many.update(frames[3])


@pytest.mark.parametrize("room", [0, 65])
def test_room_is_bounded(exported: Callable[..., Path], room: int) -> None:
    with pytest.raises(UsageError, match=f"{room} targets were asked for; give 1 to 64"):
        edgetrack.load_many(exported("onnx"), room)


@pytest.fixture(scope="module")
def of_three(tiny_recipe: Callable[..., Path], made_once: Callable[..., Path]) -> Path:
    """A bundle with a graph for 3 targets."""
    path = str(tiny_recipe("ostrack_256"))

    def export(output: Path) -> None:
        export_quietly(path, "onnx", "untrained", output, ("synthetic:drift?frames=2",), (1,), batch=3)

    return made_once("batch-3/ostrack_256-onnx-fp32", export)


@pytest.mark.parametrize(("count", "runs"), [(1, [0, 4]), (2, [4, 0]), (3, [4, 0]), (4, [4, 4]), (5, [8, 0])])
def test_targets_are_found_in_one_run_where_most_rows_are_theirs(
    of_three: Path, frames: list[np.ndarray], count: int, runs: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = [*BOXES, (60, 60, 30, 30), (20, 90, 70, 40)][:count]
    ran: list[str] = []
    run = OnnxRuntimeGraph._infer
    monkeypatch.setattr(OnnxRuntimeGraph, "_infer", lambda self: (ran.append(self.info.name), run(self))[1])
    with edgetrack.load_many(of_three, 5, threads=1) as many:
        assert many.batch == 3
        numbers = [many.start(frames[0], box) for box in boxes]
        found = [many.update(frame) for frame in frames[1:5]]
    assert [ran.count("batch"), ran.count("step")] == runs
    for number, box in zip(numbers, boxes, strict=True):
        with edgetrack.load(of_three, threads=1) as tracker:
            assert set(tracker.graphs) == {"step"}
            tracker.init(frames[0], box)
            alone = [tracker.update(frame) for frame in frames[1:5]]
        np.testing.assert_allclose([r[number].box for r in found], [r.box for r in alone], atol=1e-3)
        assert [r[number].lost for r in found] == [r.lost for r in alone]
    timing = found[-1][numbers[-1]].timing
    assert min(timing.crop, timing.graphs, timing.decode) > 0


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_a_calibrated_model_judges_targets_of_one_run_too(
    of_three: Path, frames: list[np.ndarray], threshold: float
) -> None:
    model = LostModel(
        weights={"score": 1.0}, threshold=threshold, rate=0.01, recall=1, false_alarms=0, auroc=1, bundle="x", data=()
    )
    bundle = open_bundle(of_three)
    calibrated = Bundle(bundle.folder, msgspec.structs.replace(bundle.manifest, lost=model), bundle.source)
    with edgetrack.load_many(calibrated, 3, threads=1) as many:
        for box in BOXES:
            many.start(frames[0], box)
        found = [one for frame in frames[1:3] for one in many.update(frame).values()]
    assert [one.lost for one in found] == [threshold == 1] * 6
    assert all(one.reason is None or "is below 1.000" in one.reason for one in found)


def test_with_room_for_one_the_graph_for_several_is_not_opened(of_three: Path) -> None:
    with edgetrack.load_many(of_three, 1, threads=1) as many:
        assert many.batch == 1


def test_rows_of_another_tracker_are_refused(of_three: Path) -> None:
    with open_bundle(of_three) as bundle:
        batch = bundle.manifest.batch
        assert batch is not None
        other = msgspec.structs.replace(bundle.manifest.graph("step"), outputs=batch.outputs)
        with pytest.raises(BundleError, match=r"has the outputs .* which are not those of 3 times 'step'"):
            StepBatch(Unopened(batch), other)


class Unopened(CompiledGraph):
    def __init__(self, info: GraphInfo) -> None:
        self.info, self.inputs, self.outputs = info, allocate(info.inputs), allocate(info.outputs)

    def _open(self, path: object, options: object) -> None: ...

    def _infer(self) -> None: ...

    def _close(self) -> None: ...


@pytest.mark.full
@pytest.mark.parametrize("tracker", ["smat", "nanotrack_v2", "nanotrack_v3"])
@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_published_sizes_in_one_run(tracker: str, target: str, frames: list[np.ndarray], tmp_path: Path) -> None:
    sources, moments = ("synthetic:drift?frames=2",), (1,)
    export_quietly(tracker, target, "untrained", tmp_path / "b", sources, moments, batch=3)
    with edgetrack.load_many(tmp_path / "b", 3, threads=1) as many:
        numbers = [many.start(frames[0], box) for box in BOXES]
        found = [many.update(frame) for frame in frames[1:]]
    for number, box in zip(numbers, BOXES, strict=True):
        with edgetrack.load(tmp_path / "b", threads=1) as tracker_of_one:
            tracker_of_one.init(frames[0], box)
            alone = [tracker_of_one.update(frame).box for frame in frames[1:]]
        np.testing.assert_allclose([r[number].box for r in found], alone, atol=1e-3)
