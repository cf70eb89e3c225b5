"""What a worker process measures: a tracker on its frames, or the machine's roof."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cached_property
from typing import Any, NamedTuple

from edgetrack.benchmark.bursts import BurstRun
from edgetrack.benchmark.clock import Clock, MonotonicClock
from edgetrack.benchmark.footage import Shots, back_and_forth, decoded, streamed
from edgetrack.benchmark.gpu_watch import ProcessMemory
from edgetrack.benchmark.memory import peak_rss_mb
from edgetrack.benchmark.messages import (
    Burst,
    Bursted,
    Load,
    Loaded,
    LoadRoofline,
    Pace,
    Paced,
    Peak,
    Rate,
    Run,
    Slice,
)
from edgetrack.benchmark.pacing import Pacer
from edgetrack.benchmark.roofline import RooflineContestant
from edgetrack.capabilities import find_target
from edgetrack.media import Frame
from edgetrack.runtime.frames import with_stand_in
from edgetrack.runtime.session import Timing, Tracker, load
from edgetrack.runtime.text import stand_in_text


class Step(NamedTuple):
    """One frame: `read` and `whole` in milliseconds as in `Slice`, and the update's own timing."""

    read: float
    whole: float
    timing: Timing


class TrackerRun:
    """A bundle, opened and timed.

    Args:
        request: which bundle, on which frames.
        clock: times everything but the waterfall, which is the tracker's own.
        cpu_seconds: what this process has computed so far.
        open_bundle: `edgetrack.load`, or something like it.
        sleep: waits about that many seconds, between frames that arrive at a rate.
    """

    def __init__(
        self,
        request: Load,
        *,
        clock: Clock | None = None,
        cpu_seconds: Callable[[], float] = time.process_time,
        open_bundle: Callable[..., Tracker] = load,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._request = request
        self._open_bundle = open_bundle
        self._sleep = sleep
        self._arriving: Iterator[Frame] | None = None
        self._burst: BurstRun | None = None
        self._clock = clock or MonotonicClock()
        self._cpu_seconds = cpu_seconds
        self._gpu_memory = ProcessMemory(request.device)
        start = self._clock.now_ns()
        self._tracker = self._described(
            request.bundle, device=request.device, threads=request.threads, precision_hint=request.hint
        )
        self._load_ms = self._since(start)
        self._modalities = self._tracker.modalities

    def first(self) -> Loaded:
        """How long loading took, and the time of `init` and the first `update`."""
        with closing(streamed(self._request.source)) as shots:
            head, following = (with_stand_in(next(shots)[0], self._modalities) for _ in range(2))
        start = self._clock.now_ns()
        self._tracker.init(head, self._request.box)
        self._tracker.update(following)
        return Loaded(self._load_ms, self._since(start), self._tracker.options.threads, self._versions())

    def memory(self, frames: int) -> Peak:
        """Track `frames` frames straight from the source, and tell the most memory that this process ever held.

        Only before the first slice: that one keeps decoded frames, which are the benchmark's and not the tracker's.
        """
        with closing(streamed(self._request.source)) as shots:
            for _ in range(frames):
                self._step(shots)
        return Peak(peak_rss_mb(), self._gpu_memory.mb())

    def run(self, request: Run) -> Slice:
        """One slice, from the first frame on."""
        with closing(self._shots(request)) as shots:
            for _ in range(request.unrecorded):
                self._step(shots)
            steps: list[Step] = []
            cpu, start = self._cpu_seconds(), self._clock.now_ns()
            while len(steps) < request.frames or self._since(start) < 1000 * request.seconds:
                steps.append(self._step(shots))
            wall_s, cpu_s = self._since(start) / 1000, self._cpu_seconds() - cpu
        return Slice(
            kind=request.kind,
            crop=[step.timing.crop for step in steps],
            graphs=[step.timing.graphs for step in steps],
            decode=[step.timing.decode for step in steps],
            read=[step.read for step in steps],
            whole=[step.whole for step in steps],
            cpu_s=cpu_s,
            wall_s=wall_s,
        )

    def pace(self, request: Pace) -> Paced:
        """One slice of frames that arrive at a rate; the tracker is started anew only where that is asked for."""
        frames = self._arriving
        if frames is None or request.fresh:
            self._arriving = frames = self._unbroken()
            self._tracker.init(next(frames), self._request.box)
            for _ in range(request.unrecorded):
                self._tracker.update(next(frames))
        return Pacer(self._tracker, self._clock, self._cpu_seconds, self._sleep).run(request, frames)

    def burst(self, request: Burst) -> Bursted:
        """One slice of several trackers at once; they are loaded the first time and kept."""
        if self._burst is None or self._burst.streams != request.streams:
            if self._burst is not None:
                self._burst.close()
            self._burst = BurstRun(self._request, request.streams, self._described, self._clock)
        return self._burst.run(request, self._request.box, self._unbroken)

    def close(self) -> None:
        """Release the tracker, and those of a burst."""
        if self._burst is not None:
            self._burst.close()
        self._tracker.close()

    def _described(self, bundle: str, **options: Any) -> Tracker:
        """A tracker of the bundle, told about its target where it wants to be."""
        tracker = self._open_bundle(bundle, **options)
        if tracker.attributes:
            tracker.describe(stand_in_text(tracker.attributes))
        return tracker

    def _unbroken(self) -> Iterator[Frame]:
        """Frames in memory, without end: neighbours in time are neighbours in the scene, nothing starts anew."""
        return (frame for frame, _ in back_and_forth(self._kept))

    def _shots(self, request: Run) -> Shots:
        return back_and_forth(self._kept) if request.kind == "track" else streamed(self._request.source)

    @cached_property
    def _kept(self) -> list[Frame]:
        given = self._request
        frames = decoded(given.source, most_frames=given.keep_frames, most_mb=given.keep_mb / self._modalities)
        return [with_stand_in(frame, self._modalities) for frame in frames]

    def _step(self, shots: Shots) -> Step:
        """The next frame on which nothing is started anew; starting anew is not timed."""
        while True:
            start = self._clock.now_ns()
            shot, anew = next(shots)
            frame = with_stand_in(shot, self._modalities)
            read = self._since(start)
            if not anew:
                result = self._tracker.update(frame)
                return Step(read, self._since(start), result.timing)
            self._tracker.init(frame, self._request.box)

    def _since(self, start: int) -> float:
        return (self._clock.now_ns() - start) / 1e6

    def _versions(self) -> dict[str, str]:
        return find_target(self._tracker.manifest.target).versions()


class RooflineRun:
    """The machine's roof at one precision and number of threads."""

    def __init__(self, request: LoadRoofline) -> None:
        self._search = RooflineContestant(request.precision, request.threads)
        self._search.prepare()

    def run(self, seconds: float) -> Rate:
        """Search on for about `seconds`."""
        self._search.slice(seconds)
        return Rate(self._search.result())
