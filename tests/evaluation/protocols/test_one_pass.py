"""One pass: what the tracker is given, and what is recorded of it."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from edgetrack.box import Box
from edgetrack.errors import NumericalError, SequenceError
from edgetrack.evaluation.datasets import open_dataset
from edgetrack.evaluation.datasets.clip import Clip, ScoringRules
from edgetrack.evaluation.protocols.one_pass import OnePass, OnePassRun


class Scripted:
    """Answers with a box that moves by one pixel a frame, lost in every third frame."""

    def __init__(self, fail_at=None, mixes=False):
        self.given, self.updates, self.fail_at, self.mixes = None, 0, fail_at, mixes

    def init(self, frame, box):
        self.given = (frame.shape, tuple(box))

    def update(self, frame):
        self.updates += 1
        if self.updates == self.fail_at:
            raise NumericalError("NaN")
        box = Box(self.updates, 0, 5, 5)
        shares = {"gate": {"a": 0.25, "b": 0.75}} if self.updates % 2 else {"gate": {"a": float("nan"), "b": 1.0}}
        return SimpleNamespace(
            box=box,
            score=0.5,
            lost=self.updates % 3 == 0,
            timing=SimpleNamespace(total=2.0),
            diagnostics=shares if self.mixes else {},
        )


@pytest.fixture
def sequence(plain_dataset):
    dataset = open_dataset(plain_dataset("a", frames=5))
    return dataset.read(dataset.entries[0])


def test_the_first_box_is_given_and_all_else_is_recorded(sequence) -> None:
    tracker = Scripted()
    times = iter([1_000_000, 4_000_000])
    run = OnePass().run(tracker, sequence, clock=lambda: next(times))
    assert tracker.given == ((48, 64, 3), (10, 12, 20, 16))
    assert run.size == (64, 48)
    assert run.boxes == [(10, 12, 20, 16), *((i, 0, 5, 5) for i in range(1, 5))]
    assert run.scores == [None, 0.5, 0.5, 0.5, 0.5]
    assert run.lost == [False, False, False, True, False]
    assert run.ms == [3.0, 2.0, 2.0, 2.0, 2.0]


@pytest.mark.parametrize(("limit", "frames"), [(1, 1), (3, 3), (5, 5), (99, 5)])
def test_a_limit_stops_early(sequence, limit, frames) -> None:
    assert len(OnePass().run(Scripted(), sequence, limit).boxes) == frames


def test_a_trackers_error_goes_through(sequence) -> None:
    with pytest.raises(NumericalError):
        OnePass().run(Scripted(fail_at=2), sequence)


def test_a_source_with_more_frames_than_boxes_is_an_error() -> None:
    truth = np.tile([10.0, 10, 20, 20], (3, 1))
    wrong = Clip("s", "synthetic:drift?frames=4&size=96x64", truth, np.ones(3, bool), ScoringRules())
    with pytest.raises(SequenceError, match="4 frames and 3 boxes"):
        OnePass().run(Scripted(), wrong)


def test_withheld_truth_is_tracked_to_the_end() -> None:
    truth = np.array([[10.0, 10, 20, 20]])
    hidden = Clip("s", "synthetic:drift?frames=4&size=96x64", truth, np.ones(1, bool), ScoringRules())
    assert len(OnePass().run(Scripted(), hidden).boxes) == 4


def test_a_digest_changes_with_boxes_visibility_and_names_of_frames(sequence) -> None:
    def changed(**fields):
        return Clip(**{**vars(sequence), **fields}).digest

    assert changed() == sequence.digest
    assert changed(truth=sequence.truth + 1) != sequence.digest
    assert changed(visible=~sequence.visible) != sequence.digest
    assert changed(media=sequence.media[::-1]) != sequence.digest


def test_what_the_tracker_mixed_is_kept_frame_by_frame(sequence) -> None:
    assert OnePass().run(Scripted(), sequence).shares == {}
    run = OnePass().run(Scripted(mixes=True), sequence)
    # Of four updates every second one has a share that is no number.
    assert run.shares == {"gate": {"a": [0.25, 0.25], "b": [0.75, 0.75]}}
    assert msgspec.json.decode(msgspec.json.encode(run), type=OnePassRun) == run
