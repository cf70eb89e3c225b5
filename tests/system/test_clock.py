from __future__ import annotations

import pytest

from edgetrack.system.clock import ManualClock, MonotonicClock


class TestManualClock:
    def test_steps_after_each_reading_and_when_told(self):
        clock = ManualClock(step_ns=5, start_ns=100)
        assert [clock.now_ns(), clock.now_ns()] == [100, 105]
        clock.advance(1000)
        assert clock.now_ns() == 1110

    def test_never_goes_back(self):
        with pytest.raises(ValueError, match="0 or more"):
            ManualClock(step_ns=-1)
        with pytest.raises(ValueError, match="0 or more"):
            ManualClock().advance(-1)


def test_monotonic_clock_never_goes_back():
    clock = MonotonicClock()
    readings = [clock.now_ns() for _ in range(100)]
    assert readings == sorted(readings)
