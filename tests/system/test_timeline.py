from __future__ import annotations

import pytest

from edgetrack.system.timeline import Series, Timeline, Window, energy_of, find_throttling, highest_clock, visible


def timeline(windows, *series, count=10):
    return Timeline(interval_s=1.0, t_s=[float(t) for t in range(count)], series=list(series), windows=windows)


WINDOWS = [Window("a", "track", 1.0, 5.0, 2.0, 20), Window("a", "camera", 5.5, 7.5, 2.0, 5)]


def test_energy_is_that_of_the_recorded_frames():
    power = Series("tegrastats", "power_w", "VDD_IN", [1.0, 1.0, 1.0, 5.0, 5.0, 5.0, 9.0, 9.0, 9.0, 9.0])
    found = energy_of(timeline(WINDOWS, power), "a", "track", ("jtop:TOT", "tegrastats:VDD_IN"))
    assert (found.rail, found.mean_w, found.readings) == ("tegrastats:VDD_IN", 5.0, 3)
    assert found.mj_per_frame == pytest.approx(5.0 * 2.0 / 20 * 1000)


def test_rails_are_added_and_gaps_are_not_guessed():
    cpu = Series("tegrastats", "power_w", "CPU", [1.0] * 10)
    gpu = Series("tegrastats", "power_w", "GPU", [2.0, 2.0, 2.0, None, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0])
    both = timeline(WINDOWS, cpu, gpu)
    assert energy_of(both, "a", "track", ("tegrastats:CPU+GPU",), least=2).mean_w == 3.0
    assert energy_of(both, "a", "track", ("tegrastats:CPU+GPU",), least=3) is None
    assert energy_of(both, "a", "track", ("tegrastats:CPU+SYS",)) is None
    assert energy_of(both, "b", "track", ("tegrastats:CPU",)) is None


def test_a_falling_clock_counts_only_while_frames_ran():
    windows = [Window("a", "track", 2.0, 8.0, 6.0, 20)]
    clock = Series(
        "cpufreq", "clock_mhz", "CPU", [500.0, 500.0, 2000.0, 2000.0, 1950.0, 2000.0, 1500.0, 1400.0, 2000.0, 9.0]
    )
    (found,) = find_throttling(timeline(windows, clock), "a", ("track",))
    assert (found.kind, found.onset_s) == ("clock-changed", 6.0)
    assert "1400 to 2000 MHz" in found.detail
    assert find_throttling(timeline(windows, clock), "a", ("camera",)) == []
    assert find_throttling(timeline(windows, clock), "b", ("track",)) == []


def test_the_clock_of_a_gpu_that_nothing_ran_on_says_nothing():
    clock = Series("tegrastats", "clock_mhz", "GPU", [1000.0, 300.0] * 5)
    for device, seen in (("cpu", 0), ("cuda:0", 1), ("", 1)):
        read = timeline([Window("a", "track", 0.0, 9.0, 9.0, 20, device)], clock)
        assert len(find_throttling(read, "a", ("track",))) == seen
        assert highest_clock(read, read.windows, gpu=True) == (1000.0 if seen else None)
        assert highest_clock(read, read.windows, gpu=False) is None


def test_reported_throttling():
    windows = [Window("a", "track", 0.0, 9.0, 9.0, 20)]
    counts = Series("throttle", "throttle_count", "cores", [1.0] * 5 + [4.0] * 5)
    flags = Series("nvml", "throttled", "cuda:0", [0.0] * 7 + [1.0] * 3)
    found = find_throttling(timeline(windows, counts, flags), "a", ("track",))
    assert [(one.kind, one.onset_s) for one in found] == [("throttled", 5.0), ("throttled", 7.0)]


def test_a_clock_that_is_only_stated_shows_no_throttling():
    assert not visible(timeline([], Series("cpufreq", "clock_mhz", "CPU as stated", [])))
    assert visible(timeline([], Series("cpufreq", "clock_mhz", "CPU", [])))
