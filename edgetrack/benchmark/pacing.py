"""Frames at a constant rate, whether the tracker is ready or not: what waits, waits in line; none is dropped."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

from edgetrack.benchmark.clock import Clock
from edgetrack.benchmark.messages import Pace, Paced
from edgetrack.media.frames import Frame
from edgetrack.runtime.session import Timing, Tracker


class Pacer:
    """Feeds a tracker that was started.

    Args:
        tracker: finds the box in each frame.
        clock: tells arrival and completion.
        cpu_seconds: what this process has computed so far.
        sleep: waits about that many seconds.
    """

    def __init__(
        self,
        tracker: Tracker,
        clock: Clock,
        cpu_seconds: Callable[[], float],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._tracker = tracker
        self._clock = clock
        self._cpu_seconds = cpu_seconds
        self._sleep = sleep

    def run(self, request: Pace, frames: Iterator[Frame]) -> Paced:
        """Frame k arrives k / fps after the start; the one after the last would end the run, whatever waits then.

        Without a rate each frame arrives when the one before it is done.
        """
        timings: list[Timing] = []
        queued: list[float] = []
        response: list[float] = []
        cpu, start = self._cpu_seconds(), self._clock.now_ns()
        for arrival in self._arrivals(request, start):
            begun = self._clock.now_ns()
            timings.append(self._tracker.update(next(frames)).timing)
            queued.append((begun - arrival) / 1e6)
            response.append((self._clock.now_ns() - arrival) / 1e6)
        return Paced(
            crop=[timing.crop for timing in timings],
            graphs=[timing.graphs for timing in timings],
            decode=[timing.decode for timing in timings],
            queued=queued,
            response=response,
            waiting=max(0, _count(request) - len(response)) if request.fps else 0,
            cpu_s=self._cpu_seconds() - cpu,
            wall_s=(self._clock.now_ns() - start) / 1e9,
        )

    def _arrivals(self, request: Pace, start: int) -> Iterator[int]:
        """When each frame arrived, given out once it has; in nanoseconds of the clock."""
        if request.fps is None:
            done = 0
            while done < request.frames or self._clock.now_ns() - start < 1e9 * request.seconds:
                yield self._clock.now_ns()
                done += 1
            return
        count, period = _count(request), 1e9 / request.fps
        for index in range(count):
            arrival = start + round(index * period)
            while (early := arrival - self._clock.now_ns()) > 0:
                self._sleep(early / 1e9)
            if early <= (index - count) * period:
                return
            yield arrival


def _count(request: Pace) -> int:
    """Frames that arrive; only with a rate."""
    return max(request.frames, 1, math.ceil(request.seconds * (request.fps or 0)))
