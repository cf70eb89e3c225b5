from __future__ import annotations

import pytest

from edgetrack.benchmark.scenarios.soak import soak_outcome
from edgetrack.system.timeline import Series, Timeline, Window
from tests.builders import round_samples


def soak(rss, ms, clock=None):
    """Windows of a minute from second 100 on, with one reading each in the middle."""
    count = len(ms)
    windows = [Window("a", "soak", 100.0 + 60 * k, 160.0 + 60 * k, 60.0, 200) for k in range(count)]
    series = [Series("process", "rss_mb", "a", rss)]
    if clock is not None:
        series.append(Series("cpufreq", "clock_mhz", "CPU", clock))
    timeline = Timeline(interval_s=60.0, t_s=[130.0 + 60 * k for k in range(count)], series=series, windows=windows)
    rounds = [round_samples("soak", [one] * 200, crop=0.0, decode=0.0, queued=[0.0] * 200, wall_s=60.0) for one in ms]
    return soak_outcome(rounds, 30.0, timeline, "a")


def test_a_leak_is_seen_and_its_rate_is_right():
    found = soak([100.0 + 3 * k for k in range(20)], [5.0] * 20)
    assert found.rss_mb_per_min.value == pytest.approx(3.0)
    assert found.rss_mb_per_min.grows
    assert found.duration_s == 1200.0
    assert found.paced.misses == 0


def test_growth_while_caches_fill_is_no_leak():
    rss = [50.0, 80.0, 95.0, 99.0, *[100.0, 100.25] * 8]
    assert not soak(rss, [5.0] * 20).rss_mb_per_min.grows


def test_growth_by_a_few_pages_is_less_than_the_kernel_counts_exactly():
    page = 4096 / 2**20
    found = soak([100.0 + page * min(k, 9) for k in range(20)], [5.0] * 20).rss_mb_per_min
    assert found.value >= 0
    assert not found.grows
    assert found.high < 0.05
    leak = soak([100.0 + 10 * page * k for k in range(20)], [5.0] * 20).rss_mb_per_min
    assert leak.value == pytest.approx(10 * page)
    assert leak.grows


def test_a_device_that_slows_down():
    ms = [4.0] * 10 + [8.0] * 10
    clock = [2000.0] * 10 + [1000.0] * 10
    found = soak([100.0] * 20, ms, clock)
    assert found.steady_over_peak == pytest.approx(0.5)
    assert (found.p99_first_ms, found.p99_last_ms) == (4.0, 8.0)
    assert found.p99_ms_per_min.value > 0
    assert found.throttling_visible
    assert found.throttling_onset_s == pytest.approx(630.0)


def test_without_a_sensor_throttling_is_unknown():
    found = soak([None] * 20, [4.0] * 20)
    assert (found.throttling_visible, found.throttling_onset_s, found.rss_mb_per_min) == (False, None, None)
