"""Frames at a constant rate, whether the tracker is ready or not: those that wait queue up; none is dropped."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, ClassVar

import msgspec

from edgetrack.benchmark.latency import Latency, Rounds, latency_of
from edgetrack.benchmark.protocol import Measure, RoundSamples
from edgetrack.benchmark.scenarios.base import Rig
from edgetrack.benchmark.scenarios.stream import Stream
from edgetrack.benchmark.warnings import BenchWarning, WarningCode
from edgetrack.stats.quantile import clopper_pearson_upper
from edgetrack.system.timeline import Timeline

if TYPE_CHECKING:
    from edgetrack.benchmark.record import BenchResult
    from edgetrack.media.frames import Frame

CAMERA_FPS = 30.0


class PacedOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """Frames at a constant rate; a deadline is missed where a frame's box is later than the next frame's arrival.

    `misses` counts frames that were `waiting` at the end too; `miss_rate_upper` is the exact 95 % bound on the true
    share. `longest_miss_run` counts frames in a row. `response_ms` runs from arrival to box, `queued_ms` from arrival
    to the start of the work; `deepest_queue` is the most frames that waited at once.
    """

    fps: float
    period_ms: float
    frames: int
    misses: int
    miss_rate: float
    miss_rate_upper: float
    longest_miss_run: int
    waiting: int
    deepest_queue: int
    response_ms: Latency
    queued_ms: Latency
    response_samples_ms: Rounds
    queued_samples_ms: Rounds


class Paced(Stream):
    """`stream`, and then frames at the config's rate."""

    name = "paced"
    kinds: ClassVar[tuple[str, ...]] = (*Stream.kinds, "paced")
    default_fps = CAMERA_FPS
    takes_fps = True

    def extra_wait_s(self, kind: str) -> float:
        """The last frame has to arrive."""
        return self.config.round_frames / (self.config.fps or math.inf) if kind == self.name else 0.0

    def measure(self, request: Measure, rig: Rig) -> RoundSamples:
        """Start the tracker again and let the frames arrive, or do what `stream` does."""
        if request.kind != self.name:
            return super().measure(request, rig)
        return follow_arrivals(request, rig, start_arrivals(request, rig), self.config.fps)

    def summarize(
        self, result: BenchResult, rounds: Mapping[str, Sequence[RoundSamples]], timeline: Timeline
    ) -> dict[str, object]:
        """`paced`, once it was measured."""
        found = rounds.get(self.name, ())
        return {"paced": paced_outcome(found, self.config.fps, unbroken=False)} if found and self.config.fps else {}

    @classmethod
    def warnings(cls, result: BenchResult) -> Iterator[BenchWarning]:
        """Deadlines that were missed."""
        yield from deadline_warnings(result.paced)

    @classmethod
    def notes(cls, result: BenchResult) -> Iterator[str]:
        """Deadlines and the queue."""
        if result.paced is not None:
            yield deadline_note(result.paced)


def start_arrivals(request: Measure, rig: Rig) -> Iterator[Frame]:
    """Start the tracker again and run the warm-up frames; the frames that follow, without end."""
    frames = rig.feed.endless()
    rig.tracker.init(next(frames), rig.box)
    for _ in range(request.discarded):
        rig.tracker.update(next(frames))
    return frames


def follow_arrivals(request: Measure, rig: Rig, frames: Iterator[Frame], fps: float | None) -> RoundSamples:
    """Frame k arrives k / fps after the start; the one after the last would end the round, whatever waits then.

    Without a rate each frame arrives when the one before it is done.
    """
    now, timings = rig.clock.now_ns, []
    queued: list[float] = []
    response: list[float] = []
    cpu, start = rig.cpu_seconds(), now()
    for arrival in _arrivals(request, rig, start, fps):
        begun = now()
        timings.append(rig.tracker.update(next(frames)).timing)
        queued.append((begun - arrival) / 1e6)
        response.append((now() - arrival) / 1e6)
    return RoundSamples(
        kind=request.kind,
        crop=[timing.crop for timing in timings],
        graphs=[timing.graphs for timing in timings],
        decode=[timing.decode for timing in timings],
        whole=response,
        queued=queued,
        waiting=max(0, _count(request, fps) - len(response)) if fps else 0,
        cpu_s=rig.cpu_seconds() - cpu,
        wall_s=(now() - start) / 1e9,
    )


def _arrivals(request: Measure, rig: Rig, start: int, fps: float | None) -> Iterator[int]:
    """When each frame arrived, given out once it has; in nanoseconds of the clock."""
    now = rig.clock.now_ns
    if fps is None:
        done = 0
        while done < request.frames or now() - start < 1e9 * request.seconds:
            yield now()
            done += 1
        return
    count, period = _count(request, fps), 1e9 / fps
    for index in range(count):
        arrival = start + round(index * period)
        while (early := arrival - now()) > 0:
            rig.sleep(early / 1e9)
        if early <= (index - count) * period:
            return
        yield arrival


def _count(request: Measure, fps: float) -> int:
    """Frames that arrive."""
    return max(request.frames, 1, math.ceil(request.seconds * fps))


def paced_outcome(rounds: Sequence[RoundSamples], fps: float, *, unbroken: bool) -> PacedOutcome:
    """Deadlines and queueing of all rounds.

    Args:
        rounds: at least one.
        fps: at which the frames arrived.
        unbroken: whether the rounds follow each other, so that a run of misses may go from one to the next.
    """
    period = 1000 / fps
    missed = [[value > period for value in one.whole] + [True] * one.waiting for one in rounds]
    rows = [[late for row in missed for late in row]] if unbroken else missed
    frames, misses = sum(map(len, missed)), sum(map(sum, missed))
    depths = [math.floor(value / period) for one in rounds for value in one.queued]
    response, queued = [one.whole for one in rounds], [one.queued for one in rounds]
    return PacedOutcome(
        fps=fps,
        period_ms=period,
        frames=frames,
        misses=misses,
        miss_rate=misses / frames,
        miss_rate_upper=clopper_pearson_upper(misses, frames),
        longest_miss_run=max(_longest_run(row) for row in rows),
        waiting=sum(one.waiting for one in rounds),
        deepest_queue=max([*depths, *(one.waiting for one in rounds)]),
        response_ms=latency_of(response),
        queued_ms=latency_of(queued),
        response_samples_ms=response,
        queued_samples_ms=queued,
    )


def _longest_run(row: Sequence[bool]) -> int:
    return max((sum(1 for _ in run) for late, run in groupby(row) if late), default=0)


def deadline_warnings(paced: PacedOutcome | None) -> Iterator[BenchWarning]:
    """Frames that came too late."""
    if paced is not None and paced.misses:
        yield WarningCode.DEADLINES_MISSED.warning(
            f"{paced.misses} of {paced.frames} frames at {paced.fps:g} fps were late, "
            f"up to {paced.longest_miss_run} in a row"
        )


def deadline_note(found: PacedOutcome) -> str:
    """Deadlines and the queue, in one line."""
    p99 = f"{found.response_ms.p99:.2f}" if found.response_ms.p99 is not None else "-"
    return (
        f"at {found.fps:g} fps {found.misses} of {found.frames} deadlines missed (at most {found.miss_rate_upper:.2%} "
        f"with 95 %), up to {found.longest_miss_run} in a row; arrival to box {found.response_ms.p50:.2f} ms, p99 "
        f"{p99}, max {found.response_ms.max:.2f}; queue of {found.deepest_queue} at most"
    )
