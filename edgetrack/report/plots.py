"""The figures of a report: speed, stages, latencies, accuracy against speed, divergence, sensitivity, sensors.

Every sample counts: where there are more than columns, a column shows the median and the whole range of its samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from markupsafe import Markup

from edgetrack.arrays import Floats
from edgetrack.benchmark.record import BenchResult
from edgetrack.evaluation.comparison import CompareRecord, SequencePair
from edgetrack.evaluation.metrics import AGREEING, DIVERGED
from edgetrack.evaluation.protocols.anchored import POINTS
from edgetrack.quantization.accuracy_control import Sensitivity
from edgetrack.report.model import by_speed, is_reference
from edgetrack.report.svg import INK, NARROW, Marks, annotate, both, panels
from edgetrack.system.sensors import Quantity
from edgetrack.system.timeline import Finding, Series, Timeline, find_throttling

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STAGES = ("read", "crop", "graphs", "decode")
MOST_CURVES = 10
MOST_SENSORS = 4
"""Sensors of one quantity that are drawn."""
SENSORS: dict[Quantity, tuple[str, str]] = {
    "power_w": ("power", "W"),
    "temperature_c": ("temperature", "°C"),
    "clock_mhz": ("clock", "MHz"),
    "throttled": ("throttled", ""),
    "throttle_count": ("throttle count", ""),
    "rss_mb": ("resident memory", "MiB"),
}
"""What is drawn, in this order, with its name and unit; loads and the rest stay in the record."""
_STAGE_INKS = {"read": "shade", "crop": "muted", "graphs": "accent", "decode": "ink"}
BAR = 0.36
_DASHED, _DOTTED = (0, (4, 3)), (0, (2, 2))
LETTER = 6.7
"""Width of a letter in pixels, about."""
_LOG_STEPS = ((1.0, 1.5, 2.0, 3.0, 5.0, 7.0), (1.0, 2.0, 5.0), (1.0, 3.0), (1.0,))
_MOST_TICKS = 6
_LOG_FROM = 12.0
"""From this ratio of the highest to the lowest frame rate on, the axis is logarithmic."""
_STRIP = 0.06
"""Height of the strip that shows when frames ran, as a share of the row's."""
_Place = tuple[float, float, Literal["left", "center", "right"]]
_PLACES: tuple[_Place, ...] = (
    *((14.0, float(dy), "left") for dy in (0, 12, -12)),
    *((-14.0, float(dy), "right") for dy in (0, 12, -12)),
    *((0.0, float(dy), "center") for dy in (18, -18, 34, -34, 50, -50, 66, -66)),
    *((0.0, float(dy), align) for dy in (18, -18, 34, -34, 50, -50) for align in ("left", "right")),
)
"""Where a name may stand, from its point in pixels, best first."""


@dataclass(frozen=True)
class Point:
    """A bundle in the plane of accuracy and what it costs.

    Attributes:
        label: its name.
        x: what the plane's `Across` says, above 0; y: accuracy, 0..1.
        interval: of y, None where it is not known.
        size_mb: of its files, None where that is not known.
    """

    label: str
    x: float
    y: float
    interval: tuple[float, float] | None
    size_mb: float | None


class Across(NamedTuple):
    """The horizontal axis of a plane: its title, a value in words, and whether less is better."""

    title: str
    column: str
    digits: int
    fewer: bool = False


FPS = Across("track frames per second", "fps", 1)
PARAMETERS = Across("million parameters", "million parameters", 2, fewer=True)


def speed_plot(name: str, results: Sequence[BenchResult]) -> Markup:
    """Bars of track fps, fastest first, with the paper's figures as dashed lines; results must not be empty."""
    ordered = by_speed(results)
    papers = sorted({result.vs_paper.fps for result in results if result.vs_paper.fps})

    def draw(width: float, marks: Marks) -> Figure:
        figure, axis = row_axis(width, len(ordered), 46)
        axis.set_xlim(0, 1.04 * max([*papers, *(result.fps.track or 0.0 for result in ordered)]) or 1.0)
        for row, result in enumerate(ordered):
            rate = result.fps.track or 0.0
            ink = INK["muted" if is_reference(result) else "accent"]
            (bar,) = axis.barh([row], [rate], height=BAR, color=ink)
            bar.set_gid(marks.add(f"{result.label}: {rate:.1f} fps, median {result.latency_ms.track.p50:.2f} ms"))
            row_texts(axis, row, result.label, f"{rate:.1f}")
        for paper in papers:
            axis.axvline(paper, color=INK["ink"], linewidth=1.2, linestyle=_DASHED)
            annotate(axis, f"paper {paper:g}", (paper, 1), ("data", "axes fraction"), xytext=(0, 3), fontsize=11)
        axis.set_xlabel("frames per second: crop + graphs + decode")
        return figure

    return both(name, f"Frames per second of {len(ordered)} candidates", draw)


