from __future__ import annotations

import threading
import time
from itertools import repeat
from types import SimpleNamespace

import numpy as np
import pytest

from edgetrack.benchmark.config import BenchConfig
from edgetrack.benchmark.protocol import Measure, RoundSamples
from edgetrack.benchmark.scenarios import resolve
from edgetrack.benchmark.scenarios.base import Rig
from edgetrack.benchmark.scenarios.burst import Burst
from edgetrack.box import Box
from edgetrack.errors import DeviceUnavailableError, UsageError
from edgetrack.system.clock import MonotonicClock

BOX = Box(1, 1, 4, 4)


class FakeTracker:
    attributes = ()

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


class FakeMany:
    """Takes 4 targets at once."""

    batch = 4

    def __init__(self, room):
        self.room, self.targets, self.closed, self.updates = room, (), False, []

    def start(self, frame, box, text=None):
        self.targets = (*self.targets, len(self.targets) + 1)

    def stop(self, number):
        self.targets = tuple(one for one in self.targets if one != number)

    def update(self, frame):
        self.updates.append(len(self.targets))

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
        rig = Rig(None, feed, BOX, MonotonicClock(), time.process_time, time.sleep, open_tracker, FakeMany)
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


def test_batched_is_one_tracker_with_one_target_then_two_then_three():
    feed = SimpleNamespace(endless=lambda: repeat(np.zeros((20, 30, 3), np.uint8)))
    opened = []
    rig = Rig(
        FakeTracker(), feed, BOX, MonotonicClock(), time.process_time, time.sleep, FakeTracker,
        lambda room: opened.append(FakeMany(room)) or opened[-1],
    )  # fmt: skip
    burst = Burst(BenchConfig(scenario="burst", threads=2, rounds=1, streams=3, batched=True))
    found = burst.measure(Measure("burst", 0.0, 6, 1), rig)
    assert [one.room for one in opened] == [3]
    assert opened[0].updates == [1] * 3 + [2] * 3 + [3] * 3  # one each is not recorded
    assert ([len(spent) for spent in found.streams], found.batch, opened[0].targets) == ([2, 2, 2], 4, ())
    burst.close()
    assert opened[0].closed


def test_what_further_targets_cost_is_a_share_of_the_first():
    rounds = [
        RoundSamples(kind="burst", streams=[[10.0] * 3, [15.0] * 3, [24.0] * 3], batch=4, cpu_s=0.0, wall_s=0.1)
        for _ in range(2)
    ]
    burst = Burst(BenchConfig(scenario="burst", threads=2, rounds=2, streams=3, batched=True))
    found = burst.summarize(None, {"burst": rounds}, None)["together"]
    assert found.further == pytest.approx(0.7)
    assert [one.count for one in found.latency_ms] == [6, 6, 6]
    (note,) = burst.notes(SimpleNamespace(together=found, burst=None))
    assert note == (
        "one tracker (a graph for 4) with 1 target: 10.00 ms, with 2: 15.00 ms, 3: 24.00 ms; each further target costs "
        "0.70 of the first"
    )


def test_batched_is_for_bursts():
    with pytest.raises(UsageError, match="--batched has no use in the scenario stream; leave it out"):
        resolve(BenchConfig(batched=True))
