"""Benchmarks of several machines side by side, by tracker: each figure as it was measured, none over another's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING

from markupsafe import Markup

from edgetrack.benchmark.record import BenchRecord, BenchResult
from edgetrack.bundle.manifest import settings_of
from edgetrack.errors import UsageError
from edgetrack.presentation.table import counted
from edgetrack.report.model import Results, Skipped, Sourced, is_reference
from edgetrack.report.page import machine_facts, measured, notices
from edgetrack.report.plots import BAR, LETTER, row_axis, row_texts
from edgetrack.report.svg import INK, Marks, annotate, both
from edgetrack.report.table import PageCell, PageColumn, PageTable, energy_cell, number
from edgetrack.report.template import render

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEWEST_ROUNDS = 3
FEWEST_FRAMES = 100
"""Of a candidate, over all rounds of track."""


@dataclass(frozen=True)
class Entry:
    """One candidate of one benchmark, and the machine's name."""

    machine: str
    bench: Sourced[BenchRecord]
    result: BenchResult


def unfit(record: BenchRecord) -> str | None:
    """Why a benchmark cannot stand beside those of others; None where it can.

    It is complete and dated, names its processor or device, tracked a built-in scene, which others have too, and has at
    least 3 rounds, and 100 frames of each candidate.
    """
    machine, source, rounds = record.machine, record.source.spec, record.settings.rounds
    few = [one.label for one in record.results if one.latency_ms.track.count < FEWEST_FRAMES]
    faults = (
        (not record.complete, "it is not complete: rounds are missing"),
        (record.date is None, "it says no date: measure again with this version"),
        (not record.results, "it holds no result"),
        (not (machine.cpu_model or machine.device_model), "it names neither processor nor device"),
        (
            not source.startswith("synthetic:"),
            f"it tracked {source}, which others do not have: leave --source out, for a built-in scene",
        ),
        (rounds < FEWEST_ROUNDS, f"it has {counted(rounds, 'round')}; at least {FEWEST_ROUNDS} are wanted"),
        (bool(few), f"{', '.join(few)}: fewer than {FEWEST_FRAMES} frames; give --iterations {FEWEST_FRAMES} or more"),
    )
    return next((words for wrong, words in faults if wrong), None)


def admitted(results: Results) -> Results:
    """The results with those benchmarks alone that may stand beside others; the rest is `skipped`, with the reason.

    Raises:
        UsageError: none is left.
    """
    reasons = [(bench, unfit(bench.value)) for bench in results.benchmarks]
    kept = tuple(bench for bench, reason in reasons if reason is None)
    skipped = (*results.skipped, *(Skipped(bench.source, reason) for bench, reason in reasons if reason is not None))
    if not kept:
        told = "".join(f"\n  left out: {one.source}: {one.reason}" for one in skipped)
        raise UsageError(f"no benchmark for a leaderboard; docs/results.md says what is wanted{told}")
    return Results(benchmarks=kept, skipped=skipped)


def by_tracker(results: Results) -> dict[str, list[Entry]]:
    """Entries by tracker and its settings, in the order of names; machines by their fastest, then fastest first."""
    found: dict[str, list[Entry]] = {}
    for bench in results.benchmarks:
        for result in bench.value.results:
            system = " ".join([result.tracker, *settings_of(result.overrides)])
            found.setdefault(system, []).append(Entry(bench.value.machine.kind, bench, result))
    return {system: _ordered(entries) for system, entries in sorted(found.items())}


def _ordered(entries: Sequence[Entry]) -> list[Entry]:
    best: dict[str, float] = {}
    for entry in entries:
        best[entry.machine] = min(best.get(entry.machine, float("inf")), _median(entry))
    return sorted(entries, key=lambda one: (best[one.machine], one.machine, _median(one), one.result.label))


def _median(entry: Entry) -> float:
    return entry.result.latency_ms.track.p50


def page(results: Results, title: str, made: datetime | None = None) -> str:
    """The page, from `admitted` results; as `edgetrack.report.page.html` makes one."""
    systems = by_tracker(results)
    return render(
        "leaderboard.html.j2",
        title,
        made,
        systems=[
            {"name": name, "plot": _plot(f"machines-{index}", name, entries), "table": leaderboard_table(entries)}
            for index, (name, entries) in enumerate(systems.items())
        ],
        contents=contents(results),
        benchmarks=results.benchmarks,
        machine_facts=machine_facts,
        measured=measured,
        notices=list(notices(results)),
    )


