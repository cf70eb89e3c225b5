"""What a long run changes: memory, slow frames, clocks. Windows of the run are compared, not single frames."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import msgspec

from edgetrack.benchmark.messages import Paced
from edgetrack.benchmark.outcomes import PacedOutcome, paced_outcome
from edgetrack.benchmark.scenario import Scenario
from edgetrack.stats.quantile import percentile
from edgetrack.stats.trend import Slope, theil_sen
from edgetrack.telemetry.throttling import find_throttling, visible
from edgetrack.telemetry.timeline import Timeline, Window, inside, values_of

SETTLING = 0.2
"""Share of the run that is left out of the trends: caches and pools fill in it, and the device warms up."""


RSS_ERROR_MB = 0.25
"""How far a reading of resident memory may be off: Linux counts pages per thread or per processor, and adds up 64 of
them, 4 KiB each, at a time (proc_pid_statm(5) calls it inaccurate for that)."""


class SoakWindow(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the run: seconds from its beginning, track latencies in ms, the median of resident memory in MB."""

    start_s: float
    end_s: float
    frames: int
    p50: float
    p99: float | None
    rss_mb: float | None


class SoakOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """A long run. Slopes are per minute, without the first fifth, with 95 % intervals, from the windows.

    The interval of the memory's slope is wider by what the kernel's own count of it may be off over that time.
    `steady_over_peak` is the speed (1 / median) of the last third of the windows over that of the fastest window: 1 is
    a device that does not slow down. `throttling_onset_s` counts from the run's beginning; null with
    `throttling_visible` true means that there was none, with false that nothing here would tell.
    """

    duration_s: float
    windows: list[SoakWindow]
    rss_mb_per_min: Slope | None
    p99_ms_per_min: Slope | None
    p99_first_ms: float | None
    p99_last_ms: float | None
    steady_over_peak: float | None
    throttling_visible: bool
    throttling_onset_s: float | None
    paced: PacedOutcome | None


def soak_outcome(slices: Sequence[Paced], scenario: Scenario, timeline: Timeline, contestant: str) -> SoakOutcome:
    """Summarize a soak.

    Args:
        slices: the windows' answers, in order, at least one.
        scenario: at which rate frames came.
        timeline: what was read meanwhile; its windows of kind `soak` are those of the slices.
        contestant: the label under which they are there.
    """
    spans = [window for window in timeline.windows if (window.contestant, window.kind) == (contestant, "soak")]
    start = spans[0].start_s if spans else 0.0
    windows = [_window(one, span, start, timeline, contestant) for one, span in zip(slices, spans, strict=False)]
    kept = windows[int(SETTLING * len(windows)) :]
    third = max(1, len(windows) // 3)
    onsets = [found.onset_s - start for found in find_throttling(timeline, contestant, ("soak",))]
    return SoakOutcome(
        duration_s=windows[-1].end_s if windows else 0.0,
        windows=windows,
        rss_mb_per_min=_trend(kept, [window.rss_mb for window in kept], RSS_ERROR_MB),
        p99_ms_per_min=_trend(kept, [window.p99 for window in kept]),
        p99_first_ms=percentile(_track(slices[:third]), 0.99),
        p99_last_ms=percentile(_track(slices[-third:]), 0.99),
        steady_over_peak=_steady(windows, third),
        throttling_visible=visible(timeline),
        throttling_onset_s=min(onsets, default=None),
        paced=paced_outcome(slices, scenario.fps, unbroken=True) if scenario.fps else None,
    )


def _window(one: Paced, span: Window, start: float, timeline: Timeline, contestant: str) -> SoakWindow:
    track = _track([one])
    rss = values_of(timeline, "rss_mb", contestant) or []
    read = [value for index in inside(timeline, span) if index < len(rss) and (value := rss[index]) is not None]
    return SoakWindow(
        start_s=span.start_s - start,
        end_s=span.end_s - start,
        frames=len(track),
        p50=median(track),
        p99=percentile(track, 0.99),
        rss_mb=median(read) if read else None,
    )


def _track(slices: Sequence[Paced]) -> list[float]:
    """Crop, graphs and decode of each frame: the work, without the waiting."""
    return [sum(parts) for one in slices for parts in zip(one.crop, one.graphs, one.decode, strict=True)]


def _trend(windows: Sequence[SoakWindow], values: Sequence[float | None], error: float = 0.0) -> Slope | None:
    """The slope; readings that may be off by `error` can feign one of that much over the whole time."""
    known = [
        ((window.start_s + window.end_s) / 120, value)
        for window, value in zip(windows, values, strict=True)
        if value is not None
    ]
    found = theil_sen([minute for minute, _ in known], [value for _, value in known])
    if found is None or found.low is None or found.high is None:
        return found
    feigned = error / (known[-1][0] - known[0][0])
    return Slope(found.value, found.low - feigned, found.high + feigned)


def _steady(windows: Sequence[SoakWindow], third: int) -> float | None:
    if len(windows) < 2:
        return None
    return min(window.p50 for window in windows) / median(window.p50 for window in windows[-third:])
