from __future__ import annotations

import threading
from itertools import repeat

import pytest

from edgetrack.benchmark.bursts import BurstRun
from edgetrack.benchmark.clock import MonotonicClock
from edgetrack.benchmark.messages import Burst, Load
from edgetrack.box import Box
from edgetrack.errors import DeviceUnavailableError

BOX = Box(1, 1, 4, 4)


class Stream:
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

        def open_bundle(bundle, *, device, threads, precision_hint):
            opened.append(Stream(len(opened) in failing))
            opened[-1].threads = threads
            return opened[-1]

        load = Load("a", "cpu", threads, None, "source", BOX, 10, 10.0)
        return BurstRun(load, streams, open_bundle, MonotonicClock()), opened

    return start


def test_threads_are_shared_out_and_every_stream_has_its_own(make):
    run, opened = make(3)
    found = run.run(Burst(3, 0.0, 5, 2), BOX, lambda: repeat(None))
    assert [stream.threads for stream in opened] == [1, 1, 1]
    assert [len(stream) for stream in found.whole] == [5, 5, 5]
    assert all(stream.calls == ["init", *["update"] * 7] for stream in opened)
    assert found.wall_s > 0
    run.close()
    assert all(stream.closed for stream in opened)


def test_more_streams_than_threads_have_one_each(make):
    run, _ = make(5, threads=2)
    assert run.threads_each == 1


def test_one_that_fails_does_not_leave_the_others_waiting(make):
    run, _ = make(3, failing={1})
    with pytest.raises(DeviceUnavailableError, match="no such device"):
        run.run(Burst(3, 0.0, 1, 0), BOX, lambda: repeat(None))
