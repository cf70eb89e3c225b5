"""What the scenarios found beside latencies: deadlines, throughput, what changes over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

import msgspec

from edgetrack.benchmark.latency import Latency, Rounds, latency_of
from edgetrack.benchmark.messages import Bursted, Paced
from edgetrack.benchmark.scenario import Scenario
from edgetrack.stats.quantile import clopper_pearson_upper


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


class BurstOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """`streams` trackers at once: `fps` of all together, `gain` over the track fps of one with all threads."""

    streams: int
    threads_each: int
    fps: float
    gain: float | None
    latency_ms: Latency
    samples_ms: list[Rounds]


def paced_outcome(slices: Sequence[Paced], fps: float, *, unbroken: bool) -> PacedOutcome:
    """Deadlines and queueing of all slices.

    Args:
        slices: at least one.
        fps: at which the frames arrived.
        unbroken: whether the slices follow each other, so that a run of misses may go from one to the next.
    """
    period = 1000 / fps
    missed = [[value > period for value in one.response] + [True] * one.waiting for one in slices]
    rows = [[late for row in missed for late in row]] if unbroken else missed
    frames, misses = sum(map(len, missed)), sum(map(sum, missed))
    depths = [math.floor(value / period) for one in slices for value in one.queued]
    response, queued = [one.response for one in slices], [one.queued for one in slices]
    return PacedOutcome(
        fps=fps,
        period_ms=period,
        frames=frames,
        misses=misses,
        miss_rate=misses / frames,
        miss_rate_upper=clopper_pearson_upper(misses, frames),
        longest_miss_run=max(_longest_run(row) for row in rows),
        waiting=sum(one.waiting for one in slices),
        deepest_queue=max([*depths, *(one.waiting for one in slices)]),
        response_ms=latency_of(response),
        queued_ms=latency_of(queued),
        response_samples_ms=response,
        queued_samples_ms=queued,
    )


def burst_outcome(slices: Sequence[Bursted], scenario: Scenario, single_fps: float | None) -> BurstOutcome:
    """Throughput of all slices, over that of one tracker with the same threads."""
    frames = sum(len(stream) for one in slices for stream in one.whole)
    fps = frames / sum(one.wall_s for one in slices)
    return BurstOutcome(
        streams=scenario.streams,
        threads_each=slices[0].threads_each,
        fps=fps,
        gain=fps / single_fps if single_fps else None,
        latency_ms=latency_of([stream for one in slices for stream in one.whole]),
        samples_ms=[one.whole for one in slices],
    )


def _longest_run(row: Sequence[bool]) -> int:
    return max((sum(1 for _ in run) for late, run in groupby(row) if late), default=0)
