"""A benchmark's record as a table, drawn by rich or as Markdown, and the notes under it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from edgetrack.benchmark.latency import Latency
from edgetrack.benchmark.record import BenchRecord, BenchResult
from edgetrack.benchmark.scenarios import SCENARIOS
from edgetrack.benchmark.warnings import BenchWarning

if TYPE_CHECKING:
    from rich.table import Table

PERCENTILES = (90, 95, 99)
_NONE = "-"


def headings(percentile: int) -> list[str]:
    """The columns; the first is text, the others are numbers."""
    return [
        "bundle",
        "model ms",
        "track ms",
        f"track p{percentile}",
        "camera ms",
        "track fps",
        "x PyTorch",
        "x paper",
        "vs roofline",
        "peak MiB",
        "size MiB",
        "load ms",
    ]


def row(result: BenchResult, percentile: int) -> list[str]:
    """The cells of one candidate; latencies are medians."""
    latency = result.latency_ms
    return [
        result.label,
        _number(latency.model.p50, 2),
        _number(latency.track.p50, 2),
        _number(_percentile(latency.track, percentile), 2),
        _number(latency.camera.p50 if latency.camera else None, 2),
        _number(result.fps.track, 1),
        _versus_pytorch(result),
        _number(result.vs_paper.ratio, 2),
        _number(result.roofline.model, 2),
        _number(result.memory_mb.peak_rss, 0),
        _number(result.size_mb, 1),
        _number(result.load_ms, 0),
    ]


def notes(record: BenchRecord, percentile: int = 99) -> Iterator[str]:
    """What goes with the table, one line each: the machine, how it was measured, bounds, warnings and failures."""
    machine, settings, source = record.machine, record.settings, record.source
    width, height = source.size
    model = machine.cpu_model or machine.architecture
    profile = f", device profile {settings.profile}" if settings.profile else ""
    yield f"{model}, {machine.usable_cores} usable cores, {settings.threads} threads{profile}"
    scenario = SCENARIOS.get(settings.scenario)
    turns = scenario.round_name if scenario else "rounds"
    yield (
        f"{source.spec} ({width}x{height}): model and track on decoded frames, camera {source.camera}; "
        f"{settings.rounds} {turns}{'' if record.complete else ', NOT COMPLETE'}"
    )
    yield (
        "model = graphs; track = crop + graphs + decode; camera = source to box; medians. x PyTorch: track, with its "
        "95 % interval. vs roofline: model time over this machine's measured limit, 1 is perfect"
    )
    for name, fps, cpu in dict.fromkeys(
        (r.tracker, r.vs_paper.fps, r.vs_paper.cpu or r.vs_paper.gpu) for r in record.results
    ):
        if fps is not None:
            yield f"x paper: against {fps:g} fps, the figure from {name}'s paper on {cpu or 'an unnamed processor'}"
    for result in record.results:
        yield from percentile_note(result, percentile)
        yield from scenario_notes(result)
    yield from telemetry_note(record)
    held = [f"{r.label} {r.memory_mb.gpu:.0f} MiB" for r in record.results if r.memory_mb.gpu is not None]
    if held:
        yield f"GPU memory of each process: {', '.join(held)}"
    yield from _warnings(record.results)
    for failure in record.failures:
        yield f"FAILED: {failure.candidate}: {failure.error}: {failure.message}"


def markdown(record: BenchRecord, percentile: int) -> str:
    """The table and its notes as GitHub's Markdown."""
    titles = headings(percentile)
    lines = [titles, ["---", *("---:" for _ in titles[1:])]]
    lines += [row(result, percentile) for result in record.results]
    table = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([*table, "", *(f"- {note}" for note in notes(record, percentile))])


def table(record: BenchRecord, percentile: int) -> Table:
    """The table for a terminal."""
    from rich.table import Table

    drawn = Table(box=None, pad_edge=False)
    for index, title in enumerate(headings(percentile)):
        drawn.add_column(title, justify="right" if index else "left", no_wrap=True)
    for result in record.results:
        drawn.add_row(*row(result, percentile))
    return drawn


def _warnings(results: Sequence[BenchResult]) -> Iterator[str]:
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
        return _NONE
    return f"{value:.2f}" + (f" ({interval[0]:.2f}-{interval[1]:.2f})" if interval else "")


def _percentile(latency: Latency, percentile: int) -> float | None:
    return {90: latency.p90, 95: latency.p95, 99: latency.p99}[percentile]


def _number(value: float | None, digits: int) -> str:
    return _NONE if value is None else f"{value:.{digits}f}"


def percentile_note(result: BenchResult, percentile: int) -> Iterator[str]:
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


def scenario_notes(result: BenchResult) -> Iterator[str]:
    """What the scenario found about one candidate, and its energy."""
    for scenario in SCENARIOS.values():
        yield from (f"{result.label}: {line}" for line in scenario.notes(result))
    for kind, energy in result.energy.items():
        yield (
            f"{result.label}: {energy.mj_per_frame:.1f} mJ per frame ({kind}), {energy.mean_w:.2f} W on {energy.rail}, "
            f"{energy.readings} readings"
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
    read = f"{len(timeline.t_s)} readings of {', '.join(sources) or 'nothing'}"
    yield f"telemetry: {'; '.join([read, *stated])}"
