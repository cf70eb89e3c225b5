"""How fast: frames per second against PyTorch and the paper, and where a frame's time goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from edgetrack.benchmark.record import BenchResult
from edgetrack.capabilities import reference_target
from edgetrack.report.svg import INK, PX, Marks, both

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW = 46
_BAR = 0.36
STAGES = ("read", "crop", "graphs", "decode")
_STAGE_INKS = {"read": "shade", "crop": "muted", "graphs": "accent", "decode": "ink"}


def speed_plot(name: str, results: Sequence[BenchResult]) -> Markup:
    """Bars of track fps, fastest first, with the paper's figures as dashed lines; results must not be empty."""
    ordered = by_speed(results)
    papers = sorted({result.vs_paper.fps for result in results if result.vs_paper.fps})

    def draw(width: float, marks: Marks) -> Figure:
        figure, axis = _row_figure(width, len(ordered))
        axis.set_xlim(0, 1.04 * max([*papers, *(result.fps.track or 0.0 for result in ordered)]) or 1.0)
        for row, result in enumerate(ordered):
            rate = result.fps.track or 0.0
            gid = marks.add(f"{result.label}: {rate:.1f} fps, median {result.latency_ms.track.p50:.2f} ms a frame")
            ink = "muted" if is_reference(result) else "accent"
            (bar,) = axis.barh([row], [rate], height=_BAR, color=INK[ink])
            bar.set_gid(gid)
            _label(axis, row, result.label, f"{rate:.1f}")
        for paper in papers:
            axis.axvline(paper, color=INK["ink"], linewidth=1.2, linestyle=(0, (4, 3)))
            axis.annotate(
                f"paper {paper:g}",
                (paper, 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=11,
                color=INK["ink"],
            )
        axis.set_xlabel("frames per second: crop + graphs + decode")
        return figure

    return both(name, f"Frames per second of {len(ordered)} contestants", draw)


def waterfall_plot(name: str, results: Sequence[BenchResult]) -> Markup:
    """Bars of the stages' medians; results must not be empty."""
    ordered = by_speed(results)

    def draw(width: float, marks: Marks) -> Figure:
        figure, axis = _row_figure(width, len(ordered))
        axis.set_xlim(0, 1.04 * max(sum(ms for _, ms in stages_of(result)) for result in ordered) or 1.0)
        for row, result in enumerate(ordered):
            start = 0.0
            for stage, ms in stages_of(result):
                gid = marks.add(f"{result.label}: {stage} {ms:.2f} ms")
                (bar,) = axis.barh([row], [ms], left=start, height=_BAR, color=INK[_STAGE_INKS[stage]])
                bar.set_gid(gid)
                start += ms
            _label(axis, row, result.label, f"{start:.2f}")
        axis.set_xlabel("milliseconds a frame: medians of the stages")
        return figure

    return both(name, f"Where a frame's time goes in {len(ordered)} contestants", draw)


def stages_of(result: BenchResult) -> list[tuple[str, float]]:
    """A frame's stages in their order, with their medians in ms; those that were not measured are left out."""
    return [(stage, ms) for stage in STAGES if (ms := getattr(result.waterfall_ms, stage))]


def by_speed(results: Sequence[BenchResult]) -> list[BenchResult]:
    """Fastest first."""
    return sorted(results, key=lambda result: (result.latency_ms.track.p50, result.label))


def is_reference(result: BenchResult) -> bool:
    """Whether this is the published computation, which the others are held against."""
    return result.target == reference_target().name


def _row_figure(width: float, rows: int) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * PX, (62 + _ROW * rows) * PX), dpi=72, layout="constrained")
    axis = figure.subplots()
    axis.set_ylim(rows - 0.7, -0.75)
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)
    axis.grid(axis="x")
    axis.tick_params(length=0)
    return figure, axis


def _label(axis: Axes, row: int, text: str, value: str) -> None:
    """The contestant's name above its bar, its figure at the right end of the line."""
    for x, said, align, ink in ((0.0, text, "left", "ink"), (1.0, value, "right", "ink")):
        axis.annotate(
            said,
            (x, row - 0.25),
            xycoords=("axes fraction", "data"),
            ha=align,
            va="bottom",
            color=INK[ink],
            in_layout=False,
            bbox={"facecolor": INK["ground"], "edgecolor": "none", "pad": 1},
        )
