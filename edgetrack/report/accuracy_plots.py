"""Accuracy against speed: what gives up neither for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from markupsafe import Markup

from edgetrack.report.svg import INK, NARROW, PX, Marks, both

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINE, _LETTER, _GAP = 15.0, 6.7, 16.0
Place = tuple[float, float, Literal["left", "center", "right"]]
_PLACES: tuple[Place, ...] = (
    *((14.0, float(dy), "left") for dy in (0, 12, -12)),
    *((-14.0, float(dy), "right") for dy in (0, 12, -12)),
    *((0.0, float(dy), "center") for dy in (18, -18, 34, -34, 50, -50, 66, -66)),
    *((0.0, float(dy), align) for dy in (18, -18, 34, -34, 50, -50) for align in ("left", "right")),
)
"""Where a name may stand, from its point in pixels, best first."""
_FROM_LOG = 12.0


@dataclass(frozen=True)
class Point:
    """A bundle in the plane.

    Attributes:
        label: its name.
        fps: of `track`, above 0; ao: 0..1.
        interval: of AO, None where it is not known.
        size_mb: of its files.
    """

    label: str
    fps: float
    ao: float
    interval: tuple[float, float] | None
    size_mb: float


def pareto_plot(name: str, points: Sequence[Point], figure_name: str) -> Markup:
    """Points, their intervals, and the line of those that no other one beats in both; points must not be empty.

    Args:
        name: unique in the page.
        points: to draw; a disk's area goes with its size in MB.
        figure_name: what is on the vertical axis, such as `AO`.
    """
    front = frontier(points)

    def draw(width: float, marks: Marks) -> Figure:
        from matplotlib.figure import Figure

        height = 330 if width > NARROW else 310
        figure = Figure(figsize=(width * PX, height * PX), dpi=72, layout="constrained")
        axis = figure.subplots()
        axis.grid()
        axis.tick_params(length=0)
        axis.step(
            [p.fps for p in front], [p.ao for p in front], where="pre", color=INK["shade"], linewidth=1.5, zorder=1
        )
        largest = max(p.size_mb for p in points) or 1.0
        for point in points:
            if point.interval is not None:
                axis.plot([point.fps] * 2, point.interval, color=INK["soft"], linewidth=2, solid_capstyle="round")
            gid = marks.add(f"{point.label}: {figure_name} {point.ao:.3f}, {point.fps:.1f} fps, {point.size_mb:.1f} MB")
            ink = INK["accent"] if point in front else INK["muted"]
            dots = axis.scatter([point.fps], [point.ao], s=30 + 220 * point.size_mb / largest, color=ink, alpha=0.9)
            dots.set_gid(gid)
        _limits(axis, points)
        axis.set_xlabel("track frames per second")
        axis.set_ylabel(figure_name)
        _name(figure, axis, points)
        return figure

    return both(name, f"{figure_name} against frames per second of {len(points)} bundles", draw)


def frontier(points: Sequence[Point]) -> list[Point]:
    """Those that no other point equals or beats in both speed and accuracy, slowest first."""
    found: list[Point] = []
    for point in sorted(points, key=lambda p: (-p.fps, -p.ao)):
        if not found or point.ao > found[-1].ao:
            found.append(point)
    return found[::-1]


def _limits(axis: Axes, points: Sequence[Point]) -> None:
    rates = [point.fps for point in points]
    if max(rates) > _FROM_LOG * min(rates):
        axis.set_xscale("log")
        axis.set_xlim(min(rates) / 1.6, max(rates) * 1.6)
    else:
        axis.set_xlim(0, max(rates) * 1.12)
    ends = [value for p in points for value in (p.ao, *(p.interval or ()))]
    margin = max(0.02, 0.18 * (max(ends) - min(ends)))
    axis.set_ylim(max(0.0, min(ends) - margin), min(1.0, max(ends) + margin))


def _name(figure: Figure, axis: Axes, points: Sequence[Point]) -> None:
    """Each point's name beside it, at the first place that is inside and free of other names and points."""
    figure.draw_without_rendering()
    inside = axis.get_window_extent()
    dots = [axis.transData.transform((point.fps, point.ao)) for point in points]
    taken = [(x - _GAP / 2, y - _GAP / 2, x + _GAP / 2, y + _GAP / 2) for x, y in dots]
    for point, (x, y) in sorted(zip(points, dots, strict=True), key=lambda pair: -float(pair[1][1])):
        width = _LETTER * len(point.label)
        boxes = [(place, _box(x, y, width, place)) for place in _PLACES]
        fits = [item for item in boxes if inside.x0 <= item[1][0] and item[1][2] <= inside.x1]
        free = [item for item in fits if not any(_meet(item[1], other) for other in taken)]
        (dx, dy, align), box = (free or fits or boxes)[0]
        taken.append(box)
        axis.annotate(
            point.label,
            (point.fps, point.ao),
            xytext=(dx, dy),
            textcoords="offset points",
            ha=align,
            va="center",
            color=INK["ink"],
            in_layout=False,
            bbox={"facecolor": INK["ground"], "edgecolor": "none", "pad": 1},
        )


def _box(x: float, y: float, width: float, place: Place) -> tuple[float, float, float, float]:
    dx, dy, align = place
    left = x + dx - {"left": 0.0, "center": width / 2, "right": width}[align]
    return left, y + dy - _LINE / 2, left + width, y + dy + _LINE / 2


def _meet(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
