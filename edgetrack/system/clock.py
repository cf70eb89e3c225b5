"""Clocks are passed in, so that a timing loop can be tested without waiting."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Whatever tells the time."""

    def now_ns(self) -> int:
        """Nanoseconds since some fixed instant; never goes back."""


class MonotonicClock:
    """The system's monotonic clock of the finest resolution (`time.perf_counter_ns`)."""

    def now_ns(self) -> int:
        """Nanoseconds since an arbitrary instant; only differences mean something."""
        return time.perf_counter_ns()


class ManualClock:
    """The shipped test double: a clock that moves only when told to.

    Every reading moves it on by `step_ns` afterwards, so that a loop that runs "until the time is over" ends.

    Args:
        step_ns: nanoseconds added after each reading, 0 or more.
        start_ns: the first reading.

    Raises:
        ValueError: a negative step.
    """

    def __init__(self, step_ns: int = 0, start_ns: int = 0) -> None:
        if step_ns < 0:
            raise ValueError(f"step_ns is {step_ns}; a clock does not go back: give 0 or more")
        self._step_ns = step_ns
        self._now_ns = start_ns

    def now_ns(self) -> int:
        """The current reading, in nanoseconds."""
        now = self._now_ns
        self._now_ns += self._step_ns
        return now

    def advance(self, ns: int) -> None:
        """Move on by `ns` nanoseconds.

        Raises:
            ValueError: `ns` is negative.
        """
        if ns < 0:
            raise ValueError(f"cannot advance by {ns} ns; a clock does not go back: give 0 or more")
        self._now_ns += ns
