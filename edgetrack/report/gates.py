"""The figure of a tracker's gates over the frames of one sequence, with what the data set says of these frames."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import cycle, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from edgetrack.arrays import Floats
from edgetrack.evaluation.annotations import FIGURES
from edgetrack.evaluation.results import SequenceResult
from edgetrack.presentation.table import Column, Table, counted
from edgetrack.report.svg import INK, Marks, annotate, both, panels
from edgetrack.runtime.diagnostics import MOST_SENTENCES, DiagnosticSummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINES: tuple[tuple[str, Any], ...] = (
    ("accent", "-"),
    ("ink", "-"),
    ("accent", (0, (2, 2))),
    ("muted", (0, (4, 3))),
    ("shade", "-"),
)
_BARS: tuple[tuple[str, Any], ...] = (("accent", "-"), ("ink", "-"), ("soft", "-"), ("muted", "-"), ("shade", "-"))
"""Colour and line of a gate's parts, in their order."""
_THIN = 9
"""Height in pixels of a gate among many."""
_FIGURE, _FLAG = 44, 16
"""Of an annotated amount, and of what holds in some frames."""
_SWATCH = 28
"""Width of a line in the legend."""
_FIGURE_STYLE: tuple[str, Any] = ("muted", "-")
_Course = Mapping[str, Sequence[float | None]]


def gates_plot(name: str, found: SequenceResult) -> Markup:
    """How a tracker's gates weigh their parts over the frames of one sequence; empty where no course was kept.

    Up to six gates have a row each with a line for each part. More are thin bars, grouped by the first words of their
    names: a bar is a stretch of frames, its colour the part of the largest weight; the thinner, the nearer that weight
    is to an even one. Below is what is annotated: amounts as lines, what holds in some frames as bars, whose height is
    the share of a stretch; where the target is hidden the gates' rows are shaded.
    """
    kept = {gate: summary for gate, summary in (found.diagnostics or {}).items() if summary.course}
    if not kept:
        return Markup()
    annotated = found.annotations or {}
    # A figure of one part is no gate: its row's name says what it is.
    parts = list(dict.fromkeys(part for one in kept.values() if len(one.mean) > 1 for part in one.mean))
    few = len(kept) <= MOST_SENTENCES
    styles = dict(zip(parts, cycle(_LINES if few else _BARS), strict=False))
    groups = list(dict.fromkeys(_group(gate) for gate in kept))
    # One that is nowhere above zero, or nowhere known, has no scale.
    amounts = [what for what in annotated if what in FIGURES and any(annotated[what])]
    flags = [what for what in annotated if what not in FIGURES]
    heights = [110.0] * len(kept) if few else [20.0 + _THIN * (len(kept) + len(groups))]
    heights += [_FIGURE] * len(amounts) + [8.0 + _FLAG * len(flags)] * bool(flags)

    def draw(width: float, marks: Marks) -> Figure:
        figure, axes = panels(width, 40 + sum(heights), 0, len(heights), sharex="all", height_ratios=heights)
        if few:
            for axis, (gate, summary) in zip(axes, kept.items(), strict=False):
                _gate_lines(axis, gate, summary, styles, marks)
        else:
            _gate_bars(axes[0], [(gate, groups.index(_group(gate))) for gate in kept], kept, styles, marks)
        below = axes[len(kept) if few else 1 :]
        for axis, what in zip(below, amounts, strict=False):
            _amount(axis, what, annotated[what], found.frames - 1, marks)
        if flags:
            _flags(axes[-1], {what: annotated[what] for what in flags}, found.frames - 1, marks)
        for axis in axes[: len(axes) - len(below)]:
            for first, last, _ in _held(annotated.get("hidden", ()), found.frames - 1):
                axis.axvspan(first, last, color=INK["line"], linewidth=0, zorder=-1)
        axes[-1].set_xlabel("frames")
        top = axes[next((row for row, one in enumerate(kept.values()) if len(one.mean) > 1), 0) if few else 0]
        where: dict[str, Any] = {"transform": top.transAxes, "clip_on": False}
        for index, part in enumerate(parts):
            ink, line = styles[part]
            x, swatch = index / max(len(parts), 4), _SWATCH / width
            top.plot([x, x + swatch], [1.0, 1.0], color=INK[ink], linestyle=line, linewidth=2.5, **where)
            annotate(top, part, (x + swatch + 0.01, 1.0), "axes fraction", ha="left", va="center", fontsize=11)
        return figure

    return both(name, f"Weights of the parts of {counted(len(kept), 'gate')} over frames", draw)


def correlation_table(found: SequenceResult) -> Table | None:
    """Of each part with each annotation, a row for each part; None where nothing is known, or of too many gates."""
    rows = [
        (gate, part, values) for gate, parts in (found.correlations or {}).items() for part, values in parts.items()
    ]
    if not rows or len(found.correlations or {}) > MOST_SENTENCES:
        return None
    annotated = list(dict.fromkeys(what for _, _, values in rows for what in values))
    columns = [Column("correlation of", align="left"), *(Column(f"with {what}", 2) for what in annotated)]
    return Table(
        columns, [[f"{gate} {part}", *(values.get(what) for what in annotated)] for gate, part, values in rows]
    )