def waterfall_plot(name: str, results: Sequence[BenchResult]) -> Markup:
    """Bars of the stages' medians; results must not be empty."""
    ordered = by_speed(results)
    stages = [[(s, ms) for s in STAGES if (ms := getattr(result.waterfall_ms, s))] for result in ordered]

    def draw(width: float, marks: Marks) -> Figure:
        figure, axis = row_axis(width, len(ordered), 46)
        axis.set_xlim(0, 1.04 * max(sum(ms for _, ms in each) for each in stages) or 1.0)
        for row, (result, each) in enumerate(zip(ordered, stages, strict=True)):
            start = 0.0
            for stage, ms in each:
                (bar,) = axis.barh([row], [ms], left=start, height=BAR, color=INK[_STAGE_INKS[stage]])
                bar.set_gid(marks.add(f"{result.label}: {stage} {ms:.2f} ms"))
                start += ms
            row_texts(axis, row, result.label, f"{start:.2f}")
        axis.set_xlabel("milliseconds per frame: medians of the stages")
        return figure

    return both(name, f"Where a frame's time goes in {len(ordered)} candidates", draw)


def histogram_plot(name: str, results: Sequence[BenchResult]) -> Markup:
    """A histogram of track latency for each candidate, on one logarithmic axis; results must not be empty."""
    ordered = by_speed(results)
    samples = [np.concatenate(result.samples_ms.track) for result in ordered]
    every = np.concatenate(samples)
    high = float(every.max())
    low = max(float(every.min()), high / 1e6)

    def draw(width: float, marks: Marks) -> Figure:
        figure, axes = panels(width, 40, 76, len(ordered), sharex="all")
        edges = np.geomspace(low / 1.04, high * 1.04, int(width / 5))
        for axis, result, values in zip(axes, ordered, samples, strict=True):
            counts, _ = np.histogram(np.maximum(values, low), edges)
            axis.stairs(counts, edges, fill=True, color=INK["soft"])
            axis.stairs(counts, edges, color=INK["accent"], linewidth=1)
            axis.set_xscale("log")
            axis.set_yticks([])
            axis.set_ylim(0, counts.max() * 1.1)
            latency = result.latency_ms.track
            axis.axvline(latency.p50, ymax=0.92, color=INK["ink"], linewidth=1.2)
            if latency.p99 is not None:
                axis.axvline(latency.p99, ymax=0.92, color=INK["ink"], linewidth=1, linestyle=_DOTTED)
            p99 = "" if latency.p99 is None else f", p99 {latency.p99:.2f}"
            _titles(axis, result.label, f"{latency.p50:.2f}{p99}", width)
        _log_ticks(axes[-1], low, high)
        axes[-1].set_xlabel("track latency in milliseconds; | median, ¦ p99")
        return figure

    return both(name, f"Distribution of track latency of {len(ordered)} candidates", draw)


def timeline_plot(name: str, results: Sequence[BenchResult]) -> Markup:
    """Track latency in the order in which it was measured; results must not be empty."""
    ordered = by_speed(results)

    def draw(width: float, marks: Marks) -> Figure:
        figure, axes = panels(width, 40, 76, len(ordered))
        for axis, result in zip(axes, ordered, strict=True):
            values = np.concatenate(result.samples_ms.track)
            _draw_envelope(axis, envelope(values, int(width / 2.5)), linewidth=1)
            for border in np.cumsum([len(each) for each in result.samples_ms.track])[:-1]:
                axis.axvline(border, color=INK["line"], linewidth=0.8)
            axis.set_xlim(0, len(values))
            middle, largest = float(np.median(values)), float(values.max())
            axis.set_ylim(0, largest * 1.08)
            # The median, or the largest where the median lies too near to 0 to be told from it.
            axis.set_yticks([0, float(f"{middle if middle > largest / 4 else largest:.2g}")])
            axis.set_xticks([])
            rounds = len(result.samples_ms.track)
            _titles(axis, result.label, f"{len(values)} frames in {rounds} round{'' if rounds == 1 else 's'}", width)
        axes[-1].set_xlabel("frames in order; lines separate the rounds")
        return figure

    return both(name, f"Track latency over time of {len(ordered)} candidates", draw)


