from __future__ import annotations

import itertools
import math
import statistics as stdlib

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgetrack.benchmark.latency import Latency, fps, latency_of
from edgetrack.errors import UsageError

latencies = st.floats(0.01, 1e4, allow_nan=False)


class TestLatencyOf:
    def test_closed_form_of_one_to_a_hundred(self):
        latency = latency_of([[float(ms) for ms in range(100, 0, -1)]])
        assert (latency.count, latency.mean, latency.min, latency.max) == (100, 50.5, 1.0, 100.0)
        assert [latency.p50, latency.p90, latency.p95, latency.p99] == pytest.approx([50.5, 90.1, 95.05, 99.01])
        assert latency.cv == pytest.approx(math.sqrt(100 * 101 / 12) / 50.5)

    @given(st.lists(latencies, min_size=100, max_size=150))
    def test_percentiles_are_the_standard_librarys_inclusive_quantiles(self, samples):
        cuts = stdlib.quantiles(samples, n=100, method="inclusive")
        latency = latency_of([samples])
        expected = [cuts[49], cuts[89], cuts[94], cuts[98]]
        assert [latency.p50, latency.p90, latency.p95, latency.p99] == pytest.approx(expected, rel=1e-9)
        assert latency.mean == pytest.approx(stdlib.fmean(samples))
        assert latency.cv == pytest.approx(stdlib.stdev(samples) / stdlib.fmean(samples), rel=1e-6, abs=1e-9)

    @given(st.lists(latencies, min_size=1, max_size=120), st.randoms(use_true_random=False))
    def test_ordered_and_blind_to_the_order_of_samples(self, samples, random):
        latency = latency_of([samples])
        given_percentiles = [p for p in (latency.p50, latency.p90, latency.p95, latency.p99) if p is not None]
        ordered = [latency.min, *given_percentiles, latency.max]
        assert all(low <= high * (1 + 1e-12) for low, high in itertools.pairwise(ordered))
        shuffled = random.sample(samples, len(samples))
        again = latency_of([shuffled])
        assert (again.p50, again.p90, again.p95, again.p99) == (latency.p50, latency.p90, latency.p95, latency.p99)

    @pytest.mark.parametrize(("name", "needed"), [("p90", 10), ("p95", 20), ("p99", 100)])
    def test_a_percentile_without_support_is_none(self, name, needed):
        assert getattr(latency_of([[1.0] * (needed - 1)]), name) is None
        assert getattr(latency_of([[1.0] * needed]), name) == 1.0

    def test_one_sample_has_a_median_and_no_variation(self):
        latency = latency_of([[7.0]])
        assert (latency.p50, latency.cv) == (7.0, None)

    def test_zero_mean_has_no_variation(self):
        assert latency_of([[0.0, 0.0]]).cv is None

    def test_survives_json(self):
        latency = latency_of([list(np.arange(1.0, 31.0))])
        assert msgspec.json.decode(msgspec.json.encode(latency), type=Latency) == latency

    @pytest.mark.parametrize("samples", [[], [1.0, math.nan], [math.inf], [-0.1], [[1.0, 2.0]]])
    def test_refuses_what_is_no_latency(self, samples):
        with pytest.raises(UsageError, match="expected"):
            latency_of([samples])


def test_a_latency_carries_the_bounds_of_its_percentiles():
    found = latency_of([[float(value) for value in range(start, 501, 20)] for start in range(1, 21)])
    assert set(found.bounds) == {"p50", "p90", "p95", "p99"}
    assert found.bounds["p50"].low <= found.p50 <= found.bounds["p50"].high
    assert found.interval == (found.bounds["p50"].low, found.bounds["p50"].high)
    few = latency_of([[1.0, 2.0]])
    assert (few.bounds["p99"].low, few.bounds["p99"].upper) == (None, None)


def test_bounds_are_those_of_the_effective_sample_size_not_of_the_frames():
    """20 rounds, each of 50 frames that are the same: 1000 frames tell no more of the median than 20."""
    rng = np.random.default_rng(3)
    levels = rng.permutation(np.arange(1.0, 21.0))
    found = latency_of([[float(level)] * 50 for level in levels]).bounds["p50"]
    # Half of the rounds lie above the median: a variance of 0.25 * 20 / 19 between them, where 50 independent frames
    # would have 0.25 / 50. Over that, 20 rounds leave Student's t of 19 degrees of freedom over the normal, squared.
    effect = 0.25 * 20 / 19 / (0.25 / 50 * 1000 / 999)
    assert found.effective == pytest.approx(1000 / effect / (1.7291 / 1.6449) ** 2, rel=1e-3)
    # Two-sided: 1000 / effect / (2.0930 / 1.9600) ** 2 = 16.7, of which the sign test's table takes ranks 4 and 13,
    # here the 250th and the 813th frame. 1000 independent frames would be bounded by 10 and 11.
    assert (found.low, found.high) == (5.0, 17.0)
    independent = latency_of([[float(level)] for level in levels for _ in range(50)]).bounds["p50"]
    assert independent.effective < 40


def test_records_of_older_versions_have_no_effective_sample_size():
    old = {"low": 1.0, "high": 2.0, "upper": 2.0}
    assert msgspec.convert(old, type=type(latency_of([[1.0]]).bounds["p50"])).effective is None


def test_empty_rounds_say_nothing():
    assert latency_of([[1.0, 2.0], []]) == latency_of([[1.0, 2.0]])


@given(latencies)
def test_fps_is_the_inverse_of_the_median(p50):
    assert fps(p50) * p50 == pytest.approx(1000)


@pytest.mark.parametrize("p50", [0.0, -1.0, math.nan, math.inf])
def test_fps_refuses(p50):
    with pytest.raises(UsageError, match="positive"):
        fps(p50)


@given(st.lists(latencies, min_size=2, max_size=30), st.floats(0.5, 2.0))
def test_a_latency_scales_with_the_samples(samples, factor):
    assume(max(samples) > min(samples))
    plain, scaled = latency_of([samples]), latency_of([[factor * sample for sample in samples]])
    assert scaled.p50 == pytest.approx(factor * plain.p50)
    assert scaled.cv == pytest.approx(plain.cv, rel=1e-6, abs=1e-9)