def _group(gate: str) -> str:
    """`layer 3` of `layer 3 q`: the name up to its first number, with it."""
    match = re.match(r"\D*\d+", gate)
    return gate if match is None else match[0]


def _edges(frames: int, pieces: int) -> Floats:
    """Where stretches begin and end, in frames: as NumPy cuts them, the longer ones first."""
    sizes = [len(piece) for piece in np.array_split(np.arange(frames), pieces)]
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.float64)


def _stretches(summary: DiagnosticSummary) -> tuple[dict[str, Floats], Floats]:
    """The course of each part, and where its stretches begin and end, in frames."""
    course = {part: np.asarray(values, np.float64) for part, values in (summary.course or {}).items()}
    return course, _edges(summary.frames, len(next(iter(course.values()))))


def _held(values: Sequence[float | None], frames: int) -> list[tuple[float, float, float]]:
    """First and last frame of each stretch in which something holds, and its share; like neighbours are one."""
    if not values:
        return []
    edges, shares = _edges(frames, len(values)), [value or 0.0 for value in values]
    borders = [0, *(i for i, (a, b) in enumerate(pairwise(shares), 1) if a != b), len(shares)]
    return [(float(edges[a]), float(edges[b]), shares[a]) for a, b in pairwise(borders) if shares[a] > 0]


def _gate_lines(
    axis: Axes, gate: str, summary: DiagnosticSummary, styles: Mapping[str, tuple[str, Any]], marks: Marks
) -> None:
    course, edges = _stretches(summary)
    for part, values in course.items():
        ink, line = styles.get(part, _FIGURE_STYLE)
        (curve,) = axis.plot((edges[:-1] + edges[1:]) / 2, values, color=INK[ink], linestyle=line, linewidth=1.4)
        curve.set_gid(marks.add(f"{gate}, {part}: {summary.mean[part]:.2f} on average"))
    axis.set_xlim(0, edges[-1])
    axis.set_ylim(0, 1.12)
    axis.set_yticks([0, 1])
    axis.set_ylabel(gate if len(course) > 1 else f"{gate}\n{next(iter(course))}")


def _gate_bars(
    axis: Axes,
    rows: Sequence[tuple[str, int]],
    found: Mapping[str, DiagnosticSummary],
    styles: Mapping[str, tuple[str, Any]],
    marks: Marks,
) -> None:
    middles: dict[str, list[int]] = {}
    end = 1.0
    for index, (gate, group) in enumerate(rows):
        course, edges = _stretches(found[gate])
        row, end = index + group, max(end, float(edges[-1]))
        middles.setdefault(_group(gate), []).append(row)
        parts, values = list(course), np.array(list(course.values()))
        largest, even = values.argmax(axis=0), 1 / len(parts)
        borders = [0, *(np.flatnonzero(np.diff(largest)) + 1), len(largest)]
        for start, stop in pairwise(borders):
            part = parts[largest[start]]
            weight = float(values[largest[start], start:stop].mean())
            height = 0.35 + 0.6 * (weight - even) / (1 - even) if even < 1 else 0.95
            span = (edges[start], edges[stop] - edges[start])
            bars = axis.broken_barh(
                [span], (row - height / 2, height), color=INK[styles.get(part, _FIGURE_STYLE)[0]], linewidth=0
            )
            bars.set_gid(marks.add(f"{gate}, frames {span[0]:.0f} to {edges[stop]:.0f}: {part} {weight:.2f}"))
    axis.set_xlim(0, end)
    axis.set_ylim(rows[-1][1] + len(rows), -2.5)
    axis.set_yticks([float(np.mean(at)) for at in middles.values()], list(middles))


def _amount(axis: Axes, what: str, values: Sequence[float | None], frames: int, marks: Marks) -> None:
    edges, series = _edges(frames, len(values)), np.array(values, np.float64)
    (curve,) = axis.plot((edges[:-1] + edges[1:]) / 2, series, color=INK["muted"], linewidth=1.2)
    largest = float(np.nanmax(series))
    curve.set_gid(marks.add(f"{what} as annotated: up to {largest:.2g} a frame"))
    axis.set_ylim(0, 1.1 * largest)
    axis.set_yticks([0, largest], ["0", f"{largest:.2g}"])
    axis.set_ylabel(what, rotation=0, ha="right", va="center")


def _flags(axis: Axes, found: _Course, frames: int, marks: Marks) -> None:
    for row, (what, values) in enumerate(found.items()):
        for first, last, share in _held(values, frames):
            height = 0.25 + 0.5 * share
            bar = axis.broken_barh([(first, last - first)], (row - height / 2, height), color=INK["ink"], linewidth=0)
            bar.set_gid(marks.add(f"{what}, frames {first:.0f} to {last:.0f}: {share:.0%} of them"))
    axis.set_ylim(len(found) - 0.4, -0.6)
    axis.set_yticks(range(len(found)), list(found))