def pareto_plot(name: str, points: Sequence[Point], figure_name: str, across: Across = FPS) -> Markup:
    """Points, their intervals, and the line of those that no other one beats in both; points must not be empty.

    Args:
        name: unique in the page.
        points: to draw; a disk's area grows with its size in MiB.
        figure_name: what is on the vertical axis, such as `AO`.
        across: what is on the horizontal one.
    """
    front = frontier(points, across)

    def draw(width: float, marks: Marks) -> Figure:
        figure, (axis,) = panels(width, 330 if width > NARROW else 310, 0, 1)
        axis.spines["left"].set_visible(True)
        axis.grid()
        # From the left to the right, the line keeps to the side where nothing is.
        step: Literal["pre", "post"] = "post" if across.fewer else "pre"
        axis.step([p.x for p in front], [p.y for p in front], where=step, color=INK["shade"], linewidth=1.5, zorder=1)
        largest = max(p.size_mb or 0.0 for p in points) or 1.0
        for point in points:
            if point.interval is not None:
                axis.plot([point.x] * 2, point.interval, color=INK["soft"], linewidth=2, solid_capstyle="round")
            ink = INK["accent" if point in front else "muted"]
            size, area = point.size_mb, 30 + 220 * (0.25 if point.size_mb is None else point.size_mb / largest)
            dots = axis.scatter([point.x], [point.y], s=area, color=ink, alpha=0.9)
            said = f"{point.label}: {figure_name} {point.y:.3f}, {point.x:.{across.digits}f} {across.column}"
            dots.set_gid(marks.add(said if size is None else f"{said}, {size:.1f} MiB"))
        _limit_plane(axis, points)
        axis.set_xlabel(across.title)
        axis.set_ylabel(figure_name)
        _name_points(figure, axis, points)
        return figure

    what = across.title.removeprefix("track ")
    return both(name, f"{figure_name} against {what} of {len(points)} bundles", draw)


def frontier(points: Sequence[Point], across: Across = FPS) -> list[Point]:
    """Those that no other point equals or beats in both, from the left to the right."""
    found: list[Point] = []
    for point in sorted(points, key=lambda p: (p.x if across.fewer else -p.x, -p.y)):
        if not found or point.y > found[-1].y:
            found.append(point)
    return found if across.fewer else found[::-1]


def divergence_plot(name: str, found: CompareRecord) -> Markup:
    """IoU of A's and B's boxes over frames; empty where no sequence has a second frame."""
    shown = most_different(found.sequences, MOST_CURVES)
    if not shown:
        return Markup()

    def draw(width: float, marks: Marks) -> Figure:
        columns = 1 if width <= NARROW else 2
        figure, axes = panels(width, 34, 88, math.ceil(len(shown) / columns), columns)
        for axis, one in zip(axes, shown, strict=False):
            _divergence_curve(axis, one, width / columns)
        for axis in axes[len(shown) :]:
            axis.set_axis_off()
        figure.supxlabel("frame", fontsize=12, color=INK["muted"])
        return figure

    return both(name, f"Overlap of the boxes of A and B over the frames of {len(shown)} sequences", draw)


def most_different(sequences: Sequence[SequencePair], count: int) -> list[SequencePair]:
    """Those with the lowest mean IoU first, of those with a second frame."""
    drawable = [one for one in sequences if len(one.iou) > 1]
    return sorted(drawable, key=lambda one: (1.0 if one.mean_iou is None else one.mean_iou, one.name))[:count]


def sensitivity_plot(name: str, found: Sensitivity) -> Markup:
    """Points of AO that keeping each stage in FP32 gains, with intervals; empty where no stage was tried."""
    if not found.stages:
        return Markup()

    def draw(width: float, marks: Marks) -> Figure:
        figure, axis = row_axis(width, len(found.stages), 42)
        for row, stage in enumerate(found.stages):
            value, low, high = (POINTS * v for v in (stage.gained.value, stage.gained.low, stage.gained.high))
            kept = stage.stage in found.kept
            ink, cost = INK["accent" if kept else "muted"], f"{stage.ms:+.2f} ms".replace("-0.00", "0.00")
            axis.plot([low, high], [row] * 2, color=ink, linewidth=1.5)
            (dot,) = axis.plot([value], [row], "o", markersize=9, color=ink)
            dot.set_gid(marks.add(f"{stage.stage}: {value:+.2f} points ({low:+.2f} to {high:+.2f}), {cost} per frame"))
            row_texts(axis, row, stage.stage + (" (kept)" if kept else ""), cost)
        axis.axvline(0, color=INK["ink"], linewidth=1)
        axis.set_xlabel("points of AO gained by keeping the stage in fp32")
        return figure

    return both(name, f"What each of {len(found.stages)} stages gains in fp32", draw)


