"""Going on from another box than the one that was found."""

from __future__ import annotations

import numpy as np
import pytest

import edgetrack
from edgetrack.errors import InvalidBoxError, UsageError


def test_a_tracker_is_placed_only_where_it_can_be(scripted) -> None:
    frame = np.zeros((48, 64, 3), np.uint8)
    with edgetrack.load(scripted(), threads=1) as tracker:
        with pytest.raises(UsageError, match="place was called before init"):
            tracker.place((1, 1, 9, 9))
        tracker.init(frame, (10, 12, 20, 16))
        before = tracker.update(frame).box
        tracker.init(frame, (10, 12, 20, 16))
        for wrong in ((100, 1, 9, 9), (1, 1, 0, 9), (1, 1, 9, float("nan"))):
            with pytest.raises(InvalidBoxError):
                tracker.place(wrong)
        assert tracker.update(frame).box == before
        tracker.update(np.zeros((48, 200, 3), np.uint8))
        tracker.place((100, 1, 9, 9))
    with pytest.raises(UsageError, match="is closed"):
        tracker.place((1, 1, 9, 9))


def test_the_next_search_starts_at_the_box_where_it_was_placed(scripted) -> None:
    frame = np.zeros((480, 640, 3), np.uint8)
    with edgetrack.load(scripted(), threads=1) as tracker:
        tracker.init(frame, (100, 100, 40, 40))
        first = tracker.update(frame).box
        tracker.place((400, 300, 40, 40))
        moved = tracker.update(frame).box
    assert moved == pytest.approx((first.x + 300, first.y + 200, first.w, first.h))
