"""ROC figures against scikit-learn's, closed forms and counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgetrack.errors import UsageError
from edgetrack.stats.detection import (
    Counts,
    ScoredFrames,
    auroc,
    auroc_interval,
    choose_threshold,
    ratio_interval,
    roc,
    threshold_interval,
)

metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn comes with the openvino extra's NNCF")


def frames(score: list[float], event: list[int]) -> ScoredFrames:
    return ScoredFrames(np.array(score, np.float64), np.array(event, np.bool_))


ties = arrays.arrays(np.float64, st.integers(2, 40), elements=st.integers(0, 5).map(float))


@given(ties, st.randoms(use_true_random=False))
def test_area_is_that_of_scikit_learn_with_ties(score, random) -> None:
    event = np.array([random.random() < 0.5 for _ in score])
    event[:2] = True, False
    # Here a low score speaks for the event.
    expected = metrics.roc_auc_score(event, -score)
    parts = [ScoredFrames(score[i::2], event[i::2]) for i in range(2)]
    assert auroc(parts) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("event", [[0, 0], [1, 1], []])
def test_one_kind_of_frames_has_no_area_and_no_curve(event: list[int]) -> None:
    one = frames([0.1, 0.2][: len(event)], event)
    assert auroc([one]) is None
    with pytest.raises(UsageError, match="both kinds"):
        roc([one])


@given(ties, st.randoms(use_true_random=False))
def test_every_point_of_the_curve_is_one_of_scikit_learns(score, random) -> None:
    event = np.array([random.random() < 0.5 for _ in score])
    event[:2] = True, False
    alarms, recall, _ = metrics.roc_curve(event, -score, drop_intermediate=False)
    known = set(zip(alarms.round(9), recall.round(9), strict=True))
    found = roc([ScoredFrames(score, event)])
    assert {(round(a, 9), round(r, 9)) for _, a, r in found} <= known
    assert (found[0][1:], found[-1][1:]) == ((0.0, 0.0), (1.0, 1.0))
    for threshold, a, r in found:
        assert a == pytest.approx((score[~event] < threshold).mean())
        assert r == pytest.approx((score[event] < threshold).mean())


def test_a_long_curve_keeps_few_points_and_its_corner() -> None:
    rng = np.random.default_rng(0)
    score, event = np.concatenate([rng.uniform(0, 0.4, 5000), rng.uniform(0.5, 1, 5000)]), np.arange(10000) < 5000
    curve = roc([ScoredFrames(score, event)])
    assert len(curve) <= 101
    assert min(a + 1 - r for _, a, r in curve) < 0.02


def test_interval_of_equal_groups_is_their_area_and_one_group_has_none() -> None:
    one = frames([0.1, 0.3, 0.2, 0.9], [1, 1, 0, 0])
    assert auroc_interval([one] * 5) == pytest.approx((0.75, 0.75))
    assert auroc_interval([one]) is None
    assert auroc_interval([one, frames([0.5], [0])]) is None


def test_ratio_interval_leaves_empty_groups_out_and_covers_the_ratio() -> None:
    assert ratio_interval(np.array([1.0, 0.0]), np.array([2.0, 0.0])) is None
    low, high = ratio_interval(np.array([0.0, 5.0, 10.0, 0.0]), np.array([10.0, 10.0, 10.0, 0.0])) or (1, 0)
    assert (low, high) == (0.0, 1.0)


THRESHOLDS = np.array([0.0, 0.1, 0.5, 0.8, 0.9])


def counts(alarms: list[list[int]], hits: list[list[int]]) -> Counts:
    return Counts(np.array(alarms, float), np.array(hits, float), np.array([100.0, 100.0]), np.array([50.0, 50.0]))


GOOD = counts([[0, 0], [0, 0], [0, 1], [1, 1], [20, 0]], [[0, 0], [10, 10], [50, 49], [50, 50], [50, 50]])


def test_threshold_is_the_middle_of_those_that_suit() -> None:
    # At 1 % the last is 0.8, and 0.5 misses one of a hundred: the middle of their log-odds, 0 and log 4, is log 2.
    assert choose_threshold(THRESHOLDS, GOOD, 0.01) == pytest.approx(2 / 3)
    # At 0.5 % the last is 0.5 itself; at none it is 0.1, where 20 are found.
    assert choose_threshold(THRESHOLDS, GOOD, 0.005) == pytest.approx(0.5)
    assert choose_threshold(THRESHOLDS, GOOD, 0.001) == pytest.approx(0.1)


def test_threshold_flags_nothing_where_even_the_lowest_alarms() -> None:
    bad = counts([[0, 0], *[[50, 50]] * 4], [[0, 0], *[[50, 50]] * 4])
    assert choose_threshold(THRESHOLDS, bad, 0.01) == pytest.approx(1e-6)


def test_threshold_interval_holds_the_threshold() -> None:
    low, high = threshold_interval(THRESHOLDS, GOOD, 0.01) or (1, 0)
    assert low <= 2 / 3 <= high
    single = Counts(GOOD.alarms, GOOD.hits, np.array([100.0, 0.0]), GOOD.events)
    assert threshold_interval(THRESHOLDS, single, 0.01) is None
