"""Bootstrap intervals against their closed forms."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from edgetrack.errors import UsageError
from edgetrack.stats.bootstrap import (
    interquartile_mean,
    mean_of_means,
    paired_mean_interval,
    ratio_of_medians,
    resampled_means,
    rounds_needed,
    two_level_interval,
    unpaired_mean_interval,
    weighted_mean_intervals,
)

GROUPS = st.lists(st.integers(1, 6).flatmap(lambda n: arrays(np.float64, n, elements=st.floats(0, 1))), min_size=1)
latencies = st.floats(0.01, 1e4, allow_nan=False)


def binomial_cdf(k: int, n: int, q: Fraction) -> Fraction:
    return sum((math.comb(n, i) * q**i * (1 - q) ** (n - i) for i in range(k + 1)), Fraction(0))


def ragged(seed=0):
    random = np.random.default_rng(seed)
    return [random.normal(random.normal(0.5, 0.1), 0.2, size) for size in (3, 12, 1, 7, 20, 5)]


def test_the_spread_of_resampled_means_is_the_closed_form() -> None:
    groups = ragged()
    between = np.var([g.mean() for g in groups])
    within = np.mean([g.var() / len(g) for g in groups])
    drawn = resampled_means(groups, 40_000, np.random.default_rng(1))
    assert drawn.std() == pytest.approx(np.sqrt((between + within) / len(groups)), rel=0.02)
    assert drawn.mean() == pytest.approx(mean_of_means(groups), abs=4 * drawn.std() / 200)


def test_an_interval_of_one_large_group_is_that_of_a_mean() -> None:
    values = np.random.default_rng(2).normal(0.4, 0.1, 400)
    low, high = two_level_interval([values], resamples=8000)
    half = 1.959964 * values.std() / 20
    assert (low, high) == (
        pytest.approx(values.mean() - half, abs=half / 10),
        pytest.approx(values.mean() + half, abs=half / 10),
    )


def test_runs_of_one_sequence_that_are_alike_do_not_narrow_the_interval() -> None:
    few = [np.full(2, value) for value in (0.1, 0.5, 0.9)]
    many = [np.full(200, value) for value in (0.1, 0.5, 0.9)]
    assert two_level_interval(few) == pytest.approx(two_level_interval(many))


@given(GROUPS)
def test_an_interval_lies_within_the_values_and_repeats_itself(groups) -> None:
    low, high = two_level_interval(groups, resamples=50)
    ends = min(g.min() for g in groups), max(g.max() for g in groups)
    assert ends[0] - 1e-9 <= low <= high <= ends[1] + 1e-9
    assert (low, high) == two_level_interval(groups, resamples=50)


def test_large_tables_are_drawn_in_chunks_of_the_same_law() -> None:
    groups = ragged()
    drawn = resampled_means(groups, 20_001, np.random.default_rng(3), chunk=500)
    assert drawn.shape == (20_001,)
    between = np.var([g.mean() for g in groups]) + np.mean([g.var() / len(g) for g in groups])
    assert drawn.std() == pytest.approx(np.sqrt(between / len(groups)), rel=0.03)


@pytest.mark.parametrize(
    ("groups", "fields", "words"),
    [
        ([], {}, "0 groups"),
        ([np.ones(2), np.ones(0)], {}, r"\[2, 0\]"),
        ([np.ones(2)], {"confidence": 1.0}, "between 0 and 1"),
        ([np.ones(2)], {"resamples": 0}, "expected 1 or more"),
    ],
)
def test_what_cannot_be_drawn_from_is_refused(groups, fields, words) -> None:
    with pytest.raises(UsageError, match=words):
        two_level_interval(groups, **fields)


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
    assert rounds_needed((1 - confidence) / 2) == rounds
    assert 1 - 2.0 ** (1 - rounds) >= confidence > 1 - 2.0 ** (2 - rounds)


def test_the_interquartile_mean_is_that_of_the_middle_half():
    values = np.array([1000.0, 2, 3, 4, 5, 6, 7, -999])
    assert interquartile_mean(values) == pytest.approx(4.5)
    assert interquartile_mean(np.stack([values, values + 1])) == pytest.approx([4.5, 5.5])
    for n in range(1, 12):
        assert interquartile_mean(values[:n]) == pytest.approx(stats.trim_mean(values[:n], 0.25))


def test_intervals_of_interquartile_means_are_scipys() -> None:
    random = np.random.default_rng(4)
    a, b, blocks = random.normal(3, 1, 12), random.normal(2, 1, 10), random.normal(1, 0.2, (15, 4))

    def middle(drawn, axis=-1):
        chosen = blocks[np.moveaxis(drawn, axis, -1).astype(int)]
        return interquartile_mean(chosen.reshape(*chosen.shape[:-2], -1))

    def difference(x, y, axis=-1):
        return interquartile_mean(np.moveaxis(x, axis, -1)) - interquartile_mean(np.moveaxis(y, axis, -1))

    settings = {"n_resamples": 9000, "confidence_level": 0.9, "method": "percentile", "random_state": 6}
    paired = stats.bootstrap((np.arange(15),), middle, **settings).confidence_interval
    found = paired_mean_interval(blocks, 0.05, 9000, np.random.default_rng(5))
    assert found == pytest.approx((paired.low, paired.high), abs=0.02)
    unpaired = stats.bootstrap((a, b), difference, **settings).confidence_interval
    found = unpaired_mean_interval(a, b, 0.05, 9000, np.random.default_rng(5))
    assert found == pytest.approx((unpaired.low, unpaired.high), abs=0.05)


def test_an_interval_of_weighted_means_is_that_of_the_weights() -> None:
    random = np.random.default_rng(8)
    values = random.normal(0.5, 0.1, (300, 2))
    weights = np.ones((300, 2))
    weights[150:, 1] = 0.0
    low, high = weighted_mean_intervals(values, weights, resamples=4000)
    for column, kept in ((0, values[:, 0]), (1, values[:150, 1])):
        half = 1.96 * kept.std() / math.sqrt(len(kept))
        ends = (kept.mean() - half, kept.mean() + half)
        assert (low[column], high[column]) == pytest.approx(ends, abs=half / 6)
