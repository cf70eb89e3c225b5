from __future__ import annotations

import os

import pytest

from edgetrack.telemetry.reading import Reading
from edgetrack.telemetry.sampler import Sampler
from edgetrack.telemetry.throttling import find_throttling, visible
from edgetrack.telemetry.timeline import Series, Timeline, Window, energy_of


class Scripted:
    name = "scripted"

    def __init__(self, *rounds):
        self.rounds, self.closed = list(rounds), 0

    def read(self):
        answer = self.rounds.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return [Reading("power_w", name, value) for name, value in answer.items()]

    def close(self):
        self.closed += 1


@pytest.fixture
def now():
    return [100.0]


def sampled(now, *sources, rounds):
    sampler = Sampler(sources, now=lambda: now[0])
    for _ in range(rounds):
        sampler.sample()
        now[0] += 1.0
    return sampler.timeline()


def test_sensors_that_come_late_or_pause_have_gaps(now):
    timeline = sampled(now, Scripted({"a": 1.0}, {"b": 2.0}, {"a": 3.0, "b": 4.0}, {}), rounds=4)
    assert timeline.t_s == [0.0, 1.0, 2.0, 3.0]
    assert {series.name: series.values for series in timeline.series} == {
        "a": [1.0, None, 3.0, None],
        "b": [None, 2.0, 4.0, None],
    }


def test_a_source_that_fails_is_given_up_and_the_others_go_on(now):
    failing, going = Scripted({"a": 1.0}, OSError("unplugged")), Scripted(*[{"b": 1.0}] * 3)
    timeline = sampled(now, failing, going, rounds=3)
    assert {series.name: series.values for series in timeline.series} == {"a": [1.0, None, None], "b": [1.0, 1.0, 1.0]}
    (missing,) = timeline.missing
    assert (missing.source, missing.reason) == ("scripted", "stopped after 1 s: unplugged")
    assert failing.closed == 1


def test_the_memory_of_a_process_is_read_while_it_is_watched(now):
    sampler = Sampler([], now=lambda: now[0])
    sampler.sample()
    with sampler.watch("me", os.getpid()):
        sampler.sample()
    sampler.sample()
    rss = next(series for series in sampler.timeline().series if series.quantity == "rss_mb")
    assert [value is not None for value in rss.values] == [False, True, False]
    assert rss.values[1] > 10


def test_a_process_that_is_gone_has_no_memory(now):
    sampler = Sampler([], now=lambda: now[0])
    with sampler.watch("gone", 2**22 + 1):
        sampler.sample()
    assert sampler.timeline().series == []


def test_the_thread_reads_at_once_and_closes_the_sources_at_the_end():
    source = Scripted({"a": 1.0}, *[{}] * 1000)
    with Sampler([source], interval_s=60.0) as sampler:
        pass
    assert len(sampler.timeline().t_s) == 1
    assert source.closed == 1


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


def test_reported_throttling():
    windows = [Window("a", "track", 0.0, 9.0, 9.0, 20)]
    counts = Series("throttle", "throttle_count", "cores", [1.0] * 5 + [4.0] * 5)
    flags = Series("nvml", "throttled", "cuda:0", [0.0] * 7 + [1.0] * 3)
    found = find_throttling(timeline(windows, counts, flags), "a", ("track",))
    assert [(one.kind, one.onset_s) for one in found] == [("throttled", 5.0), ("throttled", 7.0)]


def test_a_clock_that_is_only_stated_shows_no_throttling():
    assert not visible(timeline([], Series("cpufreq", "clock_mhz", "CPU as stated", [])))
    assert visible(timeline([], Series("cpufreq", "clock_mhz", "CPU", [])))
