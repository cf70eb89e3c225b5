"""A benchmark's record as a table, and the notes below it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgetrack.benchmark.latency import Latency
from edgetrack.benchmark.record import BenchRecord, BenchResult
from edgetrack.benchmark.scenarios import SCENARIOS
from edgetrack.benchmark.warnings import BenchWarning
from edgetrack.presentation.table import NONE, Column, Table, counted

PERCENTILES = (90, 95, 99)
_SHOWN_PARTS = 5


def bench_table(record: BenchRecord, percentile: int = 99) -> Table:
    """One row a candidate; latencies are medians. The notes are those of `notes`."""

    def at(latency: Latency) -> float | None:
        return {90: latency.p90, 95: latency.p95, 99: latency.p99}[percentile]

    limited = any(one.attainable is not None for one in record.results)
    columns = [
        Column("bundle", align="left"),
        Column("model ms", 2),
        Column("track ms", 2),
        Column(f"track p{percentile}", 2),
        Column("camera ms", 2, drop=3),
        Column("ahead ms", 2, drop=9),
        Column("track fps", 1, drop=4),
        Column("x PyTorch"),
        Column("x paper", 2, drop=8),
        Column("vs roofline", 2, drop=2),
        *([Column("vs attainable", 2, drop=2)] if limited else []),
        Column("peak MiB", 0, drop=5),
        Column("size MiB", 1, drop=6),
        Column("load ms", 0, drop=7),
    ]
    rows = [
        [
            one.label,
            one.latency_ms.model.p50,
            one.latency_ms.track.p50,
            at(one.latency_ms.track),
            one.latency_ms.camera.p50 if one.latency_ms.camera else None,
            one.latency_ms.camera_ahead.p50 if one.latency_ms.camera_ahead else None,
            one.fps.track,
            _versus_pytorch(one),
            one.vs_paper.ratio,
            one.roofline.model,
            *([one.attainable.model if one.attainable else None] if limited else []),
            one.memory_mb.peak_rss,
            one.size_mb,
            one.load_ms,
        ]
        for one in record.results
    ]
    return Table(columns, rows, list(notes(record, percentile)))


def notes(record: BenchRecord, percentile: int = 99) -> Iterator[str]:
    """What goes with the table, one line each: the machine, how it was measured, bounds, warnings and failures."""
    machine, settings, source = record.machine, record.settings, record.source
    width, height = source.size
    profile = f", device profile {settings.profile}" if settings.profile else ""
    yield (
        f"{machine.processor}, {counted(machine.usable_cores, 'usable core')}, "
        f"{'up to ' if settings.auto_threads else ''}{counted(settings.threads, 'thread')}{profile}"
    )
    rounds = SCENARIOS[settings.scenario].round_name if settings.scenario in SCENARIOS else "rounds"
    yield (
        f"{source.spec} ({width}x{height}): model and track on decoded frames, camera {source.camera}; "
        f"{settings.rounds} {rounds}{'' if record.complete else ', NOT COMPLETE'}"
    )
    yield (
        "model = graphs; track = crop + graphs + decode; camera = source to box; ahead = box to box, read and decoded "
        "ahead in a thread; medians. x PyTorch: track, with its 95 % interval. vs roofline: model time over this "
        "machine's measured limit, 1 is perfect"
    )
    papers = dict.fromkeys((r.tracker, r.vs_paper.fps, r.vs_paper.cpu or r.vs_paper.gpu) for r in record.results)
    for name, fps, processor in papers:
        if fps is not None:
            yield f"x paper: {fps:g} fps, the figure from {name}'s paper on {processor or 'an unnamed processor'}"
    for result in record.results:
        if result.vs_paper.memory_gb is not None and result.vs_paper.memory_ratio is not None:
            yield (
                f"{result.label}: peak memory {result.vs_paper.memory_ratio:.2f} x the "
                f"{result.vs_paper.memory_gb:g} GB of {result.tracker}'s paper"
            )
        yield from attainable_notes(result)
        yield from _percentile_note(result, percentile)
        yield from scenario_notes(result)
    yield from telemetry_note(record)
    if record.settings.device != "cpu":
        yield from (
            f"{r.label}: {graph} ran on {place}" for r in record.results for graph, place in r.placement.items()
        )
    yield from (f"{r.label}: {r.thread_race.describe()}" for r in record.results if r.thread_race is not None)
    held = [f"{r.label} {r.memory_mb.gpu:.0f} MiB" for r in record.results if r.memory_mb.gpu is not None]
    if held:
        yield f"GPU memory of each process: {', '.join(held)}"
    yield from _warning_notes(record.results)
    for failure in record.failures:
        yield f"FAILED: {failure.candidate}: {failure.error}: {failure.message}"


def attainable_notes(result: BenchResult) -> Iterator[str]:
    """The attainable limit, where it was asked for: what it is made of, and which instructions ran."""
    limit = result.attainable
    if limit is None:
        return
    if limit.limit_ms is None:
        yield f"{result.label}: no attainable limit: {limit.reason}"
        return
    parts = [f"{one.kind} {one.limit_ms:.2f} of {one.graph_ms:.2f}" for one in limit.parts[:_SHOWN_PARTS]]
    rest = limit.parts[_SHOWN_PARTS:]
    if rest:
        parts.append(f"others {sum(one.limit_ms for one in rest):.2f} of {sum(one.graph_ms for one in rest):.2f}")
    yield (
        f"{result.label}: attainable {limit.limit_ms:.2f} ms, each layer at the rate that its shape reaches alone "
        f"({limit.alone} of {counted(limit.shapes, 'shape')} timed alone); ms of those in the graph: {', '.join(parts)}"
    )
    used = [f"{name} {ms:.2f} ms" for name, ms in list(limit.primitives.items())[:_SHOWN_PARTS]]
    instructions = limit.instructions or "an instruction set that it does not tell"
    yield f"{result.label}: {limit.engine} on {instructions}; {', '.join(used)}"


def scenario_notes(result: BenchResult) -> Iterator[str]:
    """What the scenario found about one candidate, and its energy."""
    for scenario in SCENARIOS.values():
        yield from (f"{result.label}: {line}" for line in scenario.notes(result))
    for kind, energy in result.energy.items():
        yield (
            f"{result.label}: {energy.mj_per_frame:.1f} mJ per frame ({kind}), {energy.mean_w:.2f} W on {energy.rail}, "
            f"{counted(energy.readings, 'reading')}"
        )


def telemetry_note(record: BenchRecord) -> Iterator[str]:
    """What was read beside the latencies."""
    timeline = record.telemetry
    if timeline is None or not timeline.t_s:
        return
    mode = timeline.power_mode
    stated = [f"power mode {mode.name}"] if mode.name else []
    if mode.jetson_clocks is not None:
        stated.append(f"jetson_clocks {'on' if mode.jetson_clocks else 'off'}")
    temperatures = [series for series in timeline.series if series.quantity == "temperature_c"]
    hottest = max((value for series in temperatures for value in series.values if value is not None), default=None)
    if hottest is not None:
        stated.append(f"at most {hottest:.0f} degrees Celsius")
    sources = sorted({series.source for series in timeline.series})
    read = f"{counted(len(timeline.t_s), 'reading')} of {', '.join(sources) or 'nothing'}"
    yield f"telemetry: {'; '.join([read, *stated])}"


def _percentile_note(result: BenchResult, percentile: int) -> Iterator[str]:
    """How far the percentile of the table can be trusted."""
    track = result.latency_ms.track
    bounds = track.bounds.get(f"p{percentile}")
    if bounds is None or bounds.upper is None:
        return
    between = f", between {bounds.low:.2f} and {bounds.high:.2f}" if bounds.low is not None and bounds.high else ""
    size = f"{counted(track.count, 'frame')}, effective sample size {bounds.effective or 0:.0f}"
    if bounds.effective is None:  # a record of a version that took frames for independent
        size = f"exact binomial, {counted(track.count, 'frame')}"
    yield f"{result.label}: track p{percentile} at most {bounds.upper:.2f} ms{between} (each 95 %, {size})"


def _warning_notes(results: Sequence[BenchResult]) -> Iterator[str]:
    """Each warning once, with the candidates that it is about where it is not about all."""
    about: dict[BenchWarning, list[str]] = {}
    for result in results:
        for warning in result.warnings:
            about.setdefault(warning, []).append(result.label)
    for warning, labels in about.items():
        who = "" if len(labels) == len(results) else f"{', '.join(labels)}: "
        yield f"warning ({warning.code}): {who}{warning.detail}; {warning.advice}"


def _versus_pytorch(result: BenchResult) -> str:
    value, interval = result.vs_pytorch.track, result.vs_pytorch_interval.track
    if value is None:
        return NONE
    return f"{value:.2f}" + (f" ({interval[0]:.2f}-{interval[1]:.2f})" if interval else "")
