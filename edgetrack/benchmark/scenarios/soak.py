"""A long run of one bundle: does memory grow, do frames get slower, does the device throttle?

Windows of the run are compared, not single frames.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, ClassVar

import msgspec

from edgetrack.benchmark.config import BenchConfig
from edgetrack.benchmark.protocol import Measure, RoundSamples
from edgetrack.benchmark.scenarios.base import Rig
from edgetrack.benchmark.scenarios.paced import (
    PacedOutcome,
    deadline_note,
    deadline_warnings,
    follow_arrivals,
    paced_outcome,
    start_arrivals,
)
from edgetrack.benchmark.scenarios.stream import Stream
from edgetrack.benchmark.warnings import BenchWarning, WarningCode
from edgetrack.stats.quantile import percentile
from edgetrack.stats.trend import Slope, theil_sen
from edgetrack.system.timeline import Timeline, Window, find_throttling, inside, values_of, visible

if TYPE_CHECKING:
    from edgetrack.benchmark.record import BenchResult
    from edgetrack.media.frames import Frame

SETTLING = 0.2
"""Share of the run that is left out of the trends: caches and pools fill in it, and the device warms up."""
RSS_ERROR_MB = 0.25
"""How far a reading of resident memory may be off: Linux counts pages per thread or per processor, and adds up 64 of
them, 4 KiB each, at a time (proc_pid_statm(5) calls it inaccurate for that)."""
_WINDOWS = 20
_LONGEST_WINDOW_S = 60.0


class SoakWindow(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the run: seconds from its beginning, track latencies in ms, the median of resident memory in MiB."""

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


class Soak(Stream):
    """One bundle through windows of at most a minute, at the config's rate or back to back, never started again."""

    name = "soak"
    kinds: ClassVar[tuple[str, ...]] = ("soak",)
    track_kind = "soak"
    compares = False
    default_duration_s = 600.0
    takes_fps = True
    round_name = "windows"

    def __init__(self, config: BenchConfig) -> None:
        super().__init__(config)
        self._arriving: Iterator[Frame] | None = None

    @classmethod
    def default_rounds(cls, duration_s: float) -> int:
        """Windows of at most a minute, at least 20."""
        return max(_WINDOWS, math.ceil(duration_s / _LONGEST_WINDOW_S))

    def extra_wait_s(self, kind: str) -> float:
        """The last frame has to arrive."""
        return self.config.round_frames / (self.config.fps or math.inf)

    def measure(self, request: Measure, rig: Rig) -> RoundSamples:
        """The next window; the tracker goes on where the one before ended. The warm-up does what `stream` does."""
        if request.kind != self.name:
            return super().measure(request, rig)
        if self._arriving is None:
            self._arriving = start_arrivals(request, rig)
        return follow_arrivals(request, rig, self._arriving, self.config.fps)

    def summarize(
        self, result: BenchResult, rounds: Mapping[str, Sequence[RoundSamples]], timeline: Timeline
    ) -> dict[str, object]:
        """`soak`."""
        return {"soak": soak_outcome(rounds[self.name], self.config.fps, timeline, result.label)}

    @classmethod
    def warnings(cls, result: BenchResult) -> Iterator[BenchWarning]:
        """Deadlines that were missed, and memory that grows."""
        if result.soak is None:
            return
        yield from deadline_warnings(result.soak.paced)
        slope = result.soak.rss_mb_per_min
        if slope is not None and slope.grows:
            yield WarningCode.MEMORY_GROWS.warning(f"resident memory grows by {slope.value:.3g} MiB per minute")

    @classmethod
    def notes(cls, result: BenchResult) -> Iterator[str]:
        """Deadlines, trends and throttling."""
        found = result.soak
        if found is None:
            return
        if found.paced is not None:
            yield deadline_note(found.paced)
        steady = f"{found.steady_over_peak:.3f}" if found.steady_over_peak is not None else "-"
        yield (
            f"{found.duration_s:.0f} s in {len(found.windows)} windows: resident memory "
            f"{_slope(found.rss_mb_per_min, 'MiB')}; p99 {_slope(found.p99_ms_per_min, 'ms')}; "
            f"steady speed over peak {steady}"
        )
        if found.throttling_onset_s is not None:
            yield f"throttling or a falling clock from {found.throttling_onset_s:.0f} s on"
        else:
            yield "no throttling seen" if found.throttling_visible else "throttling: no sensor here would tell"


