from __future__ import annotations

import threading
import time
from itertools import repeat
from types import SimpleNamespace

import pytest

from edgetrack.benchmark.config import BenchConfig
from edgetrack.benchmark.protocol import Measure, RoundSamples
from edgetrack.benchmark.scenarios.base import Rig
from edgetrack.benchmark.scenarios.burst import Burst
from edgetrack.box import Box
from edgetrack.errors import DeviceUnavailableError
from edgetrack.system.clock import MonotonicClock

BOX = Box(1, 1, 4, 4)


class FakeTracker:
    def __init__(self, fail=False):
        self.fail, self.calls, self.closed, self.thread = fail, [], False, None

    def init(self, frame, box):
        self.thread = threading.get_ident()
        if self.fail:
            raise DeviceUnavailableError("no such device")
        self.calls.append("init")

    def update(self, frame):
        self.calls.append("update")

    def close(self):
        self.closed = True


@pytest.fixture
def make():
    def start(streams, threads=4, failing=()):
        opened = []

        def open_tracker(threads):
            opened.append(FakeTracker(len(opened) in failing))
            opened[-1].threads = threads
            return opened[-1]

        feed = SimpleNamespace(endless=lambda: repeat(None))
        rig = Rig(None, feed, BOX, MonotonicClock(), time.process_time, time.sleep, open_tracker)
        return Burst(BenchConfig(scenario="burst", threads=threads, rounds=1, streams=streams)), rig, opened

    return start


def test_threads_are_shared_out_and_every_stream_has_its_own(make):
    burst, rig, opened = make(3)
    found = burst.measure(Measure("burst", 0.0, 5, 2), rig)
    assert [stream.threads for stream in opened] == [1, 1, 1]
    assert [len(stream) for stream in found.streams] == [5, 5, 5]
    assert all(stream.calls == ["init", *["update"] * 7] for stream in opened)
    assert found.wall_s > 0
    burst.measure(Measure("burst", 0.0, 1, 0), rig)
    assert len(opened) == 3  # they are kept
    burst.close()
    assert all(stream.closed for stream in opened)


def test_more_streams_than_threads_have_one_each(make):
    burst, _, _ = make(5, threads=2)
    assert burst.threads_each == 1


def test_one_that_fails_does_not_leave_the_others_waiting(make):
    burst, rig, _ = make(3, failing={1})
    with pytest.raises(DeviceUnavailableError, match="no such device"):
        burst.measure(Measure("burst", 0.0, 1, 0), rig)


def test_throughput_is_that_of_all_streams():
    rounds = [
        RoundSamples(kind="burst", streams=[[10.0] * 10, [5.0] * 20], threads_each=1, cpu_s=0.0, wall_s=wall_s)
        for wall_s in (0.1, 0.2)
    ]
    burst = Burst(BenchConfig(scenario="burst", threads=2, rounds=2, streams=2))
    single = SimpleNamespace(fps=SimpleNamespace(track=100.0))
    found = burst.summarize(single, {"burst": rounds}, None)["burst"]
    assert (found.fps, found.gain) == (pytest.approx(200.0), pytest.approx(2.0))
    assert found.latency_ms.count == 60
