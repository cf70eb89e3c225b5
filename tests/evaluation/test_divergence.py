"""Closed-loop divergence of two runs, and errors on the same crops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgetrack
from edgetrack.box import Box
from edgetrack.errors import SequenceError, UsageError
from edgetrack.evaluation.datasets import open_dataset
from edgetrack.evaluation.divergence import divergence
from edgetrack.evaluation.openloop import LARGEST_MAP, MapInfo, Replay, ReplayRun, map_errors, maps_of

STILL = Box(0, 0, 10, 10)


def moved(share):
    """A box whose IoU with `STILL` is (1 - share) / (1 + share)."""
    return Box(10 * share, 0, 10, 10)


def test_the_curve_the_first_divergence_and_the_recovery() -> None:
    b = [STILL, moved(0.02), moved(0.5), moved(0.01), moved(0.9), moved(0.2), moved(0.01), moved(0.2)]
    found = divergence([STILL] * 8, b)
    ious = [1, 0.98 / 1.02, 0.5 / 1.5, 0.99 / 1.01, 0.1 / 1.9, 0.8 / 1.2, 0.99 / 1.01, 0.8 / 1.2]
    assert found.iou == pytest.approx(ious)
    # Together at 3, but apart once more at 4: 6 is the recovery.
    assert (found.first, found.recovery) == (2, 6)
    assert divergence([STILL] * 5, b[:5]).recovery is None
    assert found.later == found.iou[1:]


def test_runs_that_agree_and_runs_that_never_meet_again() -> None:
    assert divergence([STILL] * 3, [STILL] * 3).first is None
    lost = divergence([STILL] * 3, [STILL, moved(0.9), moved(0.9)])
    assert (lost.first, lost.recovery) == (1, None)
    # An IoU of 0.5 is apart; a box without area shares nothing.
    half = divergence([STILL] * 2, [STILL, Box(0, 0, 5, 10)])
    assert (half.iou[1], half.first) == (0.5, 1)
    assert divergence([STILL] * 2, [STILL, Box(0, 0, 0, 0)]).first == 1


def test_one_frame_says_nothing_and_different_lengths_are_refused() -> None:
    alone = divergence([STILL], [STILL])
    assert (alone.later, alone.first, alone.recovery) == ([], None, None)
    with pytest.raises(UsageError, match="2 and 1 frames"):
        divergence([STILL] * 2, [STILL])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_a_recovery_follows_a_divergence(shares) -> None:
    found = divergence([STILL] * len(shares), [moved(share) for share in shares])
    if found.first is None:
        assert found.recovery is None
        assert all(value > 0.5 for value in found.later)
    else:
        assert found.iou[found.first] <= 0.5
        assert found.recovery is None or found.recovery > found.first
        assert found.recovery is None or min(found.iou[found.recovery :]) > 0.5


def kept(tmp_path, name, *maps):
    """A replay of two frames whose maps hold these values."""
    infos = [MapInfo(f"step/{key}", np.shape(values)[1:]) for key, values in maps]
    rows = [np.concatenate([np.ravel(values[at]) for _, values in maps]) for at in range(2)]
    (tmp_path / name).write_bytes(np.array(rows, "<f4").tobytes())
    return ReplayRun(boxes=[STILL] * 2, maps=infos, file=str(tmp_path / name))


def test_map_errors_are_those_of_maps_with_one_name_and_shape(tmp_path) -> None:
    a = kept(tmp_path, "a", ("score", np.full((2, 1, 2), 2.0)), ("size", np.ones((2, 3))), ("only", np.ones((2, 1))))
    b = kept(tmp_path, "b", ("size", np.ones((2, 4))), ("score", np.array([[[2.0, 2.5]], [[2.0, 2.0]]])))
    (error,) = map_errors([(a, b), (a, b)])
    assert error.name == "step/score"
    assert error.relative_rms == pytest.approx(np.sqrt(0.25 / 4) / 2)
    assert error.max_abs == pytest.approx(0.5)
    zero = kept(tmp_path, "z", ("score", np.zeros((2, 1, 2))))
    assert map_errors([(zero, a)])[0].relative_rms is None
    assert map_errors([(a, kept(tmp_path, "c", ("other", np.ones((2, 1)))))]) == []
    assert map_errors([]) == []


@pytest.fixture
def sequence(plain_dataset):
    dataset = open_dataset(plain_dataset("a", frames=4))
    return dataset.read(dataset.entries[0])


def test_a_replay_searches_around_the_given_boxes_and_keeps_the_maps(make_bundle, sequence, tmp_path) -> None:
    file = tmp_path / "a.maps"
    given = (Box(10, 12, 20, 16), Box(30, 20, 20, 16), Box(5, 5, 20, 16))
    with edgetrack.load(make_bundle(), threads=1) as tracker:
        run = Replay(given, file).run(tracker, sequence, None)
        alone = []
        for before in given[:2]:
            tracker.init(np.zeros((48, 64, 3), np.uint8), given[0])
            tracker.place(before)
            alone.append(tracker.update(np.zeros((48, 64, 3), np.uint8)).box)
        assert {info.name for info, _ in maps_of(tracker)} == {"step/score", "step/size", "step/offset"}
        assert all(info.size <= LARGEST_MAP for info, _ in maps_of(tracker))
    assert run.boxes == alone
    assert run.boxes[0] != run.boxes[1]
    assert file.stat().st_size == 4 * 2 * sum(info.size for info in run.maps)
    assert map_errors([(run, run)])[0].max_abs == 0


def test_a_replay_of_more_boxes_than_frames_is_an_error(make_bundle, sequence, tmp_path) -> None:
    with (
        edgetrack.load(make_bundle(), threads=1) as tracker,
        pytest.raises(SequenceError, match="9 boxes were tracked"),
    ):
        Replay((Box(10, 12, 20, 16),) * 9, tmp_path / "a.maps").run(tracker, sequence, None)