def soak_outcome(rounds: Sequence[RoundSamples], fps: float | None, timeline: Timeline, candidate: str) -> SoakOutcome:
    """Summarize a soak.

    Args:
        rounds: the windows' samples, in order, at least one.
        fps: at which frames arrived; None: back to back.
        timeline: the readings; its windows of kind `soak` are those of the rounds.
        candidate: the label under which they are there.
    """
    spans = [window for window in timeline.windows if (window.candidate, window.kind) == (candidate, "soak")]
    start = spans[0].start_s if spans else 0.0
    windows = [_window(one, span, start, timeline, candidate) for one, span in zip(rounds, spans, strict=False)]
    kept = windows[int(SETTLING * len(windows)) :]
    third = max(1, len(windows) // 3)
    onsets = [found.onset_s - start for found in find_throttling(timeline, candidate, ("soak",))]
    return SoakOutcome(
        duration_s=windows[-1].end_s if windows else 0.0,
        windows=windows,
        rss_mb_per_min=_trend(kept, [window.rss_mb for window in kept], RSS_ERROR_MB),
        p99_ms_per_min=_trend(kept, [window.p99 for window in kept]),
        p99_first_ms=percentile(_track(rounds[:third]), 0.99),
        p99_last_ms=percentile(_track(rounds[-third:]), 0.99),
        steady_over_peak=_steady(windows, third),
        throttling_visible=visible(timeline),
        throttling_onset_s=min(onsets, default=None),
        paced=paced_outcome(rounds, fps, unbroken=True) if fps else None,
    )


def _window(one: RoundSamples, span: Window, start: float, timeline: Timeline, candidate: str) -> SoakWindow:
    track = _track([one])
    rss = values_of(timeline, "rss_mb", candidate) or []
    read = [value for index in inside(timeline, span) if index < len(rss) and (value := rss[index]) is not None]
    return SoakWindow(
        start_s=span.start_s - start,
        end_s=span.end_s - start,
        frames=len(track),
        p50=median(track),
        p99=percentile(track, 0.99),
        rss_mb=median(read) if read else None,
    )


def _track(rounds: Sequence[RoundSamples]) -> list[float]:
    """The work on each frame, without the waiting."""
    return [value for one in rounds for value in one.track]


def _trend(windows: Sequence[SoakWindow], values: Sequence[float | None], error: float = 0.0) -> Slope | None:
    """The slope; readings that may be off by `error` can imitate one of that much over the whole time."""
    known = [
        ((window.start_s + window.end_s) / 120, value)
        for window, value in zip(windows, values, strict=True)
        if value is not None
    ]
    found = theil_sen([minute for minute, _ in known], [value for _, value in known])
    if found is None or found.low is None or found.high is None:
        return found
    imitated = error / (known[-1][0] - known[0][0])
    return Slope(found.value, found.low - imitated, found.high + imitated)


def _steady(windows: Sequence[SoakWindow], third: int) -> float | None:
    if len(windows) < 2:
        return None
    return min(window.p50 for window in windows) / median(window.p50 for window in windows[-third:])


def _slope(slope: Slope | None, unit: str) -> str:
    if slope is None:
        return "not known"
    if slope.low is None or slope.high is None:
        return f"{slope.value:+.3g} {unit} per minute"
    flat = " (not distinguishable from none)" if slope.low <= 0 <= slope.high else ""
    return f"{slope.value:+.3g} {unit} per minute, 95 % {slope.low:+.3g} to {slope.high:+.3g}{flat}"