def sensor_plot(name: str, timeline: Timeline) -> Markup:
    """A row for each sensor on one axis of seconds, a grey strip below while frames ran; empty where none was read.

    Of more than four sensors of a kind those with the highest values are drawn. A dashed line: throttling began.
    """
    shown = drawn_sensors(timeline)
    if not shown:
        return Markup()
    onsets = {found.sensor: found for found in _onsets(timeline)}

    def draw(width: float, marks: Marks) -> Figure:
        figure, axes = panels(width, 40, 62, len(shown), sharex="all")
        for axis, series in zip(axes, shown, strict=True):
            for window in timeline.windows:
                axis.axvspan(window.end_s - window.busy_s, window.end_s, 0, _STRIP, color=INK["muted"], linewidth=0)
            curve = envelope(series.values, int(width / 2.5), timeline.t_s)
            _draw_envelope(axis, curve, linewidth=1.2, marker=".", markersize=2)
            onset = onsets.get(f"{series.source}:{series.name}")
            if onset is not None:
                axis.axvline(onset.onset_s, color=INK["ink"], linewidth=1.2, linestyle=_DASHED)
            known = _known(series)
            low, high = min(known), max(known)
            # What hardly changes is drawn flat, not blown up to the height of the row.
            room = max(0.15 * (high - low), 0.05 * abs(high), 0.1)
            axis.set_ylim(low - room, high + room)
            axis.set_yticks([])
            quantity, unit = SENSORS[series.quantity]
            digits = {"power_w": 2, "clock_mhz": 0, "throttled": 0}.get(series.quantity, 1)
            span = f"{low:.{digits}f} to {high:.{digits}f} {unit}".rstrip()
            _titles(axis, f"{quantity} {series.name}", span, width)
        axes[-1].set_xlabel("seconds")
        return figure

    return both(name, f"Readings of {len(shown)} sensors over time", draw)


def drawn_sensors(timeline: Timeline) -> list[Series]:
    """The sensors that a plot shows, each with at least one reading."""
    read = [series for series in timeline.series if _known(series)]
    found = []
    for quantity in SENSORS:
        some = [series for series in read if series.quantity == quantity]
        found += sorted(some, key=lambda series: -max(_known(series)))[:MOST_SENSORS]
    return found


def envelope(
    values: Sequence[float | None] | Floats, most: int, positions: Sequence[float] | None = None
) -> tuple[Floats, Floats, Floats, Floats]:
    """Samples in at most `most` columns: position, median, smallest and largest of each; nothing is left out.

    Args:
        values: samples; None is a gap.
        most: columns.
        positions: of the samples; their numbers if left out.
    """
    read = np.array(values, np.float64)
    places = np.arange(len(read), dtype=np.float64) if positions is None else np.asarray(positions, np.float64)
    pieces = np.array_split(np.arange(len(read)), max(1, min(most, len(read))))
    x = np.array([float(np.mean(places[piece])) for piece in pieces])
    known = [read[piece][~np.isnan(read[piece])] for piece in pieces]
    middle, lowest, highest = (
        np.array([float(pick(some)) if some.size else np.nan for some in known]) for pick in (np.median, np.min, np.max)
    )
    return x, middle, lowest, highest


def row_axis(width: float, rows: int, height: float) -> tuple[Figure, Axes]:
    """One axis with a line for each row, from the top."""
    figure, (axis,) = panels(width, 62 + height * rows, 0, 1)
    axis.set_ylim(rows - 0.65, -0.8)
    axis.set_yticks([])
    axis.grid(axis="x")
    return figure, axis


def row_texts(axis: Axes, row: int, name: str, value: str) -> None:
    """A name above its row, a figure at the right end of the line."""
    for x, text, align in ((0.0, name, "left"), (1.0, value, "right")):
        annotate(axis, text, (x, row - 0.25), ("axes fraction", "data"), ha=align, in_layout=False)


def _titles(axis: Axes, text: str, further: str, width: float) -> None:
    """Two titles over an axis `width` pixels wide; where both have no room, the second is left out."""
    axis.set_title(text, loc="left", fontsize=12, color=INK["ink"], pad=4)
    if LETTER * (len(text) + len(further) + 2) < width:
        axis.set_title(further, loc="right", fontsize=11, color=INK["muted"], pad=4)


