from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from edgetrack.benchmark.protocol import Load, Measure
from edgetrack.benchmark.worker import TrackerRun
from edgetrack.box import Box
from edgetrack.errors import WorkerError
from edgetrack.runtime.session import Timing
from edgetrack.system.clock import ManualClock

MS = 1_000_000


class FakeTracker:
    """Takes 10 ms for `init` and 4 ms for `update`; remembers the frames by their first byte."""

    modalities = 1
    attributes = ()
    thread_race = None

    def __init__(self, clock):
        self.placement = {}
        self.clock = clock
        self.calls = []
        self.closed = False
        self.manifest = SimpleNamespace(target="fake")
        self.options = SimpleNamespace(threads=3)

    def init(self, frame, box):
        self.clock.advance(10 * MS)
        self.calls.append(("init", int(frame[0, 0, 0])))

    def update(self, frame):
        self.clock.advance(4 * MS)
        self.calls.append(("update", int(frame[0, 0, 0])))
        return SimpleNamespace(timing=Timing(0.5, 3.0, 0.5))

    def close(self):
        self.closed = True


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def tracker(clock):
    return FakeTracker(clock)


@pytest.fixture
def run(tmp_path, clock, tracker):
    for index in range(3):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((8, 8, 3), index, np.uint8))
    request = Load(
        threads=3,
        bundle="a-bundle",
        hint="bf16",
        source=str(tmp_path),
        box=Box(1, 1, 4, 4),
        keep_frames=100,
        keep_mb=100.0,
    )

    def open_bundle(bundle, *, device, threads, precision_hint):
        assert (bundle, device, threads, precision_hint) == ("a-bundle", "cpu", 3, "bf16")
        clock.advance(70 * MS)
        return tracker

    return TrackerRun(request, clock=clock, cpu_seconds=lambda: clock.now_ns() / 1e9, open_bundle=open_bundle)


def test_loading_and_the_first_box_are_timed_separately(run):
    loaded = run.first()
    assert (loaded.load_ms, loaded.first_ms, loaded.threads) == (70.0, 14.0, 3)


def test_a_round_runs_until_frames_are_reached(run):
    found = run.measure(Measure("track", 0.0, 5, 0))
    assert found.graphs == [3.0] * 5
    assert found.crop == found.decode == [0.5] * 5


def test_a_round_runs_until_seconds_are_reached(run):
    assert len(run.measure(Measure("track", 0.1, 1, 0)).graphs) == 13


def test_starting_again_is_not_timed_and_motion_never_jumps(run, tracker):
    found = run.measure(Measure("camera", 0.0, 4, 0))
    assert found.whole == [4.0] * 4
    assert found.read == [0.0] * 4
    assert tracker.calls == [("init", 0), ("update", 1), ("update", 2), ("init", 0), ("update", 1), ("update", 2)]


def test_frames_in_memory_are_played_back_and_forth(run, tracker):
    run.measure(Measure("track", 0.0, 4, 0))
    assert tracker.calls[:5] == [("init", 0), ("update", 1), ("update", 2), ("update", 1), ("init", 0)]


def test_frames_that_are_read_ahead_are_tracked_in_their_order(run, tracker):
    found = run.measure(Measure("camera_ahead", 0.0, 4, 0))
    assert found.kind == "camera_ahead"
    assert found.whole == [4.0] * 4
    assert tracker.calls == [("init", 0), ("update", 1), ("update", 2), ("init", 0), ("update", 1), ("update", 2)]


def test_discarded_frames_run_before_and_leave_no_sample(run, tracker):
    found = run.measure(Measure("track", 0.0, 2, 3))
    assert len(found.graphs) == 2
    assert sum(call == "update" for call, _ in tracker.calls) == 5


def test_processor_time_is_that_of_the_recorded_frames(run):
    found = run.measure(Measure("camera", 0.0, 2, 2))
    assert found.cpu_s == pytest.approx(found.wall_s)
    assert found.wall_s == pytest.approx(0.008 + 0.010)


def test_memory_is_asked_after_tracking_from_the_source(run, tracker):
    assert run.memory(4).peak_rss_mb > 1
    assert sum(call == "update" for call, _ in tracker.calls) == 4


def test_close_releases_the_tracker(run, tracker):
    run.close()
    assert tracker.closed


def test_a_kind_that_the_scenario_does_not_have(run):
    with pytest.raises(WorkerError, match="does not measure 'paced'"):
        run.measure(Measure("paced", 0.0, 1, 0))
