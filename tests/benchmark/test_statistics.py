from __future__ import annotations

import itertools
import math
import statistics as stdlib
from fractions import Fraction

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgetrack.benchmark.statistics import (
    Interval,
    Summary,
    fps,
    percentile_interval,
    ratio_of_medians,
    rounds_needed,
    samples_needed,
    summarize,
)
from edgetrack.errors import UsageError

latencies = st.floats(0.01, 1e4, allow_nan=False)


def binomial_cdf(k: int, n: int, q: Fraction) -> Fraction:
    return sum((math.comb(n, i) * q**i * (1 - q) ** (n - i) for i in range(k + 1)), Fraction(0))


def ranks(n: int, q: float, confidence: float) -> tuple[float, float] | None:
    interval = percentile_interval(range(1, n + 1), q, confidence)
    return None if interval is None else (interval.low, interval.high)


class TestSummarize:
    def test_closed_form_of_one_to_a_hundred(self):
        summary = summarize(list(range(100, 0, -1)))
        assert (summary.count, summary.mean, summary.minimum, summary.maximum) == (100, 50.5, 1.0, 100.0)
        assert [summary.p50, summary.p90, summary.p95, summary.p99] == pytest.approx([50.5, 90.1, 95.05, 99.01])
        assert summary.cv == pytest.approx(math.sqrt(100 * 101 / 12) / 50.5)
        assert summary.notes == ()

    @given(st.lists(latencies, min_size=100, max_size=150))
    def test_percentiles_are_the_standard_librarys_inclusive_quantiles(self, samples):
        cuts = stdlib.quantiles(samples, n=100, method="inclusive")
        summary = summarize(samples)
        expected = [cuts[49], cuts[89], cuts[94], cuts[98]]
        assert [summary.p50, summary.p90, summary.p95, summary.p99] == pytest.approx(expected, rel=1e-9)
        assert summary.mean == pytest.approx(stdlib.fmean(samples))
        assert summary.cv == pytest.approx(stdlib.stdev(samples) / stdlib.fmean(samples), rel=1e-6, abs=1e-9)

    @given(st.lists(latencies, min_size=1, max_size=120), st.randoms(use_true_random=False))
    def test_ordered_and_blind_to_the_order_of_samples(self, samples, random):
        summary = summarize(samples)
        given_percentiles = [p for p in (summary.p50, summary.p90, summary.p95, summary.p99) if p is not None]
        ordered = [summary.minimum, *given_percentiles, summary.maximum]
        assert all(low <= high * (1 + 1e-12) for low, high in itertools.pairwise(ordered))
        shuffled = random.sample(samples, len(samples))
        again = summarize(shuffled)
        assert (again.p50, again.p90, again.p95, again.p99) == (summary.p50, summary.p90, summary.p95, summary.p99)

    @pytest.mark.parametrize(("name", "needed"), [("p90", 10), ("p95", 20), ("p99", 100)])
    def test_a_percentile_without_support_is_none_and_says_what_it_needs(self, name, needed):
        short = summarize([1.0] * (needed - 1))
        assert getattr(short, name) is None
        assert f"{name} needs at least {needed} samples, there are {needed - 1}" in short.notes
        enough = summarize([1.0] * needed)
        assert getattr(enough, name) == 1.0
        assert not any(note.startswith(name) for note in enough.notes)

    def test_one_sample_has_a_median_and_no_variation(self):
        summary = summarize([7.0])
        assert (summary.p50, summary.cv) == (7.0, None)

    def test_zero_mean_has_no_variation(self):
        assert summarize([0.0, 0.0]).cv is None

    def test_survives_json(self):
        summary = summarize(np.arange(1.0, 31.0))
        assert msgspec.json.decode(msgspec.json.encode(summary), type=Summary) == summary

    @pytest.mark.parametrize("samples", [[], [1.0, math.nan], [math.inf], [-0.1], [[1.0, 2.0]]])
    def test_refuses_what_is_no_latency(self, samples):
        with pytest.raises(UsageError, match="expected"):
            summarize(samples)


class TestSamplesNeeded:
    @pytest.mark.parametrize(("q", "n"), [(0.0, 1), (0.5, 2), (0.9, 10), (0.95, 20), (0.99, 100), (0.999, 1000)])
    def test_known(self, q, n):
        assert samples_needed(q) == n

    @pytest.mark.parametrize("q", [-0.1, 1.0, math.nan])
    def test_refuses(self, q):
        with pytest.raises(UsageError, match="quantile"):
            samples_needed(q)


