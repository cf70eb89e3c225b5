"""The overlap of two bundles over the frames of each sequence, as a picture."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

from edgetrack.errors import BackendMissingError, UsageError
from edgetrack.evaluation.comparison import CompareRecord
from edgetrack.evaluation.metrics import AGREEING, DIVERGED

_COLUMNS = 2
_SUFFIXES = (".png", ".svg", ".pdf")


def check_plot(path: Path) -> None:
    """Check that a picture can be drawn there, before anything is tracked.

    Raises:
        BackendMissingError: matplotlib is not installed.
        UsageError: an ending that is none of a picture's, or no such folder.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise BackendMissingError(
            "--plot needs the package matplotlib, which is not installed; type: pip install 'edgetrack[plot]'"
        )
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"--plot {path}: expected a name that ends in one of {', '.join(_SUFFIXES)}")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--plot {path}: there is no folder {path.absolute().parent}; make it first")


def draw(found: CompareRecord, path: Path) -> None:
    """IoU of A's and B's boxes over frames, an axis for each sequence; dashed lines at together and apart.

    Raises:
        UsageError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    lines = math.ceil(max(1, len(found.sequences)) / _COLUMNS)
    figure = Figure(figsize=(12, 1 + 1.6 * lines), dpi=100, layout="constrained")
    axes = figure.subplots(lines, _COLUMNS, squeeze=False).flat
    for axis, one in zip(axes, found.sequences, strict=False):
        axis.plot(one.iou, linewidth=1)
        for level in (AGREEING, DIVERGED):
            axis.axhline(level, color="grey", linewidth=0.6, linestyle="--")
        if one.first_divergence is not None:
            axis.axvline(one.first_divergence, color="tab:red", linewidth=0.8)
        axis.set_ylim(0, 1.03)
        axis.set_title(one.name, fontsize=9, loc="left")
    for axis in list(figure.axes)[len(found.sequences) :]:
        axis.set_axis_off()
    figure.supxlabel("frame")
    figure.supylabel("IoU of A and B")
    labels = [found.a.label, found.b.label]
    figure.suptitle(f"A: {labels[0]}, B: {labels[1]}, each fed its own boxes; red: first apart", fontsize=10)
    try:
        figure.savefig(path)
    except OSError as error:
        raise UsageError(f"--plot {path} cannot be written: {error.strerror or error}") from error
