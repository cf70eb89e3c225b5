"""The figure of how well a tracker's score tells frames off target from all others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

from edgetrack.evaluation.lost import FlagScores
from edgetrack.presentation.table import number
from edgetrack.report.svg import INK, Marks, annotate, both, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def flag_plot(name: str, found: FlagScores) -> Markup:
    """Recall over false alarms at every threshold of the score, and where the flag stands; empty without a curve."""
    if not found.curve:
        return Markup()
    alarms, recall = ([point[axis] for point in found.curve] for axis in (1, 2))

    def draw(width: float, marks: Marks) -> Figure:
        figure, (axis,) = panels(width, 40, 220, 1)
        axis.plot([0, 1], [0, 1], color=INK["line"], linewidth=1)
        axis.step(alarms, recall, where="post", color=INK["accent"], linewidth=2)
        area = f"AUROC {number(found.auroc, 3)}"
        annotate(axis, area, (0.98, 0.06), "axes fraction", ha="right")
        if found.recall is not None and found.false_alarms is not None:
            (dot,) = axis.plot([found.false_alarms], [found.recall], "o", markersize=9, color=INK["ink"])
            dot.set_gid(
                marks.add(f"the flag: recall {found.recall:.3f}, false alarms {found.false_alarms:.2%}; {area}")
            )
        axis.set_xlim(-0.02, 1.02)
        axis.set_ylim(-0.02, 1.05)
        axis.set_xlabel("false alarms, share of frames on target")
        axis.set_ylabel("recall")
        return figure

    return both(name, "Recall over false alarms of the flag lost at every threshold of the score", draw)
