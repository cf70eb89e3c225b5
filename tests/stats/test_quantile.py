from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from edgetrack.errors import UsageError
from edgetrack.stats.quantile import (
    QuantileBounds,
    clopper_pearson_upper,
    design_effect,
    independent_bounds,
    percentile,
    quantile_bounds,
    ranks,
    samples_needed,
    samples_to_decide,
    student_t,
)
from edgetrack.stats.verdict import judge_limit

latencies = st.floats(0.01, 1e4, allow_nan=False)


def binomial_cdf(k: int, n: int, q: Fraction) -> Fraction:
    return sum((math.comb(n, i) * q**i * (1 - q) ** (n - i) for i in range(k + 1)), Fraction(0))


def median_bounds(n: int, confidence: float) -> tuple[float | None, float | None]:
    bounds = independent_bounds(np.arange(1.0, n + 1), 0.5, (1 - confidence) / 2)
    return bounds.low, bounds.high


@pytest.mark.parametrize("n", [7, 8, 20])
def test_the_extremes_bound_the_median_with_two_to_the_minus_n(n):
    assert ranks(n, 0.5, 2.0**-n * 1.0001) == (1, n)
    assert ranks(n, 0.5, 2.0**-n * 0.9999) == (0, n + 1)


def test_the_largest_of_59_bounds_p95_and_that_of_58_does_not():
    # Closed form: 0.95**n <= 0.05 from n = 59 on (the sample size of Wilks, 1941).
    assert ranks(59, 0.95, 0.05)[1] == 59
    assert ranks(58, 0.95, 0.05)[1] == 59


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (5, (None, None)),
        (6, (1, 6)),
        (8, (1, 8)),
        (9, (2, 8)),
        (10, (2, 9)),
        (15, (4, 12)),
        (20, (6, 15)),
        (25, (8, 18)),
    ],
)
def test_median_by_the_table_of_the_sign_test(n, expected):
    assert median_bounds(n, 0.95) == expected


@pytest.mark.parametrize(("q", "n"), [(0.90, 29), (0.95, 59), (0.99, 299)])
def test_first_upper_bound_at_wilks_sample_sizes(q, n):
    """Wilks (1941): 29, 59 and 299 samples for a 95 % upper bound of the 90th, 95th and 99th percentile."""
    assert independent_bounds(np.arange(1.0, n), q, 0.05).high is None
    assert independent_bounds(np.arange(1.0, n + 1), q, 0.05).high == n


@pytest.mark.parametrize("n", range(2, 41))
def test_a_bound_that_is_met_exactly_is_met(n):
    assert ranks(n, 0.5, 2.0**-n) == (1, n)


@given(
    n=st.integers(1, 60),
    q=st.sampled_from([0.1, 0.25, 0.5, 0.75, 0.9, 0.95]),
    confidence=st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99]),
)
def test_ranks_are_the_tightest_pair_by_exact_arithmetic(n, q, confidence):
    exact_q, tail = Fraction(str(q)), (1 - Fraction(str(confidence))) / 2
    lower = max((k for k in range(1, n + 1) if binomial_cdf(k - 1, n, exact_q) <= tail), default=0)
    upper = min((k for k in range(1, n + 1) if 1 - binomial_cdf(k - 1, n, exact_q) <= tail), default=n + 1)
    assert ranks(n, q, (1 - confidence) / 2) == (lower, upper)


@given(st.integers(1, 20_000_000), st.sampled_from([0.5, 0.95, 0.99]), st.sampled_from([0.0503, 0.0101, 1.03e-4]))
def test_ranks_are_scipys_whatever_the_number_of_samples(n, q, alpha):
    assert ranks(n, q, alpha) == (int(stats.binom.ppf(alpha, n, q)), int(stats.binom.isf(alpha, n, q)) + 1)


