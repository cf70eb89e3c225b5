"""What goes under the table about percentiles, scenarios and sensors, one line each."""

from __future__ import annotations

from collections.abc import Iterator

from edgetrack.benchmark.outcomes import BurstOutcome, PacedOutcome
from edgetrack.benchmark.record import Record, Result
from edgetrack.benchmark.soaking import SoakOutcome
from edgetrack.stats.trend import Slope
from edgetrack.telemetry.timeline import Timeline


def percentile_note(result: Result, percentile: int) -> Iterator[str]:
    """How far the percentile of the table can be trusted."""
    track = result.latency_ms.track
    bounds = track.bounds.get(f"p{percentile}")
    if bounds is None or bounds.upper is None:
        return
    held = f", between {bounds.low:.2f} and {bounds.high:.2f}" if bounds.low is not None and bounds.high else ""
    yield (
        f"{result.label}: track p{percentile} at most {bounds.upper:.2f} ms{held} "
        f"(each 95 %, {_sample_size(track.count, bounds.effective)})"
    )


def _sample_size(frames: int, effective: float | None) -> str:
    if effective is None:  # a record of a version that took frames for independent
        return f"exact binomial, {frames} frames"
    return f"{frames} frames, effective sample size {effective:.0f}"


def scenario_notes(result: Result) -> Iterator[str]:
    """What the scenario found about one contestant."""
    if result.paced is not None:
        yield f"{result.label}: {_paced(result.paced)}"
    if result.burst is not None:
        yield f"{result.label}: {_burst(result.burst)}"
    if result.soak is not None:
        yield from (f"{result.label}: {line}" for line in _soak(result.soak))
    for kind, energy in result.energy.items():
        yield (
            f"{result.label}: {energy.mj_per_frame:.1f} mJ a frame ({kind}), {energy.mean_w:.2f} W on {energy.rail}, "
            f"{energy.readings} readings"
        )


def telemetry_note(record: Record) -> Iterator[str]:
    """What was read beside the latencies."""
    timeline = record.telemetry
    if timeline is None or not timeline.t_s:
        return
    mode = timeline.power_mode
    stated = [f"power mode {mode.name}"] if mode.name else []
    if mode.jetson_clocks is not None:
        stated.append(f"jetson_clocks {'on' if mode.jetson_clocks else 'off'}")
    sources = sorted({series.source for series in timeline.series})
    hottest = _hottest(timeline)
    if hottest is not None:
        stated.append(f"at most {hottest:.0f} degrees Celsius")
    read = f"{len(timeline.t_s)} readings of {', '.join(sources) or 'nothing'}"
    yield f"telemetry: {'; '.join([read, *stated])}"


def _paced(found: PacedOutcome) -> str:
    p99 = f"{found.response_ms.p99:.2f}" if found.response_ms.p99 is not None else "-"
    return (
        f"at {found.fps:g} fps {found.misses} of {found.frames} deadlines missed (at most {found.miss_rate_upper:.2%} "
        f"with 95 %), up to {found.longest_miss_run} in a row; arrival to box {found.response_ms.p50:.2f} ms, p99 "
        f"{p99}, max {found.response_ms.max:.2f}; queue of {found.deepest_queue} at most"
    )


def _burst(found: BurstOutcome) -> str:
    gain = f", {found.gain:.2f} times one tracker's" if found.gain is not None else ""
    threads = "1 thread" if found.threads_each == 1 else f"{found.threads_each} threads"
    return (
        f"{found.streams} trackers at once ({threads} each): {found.fps:.1f} frames a second in all{gain}; "
        f"{found.latency_ms.p50:.2f} ms a box"
    )


def _soak(found: SoakOutcome) -> Iterator[str]:
    if found.paced is not None:
        yield _paced(found.paced)
    steady = f"{found.steady_over_peak:.3f}" if found.steady_over_peak is not None else "-"
    yield (
        f"{found.duration_s:.0f} s in {len(found.windows)} windows: resident memory "
        f"{_slope(found.rss_mb_per_min, 'MB')}; p99 {_slope(found.p99_ms_per_min, 'ms')}; "
        f"steady speed over peak {steady}"
    )
    if found.throttling_onset_s is not None:
        yield f"throttling or a falling clock from {found.throttling_onset_s:.0f} s on"
    else:
        yield "no throttling seen" if found.throttling_visible else "throttling: no sensor here would tell"


def _slope(slope: Slope | None, unit: str) -> str:
    if slope is None:
        return "not known"
    if slope.low is None or slope.high is None:
        return f"{slope.value:+.3g} {unit} a minute"
    flat = " (not distinguishable from none)" if slope.low <= 0 <= slope.high else ""
    return f"{slope.value:+.3g} {unit} a minute, 95 % {slope.low:+.3g} to {slope.high:+.3g}{flat}"


def _hottest(timeline: Timeline) -> float | None:
    read = [
        value
        for series in timeline.series
        if series.quantity == "temperature_c"
        for value in series.values
        if value is not None
    ]
    return max(read, default=None)
