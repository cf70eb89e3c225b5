"""Several targets on graphs that are opened once: the boxes of as many single trackers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import edgetrack
from edgetrack.errors import InvalidBoxError, UsageError
from edgetrack.media import open_source

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
