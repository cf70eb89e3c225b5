"""How latencies are spread, and how they ran: every sample counts, none is left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from edgetrack.benchmark.record import BenchResult
from edgetrack.report.speed_plots import by_speed
from edgetrack.report.svg import INK, PX, Marks, both

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW = 76
_LETTER = 6.4
_STEPS = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
Values = NDArray[np.float64]


def histogram_plot(name: str, results: Sequence[BenchResult]) -> Markup:
    """A histogram of track latency for each contestant, on one logarithmic axis; results must not be empty."""
    ordered = by_speed(results)
    samples = [np.concatenate(result.samples_ms.track) for result in ordered]
    positive = np.concatenate(samples)
    low, high = float(positive.min()), float(positive.max())
    low = max(low, high / 1e6)

    def draw(width: float, marks: Marks) -> Figure:
        figure, axes = _stack(width, len(ordered), "all")
        edges = np.geomspace(low / 1.04, high * 1.04, int(width / 5))
        for axis, result, values in zip(axes, ordered, samples, strict=True):
            counts, _ = np.histogram(np.maximum(values, low), edges)
            axis.stairs(counts, edges, fill=True, color=INK["soft"])
            axis.stairs(counts, edges, color=INK["accent"], linewidth=1)
            axis.set_xscale("log")
            axis.set_yticks([])
            axis.spines["left"].set_visible(False)
            axis.set_ylim(0, counts.max() * 1.1)
            _medians(axis, result)
            title_pair(axis, result.label, _spread(result), width)
        _log_ticks(axes[-1], low, high)
        axes[-1].set_xlabel("track latency in milliseconds; | median, ¦ p99")
        return figure

    return both(name, f"Distribution of track latency of {len(ordered)} contestants", draw)


def timeline_plot(name: str, results: Sequence[BenchResult]) -> Markup:
    """Track latency in the order in which it was measured; results must not be empty.

    Where there are more samples than columns, a column shows the median and the whole range of its samples.
    """
    ordered = by_speed(results)

    def draw(width: float, marks: Marks) -> Figure:
        figure, axes = _stack(width, len(ordered), "none")
        for axis, result in zip(axes, ordered, strict=True):
            values = np.concatenate(result.samples_ms.track)
            x, middle, lowest, highest = envelope(values, int(width / 2.5))
            axis.fill_between(x, lowest, highest, color=INK["soft"], linewidth=0)
            axis.plot(x, middle, color=INK["accent"], linewidth=1)
            for border in np.cumsum([len(each) for each in result.samples_ms.track])[:-1]:
                axis.axvline(border, color=INK["line"], linewidth=0.8)
            axis.set_xlim(0, len(values))
            axis.set_ylim(0, float(values.max()) * 1.08)
            axis.set_yticks([0, _height_tick(values)])
            axis.set_xticks([])
            axis.tick_params(length=0)
            rounds = len(result.samples_ms.track)
            further = f"{len(values)} frames in {rounds} round{'' if rounds == 1 else 's'}"
            title_pair(axis, result.label, further, width)
        axes[-1].set_xlabel("frames in the order measured; lines part the rounds")
        return figure

    return both(name, f"Track latency over time of {len(ordered)} contestants", draw)


def envelope(values: Values, columns: int) -> tuple[Values, Values, Values, Values]:
    """Samples as at most so many columns: position, median, smallest and largest of each; nothing falls between."""
    pieces = np.array_split(values, min(columns, len(values)))
    starts = np.cumsum([0, *(len(piece) for piece in pieces[:-1])])
    x = np.array([start + (len(piece) - 1) / 2 for start, piece in zip(starts, pieces, strict=True)])
    middle, lowest, highest = (
        np.array([float(pick(piece)) for piece in pieces]) for pick in (np.median, np.min, np.max)
    )
    return x, middle, lowest, highest


def _stack(width: float, rows: int, share: Literal["all", "none"]) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * PX, (40 + _ROW * rows) * PX), dpi=72, layout="constrained")
    axes = figure.subplots(rows, 1, sharex=share, squeeze=False)
    return figure, list(axes.flat)


def title_pair(axis: Axes, text: str, further: str, width: float) -> None:
    """Two titles over an axis of so many pixels; where both have no room, the second is left out."""
    axis.set_title(text, loc="left", fontsize=12, color=INK["ink"], pad=4)
    if _LETTER * (len(text) + len(further) + 3) < width:
        axis.set_title(further, loc="right", fontsize=11, color=INK["muted"], pad=4)


def _height_tick(values: Values) -> float:
    """The median, or the largest where the median lies too near to 0 to be told from it."""
    middle, largest = float(np.median(values)), float(values.max())
    return float(f"{middle if middle > largest / 4 else largest:.2g}")


def _spread(result: BenchResult) -> str:
    latency = result.latency_ms.track
    return f"{latency.p50:.2f}" + ("" if latency.p99 is None else f", p99 {latency.p99:.2f}")


def _medians(axis: Axes, result: BenchResult) -> None:
    latency = result.latency_ms.track
    axis.axvline(latency.p50, ymax=0.92, color=INK["ink"], linewidth=1.2)
    if latency.p99 is not None:
        axis.axvline(latency.p99, ymax=0.92, color=INK["ink"], linewidth=1, linestyle=(0, (2, 2)))


def _log_ticks(axis: Axes, low: float, high: float) -> None:
    """A handful of round numbers, since a range of less than a decade gets no ticks by itself."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks = [step * 10.0**decade for decade in decades for step in _STEPS]
    shown = [tick for tick in ticks if low <= tick <= high] or [low, high]
    while len(shown) > len(_STEPS):
        shown = shown[::2]
    axis.set_xticks(shown, [f"{tick:g}" for tick in shown])
    axis.set_xticks([], minor=True)
