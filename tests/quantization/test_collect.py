"""Collecting: where the tracker was, half of it jittered, and never long after it was lost."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edgetrack.box import Box, iou
from edgetrack.errors import CalibrationError, UsageError
from edgetrack.evaluation.datasets import open_dataset
from edgetrack.evaluation.datasets.clip import Clip
from edgetrack.media import Frame
from edgetrack.quantization.collect import LOST_IOU, Wish, collect
from edgetrack.runtime.trackers.base import Decision, Procedure, StageTimer


class Still(Procedure):
    """Never moves: loses every target that does."""

    def __init__(self) -> None:
        self.state = Box(0, 0, 1, 1)
        self.placed = 0

    def init(self, frame: Frame, box: Box) -> None:
        self.state = box

    def reset_box(self, box: Box) -> None:
        self.state = box
        self.placed += 1

    def update(self, frame: Frame, timer: StageTimer) -> Decision:
        return Decision(self.state, 1.0, None)


def clips(spec: str) -> list[Clip]:
    dataset = open_dataset(spec)
    return [dataset.read(entry) for entry in dataset.entries]


@pytest.fixture
def drift() -> list[Clip]:
    return clips("synthetic:drift?frames=60&size=320x240")


def test_the_size_is_met_and_spread_evenly(drift: list[Clip]) -> None:
    items = collect(drift, Still(), Wish(size=20))
    frames = [item.frame for item in items]
    assert len(items) == 20
    assert (frames[0], frames[-1]) == (1, 59)
    assert set(np.diff(frames)) <= {3, 4}
    assert {item.template for item in items} == {tuple(round(v, 3) for v in drift[0].truth[0])}


def test_more_items_than_frames_give_every_frame(drift: list[Clip]) -> None:
    assert [item.frame for item in collect(drift, Still(), Wish(size=500))] == list(range(1, 60))


def test_several_clips_share_the_size() -> None:
    found = collect(clips("synthetic:?frames=12&size=160x120"), Still(), Wish(size=30))
    counts = [sum(item.clip == name for item in found) for name in {item.clip for item in found}]
    assert sum(counts) == 30
    assert max(counts) - min(counts) <= 1


def test_a_tracker_that_lost_the_target_is_put_back(drift: list[Clip]) -> None:
    tracker = Still()
    items = collect(drift, tracker, Wish(size=59, centre_jitter=0.0, scale_jitter=0.0))
    assert tracker.placed > 0
    for item in items[1:]:
        before = Box(*map(float, drift[0].truth[item.frame - 1]))
        assert iou(Box(*item.box), before) > LOST_IOU - 0.01


def test_about_half_of_the_boxes_are_jittered(drift: list[Clip]) -> None:
    still = collect(drift, Still(), Wish(size=59, centre_jitter=0.0, scale_jitter=0.0))
    moved = collect(drift, Still(), Wish(size=59))
    share = np.mean([a.box != b.box for a, b in zip(still, moved, strict=True)])
    assert 0.25 < share < 0.75


@pytest.mark.parametrize("change", [{"seed": 1}, {"centre_jitter": 1.0}])
def test_the_same_wish_gives_the_same_items(drift: list[Clip], change: dict[str, float]) -> None:
    wish: Callable[..., Wish] = Wish
    assert collect(drift, Still(), wish(size=30)) == collect(drift, Still(), wish(size=30))
    assert collect(drift, Still(), wish(size=30)) != collect(drift, Still(), wish(size=30, **change))


def test_nothing_to_collect_from_is_an_error() -> None:
    with pytest.raises(CalibrationError, match="no clip"):
        collect([], Still(), Wish())
    with pytest.raises(CalibrationError, match="none of 1 clips"):
        collect(clips("synthetic:drift?frames=1&size=160x120"), Still(), Wish())
    with pytest.raises(UsageError, match="--calib-size 0"):
        Wish(size=0)