@given(st.lists(latencies, min_size=6, max_size=40), st.randoms(use_true_random=False))
def test_bounds_are_samples_around_the_median_in_any_order(samples, random):
    bounds = independent_bounds(samples, 0.5, 0.025)
    assert bounds.low in samples
    assert bounds.high in samples
    assert bounds.low <= np.median(samples) <= bounds.high
    assert independent_bounds(random.sample(samples, len(samples)), 0.5, 0.025) == bounds


def test_independent_bounds_hold_the_true_quantile_as_often_as_they_say():
    rng = np.random.default_rng(20)
    found = [independent_bounds(rng.exponential(size=60), 0.9, 0.025) for _ in range(1000)]
    hits = sum(bounds.low <= math.log(10) <= bounds.high for bounds in found)
    lower, upper = ranks(60, 0.9, 0.025)
    coverage = float(binomial_cdf(upper - 1, 60, Fraction(9, 10)) - binomial_cdf(lower - 1, 60, Fraction(9, 10)))
    assert coverage >= 0.95
    assert hits == pytest.approx(1000 * coverage, abs=4 * math.sqrt(1000 * coverage * (1 - coverage)))


def test_many_samples():
    bounds = independent_bounds(np.arange(1, 20_001), 0.99, 0.025)
    spread = 1.96 * math.sqrt(20_000 * 0.99 * 0.01)
    assert bounds.low == pytest.approx(19_800 - spread, abs=2)
    assert bounds.high == pytest.approx(19_800 + spread, abs=2)


def test_constant_samples():
    bounds = independent_bounds([3.0] * 6, 0.5, 0.025)
    assert (bounds.low, bounds.high) == (3.0, 3.0)


@pytest.mark.parametrize(("q", "alpha"), [(0.0, 0.05), (1.0, 0.05), (0.5, 0.0), (0.5, 0.5), (math.nan, 0.05)])
def test_refuses_what_is_no_fraction(q, alpha):
    with pytest.raises(UsageError, match="strictly between 0 and 1"):
        independent_bounds([1.0, 2.0], q, alpha)


@given(st.integers(1, 700), st.sampled_from([0.5, 0.9, 0.99]))
def test_the_upper_rank_is_the_smallest_that_suffices(count, q):
    bound = independent_bounds(np.arange(1, count + 1, dtype=float), q, 0.05).high
    found = [k for k in range(1, count + 1) if stats.binom.cdf(k - 1, count, q) >= 0.95]
    assert bound == (found[0] if found else None)


def test_the_upper_bound_holds_as_often_as_it_says():
    rng = np.random.default_rng(0)
    true = -np.log(0.05)  # the p95 of the exponential distribution
    held = sum(independent_bounds(rng.exponential(size=200), 0.95, 0.05).high >= true for _ in range(2000))
    assert held / 2000 >= 0.95 - 4 * (0.95 * 0.05 / 2000) ** 0.5


@pytest.mark.parametrize("alpha", [0.05, 0.025, 0.001, 1e-4])
@pytest.mark.parametrize("freedom", [1, 1.5, 2, 3, 5, 15, 80.5, 700, 20_000])
def test_students_t_is_scipys(alpha, freedom):
    assert student_t(alpha, freedom) == pytest.approx(stats.t.isf(alpha, freedom), rel=1e-4)


class TestClopperPearson:
    @given(st.integers(0, 400), st.integers(1, 400), st.sampled_from([0.8, 0.95, 0.99]))
    def test_is_scipys(self, hits, count, confidence):
        hits = min(hits, count)
        expected = stats.binomtest(hits, count, alternative="less").proportion_ci(confidence, "exact").high
        assert clopper_pearson_upper(hits, count, confidence) == pytest.approx(expected, abs=1e-9)

    def test_no_miss_in_three_hundred_is_the_rule_of_three(self):
        assert clopper_pearson_upper(0, 300) == pytest.approx(1 - 0.05 ** (1 / 300), rel=1e-9)

    def test_many_trials(self):
        expected = stats.binomtest(385, 18_000, alternative="less").proportion_ci(0.95, "exact").high
        assert clopper_pearson_upper(385, 18_000) == pytest.approx(expected, rel=1e-9)

    @pytest.mark.parametrize("wrong", [(1, 0), (-1, 5), (6, 5)])
    def test_counts_that_are_none(self, wrong):
        with pytest.raises(UsageError):
            clopper_pearson_upper(*wrong)


