"""A benchmark's record for people: one table of words, drawn by rich or as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from edgetrack.benchmark.record import Caution, Latency, Record, Result
from edgetrack.benchmark.scenario_notes import percentile_note, scenario_notes, telemetry_note

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
        "x limit",
        "peak MB",
        "size MB",
        "load ms",
    ]


def row(result: Result, percentile: int) -> list[str]:
    """The cells of one contestant; latencies are medians."""
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


def notes(record: Record, percentile: int = 99) -> Iterator[str]:
    """What goes with the table, one line each: the machine, how it was measured, bounds, warnings and failures."""
    machine, settings, source = record.machine, record.settings, record.source
    width, height = source.size
    model = machine.cpu_model or machine.architecture
    profile = f", device profile {settings.profile}" if settings.profile else ""
    yield f"{model}, {machine.usable_cores} usable cores, {settings.threads} threads{profile}"
    turns = "windows" if settings.scenario == "soak" else "interleaved rounds"
    yield (
        f"{source.spec} ({width}x{height}): model and track on decoded frames, camera {source.camera}; "
        f"{settings.rounds} {turns}{'' if record.complete else ', NOT COMPLETE'}"
    )
    yield (
        "model = graphs; track = crop + graphs + decode; camera = source to box; medians. x PyTorch: track, with its "
        "95 % interval. x limit: model over this machine's measured roof, 1 is perfect"
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
    held = [f"{r.label} {r.memory_mb.gpu:.0f} MB" for r in record.results if r.memory_mb.gpu is not None]
    if held:
        yield f"GPU memory of each process: {', '.join(held)}"
    yield from _warnings(record.results)
    for failure in record.failures:
        yield f"FAILED: {failure.contestant}: {failure.error}: {failure.message}"


def markdown(record: Record, percentile: int) -> str:
    """The table and its notes as GitHub's Markdown."""
    titles = headings(percentile)
    lines = [titles, ["---", *("---:" for _ in titles[1:])]]
    lines += [row(result, percentile) for result in record.results]
    table = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([*table, "", *(f"- {note}" for note in notes(record, percentile))])


def table(record: Record, percentile: int) -> Table:
    """The table for a terminal."""
    from rich.table import Table

    drawn = Table(box=None, pad_edge=False)
    for index, title in enumerate(headings(percentile)):
        drawn.add_column(title, justify="right" if index else "left", no_wrap=True)
    for result in record.results:
        drawn.add_row(*row(result, percentile))
    return drawn


def _warnings(results: Sequence[Result]) -> Iterator[str]:
    """Each warning once, with the contestants that it is about where it is not about all."""
    about: dict[Caution, list[str]] = {}
    for result in results:
        for caution in result.warnings:
            about.setdefault(caution, []).append(result.label)
    for caution, labels in about.items():
        who = "" if len(labels) == len(results) else f"{', '.join(labels)}: "
        yield f"warning ({caution.code}): {who}{caution.detail}; {caution.advice}"


def _versus_pytorch(result: Result) -> str:
    value, interval = result.vs_pytorch.track, result.vs_pytorch_interval.track
    if value is None:
        return _NONE
    return f"{value:.2f}" + (f" ({interval[0]:.2f}-{interval[1]:.2f})" if interval else "")


def _percentile(latency: Latency, percentile: int) -> float | None:
    return {90: latency.p90, 95: latency.p95, 99: latency.p99}[percentile]


def _number(value: float | None, digits: int) -> str:
    return _NONE if value is None else f"{value:.{digits}f}"
