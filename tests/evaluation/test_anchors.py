"""Which runs a plan makes, what the tracker is given in each, and what it gets for it."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.box import Box
from edgetrack.errors import SequenceError, UsageError
from edgetrack.evaluation.anchors import AnchorPlan, anchored, legs
from edgetrack.evaluation.datasets import open_dataset
from edgetrack.evaluation.metrics import iou
from edgetrack.evaluation.sequence import Protocol, Sequence

BOX = (10.0, 12.0, 20.0, 16.0)


class Still:
    """Stays where it was started; keeps the frames it was given, by their mean grey value."""

    def __init__(self):
        self.runs = []

    def init(self, frame, box):
        self.box = Box(*box)
        self.runs.append([round(frame.mean() / 7)])

    def update(self, frame):
        self.runs[-1].append(round(frame.mean() / 7))
        return SimpleNamespace(box=self.box)


def scene(frames=12):
    dataset = open_dataset(f"synthetic:drift?frames={frames}&size=96x64")
    return dataset.read(dataset.entries[0])


@pytest.fixture
def images(plain_dataset):
    def make(frames, visible=None, protocol=None):
        dataset = open_dataset(plain_dataset("a", frames=frames))
        fields = vars(dataset.read(dataset.entries[0]))
        if visible is not None:
            fields["visible"] = np.array(visible, bool)
        return Sequence(**{**fields, "protocol": protocol or fields["protocol"]})

    return make


def test_runs_go_both_ways_from_each_anchor_over_the_frames_that_they_should(images) -> None:
    tracker = Still()
    found = anchored(tracker, images(10), AnchorPlan(spacing=4, length=4))
    # Image n (counted from 1) is filled with the grey value 7n.
    assert sorted(tracker.runs) == sorted([[1, 2, 3, 4, 5], [5, 6, 7, 8, 9], [5, 4, 3, 2, 1], [9, 8, 7, 6, 5]])
    assert [(r.frame, r.direction, r.frames) for r in found.runs] == [
        (0, "forward", 4),
        (4, "forward", 4),
        (4, "backward", 4),
        (8, "backward", 4),
    ]
    assert found.sequence == "a"
    assert found.ao == 1.0


def test_each_run_is_the_mean_iou_with_the_true_boxes_after_its_anchor() -> None:
    sequence = scene()
    found = anchored(Still(), sequence, AnchorPlan(spacing=5, length=3))
    assert len(found.runs) == 4
    for run in found.runs:
        step = 1 if run.direction == "forward" else -1
        truth = sequence.truth[[run.frame + step * i for i in range(1, run.frames + 1)]]
        assert run.ao == pytest.approx(iou(np.tile(sequence.truth[run.frame], (run.frames, 1)), truth).mean())
    assert found.ao == pytest.approx(np.mean([run.ao for run in found.runs]))


def test_invisible_frames_are_not_scored_and_anchors_move_past_them(images) -> None:
    visible = [1, 1, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0]
    tracker = Still()
    found = anchored(tracker, images(12, visible), AnchorPlan(spacing=4, length=4))
    # The anchor at 4 moves to 6; that at 8 has no visible frame before the next and is dropped.
    assert [(r.frame, r.direction, r.frames) for r in found.runs] == [
        (0, "forward", 3),
        (6, "forward", 1),
        (6, "backward", 2),
    ]


def test_a_run_without_a_frame_to_score_is_left_out(images) -> None:
    found = anchored(Still(), images(5, [1, 0, 0, 0, 0]), AnchorPlan(spacing=10, length=4))
    assert found.runs == []
    assert found.ao is None


def test_a_limit_cuts_the_sequence_and_its_runs(images) -> None:
    found = anchored(Still(), images(12), AnchorPlan(spacing=3, length=3), limit=5)
    assert [(r.frame, r.direction) for r in found.runs] == [(0, "forward"), (3, "backward")]
    assert anchored(Still(), images(12), AnchorPlan(50, 50), limit=1).runs == []


def test_a_bounded_protocol_moves_boxes_into_the_frame(images) -> None:
    class Outside(Still):
        def update(self, frame):
            return SimpleNamespace(box=Box(-10.0, 12.0, 20.0, 16.0))

    plan = AnchorPlan(4, 4)
    free = anchored(Outside(), images(9), plan).ao
    bound = anchored(Outside(), images(9, protocol=Protocol(bounded=True)), plan).ao
    # Unbounded, the boxes touch at x = 10; moved into the frame they share half of their width.
    assert free == 0
    assert bound == pytest.approx(1 / 3)


def test_an_anchor_whose_box_is_outside_the_frame_starts_no_run(images) -> None:
    sequence = images(9)
    sequence.truth[4] = (70.0, 5.0, 9.0, 9.0)
    assert {r.frame for r in anchored(Still(), sequence, AnchorPlan(4, 4)).runs} == {0, 8}


def test_withheld_truth_has_no_runs() -> None:
    hidden = Sequence("s", "synthetic:drift?frames=4&size=96x64", np.array([BOX]), np.ones(1, bool), Protocol())
    assert anchored(Still(), hidden, AnchorPlan(1, 1)).runs == []


@pytest.mark.parametrize("rows", [3, 6])
def test_frames_without_boxes_and_boxes_without_frames_are_an_error(rows) -> None:
    wrong = Sequence(
        "s", "synthetic:drift?frames=4&size=96x64", np.tile(BOX, (rows, 1)), np.ones(rows, bool), Protocol()
    )
    with pytest.raises(SequenceError, match=f"{rows} boxes"):
        anchored(Still(), wrong, AnchorPlan(2, 2))


@pytest.mark.parametrize(("spacing", "length", "word"), [(0, 5, "spacing 0"), (5, -1, "length -1")])
def test_plans_of_no_length_are_refused(spacing, length, word) -> None:
    with pytest.raises(UsageError, match=word):
        AnchorPlan(spacing, length)


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(1, 20), st.integers(1, 40))
def test_legs_start_where_the_target_is_stay_inside_and_are_each_made_once(visible, spacing, length) -> None:
    flags = np.array(visible)
    truth = np.where(flags[:, None], 1.0, np.nan) * np.ones((1, 4))
    made = legs(truth, flags, AnchorPlan(spacing, length))
    assert len(set(made)) == len(made)
    for leg in made:
        assert flags[leg.anchor]
        assert len(leg.indices) == leg.frames + 1
        assert 0 <= min(leg.indices) <= max(leg.indices) < len(flags)
        assert min(length, len(flags) - 1) / 2 <= leg.frames <= length
    anchors = sorted({leg.anchor for leg in made})
    assert all(a // spacing != b // spacing for a, b in pairwise(anchors))
