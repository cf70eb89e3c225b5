from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from edgetrack.benchmark.bounds import percentile_upper, share_upper
from edgetrack.benchmark.latency import latency_of
from edgetrack.errors import UsageError


@given(st.integers(0, 400), st.integers(1, 400), st.sampled_from([0.8, 0.95, 0.99]))
def test_share_upper_is_clopper_and_pearsons(hits, count, confidence):
    hits = min(hits, count)
    expected = stats.binomtest(hits, count, alternative="less").proportion_ci(confidence, "exact").high
    assert share_upper(hits, count, confidence) == pytest.approx(expected, abs=1e-9)


def test_no_miss_in_three_hundred_is_the_rule_of_three():
    assert share_upper(0, 300) == pytest.approx(1 - 0.05 ** (1 / 300), rel=1e-9)


@given(st.integers(1, 700), st.sampled_from([0.5, 0.9, 0.99]))
def test_the_bounds_rank_is_the_smallest_that_suffices(count, q):
    bound = percentile_upper(np.arange(1, count + 1, dtype=float), q)
    ranks = [k for k in range(1, count + 1) if stats.binom.cdf(k - 1, count, q) >= 0.95]
    assert bound == (ranks[0] if ranks else None)


def test_a_p99_needs_299_samples():
    assert percentile_upper(np.arange(298.0), 0.99) is None
    assert percentile_upper(np.arange(299.0), 0.99) == 298.0


def test_the_bound_holds_as_often_as_it_says():
    rng = np.random.default_rng(0)
    true = -np.log(0.05)  # the p95 of the exponential distribution
    held = sum(percentile_upper(rng.exponential(size=200), 0.95) >= true for _ in range(2000))
    assert held / 2000 >= 0.95 - 4 * (0.95 * 0.05 / 2000) ** 0.5


@pytest.mark.parametrize("wrong", [(1, 0), (-1, 5), (6, 5)])
def test_counts_that_are_none(wrong):
    with pytest.raises(UsageError):
        share_upper(*wrong)


def test_a_latency_carries_the_bounds_of_its_percentiles():
    found = latency_of([[float(value) for value in range(1, 501)], [501.0] * 500])
    assert set(found.bounds) == {"p50", "p90", "p95", "p99"}
    assert found.bounds["p50"].low <= found.p50 <= found.bounds["p50"].high
    assert found.interval == (found.bounds["p50"].low, found.bounds["p50"].high)
    few = latency_of([[1.0, 2.0]])
    assert (few.bounds["p99"].low, few.bounds["p99"].upper) == (None, None)
