from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.benchmark.statistics import percentile_interval
from edgetrack.errors import UsageError
from edgetrack.gate.bounds import (
    Bounds,
    design_effect,
    frame_bounds,
    independent_bounds,
    ranks,
    samples_to_decide,
)


@pytest.mark.parametrize("n", [7, 8, 20])
def test_the_extremes_bound_the_median_with_two_to_the_minus_n(n):
    assert ranks(n, 0.5, 2.0**-n * 1.0001) == (1, n)
    assert ranks(n, 0.5, 2.0**-n * 0.9999) == (0, n + 1)


def test_the_largest_of_59_bounds_p95_and_that_of_58_does_not():
    # Closed form: 0.95**n <= 0.05 from n = 59 on (the sample size of Wilks, 1941).
    assert ranks(59, 0.95, 0.05)[1] == 59
    assert ranks(58, 0.95, 0.05)[1] == 59


@given(st.integers(20, 400), st.sampled_from([0.5, 0.9, 0.95]), st.sampled_from([0.05, 0.01, 0.003]))
def test_independent_samples_get_the_bounds_of_the_benchmark_s_interval(n, q, alpha):
    values = np.random.default_rng(n).permutation(np.arange(1.0, n + 1))
    found = independent_bounds(values, q, alpha)
    two_sided = percentile_interval(values, q, 1 - 2 * alpha)
    if two_sided is None:
        assert found.low is None or found.high is None
    else:
        assert (found.low, found.high) == (two_sided.low, two_sided.high)


@given(st.integers(2, 30), st.integers(1, 30))
def test_turns_whose_frames_are_all_alike_count_as_one_sample_each(turns, frames):
    alike = [np.full(frames, float(turn)) for turn in range(turns)]
    assert frame_bounds(alike, 0.5, 0.05).effective <= turns


def test_independent_frames_count_nearly_in_full():
    rng = np.random.default_rng(1)
    effects = [design_effect([rng.random(20) for _ in range(40)], 0.95) for _ in range(50)]
    assert 1 <= np.mean(effects) < 1.25


@pytest.mark.parametrize("alike", [1, 5, 40, 160])
def test_each_bound_is_wrong_no_more_often_than_asked_for(alike):
    """Of 40 frames a turn, `alike` in a row are the same: a part of a turn, a turn, four turns."""
    rng, q, alpha, wrong = np.random.default_rng(7), 0.8, 0.05, np.zeros(2)
    for _ in range(400):
        turns = np.split(rng.random(6400 // alike).repeat(alike), 160)
        found = frame_bounds(turns, q, alpha)
        wrong += [found.low is not None and found.low > q, found.high is not None and found.high < q]
    # 400 draws of a chance of 0.05: 31 or more come about once in a thousand.
    assert (wrong <= 31).all()


def test_one_turn_alone_is_not_taken_for_independent_frames():
    slow_half = np.r_[np.full(200, 20.0), np.full(200, 30.0)] + np.linspace(0, 1, 400)
    whole = frame_bounds([slow_half], 0.5, 0.05)
    assert whole.effective < 16
    assert independent_bounds(slow_half, 0.5, 0.05).effective == 400


def test_verdicts():
    bounds = Bounds(value=10.0, low=9.0, high=11.0, count=100, effective=100.0)
    assert [bounds.judge(limit) for limit in (8.9, 9.0, 10.9, 11.0)] == ["fail", "undecided", "undecided", "pass"]
    open_ended = Bounds(value=10.0, low=None, high=None, count=3, effective=3.0)
    assert open_ended.judge(1.0) == open_ended.judge(99.0) == "undecided"


@pytest.mark.parametrize("limit", [0.93, 0.97])
def test_as_many_more_samples_as_were_foretold_decide(limit):
    rng = np.random.default_rng(3)
    few = [np.sort(rng.permutation(np.linspace(0, 1, 60)))[rng.permutation(60)] for _ in range(2)]
    assert frame_bounds(few, 0.95, 0.01).judge(limit) == "undecided"
    more = samples_to_decide(few, 0.95, limit, 0.01)
    assert more is not None
    turns = math.ceil(1.1 * more / 60) + 2
    later = [rng.permutation(np.linspace(0, 1, 60)) for _ in range(turns)]
    assert frame_bounds(later, 0.95, 0.01).judge(limit) == ("pass" if limit > 0.95 else "fail")


def test_nothing_decides_where_the_share_is_just_that_of_the_quantile():
    assert samples_to_decide([np.arange(1.0, 11.0)], 0.5, 5.5, 0.01) is None


def test_no_samples_are_refused():
    with pytest.raises(UsageError, match="expected samples"):
        frame_bounds([], 0.5, 0.05)
    with pytest.raises(UsageError, match="expected samples"):
        frame_bounds([np.array([])], 0.5, 0.05)
    with pytest.raises(UsageError, match="expected samples"):
        independent_bounds(np.array([]), 0.5, 0.05)