class TestPercentileInterval:
    @pytest.mark.parametrize(
        ("n", "expected", "coverage"),
        [
            (5, None, None),
            (6, (1, 6), 0.9688),
            (8, (1, 8), 0.9922),
            (9, (2, 8), 0.9609),
            (10, (2, 9), 0.9785),
            (15, (4, 12), 0.9648),
            (20, (6, 15), 0.9586),
            (25, (8, 18), 0.9567),
        ],
    )
    def test_median_by_the_table_of_the_sign_test(self, n, expected, coverage):
        assert ranks(n, 0.5, 0.95) == expected
        if coverage is not None:
            assert percentile_interval(range(1, n + 1), 0.5).coverage == pytest.approx(coverage, abs=5e-5)

    @pytest.mark.parametrize(("q", "n"), [(0.90, 29), (0.95, 59), (0.99, 299)])
    def test_first_upper_bound_at_wilks_sample_sizes(self, q, n):
        """Wilks (1941): 29, 59 and 299 samples for a 95 % upper bound of the 90th, 95th and 99th percentile."""
        assert ranks(n - 1, q, 0.90) is None
        assert ranks(n, q, 0.90)[1] == n

    @pytest.mark.parametrize("n", range(2, 41))
    def test_a_bound_that_is_met_exactly_is_met(self, n):
        assert ranks(n, 0.5, 1 - 2.0 ** (1 - n)) == (1, n)

    @given(
        n=st.integers(1, 60),
        q=st.sampled_from([0.1, 0.25, 0.5, 0.75, 0.9, 0.95]),
        confidence=st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99]),
    )
    def test_is_the_tightest_pair_by_exact_arithmetic(self, n, q, confidence):
        exact_q, tail = Fraction(str(q)), (1 - Fraction(str(confidence))) / 2
        lower = max((k for k in range(1, n + 1) if binomial_cdf(k - 1, n, exact_q) <= tail), default=None)
        upper = min((k for k in range(1, n + 1) if 1 - binomial_cdf(k - 1, n, exact_q) <= tail), default=None)
        if lower is None or upper is None:
            assert ranks(n, q, confidence) is None
            return
        assert ranks(n, q, confidence) == (lower, upper)
        coverage = binomial_cdf(upper - 1, n, exact_q) - binomial_cdf(lower - 1, n, exact_q)
        found = percentile_interval(range(1, n + 1), q, confidence).coverage
        assert found == pytest.approx(float(coverage), rel=1e-9)
        assert found >= confidence - 1e-9

    @given(st.lists(latencies, min_size=6, max_size=40), st.randoms(use_true_random=False))
    def test_bounds_are_samples_around_the_median_in_any_order(self, samples, random):
        interval = percentile_interval(samples, 0.5)
        assert interval.low in samples
        assert interval.high in samples
        assert interval.low <= np.median(samples) <= interval.high
        assert percentile_interval(random.sample(samples, len(samples)), 0.5) == interval

    def test_holds_the_true_quantile_as_often_as_it_says(self):
        rng = np.random.default_rng(20)
        intervals = [percentile_interval(rng.exponential(size=60), 0.9) for _ in range(1000)]
        hits = sum(interval.low <= math.log(10) <= interval.high for interval in intervals)
        coverage = intervals[0].coverage
        assert hits == pytest.approx(1000 * coverage, abs=4 * math.sqrt(1000 * coverage * (1 - coverage)))

    def test_many_samples(self):
        interval = percentile_interval(np.arange(1, 20_001), 0.99)
        spread = 1.96 * math.sqrt(20_000 * 0.99 * 0.01)
        assert interval.low == pytest.approx(19_800 - spread, abs=2)
        assert interval.high == pytest.approx(19_800 + spread, abs=2)
        assert 0.95 <= interval.coverage < 0.96

    def test_constant_samples(self):
        assert percentile_interval([3.0] * 6, 0.5) == Interval(3.0, 3.0, pytest.approx(1 - 2 / 64))

    @pytest.mark.parametrize(("q", "confidence"), [(0.0, 0.95), (1.0, 0.95), (0.5, 0.0), (0.5, 1.0), (math.nan, 0.95)])
    def test_refuses(self, q, confidence):
        with pytest.raises(UsageError, match="strictly between 0 and 1"):
            percentile_interval([1.0, 2.0], q, confidence)