def _draw_envelope(axis: Axes, curve: tuple[Floats, Floats, Floats, Floats], **options: Any) -> None:
    x, middle, lowest, highest = curve
    axis.fill_between(x, lowest, highest, color=INK["soft"], linewidth=0)
    axis.plot(x, middle, color=INK["accent"], **options)


def _divergence_curve(axis: Axes, one: SequencePair, width: float) -> None:
    for level in (AGREEING, DIVERGED):
        axis.axhline(level, color=INK["line"], linewidth=0.8)
    if one.first_divergence is not None:
        axis.axvline(one.first_divergence, color=INK["ink"], linewidth=1, linestyle=_DOTTED)
    _draw_envelope(axis, envelope(one.iou, int(width / 1.5)), linewidth=1.2)
    axis.set_xlim(0, len(one.iou) - 1)
    axis.set_ylim(0, 1.04)
    axis.set_yticks([DIVERGED, 1], [f"{DIVERGED:g}", "1"])
    axis.locator_params(axis="x", nbins=5, integer=True)
    _titles(axis, one.name, "" if one.mean_iou is None else f"mean {one.mean_iou:.2f}", width)


def _log_ticks(axis: Axes, low: float, high: float) -> None:
    """A handful of round numbers, since a range of less than a decade gets no ticks by itself."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    shown = []
    for steps in _LOG_STEPS:
        ticks = (step * 10.0**decade for decade in decades for step in steps)
        shown = [tick for tick in ticks if low <= tick <= high]
        if len(shown) <= _MOST_TICKS:
            break
    shown = shown or [low, high]
    while len(shown) > _MOST_TICKS:
        shown = shown[::2]
    axis.set_xticks(shown, [f"{tick:g}" for tick in shown])
    axis.set_xticks([], minor=True)


def _limit_plane(axis: Axes, points: Sequence[Point]) -> None:
    rates = [point.x for point in points]
    if max(rates) > _LOG_FROM * min(rates):
        axis.set_xscale("log")
        axis.set_xlim(min(rates) / 1.6, max(rates) * 1.6)
        # Powers of ten by name: the drawing's text is text, not formulas.
        _log_ticks(axis, min(rates) / 1.6, max(rates) * 1.6)
    else:
        axis.set_xlim(0, max(rates) * 1.12)
    ends = [value for p in points for value in (p.y, *(p.interval or ()))]
    margin = max(0.02, 0.18 * (max(ends) - min(ends)))
    axis.set_ylim(max(0.0, min(ends) - margin), min(1.0, max(ends) + margin))


def _name_points(figure: Figure, axis: Axes, points: Sequence[Point], line: float = 15.0, gap: float = 16.0) -> None:
    """Each point's name beside it, at the first place that is inside and free of other names and points."""
    figure.draw_without_rendering()
    inside = axis.get_window_extent()
    dots = [axis.transData.transform((point.x, point.y)) for point in points]
    taken = [(x - gap / 2, y - gap / 2, x + gap / 2, y + gap / 2) for x, y in dots]

    def free(box: tuple[float, float, float, float]) -> bool:
        return not any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken)

    for point, (x, y) in sorted(zip(points, dots, strict=True), key=lambda pair: -float(pair[1][1])):
        width = LETTER * len(point.label)
        boxes = []
        for dx, dy, align in _PLACES:
            left = x + dx - {"left": 0.0, "center": width / 2, "right": width}[align]
            boxes.append(((dx, dy, align), (left, y + dy - line / 2, left + width, y + dy + line / 2)))
        fitting = [item for item in boxes if inside.x0 <= item[1][0] and item[1][2] <= inside.x1]
        (dx, dy, align), box = ([item for item in fitting if free(item[1])] or fitting or boxes)[0]
        taken.append(box)
        annotate(axis, point.label, (point.x, point.y), xytext=(dx, dy), ha=align, va="center", in_layout=False)


def _onsets(timeline: Timeline) -> Iterator[Finding]:
    """Throttling and falling clocks of all candidates."""
    kinds = {(window.candidate, window.kind) for window in timeline.windows}
    for candidate in sorted({candidate for candidate, _ in kinds}):
        yield from find_throttling(timeline, candidate, sorted(kind for who, kind in kinds if who == candidate))


def _known(series: Series) -> list[float]:
    return [value for value in series.values if value is not None]
