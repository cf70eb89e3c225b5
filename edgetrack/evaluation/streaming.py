"""Streaming accuracy: frames come at a camera's rate, and what counts is the box that is known when each one comes.

After Li, Wang and Ramanan, "Towards Streaming Perception" (ECCV 2020): the tracker takes the newest frame when it is
free, a box counts from the moment when it is finished, and each frame is scored with the last box finished by then. The
clock is simulated: nothing sleeps, and only the time of `init` and `update` counts, measured or recorded.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

import msgspec
import numpy as np

from edgetrack.box import Box
from edgetrack.errors import SequenceError, UsageError
from edgetrack.evaluation.latencies import Recorded
from edgetrack.evaluation.ope import Clock, TrackerLike
from edgetrack.evaluation.sequence import Sequence
from edgetrack.media import Frame

Arrival = Callable[[int], int]
"""When a frame comes, in nanoseconds."""


class StreamedRun(msgspec.Struct, frozen=True, kw_only=True):
    """What was known of a sequence as its frames came, one item per frame.

    Attributes:
        size: (width, height) of the first frame in pixels.
        boxes: x, y, w, h in pixels: the last box that was finished when the frame came; first the given one.
        source: the frame, counted from 0, that this box was found in.
        ms: milliseconds of init and of each update; so many frames were processed.
    """

    size: tuple[int, int]
    boxes: list[Box]
    source: list[int]
    ms: list[float]

    @property
    def processed(self) -> float | None:
        """Share of the frames after the first that the tracker took, 0..1; None with a single frame."""
        return (len(self.ms) - 1) / (len(self.boxes) - 1) if len(self.boxes) > 1 else None

    @property
    def staleness(self) -> float | None:
        """Mean age of the known box in frames, over the frames after the first; None with a single frame."""
        ages = np.arange(len(self.source)) - np.array(self.source)
        return float(ages[1:].mean()) if len(ages) > 1 else None


def check_fps(fps: float) -> None:
    """Check a rate.

    Raises:
        UsageError: it is not a positive finite number.
    """
    if not (math.isfinite(fps) and fps > 0):
        raise UsageError(f"--fps {fps}: expected frames per second above 0, such as 30")


def stream(
    tracker: TrackerLike,
    sequence: Sequence,
    fps: float,
    recorded: Recorded | None = None,
    limit: int | None = None,
    *,
    clock: Clock = time.perf_counter_ns,
) -> StreamedRun:
    """Track a sequence, or its first `limit` frames, as if they came from a camera.

    The first frame comes at time 0 with its true box, and `init` keeps the tracker busy as an update does.

    Args:
        tracker: `edgetrack.Tracker`, or anything with its two methods.
        sequence: annotated throughout.
        fps: frames per second.
        recorded: latencies to replay, one for `init` (which no benchmark records: that of an update stands for it) and
            one for each update; None takes what they really take here.
        limit: frames at most.
        clock: nanoseconds, for the time of `init`.

    Raises:
        UsageError: a rate that is none.
        SequenceError: the sequence has more or fewer frames than boxes.
        EdgetrackError: it cannot be opened or a frame cannot be read, or the tracker fails.
    """
    check_fps(fps)
    total = len(sequence.truth) if limit is None else min(limit, len(sequence.truth))
    camera = _Camera(tracker, lambda index: round(index * 1e9 / fps), recorded, sequence, total, clock)
    read = 0
    with sequence.open() as frames:
        for index, frame in enumerate(frames):
            if index == limit:
                break
            read += 1
            camera.show(index, frame)
    if read != total:
        raise SequenceError(
            f"{sequence.name} has {read} frames and {len(sequence.truth)} boxes; cut the longer of the two"
        )
    return StreamedRun(size=camera.size, boxes=camera.boxes, source=camera.source, ms=camera.ms)


class _Camera:
    """Shows frames one after another to a tracker that may be busy."""

    def __init__(
        self,
        tracker: TrackerLike,
        arrival: Arrival,
        recorded: Recorded | None,
        sequence: Sequence,
        total: int,
        clock: Clock,
    ) -> None:
        self.tracker, self.arrival, self.total, self.clock = tracker, arrival, total, clock
        self.latencies = None if recorded is None else recorded.replay(sequence.name)
        self.size = (0, 0)
        self.boxes: list[Box] = []
        self.source: list[int] = []
        self.ms: list[float] = []
        self.start_box = sequence.start
        self.free = 0
        self.known = (0, self.start_box)
        self.finishing: deque[tuple[int, int, Box]] = deque()

    def show(self, index: int, frame: Frame) -> None:
        """Let the tracker take the frame if it is the newest when the tracker is free; note what is known by then."""
        now = self.arrival(index)
        if index == 0:
            self.size = (frame.shape[1], frame.shape[0])
            started = self.clock()
            self.tracker.init(frame, self.start_box)
            self._spend((self.clock() - started) / 1e6, now)
        elif self._takes(index, now):
            result = self.tracker.update(frame)
            self._spend(result.timing.total, max(self.free, now))
            self.finishing.append((self.free, index, Box(*result.box)))
        while self.finishing and self.finishing[0][0] <= now:
            _, source, box = self.finishing.popleft()
            self.known = source, box
        self.source.append(self.known[0])
        self.boxes.append(self.known[1])

    def _takes(self, index: int, now: int) -> bool:
        """Whether the tracker is free before the next frame comes; of the last frame, whether it is free at once."""
        return self.free <= now or (index < self.total - 1 and self.free < self.arrival(index + 1))

    def _spend(self, measured_ms: float, start: int) -> None:
        ms = measured_ms if self.latencies is None else next(self.latencies)
        self.ms.append(ms)
        self.free = start + round(ms * 1e6)
