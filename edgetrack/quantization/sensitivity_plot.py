"""The sensitivity map as a picture: what each stage gains in AO when it is kept, and what that costs in time."""

from __future__ import annotations

import importlib.util
import io

from edgetrack.evaluation.protocols.anchored import POINTS
from edgetrack.quantization.sensitivity import Sensitivity

PLOT_FILE = "sensitivity.png"


def draw(found: Sensitivity) -> bytes | None:
    """A PNG; None where nothing was mapped or matplotlib (extra `plot`) is not installed.

    Bars are points of AO with their 95 % intervals, labels milliseconds a frame; kept stages are darker.
    """
    if not found.stages or importlib.util.find_spec("matplotlib") is None:
        return None
    from matplotlib.figure import Figure

    stages = found.stages[::-1]
    gained = [POINTS * each.gained.value for each in stages]
    low = [POINTS * (each.gained.value - each.gained.low) for each in stages]
    high = [POINTS * (each.gained.high - each.gained.value) for each in stages]
    figure = Figure(figsize=(8, 1.4 + 0.35 * len(stages)), dpi=100, layout="constrained")
    axis = figure.subplots()
    colours = ["tab:blue" if each.stage in found.kept else "lightsteelblue" for each in stages]
    bars = axis.barh([each.stage for each in stages], gained, xerr=[low, high], color=colours, ecolor="grey")
    axis.bar_label(bars, [f"{each.ms:+.2f} ms" for each in stages], padding=6, fontsize=8)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.margins(x=0.15)
    axis.set_xlabel(f"points of AO gained on {found.dataset} by keeping the stage in fp32")
    axis.set_title(f"{found.precision}: {found.first_ms:.2f} against {found.fp32_ms:.2f} ms a frame", fontsize=10)
    data = io.BytesIO()
    # No software version inside: the same map gives the same bytes.
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()