class TestRatioOfMedians:
    @given(
        rounds=st.lists(st.lists(latencies, min_size=1, max_size=5), min_size=1, max_size=8),
        factor=st.sampled_from([0.25, 0.5, 1.0, 2.0, 8.0]),
        seed=st.integers(0, 2**32),
    )
    def test_a_scaled_copy_gives_exactly_the_scale(self, rounds, factor, seed):
        scaled = [[factor * sample for sample in samples] for samples in rounds]
        ratio = ratio_of_medians(scaled, rounds, rng=np.random.default_rng(seed), resamples=20)
        bound = factor if len(rounds) >= 6 else None
        assert (ratio.value, ratio.low, ratio.high) == (factor, bound, bound)

    @given(
        st.lists(st.tuples(latencies, latencies), min_size=6, max_size=10),
        st.integers(0, 2**32),
    )
    def test_swapping_the_sides_inverts_the_value_and_bounds_nest(self, pairs, seed):
        a, b = [[x] for x, _ in pairs], [[y] for _, y in pairs]
        wide, narrow = (
            ratio_of_medians(a, b, confidence=confidence, rng=np.random.default_rng(seed), resamples=50)
            for confidence in (0.95, 0.5)
        )
        swapped = ratio_of_medians(b, a, rng=np.random.default_rng(seed), resamples=50)
        assert swapped.value == pytest.approx(1 / wide.value)
        assert wide.value == narrow.value
        assert wide.low <= narrow.low <= narrow.high <= wide.high

    def test_drift_that_both_share_cancels_because_rounds_stay_paired(self):
        drift = [1.0, 1.3, 1.9, 1.1, 2.4, 1.6, 1.2, 3.0]
        a = [[4 * d, 4 * d, 4 * d] for d in drift]
        b = [[5 * d, 5 * d] for d in drift]
        ratio = ratio_of_medians(a, b, rng=np.random.default_rng(0))
        assert (ratio.value, ratio.low, ratio.high) == pytest.approx((0.8, 0.8, 0.8))

    @pytest.mark.parametrize("confidence", [0.95, 0.8, 0.5])
    def test_bounds_are_the_exact_bootstrap_quantiles_of_a_median_of_13(self, confidence):
        """Efron (1979), section 3: the resampled median of n = 2m - 1 is at most x(i) when m draws or more are."""
        cdf = [float(1 - binomial_cdf(6, 13, Fraction(i, 13))) for i in range(14)]
        tail = (1 - confidence) / 2
        low, high = (next(i for i in range(14) if cdf[i] >= q) for q in (tail, 1 - tail))
        rounds = [[float(i)] for i in range(1, 14)]
        ratio = ratio_of_medians(
            rounds, [[1.0]] * 13, confidence=confidence, rng=np.random.default_rng(3), resamples=5000
        )
        assert (ratio.value, ratio.low, ratio.high) == (7, low, high)

    def test_holds_the_true_ratio_about_as_often_as_it_says(self):
        rng = np.random.default_rng(5)
        hits = 0
        for _ in range(100):
            a, b = rng.lognormal(0.2, 0.1, (20, 5)), rng.lognormal(0.0, 0.1, (20, 5))
            ratio = ratio_of_medians(list(a), list(b), rng=rng, resamples=100)
            hits += ratio.low <= math.exp(0.2) <= ratio.high
        assert hits >= 85

    def test_the_same_generator_gives_the_same_interval(self):
        rounds = [[float(i), i + 1.0] for i in range(1, 9)]
        first, second = (ratio_of_medians(rounds, rounds[::-1], rng=np.random.default_rng(1)) for _ in range(2))
        assert first == second
        assert first.low < 1 < first.high

    @pytest.mark.parametrize(
        ("a", "b", "message"),
        [
            ([], [], "rounds"),
            ([[1.0]], [[1.0], [2.0]], "1 rounds against 2"),
            ([[1.0], []], [[1.0], [2.0]], "at least one sample"),
            ([[1.0]], [[0.0]], "positive"),
        ],
    )
    def test_refuses_rounds_that_are_no_pairs(self, a, b, message):
        with pytest.raises(UsageError, match=message):
            ratio_of_medians(a, b, rng=np.random.default_rng(0))

    @pytest.mark.parametrize("wrong", [{"confidence": 1.0}, {"resamples": 0}])
    def test_refuses_settings(self, wrong):
        with pytest.raises(UsageError, match="expected"):
            ratio_of_medians([[1.0]], [[1.0]], rng=np.random.default_rng(0), **wrong)


@pytest.mark.parametrize(("confidence", "rounds"), [(0.5, 2), (0.75, 3), (0.9, 5), (0.95, 6), (0.99, 8)])
def test_rounds_needed_is_where_their_range_reaches_the_confidence(confidence, rounds):
    assert rounds_needed(confidence) == rounds
    assert 1 - 2.0 ** (1 - rounds) >= confidence > 1 - 2.0 ** (2 - rounds)


@given(latencies)
def test_fps_is_the_inverse_of_the_median(p50):
    assert fps(p50) * p50 == pytest.approx(1000)


@pytest.mark.parametrize("p50", [0.0, -1.0, math.nan, math.inf])
def test_fps_refuses(p50):
    with pytest.raises(UsageError, match="positive"):
        fps(p50)


@given(st.lists(latencies, min_size=2, max_size=30), st.floats(0.5, 2.0))
def test_summary_scales_with_the_samples(samples, factor):
    assume(max(samples) > min(samples))
    plain, scaled = summarize(samples), summarize([factor * sample for sample in samples])
    assert scaled.p50 == pytest.approx(factor * plain.p50)
    assert scaled.cv == pytest.approx(plain.cv, rel=1e-6, abs=1e-9)
