"""Several trackers of one bundle at once, each on a thread of its own: several targets, or several cameras."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise

from edgetrack.benchmark.clock import Clock
from edgetrack.benchmark.messages import Burst, Bursted, Load
from edgetrack.box import Box
from edgetrack.media.frames import Frame
from edgetrack.runtime.session import Tracker

_START_S = 120.0
"""Longest wait for all to be ready."""


class BurstRun:
    """Trackers that are loaded once; the threads of one contestant are shared out among them, at least one each.

    Args:
        request: which bundle.
        streams: how many trackers.
        open_bundle: `edgetrack.load`, or something like it.
        clock: times all of them.
    """

    def __init__(self, request: Load, streams: int, open_bundle: Callable[..., Tracker], clock: Clock) -> None:
        self.streams = streams
        self.threads_each = max(1, request.threads // streams)
        self._clock = clock
        with ExitStack() as stack:
            self._trackers: list[Tracker] = []
            for _ in range(streams):
                tracker = open_bundle(
                    request.bundle, device=request.device, threads=self.threads_each, precision_hint=request.hint
                )
                stack.callback(tracker.close)
                self._trackers.append(tracker)
            self._resources = stack.pop_all()

    def run(self, request: Burst, box: Box, frames: Callable[[], Iterator[Frame]]) -> Bursted:
        """Start all at once; each goes on until the time is over and it has had its frames."""
        barrier = threading.Barrier(self.streams)
        with ThreadPoolExecutor(self.streams) as pool:
            futures = [pool.submit(self._one, tracker, request, box, frames(), barrier) for tracker in self._trackers]
            errors = [error for error in (future.exception() for future in futures) if error is not None]
        if errors:
            # Those that waited for the one that failed only say that they waited in vain.
            raise next((one for one in errors if not isinstance(one, threading.BrokenBarrierError)), errors[0])
        spans = [future.result() for future in futures]
        start, end = min(marks[0] for marks in spans), max(marks[-1] for marks in spans)
        return Bursted(
            threads_each=self.threads_each,
            whole=[_differences(marks) for marks in spans],
            wall_s=(end - start) / 1e9,
        )

    def close(self) -> None:
        """Release the trackers."""
        self._resources.close()

    def _one(
        self, tracker: Tracker, request: Burst, box: Box, frames: Iterator[Frame], barrier: threading.Barrier
    ) -> list[int]:
        """The clock at the start and after each frame."""
        try:
            tracker.init(next(frames), box)
            for _ in range(request.unrecorded):
                tracker.update(next(frames))
            barrier.wait(_START_S)
        except BaseException:
            barrier.abort()
            raise
        marks = [self._clock.now_ns()]
        while len(marks) <= request.frames or marks[-1] - marks[0] < 1e9 * request.seconds:
            tracker.update(next(frames))
            marks.append(self._clock.now_ns())
        return marks


def _differences(marks: Sequence[int]) -> list[float]:
    return [(after - before) / 1e6 for before, after in pairwise(marks)]
