"""Two bundles apart: overlap of their boxes over frames, and what each stage costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from edgetrack.evaluation.comparison_record import Comparison, SequencePair
from edgetrack.evaluation.difference import POINTS
from edgetrack.evaluation.divergence import APART, TOGETHER
from edgetrack.evaluation.sensitivity import Sensitivity
from edgetrack.report.latency_plots import envelope, title_pair
from edgetrack.report.svg import INK, NARROW, PX, Marks, both

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_CURVES = 10
_ROW = 42


def most_different(sequences: Sequence[SequencePair], count: int) -> list[SequencePair]:
    """Those with the lowest mean IoU first, of those with a second frame."""
    drawable = [one for one in sequences if len(one.iou) > 1]
    return sorted(drawable, key=lambda one: (1.0 if one.mean_iou is None else one.mean_iou, one.name))[:count]


def divergence_plot(name: str, found: Comparison) -> Markup:
    """IoU of A's and B's boxes over frames; empty where no sequence has a second frame."""
    shown = most_different(found.sequences, MOST_CURVES)
    if not shown:
        return Markup()

    def draw(width: float, marks: Marks) -> Figure:
        from matplotlib.figure import Figure

        columns = 1 if width <= NARROW else 2
        lines = math.ceil(len(shown) / columns)
        figure = Figure(figsize=(width * PX, (34 + 88 * lines) * PX), dpi=72, layout="constrained")
        axes = list(figure.subplots(lines, columns, squeeze=False).flat)
        for axis, one in zip(axes, shown, strict=False):
            _curve(axis, one, width / columns)
        for axis in axes[len(shown) :]:
            axis.set_axis_off()
        figure.supxlabel("frame", fontsize=12, color=INK["muted"])
        return figure

    return both(name, f"Overlap of the boxes of A and B over the frames of {len(shown)} sequences", draw)


def sensitivity_plot(name: str, found: Sensitivity) -> Markup:
    """Points of AO that keeping each stage in FP32 gains, with intervals; empty where no stage was tried."""
    if not found.stages:
        return Markup()

    def draw(width: float, marks: Marks) -> Figure:
        from matplotlib.figure import Figure

        rows = len(found.stages)
        figure = Figure(figsize=(width * PX, (62 + _ROW * rows) * PX), dpi=72, layout="constrained")
        axis = figure.subplots()
        for row, stage in enumerate(found.stages):
            value, low, high = (POINTS * v for v in (stage.gained.value, stage.gained.low, stage.gained.high))
            kept = stage.stage in found.kept
            name_shown, cost = stage.stage + (" (kept)" if kept else ""), f"{stage.ms:+.2f} ms".replace("-0.00", "0.00")
            gid = marks.add(f"{stage.stage}: {value:+.2f} points ({low:+.2f} to {high:+.2f}), {cost} a frame")
            axis.plot([low, high], [row] * 2, color=INK["accent" if kept else "muted"], linewidth=1.5)
            (dot,) = axis.plot([value], [row], "o", markersize=9, color=INK["accent" if kept else "muted"])
            dot.set_gid(gid)
            for x, text, align in ((0.0, name_shown, "left"), (1.0, cost, "right")):
                axis.annotate(
                    text,
                    (x, row - 0.2),
                    xycoords=("axes fraction", "data"),
                    ha=align,
                    va="bottom",
                    color=INK["ink" if align == "left" else "muted"],
                    in_layout=False,
                )
        axis.axvline(0, color=INK["ink"], linewidth=1)
        axis.set_ylim(rows - 0.6, -0.8)
        axis.set_yticks([])
        axis.spines["left"].set_visible(False)
        axis.grid(axis="x")
        axis.tick_params(length=0)
        axis.set_xlabel("points of AO gained by keeping the stage in fp32")
        return figure

    return both(name, f"What each of {len(found.stages)} stages gains in fp32", draw)


def _curve(axis: Axes, one: SequencePair, width: float) -> None:
    x, middle, lowest, highest = envelope(np.array(one.iou, np.float64), int(width / 1.5))
    for level in (TOGETHER, APART):
        axis.axhline(level, color=INK["line"], linewidth=0.8)
    if one.first_divergence is not None:
        axis.axvline(one.first_divergence, color=INK["ink"], linewidth=1, linestyle=(0, (2, 2)))
    if len(one.iou) > len(x):
        axis.fill_between(x, lowest, highest, color=INK["soft"], linewidth=0)
    axis.plot(x, middle, color=INK["accent"], linewidth=1.2)
    axis.set_xlim(0, len(one.iou) - 1)
    axis.set_ylim(0, 1.04)
    axis.set_yticks([APART, 1], [f"{APART:g}", "1"])
    axis.locator_params(axis="x", nbins=5, integer=True)
    axis.tick_params(length=0)
    axis.spines["left"].set_visible(False)
    mean = "" if one.mean_iou is None else f"mean {one.mean_iou:.2f}"
    title_pair(axis, one.name, mean, width)