class TestSamplesNeeded:
    @pytest.mark.parametrize(("q", "n"), [(0.0, 1), (0.5, 2), (0.9, 10), (0.95, 20), (0.99, 100), (0.999, 1000)])
    def test_known(self, q, n):
        assert samples_needed(q) == n

    @pytest.mark.parametrize("q", [-0.1, 1.0, math.nan])
    def test_refuses(self, q):
        with pytest.raises(UsageError, match="quantile"):
            samples_needed(q)

    @pytest.mark.parametrize(("q", "needed"), [(0.9, 10), (0.95, 20), (0.99, 100)])
    def test_a_percentile_without_them_is_none(self, q, needed):
        assert percentile([1.0] * (needed - 1), q) is None
        assert percentile([1.0] * needed, q) == 1.0


@given(st.integers(2, 30), st.integers(1, 30))
def test_turns_whose_frames_are_all_alike_count_as_one_sample_each(turns, frames):
    alike = [np.full(frames, float(turn)) for turn in range(turns)]
    assert quantile_bounds(alike, 0.5, 0.05).effective <= turns


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
        found = quantile_bounds(turns, q, alpha)
        wrong += [found.low is not None and found.low > q, found.high is not None and found.high < q]
    # 400 draws of a chance of 0.05: 31 or more come about once in a thousand.
    assert (wrong <= 31).all()


def test_one_turn_alone_is_not_taken_for_independent_frames():
    slow_half = np.r_[np.full(200, 20.0), np.full(200, 30.0)] + np.linspace(0, 1, 400)
    whole = quantile_bounds([slow_half], 0.5, 0.05)
    assert whole.effective < 16
    assert independent_bounds(slow_half, 0.5, 0.05).effective == 400


def test_verdicts():
    bounds = QuantileBounds(value=10.0, low=9.0, high=11.0, count=100, effective=100.0)
    assert [judged(bounds, limit) for limit in (8.9, 9.0, 10.9, 11.0)] == [
        "fail",
        "undecided",
        "undecided",
        "pass",
    ]
    open_ended = QuantileBounds(value=10.0, low=None, high=None, count=3, effective=3.0)
    assert (
        judge_limit(open_ended.low, open_ended.high, 1.0)
        == judge_limit(open_ended.low, open_ended.high, 99.0)
        == "undecided"
    )


@pytest.mark.parametrize("limit", [0.93, 0.97])
def test_as_many_more_samples_as_were_foretold_decide(limit):
    rng = np.random.default_rng(3)
    few = [np.sort(rng.permutation(np.linspace(0, 1, 60)))[rng.permutation(60)] for _ in range(2)]
    assert judged(quantile_bounds(few, 0.95, 0.01), limit) == "undecided"
    more = samples_to_decide(few, 0.95, limit, 0.01)
    assert more is not None
    turns = math.ceil(1.1 * more / 60) + 2
    later = [rng.permutation(np.linspace(0, 1, 60)) for _ in range(turns)]
    assert judged(quantile_bounds(later, 0.95, 0.01), limit) == ("pass" if limit > 0.95 else "fail")


def test_nothing_decides_where_the_share_is_just_that_of_the_quantile():
    assert samples_to_decide([np.arange(1.0, 11.0)], 0.5, 5.5, 0.01) is None


def test_no_samples_are_refused():
    with pytest.raises(UsageError, match="expected samples"):
        quantile_bounds([], 0.5, 0.05)
    with pytest.raises(UsageError, match="expected samples"):
        quantile_bounds([np.array([])], 0.5, 0.05)
    with pytest.raises(UsageError, match="expected samples"):
        independent_bounds(np.array([]), 0.5, 0.05)


def judged(bounds, limit):
    return judge_limit(bounds.low, bounds.high, limit)
