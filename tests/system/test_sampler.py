from __future__ import annotations

import os

import pytest

from edgetrack.system.sampler import SOURCE_NAMES, Sampler, find_sensors
from edgetrack.system.sensors import Reading


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


def test_what_was_asked_for_and_is_not_there_is_reported(tmp_path):
    found = find_sensors(["rapl", "thermal", "nvml", "jtop", "tegrastats"], root=tmp_path)
    assert found.sources == []
    assert [missing.source for missing in found.missing] == ["rapl", "thermal", "nvml", "jtop", "tegrastats"]
    assert all(missing.reason for missing in found.missing)
    assert find_sensors(None, root=tmp_path).missing == []


def test_this_machines_own_sensors_can_be_read():
    found = find_sensors()
    assert {source.name for source in found.sources} <= set(SOURCE_NAMES)
    for source in found.sources:
        assert all(isinstance(reading.value, float) for reading in source.read())
        source.close()
