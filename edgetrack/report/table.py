"""The tables that a page sorts: target, precision and device against speed, the paper, the roofline and accuracy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgetrack.benchmark.record import BenchRecord, BenchResult
from edgetrack.presentation.table import NONE, Column, Table
from edgetrack.report.model import (
    Accuracy,
    Identity,
    Results,
    Sourced,
    by_speed,
    is_reference,
    meaningful,
    speed_identity,
)
from edgetrack.report.plots import FPS, Across, Point


@dataclass(frozen=True)
class PageCell:
    """Text as it is shown, and the number that it is sorted by; None sorts last, and text by itself.

    `detail` stands smaller behind the text.
    """

    text: str
    value: float | None = None
    detail: str = ""


@dataclass(frozen=True)
class PageColumn:
    """A heading, whether its cells are numbers, and what it means.

    An `identity` column is left out on a phone, where what it says stands as detail of the first.
    """

    title: str
    numeric: bool
    about: str
    identity: bool = False


_BUNDLE = PageColumn("bundle", False, "as it was exported")


@dataclass(frozen=True)
class PageTable:
    """Columns and rows, as many cells in each as there are columns; `muted`: rows of the reference."""

    columns: tuple[PageColumn, ...]
    rows: tuple[tuple[PageCell, ...], ...]
    muted: tuple[bool, ...] = ()

    def text(self) -> Table:
        """The same without what only a page has."""
        columns = [Column(one.title, align="right" if index else "left") for index, one in enumerate(self.columns)]
        rows = [
            [f"{cell.text} ({cell.detail})" if cell.detail and index else cell.text for index, cell in enumerate(row)]
            for row in self.rows
        ]
        return Table(columns, rows)


_Cells = Callable[[Sourced[BenchRecord], BenchResult], PageCell]
_SPEED: tuple[tuple[PageColumn, _Cells], ...] = (
    (PageColumn("target", False, "what runs the graphs", identity=True), lambda bench, r: PageCell(r.target)),
    (
        PageColumn("precision", False, "of the files, and the hint that they are loaded with", identity=True),
        lambda bench, r: PageCell(r.precision if r.hint is None else f"{r.precision}, {r.hint} hint"),
    ),
    (
        PageColumn("device", False, "and its threads", identity=True),
        lambda bench, r: PageCell(r.device, detail=f"{r.threads} thread{'' if r.threads == 1 else 's'}"),
    ),
    (
        PageColumn("fps", True, "1000 over the median of track: crop, graphs, decode"),
        lambda bench, r: number(r.fps.track, 1),
    ),
    (PageColumn("track ms", True, "median"), lambda bench, r: number(r.latency_ms.track.p50, 2)),
    (PageColumn("p99 ms", True, "99th percentile of track"), lambda bench, r: number(r.latency_ms.track.p99, 2)),
    (
        PageColumn("x PyTorch", True, "times as fast as PyTorch in the same run, with the 95 % interval"),
        lambda bench, r: number(r.vs_pytorch.track, 2, _span(r.vs_pytorch_interval.track)),
    ),
    (
        PageColumn("x paper", True, "fps over the figure that the paper states for its own machine"),
        lambda bench, r: number(r.vs_paper.ratio, 2, "" if r.vs_paper.fps is None else f"of {r.vs_paper.fps:g}"),
    ),
    (
        PageColumn("vs roofline", True, "graphs' median over this machine's measured limit; 1 is perfect"),
        lambda bench, r: number(r.roofline.model, 2),
    ),
    (
        PageColumn("peak MiB", True, "resident memory of the process that tracks"),
        lambda bench, r: number(r.memory_mb.peak_rss, 0),
    ),
    (PageColumn("size MiB", True, "of the bundle's files"), lambda bench, r: number(r.size_mb, 1)),
)
_SOMETIMES: tuple[tuple[PageColumn, _Cells, Callable[[BenchResult], bool]], ...] = (
    (
        PageColumn("vs attainable", True, "graphs' median over the sum of their layers' times alone; 1 is perfect"),
        lambda bench, r: (
            PageCell(NONE)
            if (limit := r.attainable) is None or limit.limit_ms is None
            else number(limit.model, 2, f"of {limit.limit_ms:.2f} ms")
        ),
        lambda r: r.attainable is not None and r.attainable.limit_ms is not None,
    ),
    (
        PageColumn("mJ per frame", True, "energy of a frame of track, or of a soak, from the device's own sensors"),
        lambda bench, r: energy_cell(r),
        lambda r: _energy(r) is not None,
    ),
    (
        PageColumn("late frames", True, "share of frames whose box came after the next frame, at the rate shown"),
        lambda bench, r: (
            PageCell(NONE)
            if (late := r.arrived) is None
            else PageCell(f"{late.miss_rate:.1%}", late.miss_rate, f"at {late.fps:g} fps")
        ),
        lambda r: r.arrived is not None,
    ),
)


def speed_table(results: Results) -> PageTable:
    """A row for each candidate of each benchmark, fastest first, with AO where it was evaluated."""
    many = len(results.benchmarks) > 1
    scored = meaningful(results)
    rows = [(bench, result) for bench in results.benchmarks for result in by_speed(bench.value.results)]
    speeds = [*_SPEED, *((column, cell) for column, cell, there in _SOMETIMES if any(there(r) for _, r in rows))]
    trials = [t for t in scored if any(speed_identity(result) in scored[t] for _, result in rows)]
    return PageTable(
        columns=(
            _BUNDLE,
            *([PageColumn("benchmark", False, "the file that it is in")] if many else []),
            *(column for column, _ in speeds),
            *(PageColumn(f"AO on {trial.label}", True, "mean IoU of one pass, 0 to 1") for trial in trials),
        ),
        rows=tuple(
            (
                PageCell(result.label, detail=_identity(result)),
                *([PageCell(bench.source)] if many else []),
                *(cell(bench, result) for _, cell in speeds),
                *(_accuracy(scored[trial], speed_identity(result)) for trial in trials),
            )
            for bench, result in rows
        ),
        muted=tuple(is_reference(result) for _, result in rows),
    )


_OWN = {
    "MPR": "maximum precision rate: by the nearer of both modalities' boxes",
    "MSR": "maximum success rate: by the larger overlap with both modalities' boxes",
    "F-score": "VOT long-term: of precision and recall, where it is largest",
    "precision": "VOT long-term: mean overlap of the frames in which the tracker is confident",
    "recall": "VOT long-term: the same overlaps over all frames with the target",
}


def accuracy_table(known: Mapping[Identity, Accuracy]) -> PageTable:
    """What was found of each bundle in one trial, most accurate first."""
    rates = sorted({rate for one in known.values() for rate, _ in one.streaming})
    own = list(dict.fromkeys(name for one in known.values() for name, _ in one.own))
    return PageTable(
        columns=(
            _BUNDLE,
            PageColumn("weights", False, "where they come from"),
            PageColumn("AO", True, "mean IoU of one pass, 0 to 1, with its 95 % interval over sequences"),
            *(PageColumn(name, True, _OWN[name]) for name in own),
            *(PageColumn(f"AO at {rate:g} fps", True, "under a camera's clock") for rate in rates),
        ),
        rows=tuple(
            (
                PageCell(one.who.label),
                PageCell(one.who.weights),
                number(one.ao, 3, _span(one.interval)),
                *(number(dict(one.own).get(name), 3) for name in own),
                *(number(dict(one.streaming).get(rate), 3) for rate in rates),
            )
            for one in sorted(known.values(), key=lambda one: (-one.ao, one.who.label))
        ),
    )


def point_table(points: Sequence[Point], figure: str, across: Across = FPS) -> PageTable:
    """What a plot of accuracy against speed or size shows, most accurate first."""
    about = {"AUC": "area under the success curve, 0 to 1"}.get(figure, "mean IoU of one pass, 0 to 1")
    sized = any(point.size_mb is not None for point in points)
    cost = "of the network, as published" if across.fewer else "1000 over the median of track"
    return PageTable(
        columns=(
            _BUNDLE,
            PageColumn(figure, True, about),
            PageColumn(across.column, True, cost),
            *([PageColumn("size MiB", True, "of the bundle's files")] if sized else []),
        ),
        rows=tuple(
            (
                PageCell(p.label),
                number(p.y, 3, _span(p.interval)),
                number(p.x, across.digits),
                *([number(p.size_mb, 1)] if sized else []),
            )
            for p in sorted(points, key=lambda point: (-point.y, point.label))
        ),
    )


def number(value: float | None, digits: int, detail: str = "") -> PageCell:
    """A cell of a number; a dash where there is none."""
    return PageCell(NONE) if value is None else PageCell(f"{value:.{digits}f}", value, detail)


def energy_cell(result: BenchResult) -> PageCell:
    """Millijoules per frame, where the device told them."""
    return number(_energy(result), 0)


def _identity(result: BenchResult) -> str:
    hint = "" if result.hint is None else f", {result.hint} hint"
    return f"{result.target}, {result.precision}{hint}, {result.device}"


def _accuracy(known: Mapping[Identity, Accuracy], who: Identity) -> PageCell:
    found = known.get(who)
    return PageCell(NONE) if found is None else number(found.ao, 3, _span(found.interval))


def _energy(result: BenchResult) -> float | None:
    found = result.energy.get("track") or result.energy.get("soak")
    return None if found is None else found.mj_per_frame


def _span(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.2f}-{interval[1]:.2f}"