def contents(results: Results) -> str:
    """What the page is made from, such as `3 benchmarks of 2 machines`."""
    machines = {bench.value.machine.kind for bench in results.benchmarks}
    return f"{counted(len(results.benchmarks), 'benchmark')} of {counted(len(machines), 'machine')}"


def lines(results: Results) -> Iterator[str]:
    """The fastest of each tracker on each machine."""
    for name, entries in by_tracker(results).items():
        first: dict[str, Entry] = {}
        for entry in entries:
            first.setdefault(entry.machine, entry)
        for machine, entry in first.items():
            yield f"{name} on {machine}: {entry.result.label}, {entry.result.fps.track or 0.0:.1f} fps"


def leaderboard_table(entries: Sequence[Entry]) -> PageTable:
    """A row for each entry; no column sets one machine against another."""
    told = any(energy_cell(one.result).value is not None for one in entries)
    columns = (
        PageColumn("bundle", False, "as it was exported"),
        PageColumn("machine", False, "device or processor, cores that may be used, GPUs", identity=True),
        PageColumn("ran on", False, "where it ran, and its threads", identity=True),
        PageColumn("weights", False, "where they come from; untrained ones tell speed alone", identity=True),
        PageColumn("measured", False, "day, in UTC, and version of edgetrack", identity=True),
        PageColumn("warnings", False, "of the benchmark, see below", identity=True),
        PageColumn("fps", True, "1000 over the median of track: crop, graphs, decode"),
        PageColumn("track ms", True, "median"),
        PageColumn("p99 ms", True, "99th percentile of track"),
        PageColumn("x PyTorch", True, "times as fast as PyTorch in the same run on the same machine"),
        PageColumn("peak MiB", True, "resident memory of the process that tracks"),
        *([PageColumn("mJ per frame", True, "energy of a frame, from the device's own sensors")] if told else []),
    )
    rows = tuple(_row(one, energy=told) for one in entries)
    return PageTable(columns, rows, tuple(is_reference(one.result) for one in entries))


def _row(entry: Entry, *, energy: bool) -> tuple[PageCell, ...]:
    one, record = entry.result, entry.bench.value
    warned = ", ".join(dict.fromkeys(warning.code for warning in one.warnings))
    day, threads = (record.date or "")[:10], counted(one.threads, "thread")
    about = (entry.machine, f"{one.device}, {threads}", f"{one.weights} weights", day, warned)
    return (
        PageCell(one.label, detail="; ".join(filter(None, about))),
        PageCell(entry.machine),
        PageCell(one.device, detail=threads),
        PageCell(one.weights),
        PageCell(day, detail=record.machine.packages.get("edgetrack", "")),
        PageCell(warned or "none"),
        number(one.fps.track, 1),
        number(one.latency_ms.track.p50, 2),
        number(one.latency_ms.track.p99, 2),
        number(one.vs_pytorch.track, 2),
        number(one.memory_mb.peak_rss, 0),
        *([energy_cell(one)] if energy else []),
    )


def _plot(name: str, system: str, entries: Sequence[Entry]) -> Markup:
    """Bars of track fps below the name of each machine, on one axis."""
    rows: list[Entry | str] = []
    for machine, group in groupby(entries, key=lambda one: one.machine):
        rows += [machine, *group]

    def draw(width: float, marks: Marks) -> Figure:
        figure, axis = row_axis(width, len(rows), 40)
        axis.set_xlim(0, 1.04 * max(one.result.fps.track or 0.0 for one in entries) or 1.0)
        for row, one in enumerate(rows):
            if isinstance(one, str):
                most = int(width / LETTER)
                text = one if len(one) <= most else one[: most - 1] + "…"
                at = ("axes fraction", "data")
                annotate(
                    axis, text, (0.0, row + 0.2), at, ha="left", fontsize=12.5, color=INK["muted"], in_layout=False
                )
                continue
            rate = one.result.fps.track or 0.0
            ink = INK["muted" if is_reference(one.result) else "accent"]
            (bar,) = axis.barh([row], [rate], height=BAR, color=ink)
            bar.set_gid(marks.add(f"{one.result.label} on {one.machine}: {rate:.1f} fps, median {_median(one):.2f} ms"))
            row_texts(axis, row, one.result.label, f"{rate:.1f}")
        axis.set_xlabel("frames per second: crop + graphs + decode")
        return figure

    return both(name, f"Frames per second of {system} by machine", draw)
