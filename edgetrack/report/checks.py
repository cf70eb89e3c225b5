"""What a record must hold to be drawn, beyond its types: ranges, counts, rounds that fit each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import msgspec

from edgetrack.benchmark.record import BenchRecord as Benchmark
from edgetrack.benchmark.record import BenchResult as Speed
from edgetrack.errors import EdgetrackError
from edgetrack.evaluation.comparison_record import Comparison
from edgetrack.evaluation.difference import Difference
from edgetrack.evaluation.record import Record as Evaluation
from edgetrack.evaluation.sensitivity import Sensitivity
from edgetrack.telemetry.timeline import Timeline

MOST_RESULTS = 200
MOST_SEQUENCES = 5000
MOST_SAMPLES = 2_000_000
MOST_WINDOWS = 5000
_NEVER_NEGATIVE = ("size_mb", "load_ms", "first_ms", "cores_busy", "threads")


def check_benchmark(record: Benchmark, source: str) -> None:
    """Check what speeds are drawn from.

    Raises:
        EdgetrackError: too many contestants or samples, none of one, or a negative time or size.
    """
    _few(record.results, MOST_RESULTS, "results", source)
    _few(record.failures, MOST_RESULTS, "failures", source)
    if record.telemetry is not None:
        _check_timeline(record.telemetry, source)
    for result in record.results:
        _check_speed(result, f"{source}: {result.label}")
        _check_scenario(result, f"{source}: {result.label}")


def check_evaluation(record: Evaluation, source: str) -> None:
    """Check figures and counts.

    Raises:
        EdgetrackError: too many results or sequences, or an AO outside 0..1.
    """
    _few(record.results, MOST_RESULTS, "results", source)
    for result in record.results:
        _few(result.sequences, MOST_SEQUENCES, "sequences", source)
        _few(result.failures, MOST_SEQUENCES, "failures", source)
        interval = result.interval.get("ao") or ()
        streaming = () if result.streaming is None else (result.streaming.ao,)
        _within((result.ao, *interval, *streaming), 0, 1, "an AO", source)


def check_comparison(record: Comparison, source: str) -> None:
    """Check overlaps and counts.

    Raises:
        EdgetrackError: too many sequences or frames, an overlap outside 0..1, or a frame number that is none of them.
    """
    _few(record.sequences, MOST_SEQUENCES, "sequences", source)
    _few(record.failures, MOST_SEQUENCES, "failures", source)
    if sum(len(one.iou) for one in record.sequences) > MOST_SAMPLES:
        raise EdgetrackError(f"{source} holds more than {MOST_SAMPLES} frames; that is more than a page can show")
    _within((record.a.ao, record.b.ao), 0, 1, "an AO", source)
    _difference(record.delta_ao, source)
    for one in record.sequences:
        where = f"{source}: sequence {one.name}"
        _within((*one.iou, one.mean_iou, one.ao_a, one.ao_b), 0, 1, "an overlap", where)
        _within((one.first_divergence, one.recovery), 0, max(0, len(one.iou) - 1), "a frame number", where)


def check_sensitivity(record: Sensitivity, source: str) -> None:
    """Check differences and times.

    Raises:
        EdgetrackError: too many stages, a difference outside -1..1, or a negative time.
    """
    _few(record.stages, MOST_RESULTS, "stages", source)
    for difference in (record.first, record.last, *(stage.gained for stage in record.stages)):
        _difference(difference, source)
    _within((record.fp32_ms, record.first_ms, record.last_ms, *record.hints_ms.values()), 0, None, "a time", source)


def _check_speed(result: Speed, where: str) -> None:
    samples: dict[str, list[list[float]]] = msgspec.structs.asdict(result.samples_ms)
    if sum(len(each) for rounds in samples.values() for each in rounds) > MOST_SAMPLES:
        raise EdgetrackError(f"{where} has more than {MOST_SAMPLES} samples; that is more than a page can show")
    for name, rounds in samples.items():
        for each in rounds:
            _within(each, 0, None, f"a sample of {name}", where)
    if not any(samples["track"]) or not all(samples["track"]):
        raise EdgetrackError(f"{where} has no samples of track in some round; measure it again with `edgetrack bench`")
    latency = result.latency_ms
    for speed in (latency.model, latency.track, latency.camera):
        if speed is not None:
            figures = (speed.p50, speed.p90, speed.p95, speed.p99, speed.min, speed.max, *(speed.interval or ()))
            _within(figures, 0, None, "a latency", where)
    _within(msgspec.structs.astuple(result.fps), 0, None, "a frame rate", where)
    _within(msgspec.structs.astuple(result.waterfall_ms), 0, None, "a stage's time", where)
    _within((getattr(result, name) for name in _NEVER_NEGATIVE), 0, None, "a size or time", where)
    _within((result.memory_mb.peak_rss,), 0, None, "a size", where)
    if latency.track.p50 <= 0:
        raise EdgetrackError(f"{where} has a median track latency of 0 ms; expected more: measure it again")


def _check_timeline(found: Timeline, source: str) -> None:
    _few(found.series, MOST_RESULTS, "sensors", source)
    _few(found.windows, MOST_WINDOWS, "windows", source)
    if len(found.t_s) * max(1, len(found.series)) > MOST_SAMPLES:
        raise EdgetrackError(f"{source} holds more than {MOST_SAMPLES} readings; that is more than a page can show")
    if any(len(series.values) != len(found.t_s) for series in found.series):
        raise EdgetrackError(f"{source}: a sensor has not as many readings as there are instants; it was damaged")
    if any(after < before for before, after in pairwise(found.t_s)):
        raise EdgetrackError(f"{source}: the instants of its readings are not in order; it was damaged")
    _within((*found.t_s[:1], found.interval_s), 0, None, "an instant", source)
    for window in found.windows:
        _within((window.start_s, window.busy_s), 0, window.end_s, "the part of a window", source)


def _check_scenario(result: Speed, where: str) -> None:
    for energy in result.energy.values():
        _within((energy.mj_per_frame, energy.mean_w), 0, None, "an energy", where)
    if result.arrived is not None:
        _within((result.arrived.miss_rate, result.arrived.miss_rate_upper), 0, 1, "a share of late frames", where)
        _within((result.arrived.fps,), 0, None, "a frame rate", where)
    if result.burst is not None:
        _within((result.burst.fps, result.burst.gain), 0, None, "a throughput", where)
    if result.soak is not None:
        _few(result.soak.windows, MOST_WINDOWS, "windows", where)
        for one in result.soak.windows:
            _within((one.p50, one.p99, one.rss_mb, one.start_s), 0, None, "a window's figure", where)


def _difference(found: Difference | None, source: str) -> None:
    if found is not None:
        _within((found.value, found.low, found.high), -1, 1, "a difference of AO", source)
        _within((found.margin,), 0, 1, "a margin", source)


def _few(items: Sequence[object], most: int, what: str, source: str) -> None:
    if len(items) > most:
        raise EdgetrackError(f"{source} holds {len(items)} {what}; a page shows up to {most}")


def _within(values: Iterable[float | None], low: float, high: float | None, what: str, where: str) -> None:
    for value in values:
        if value is not None and (value < low or (high is not None and value > high)):
            span = f"at least {low:g}" if high is None else f"{low:g} to {high:g}"
            raise EdgetrackError(f"{where}: {what} is {value:g}; expected {span}")
