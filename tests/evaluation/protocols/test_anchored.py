"""Which runs a plan makes, what the tracker is given in each, and what it gets for it."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.box import Box, ious
from edgetrack.errors import SequenceError, UsageError
from edgetrack.evaluation.datasets import open_dataset
from edgetrack.evaluation.datasets.clip import Clip, ScoringRules
from edgetrack.evaluation.protocols.anchored import Anchored, AnchoredRuns, AnchorRun, legs, paired_difference

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
    def make(frames, visible=None, rules=None):
        dataset = open_dataset(plain_dataset("a", frames=frames))
        fields = vars(dataset.read(dataset.entries[0]))
        if visible is not None:
            fields["visible"] = np.array(visible, bool)
        return Clip(**{**fields, "rules": rules or fields["rules"]})

    return make


def test_runs_go_both_ways_from_each_anchor_over_the_frames_that_they_should(images) -> None:
    tracker = Still()
    found = Anchored(spacing=4, length=4).run(tracker, images(10))
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
    found = Anchored(spacing=5, length=3).run(Still(), sequence)
    assert len(found.runs) == 4
    for run in found.runs:
        step = 1 if run.direction == "forward" else -1
        truth = sequence.truth[[run.frame + step * i for i in range(1, run.frames + 1)]]
        assert run.ao == pytest.approx(ious(np.tile(sequence.truth[run.frame], (run.frames, 1)), truth).mean())
    assert found.ao == pytest.approx(np.mean([run.ao for run in found.runs]))


def test_invisible_frames_are_not_scored_and_anchors_move_past_them(images) -> None:
    visible = [1, 1, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0]
    tracker = Still()
    found = Anchored(spacing=4, length=4).run(tracker, images(12, visible))
    # The anchor at 4 moves to 6; that at 8 has no visible frame before the next and is dropped.
    assert [(r.frame, r.direction, r.frames) for r in found.runs] == [
        (0, "forward", 3),
        (6, "forward", 1),
        (6, "backward", 2),
    ]


def test_a_run_without_a_frame_to_score_is_left_out(images) -> None:
    found = Anchored(spacing=10, length=4).run(Still(), images(5, [1, 0, 0, 0, 0]))
    assert found.runs == []
    assert found.ao is None


def test_a_limit_cuts_the_sequence_and_its_runs(images) -> None:
    found = Anchored(spacing=3, length=3).run(Still(), images(12), limit=5)
    assert [(r.frame, r.direction) for r in found.runs] == [(0, "forward"), (3, "backward")]
    assert Anchored(50, 50).run(Still(), images(12), limit=1).runs == []


def test_bounded_rules_move_boxes_into_the_frame(images) -> None:
    class Outside(Still):
        def update(self, frame):
            return SimpleNamespace(box=Box(-10.0, 12.0, 20.0, 16.0))

    plan = Anchored(4, 4)
    free = plan.run(Outside(), images(9)).ao
    bound = plan.run(Outside(), images(9, rules=ScoringRules(bounded=True))).ao
    # Unbounded, the boxes touch at x = 10; moved into the frame they share half of their width.
    assert free == 0
    assert bound == pytest.approx(1 / 3)


def test_an_anchor_whose_box_is_outside_the_frame_starts_no_run(images) -> None:
    sequence = images(9)
    sequence.truth[4] = (70.0, 5.0, 9.0, 9.0)
    assert {r.frame for r in Anchored(4, 4).run(Still(), sequence).runs} == {0, 8}


def test_withheld_truth_has_no_runs() -> None:
    hidden = Clip("s", "synthetic:drift?frames=4&size=96x64", np.array([BOX]), np.ones(1, bool), ScoringRules())
    assert Anchored(1, 1).run(Still(), hidden).runs == []


@pytest.mark.parametrize("rows", [3, 6])
def test_frames_without_boxes_and_boxes_without_frames_are_an_error(rows) -> None:
    wrong = Clip(
        "s", "synthetic:drift?frames=4&size=96x64", np.tile(BOX, (rows, 1)), np.ones(rows, bool), ScoringRules()
    )
    with pytest.raises(SequenceError, match=f"{rows} boxes"):
        Anchored(2, 2).run(Still(), wrong)


@pytest.mark.parametrize(("spacing", "length", "word"), [(0, 5, "spacing 0"), (5, -1, "length -1")])
def test_plans_of_no_length_are_refused(spacing, length, word) -> None:
    with pytest.raises(UsageError, match=word):
        Anchored(spacing, length)


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(1, 20), st.integers(1, 40))
def test_legs_start_where_the_target_is_stay_inside_and_are_each_made_once(visible, spacing, length) -> None:
    flags = np.array(visible)
    truth = np.where(flags[:, None], 1.0, np.nan) * np.ones((1, 4))
    made = legs(truth, flags, Anchored(spacing, length))
    assert len(set(made)) == len(made)
    for leg in made:
        assert flags[leg.anchor]
        assert len(leg.indices) == leg.frames + 1
        assert 0 <= min(leg.indices) <= max(leg.indices) < len(flags)
        assert min(length, len(flags) - 1) / 2 <= leg.frames <= length
    anchors = sorted({leg.anchor for leg in made})
    assert all(a // spacing != b // spacing for a, b in pairwise(anchors))


def runs_of(name, values, first=0):
    made = [AnchorRun(frame=first + 5 * i, direction="forward", ao=float(v), frames=4) for i, v in enumerate(values)]
    return AnchoredRuns(sequence=name, runs=made)


def trackers(shift, spread, sequences=12, runs=10, seed=0):
    """Runs of two trackers that differ by `shift` on average and by `spread` from run to run."""
    random = np.random.default_rng(seed)
    a = [random.uniform(0.3, 0.7, runs) for _ in range(sequences)]
    b = [values + random.normal(shift, spread, runs) for values in a]
    return [[runs_of(f"s{i}", values) for i, values in enumerate(side)] for side in (a, b)]


@pytest.mark.parametrize(
    ("shift", "spread", "verdict"),
    [(0.05, 0.02, "better"), (-0.05, 0.02, "worse"), (0.0, 0.005, "equal"), (0.0, 0.3, "undecided")],
)
def test_a_known_difference_gets_its_verdict(shift, spread, verdict) -> None:
    found = paired_difference(*trackers(shift, spread), margin=0.005)
    assert found.verdict == verdict
    assert found.low <= found.value <= found.high
    assert found.low <= shift <= found.high
    assert (found.runs, found.sequences) == (120, 12)
    assert (found.more_runs is not None) == (verdict == "undecided")
    assert verdict in found.describe()


def test_pairing_takes_out_what_both_share() -> None:
    a, b = trackers(0.01, 0.001)
    found = paired_difference(a, b, margin=0.0)
    # Runs of one tracker spread over 0.4; their differences over a thousandth.
    assert found.high - found.low < 0.002
    assert found.verdict == "better"


def test_swapped_trackers_get_the_opposite() -> None:
    a, b = trackers(0.02, 0.05)
    there, back = paired_difference(a, b, 0.005), paired_difference(b, a, 0.005)
    assert back.value == pytest.approx(-there.value)
    assert (back.low, back.high) == (pytest.approx(-there.high), pytest.approx(-there.low))


def test_a_sequence_that_one_tracker_lacks_and_one_without_runs_are_left_out() -> None:
    a = [runs_of("x", [0.1, 0.2]), runs_of("y", [0.5]), runs_of("empty", [])]
    b = [runs_of("empty", []), runs_of("x", [0.2, 0.3])]
    found = paired_difference(a, b, 0.01)
    assert (found.value, found.runs, found.sequences) == (pytest.approx(0.1), 2, 1)


@pytest.mark.parametrize(
    ("a", "b", "margin", "words"),
    [
        ([runs_of("x", [0.1, 0.2])], [runs_of("x", [0.1])], 0.01, "2 and 1 of them"),
        ([runs_of("x", [0.1, 0.2])], [runs_of("x", [0.1, 0.2], first=1)], 0.01, "the same anchors"),
        ([runs_of("x", [0.1])], [runs_of("x", [0.1])], 0.01, "1 paired run;"),
        ([], [runs_of("x", [0.1])], 0.01, "0 paired runs"),
        ([runs_of("x", [0.1])] * 2, [runs_of("x", [0.1])], 0.01, "each sequence once"),
        ([], [], -1.0, "such as half a point"),
        ([], [], float("nan"), "such as half a point"),
    ],
)
def test_what_does_not_pair_is_refused(a, b, margin, words) -> None:
    with pytest.raises(UsageError, match=words):
        paired_difference(a, b, margin)
