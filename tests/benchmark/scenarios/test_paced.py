"""Arrivals, queueing and deadlines on a clock that moves only when told to."""

from __future__ import annotations

from itertools import repeat
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.benchmark.config import BenchConfig
from edgetrack.benchmark.protocol import Measure
from edgetrack.benchmark.scenarios.base import Rig
from edgetrack.benchmark.scenarios.paced import Paced, follow_arrivals, paced_outcome
from edgetrack.runtime.session import Timing
from edgetrack.system.clock import ManualClock
from tests.builders import round_samples

MS = 1_000_000


def pace(service_ms, fps=100.0, seconds=0.0, frames=1):
    """Run a tracker that takes those milliseconds for its frames, one after the other."""
    clock, left = ManualClock(), list(service_ms)

    def update(frame):
        clock.advance(round(left.pop(0) * MS))
        return SimpleNamespace(timing=Timing(0.0, 1.0, 0.0))

    rig = Rig(
        tracker=SimpleNamespace(update=update, init=lambda frame, box: None),
        feed=SimpleNamespace(endless=lambda: repeat(None)),
        box=None,
        clock=clock,
        cpu_seconds=lambda: clock.now_ns() / 1e9,
        sleep=lambda seconds: clock.advance(round(seconds * 1e9)),
        open_tracker=None,
        open_many=None,
    )
    return follow_arrivals(Measure("paced", seconds, frames, 0), rig, repeat(None), fps)


def test_a_fast_tracker_waits_for_its_frames():
    found = pace([4.0] * 5, frames=5)
    assert found.queued == [0.0] * 5
    assert found.whole == [4.0] * 5
    assert found.wall_s == pytest.approx(0.044)


def test_a_slow_frame_delays_those_behind_it():
    found = pace([25.0, 4.0, 4.0, 4.0], frames=4)
    assert found.queued == [0.0, 15.0, 9.0, 3.0]
    assert found.whole == [25.0, 19.0, 13.0, 7.0]
    outcome = paced_outcome([found], 100.0, unbroken=False)
    assert (outcome.misses, outcome.longest_miss_run, outcome.deepest_queue, outcome.waiting) == (3, 3, 1, 0)


def test_a_tracker_that_is_too_slow_does_not_run_for_ever():
    found = pace([30.0] * 100, seconds=0.3)
    assert len(found.whole) + found.waiting == 30
    assert len(found.whole) == 10
    outcome = paced_outcome([found], 100.0, unbroken=False)
    assert (outcome.misses, outcome.longest_miss_run, outcome.deepest_queue) == (30, 30, 20)
    assert outcome.miss_rate_upper == 1.0


@given(st.lists(st.floats(0.1, 40.0), min_size=1, max_size=40))
def test_frames_are_served_in_order_as_in_lindleys_recursion(service):
    found = pace(service, frames=len(service))
    waited = 0.0
    for queued, response, own in zip(found.queued, found.whole, service, strict=False):
        assert queued == pytest.approx(waited, abs=1e-4)
        assert response == pytest.approx(waited + own, abs=1e-4)
        waited = max(0.0, waited + own - 10.0)
    assert len(found.whole) + found.waiting == len(service)


def test_without_a_rate_frames_follow_each_other():
    found = pace([5.0] * 20, fps=None, seconds=0.05)
    assert found.queued == [0.0] * 10
    assert found.whole == [5.0] * 10
    assert found.waiting == 0


def paced(response, waiting=0):
    return round_samples("paced", [1.0] * len(response), queued=[0.0] * len(response), whole=response, waiting=waiting)


def test_runs_of_misses_go_on_where_rounds_follow_each_other():
    rounds = [paced([5.0, 50.0]), paced([50.0, 50.0, 5.0])]
    assert paced_outcome(rounds, 100.0, unbroken=False).longest_miss_run == 2
    assert paced_outcome(rounds, 100.0, unbroken=True).longest_miss_run == 3


def test_a_round_waits_for_its_last_frame():
    config = BenchConfig(scenario="paced", duration_s=0.0, iterations=60, rounds=2, fps=10.0)
    assert [Paced(config).extra_wait_s(kind) for kind in Paced.kinds] == [0.0, 0.0, 0.0, 3.0]
