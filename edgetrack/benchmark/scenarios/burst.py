"""Several targets at once: trackers of one bundle on threads of their own, as several cameras have, or one tracker."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

import msgspec

from edgetrack.benchmark.config import BenchConfig
from edgetrack.benchmark.latency import Latency, Rounds, latency_of
from edgetrack.benchmark.protocol import Measure, RoundSamples
from edgetrack.benchmark.scenarios.base import Rig
from edgetrack.benchmark.scenarios.stream import Stream
from edgetrack.box import Box
from edgetrack.presentation.table import counted
from edgetrack.runtime.prompt import stand_in_text
from edgetrack.system.timeline import Timeline

if TYPE_CHECKING:
    from edgetrack.benchmark.record import BenchResult
    from edgetrack.runtime.multi import MultiTracker
    from edgetrack.runtime.session import Tracker

_START_S = 120.0
"""Longest wait for all trackers to be ready."""


class BurstOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """`streams` trackers at once: `fps` of all together, `gain` over the track fps of one with all threads."""

    streams: int
    threads_each: int
    fps: float
    gain: float | None
    latency_ms: Latency
    samples_ms: list[Rounds]


class TogetherOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """One tracker with 1, 2 ... targets in a frame, in this order: its updates of all of them.

    `further`: what each target but the first costs, over the first: (p50 of all - p50 of one) / (targets - 1) / p50 of
    one; null where there is one. `batch` is what the bundle's graph for several takes, 1 where it has none.
    """

    batch: int
    further: float | None
    latency_ms: list[Latency]
    samples_ms: list[Rounds]


class Burst(Stream):
    """`stream`, and then several trackers at once, which share the threads, at least one each.

    With `batched` it is one tracker, on all threads, that follows several targets.
    """

    name = "burst"
    kinds: ClassVar[tuple[str, ...]] = (*Stream.kinds, "burst")
    default_streams = 2
    takes_streams = True

    def __init__(self, config: BenchConfig) -> None:
        super().__init__(config)
        self.threads_each = max(1, config.threads // (config.streams or self.default_streams))
        self._trackers: list[Tracker] = []
        self._many: MultiTracker | None = None
        self._opened = ExitStack()

    def measure(self, request: Measure, rig: Rig) -> RoundSamples:
        """Start all at once; each goes on until the time is over and it has had its frames.

        The trackers are loaded the first time and kept.
        """
        if request.kind != self.name:
            return super().measure(request, rig)
        if self.config.batched:
            return self._measure_together(request, rig)
        while len(self._trackers) < self.config.streams:
            tracker = rig.open_tracker(self.threads_each)
            self._opened.callback(tracker.close)
            self._trackers.append(tracker)
        barrier, cpu = threading.Barrier(len(self._trackers)), rig.cpu_seconds()
        with ThreadPoolExecutor(len(self._trackers)) as pool:
            futures = [pool.submit(_run_one, tracker, request, rig, barrier) for tracker in self._trackers]
            errors = [error for error in (future.exception() for future in futures) if error is not None]
        if errors:
            # Those that waited for the one that failed only say that they waited in vain.
            raise next((one for one in errors if not isinstance(one, threading.BrokenBarrierError)), errors[0])
        spans = [future.result() for future in futures]
        start, end = min(marks[0] for marks in spans), max(marks[-1] for marks in spans)
        return RoundSamples(
            kind=request.kind,
            streams=[[(after - before) / 1e6 for before, after in pairwise(marks)] for marks in spans],
            threads_each=self.threads_each,
            cpu_s=rig.cpu_seconds() - cpu,
            wall_s=(end - start) / 1e9,
        )

    def _measure_together(self, request: Measure, rig: Rig) -> RoundSamples:
        """Updates with one target, with two, and so on."""
        if self._many is None:
            self._many = rig.open_many(self.config.streams)
            self._opened.callback(self._many.close)
        parts = self.config.streams
        part = Measure(request.kind, request.seconds / parts, -(-request.frames // parts), request.discarded)
        cpu, start = rig.cpu_seconds(), rig.clock.now_ns()
        streams = [_run_together(self._many, count, part, rig) for count in range(1, parts + 1)]
        return RoundSamples(
            kind=request.kind,
            streams=streams,
            threads_each=self.config.threads,
            cpu_s=rig.cpu_seconds() - cpu,
            wall_s=rig.since(start) / 1000,
            batch=self._many.batch,
        )

    def close(self) -> None:
        """Release the trackers."""
        self._opened.close()

    def summarize(
        self, result: BenchResult, rounds: Mapping[str, Sequence[RoundSamples]], timeline: Timeline
    ) -> dict[str, object]:
        """`burst`: throughput of all rounds, over that of one tracker with the same threads."""
        found = rounds.get(self.name, ())
        if not found:
            return {}
        if self.config.batched:
            return {"together": _together(found)}
        fps = sum(one.frames for one in found) / sum(one.wall_s for one in found)
        outcome = BurstOutcome(
            streams=self.config.streams,
            threads_each=found[0].threads_each,
            fps=fps,
            gain=fps / result.fps.track if result.fps.track else None,
            latency_ms=latency_of([stream for one in found for stream in one.streams]),
            samples_ms=[one.streams for one in found],
        )
        return {"burst": outcome}

    @classmethod
    def notes(cls, result: BenchResult) -> Iterator[str]:
        """Throughput, or what further targets cost."""
        if result.together is not None:
            yield _cost(result.together)
        found = result.burst
        if found is None:
            return
        gain = f", {found.gain:.2f} times one tracker's" if found.gain is not None else ""
        threads = counted(found.threads_each, "thread")
        yield (
            f"{found.streams} trackers at once ({threads} each): {found.fps:.1f} frames/s in all{gain}; "
            f"{found.latency_ms.p50:.2f} ms per box"
        )


def _together(rounds: Sequence[RoundSamples]) -> TogetherOutcome:
    samples = [[one.streams[place] for one in rounds] for place in range(len(rounds[0].streams))]
    latency = [latency_of(of_count) for of_count in samples]
    first, last, more = latency[0].p50, latency[-1].p50, len(latency) - 1
    further = (last - first) / more / first if more and first else None
    return TogetherOutcome(batch=rounds[0].batch, further=further, latency_ms=latency, samples_ms=samples)


def _cost(found: TogetherOutcome) -> str:
    first, *others = found.latency_ms
    steps = ", ".join(f"{number}: {latency.p50:.2f} ms" for number, latency in enumerate(others, 2))
    how = f"a graph for {found.batch}" if found.batch > 1 else "one after the other"
    cost = "" if found.further is None else f"; each further target costs {found.further:.2f} of the first"
    return f"one tracker ({how}) with 1 target: {first.p50:.2f} ms" + (f", with {steps}" if steps else "") + cost


def _run_together(many: MultiTracker, count: int, request: Measure, rig: Rig) -> list[float]:
    """Milliseconds of each update of `count` targets, which start side by side."""
    frames = rig.feed.endless()
    first = next(frames)
    attributes = rig.tracker.attributes
    text = stand_in_text(attributes) if attributes else None
    width, height = first.shape[1], first.shape[0]
    for place in range(count):
        # Boxes further right, each half its width from the last, as far as the frame goes.
        x = (rig.box.x + place * rig.box.w / 2) % max(1.0, width - rig.box.w)
        many.start(first, Box(x, min(rig.box.y, height - 1.0), rig.box.w, rig.box.h), text=text)
    try:
        for _ in range(request.discarded):
            many.update(next(frames))
        spent: list[float] = []
        start = rig.clock.now_ns()
        while len(spent) < request.frames or rig.since(start) < 1000 * request.seconds:
            frame = next(frames)
            before = rig.clock.now_ns()
            many.update(frame)
            spent.append(rig.since(before))
        return spent
    finally:
        for number in many.targets:
            many.stop(number)


def _run_one(tracker: Tracker, request: Measure, rig: Rig, barrier: threading.Barrier) -> list[int]:
    """The clock at the start and after each frame."""
    frames = rig.feed.endless()
    try:
        tracker.init(next(frames), rig.box)
        for _ in range(request.discarded):
            tracker.update(next(frames))
        barrier.wait(_START_S)
    except BaseException:
        barrier.abort()
        raise
    marks = [rig.clock.now_ns()]
    while len(marks) <= request.frames or marks[-1] - marks[0] < 1e9 * request.seconds:
        tracker.update(next(frames))
        marks.append(rig.clock.now_ns())
    return marks
