"""Streaming accuracy: frames come at a camera's rate, and what counts is the box that is known when each one comes.

After Li, Wang and Ramanan, "Towards Streaming Perception" (ECCV 2020): the tracker takes the newest frame when it is
free, a box counts from the moment when it is finished, and each frame is scored with the last box finished by then. The
clock is simulated: nothing sleeps, and only the time of `init` and `update` counts, measured or recorded.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import msgspec
import numpy as np

from edgetrack.benchmark.record import BenchRecord
from edgetrack.box import Box
from edgetrack.errors import EdgetrackError, UnknownNameError, UsageError
from edgetrack.evaluation.datasets.clip import Clip
from edgetrack.evaluation.protocols import TrackerLike, follow, frame_size, frames_to_track
from edgetrack.io import read_bytes
from edgetrack.media import Frame


class StreamingRun(msgspec.Struct, frozen=True, kw_only=True):
    """What was known of a sequence as its frames came, one item per frame.

    Attributes:
        size: (width, height) of the first frame in pixels.
        boxes: x, y, w, h in pixels: the last box that was finished when the frame came; first the given one.
        source: the frame, counted from 0, that this box was found in.
        ms: milliseconds of init and of each update, one for each frame that the tracker took.
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


@dataclass(frozen=True)
class RecordedLatencies:
    """Milliseconds of successive updates of one bundle.

    Attributes:
        label: the bundle's name, with its hint where it had one.
        samples: in the order in which they were measured; finite and 0 or more, one at least.
    """

    label: str
    samples: tuple[float, ...]

    def __post_init__(self) -> None:
        values = np.array(self.samples, np.float64)
        if not (values.size and np.isfinite(values).all() and (values >= 0).all()):
            raise UsageError(
                f"the recorded latencies of {self.label} are not {len(self.samples)} finite milliseconds of 0 or more; "
                "record them again with: edgetrack bench BUNDLE -o bench.json"
            )

    @property
    def digest(self) -> str:
        """A hash of the samples."""
        return hashlib.sha256(np.array(self.samples, "<f8").tobytes()).hexdigest()

    def replay(self, seed: str) -> Iterator[float]:
        """The samples in their order, repeated from a place that the seed (a sequence's name) decides.

        Their order is kept because slow updates come in bursts (throttling, another process), and a burst is what
        delays a stream.
        """
        start = int(np.random.default_rng(zlib.crc32(seed.encode())).integers(len(self.samples)))
        return itertools.chain(self.samples[start:], itertools.cycle(self.samples))


@dataclass(frozen=True)
class Streaming:
    """Track as if frames came from a camera; the first comes at time 0 with its true box, and `init` takes its time.

    Attributes:
        fps: frames per second.
        recorded: latencies to replay, one for each update and one for `init` (which no benchmark records: that of an
            update stands for it); None measures them here.
        measured_with: what decides the speed that is measured, so that a run is never taken for that of another
            setting; it changes nothing else.

    Raises:
        UsageError: the rate is not a positive finite number.
    """

    name: ClassVar[str] = "streaming"
    needs_truth: ClassVar[bool] = True
    result: ClassVar[type[StreamingRun]] = StreamingRun
    fps: float
    recorded: RecordedLatencies | None = None
    measured_with: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise UsageError(f"--fps {self.fps}: expected frames per second above 0, such as 30")

    @property
    def key(self) -> tuple[str | float, ...]:
        return "streaming", self.fps, self.measured_with if self.recorded is None else self.recorded.digest

    def run(
        self,
        tracker: TrackerLike,
        clip: Clip,
        limit: int | None = None,
        *,
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> StreamingRun:
        """See `Task.run`; `clock` gives the nanoseconds of `init`."""
        camera = _Camera(self, tracker, clip, frames_to_track(clip, limit) or 0, clock)
        for index, frame in follow(tracker, clip, limit):
            camera.show(index, frame)
        return StreamingRun(size=camera.size, boxes=camera.boxes, source=camera.source, ms=camera.ms)


class _Camera:
    """Shows frames one after another to a tracker that may be busy."""

    def __init__(self, task: Streaming, tracker: TrackerLike, clip: Clip, total: int, clock: Callable[[], int]) -> None:
        self.tracker, self.total, self.clock, self.fps = tracker, total, clock, task.fps
        self.latencies = None if task.recorded is None else task.recorded.replay(clip.name)
        self.size = (0, 0)
        self.boxes: list[Box] = []
        self.source: list[int] = []
        self.ms: list[float] = []
        self.start_box = clip.start
        self.free = 0
        self.known = (0, self.start_box)
        self.finishing: deque[tuple[int, int, Box]] = deque()

    def show(self, index: int, frame: Frame) -> None:
        """Let the tracker take the frame if it is the newest when the tracker is free; note what is known by then."""
        now = self.arrival(index)
        if index == 0:
            self.size = frame_size(frame)
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

    def arrival(self, index: int) -> int:
        """When a frame comes, in nanoseconds."""
        return round(index * 1e9 / self.fps)

    def _takes(self, index: int, now: int) -> bool:
        """Whether the tracker is free before the next frame comes; of the last frame, whether it is free at once."""
        return self.free <= now or (index < self.total - 1 and self.free < self.arrival(index + 1))

    def _spend(self, measured_ms: float, start: int) -> None:
        ms = measured_ms if self.latencies is None else next(self.latencies)
        self.ms.append(ms)
        self.free = start + round(ms * 1e6)


def read_latencies(spec: str, label: str) -> RecordedLatencies:
    """The track latencies of one bundle in a file that `edgetrack bench -o` wrote.

    Args:
        spec: the file, or `FILE:BUNDLE` where it holds others than the one that is evaluated.
        label: the bundle that is evaluated, which is taken where the file has it and nothing else is said; a file with
            one bundle needs no name.

    Raises:
        UsageError: no such file, or no benchmark's.
        UnknownNameError: the file does not hold that bundle.
    """
    path, _, wanted = (spec, "", "") if Path(spec).is_file() or ":" not in spec else spec.rpartition(":")
    results = {result.label: result for result in _read_bench(Path(path)).results}
    if not wanted:
        wanted = next(iter(results)) if len(results) == 1 else label
    if wanted not in results:
        more = f"give one of them as --latencies {path}:NAME"
        raise UnknownNameError.of(f"in {path} the bundle", wanted, results, more)
    return RecordedLatencies(wanted, tuple(ms for round_ms in results[wanted].samples_ms.track for ms in round_ms))


def _read_bench(path: Path) -> BenchRecord:
    try:
        return BenchRecord.from_json(read_bytes(path), source=str(path))
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"latencies {path} cannot be read: {reason}; give FILE or FILE:BUNDLE") from error
    except EdgetrackError as error:
        raise UsageError(f"{error}; record the latencies with `edgetrack bench -o`") from error
