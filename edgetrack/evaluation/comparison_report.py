"""A comparison of two bundles as a table with its notes, and as a picture."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path

from edgetrack.errors import EdgetrackError, UsageError
from edgetrack.evaluation.comparison import Agreement, CompareRecord, CompareSide, OpenLoopErrors
from edgetrack.evaluation.metrics import AGREEING, DIVERGED
from edgetrack.evaluation.protocols.anchored import POINTS
from edgetrack.io import replace_whole
from edgetrack.presentation.table import NONE, Cell, Column, Table, counted, number
from edgetrack.resources import require_extra
from edgetrack.stats.bootstrap import FEW_SEQUENCES

_PLOT_COLUMNS = 2
_SUFFIXES = (".png", ".svg", ".pdf")


def compare_table(found: CompareRecord) -> Table:
    """A row per sequence and one for all of them; the last notes are the verdict and what failed."""
    columns = [
        Column("sequence", align="left"),
        Column("frames", drop=5),
        Column("AO of A", 3),
        Column("AO of B", 3),
        Column("IoU of A and B", 3),
        Column(f"above {AGREEING:g}", 3, drop=3),
        Column("diverged at", drop=1),
        Column("recovered at", drop=4),
        Column("open-loop error", 4, drop=2),
    ]
    agreement, opened = found.agreement, found.open_loop
    rows: list[list[Cell]] = [
        [
            one.name,
            one.frames,
            one.ao_a,
            one.ao_b,
            one.mean_iou,
            one.iou_above_0_9,
            one.first_divergence,
            one.recovery,
            one.open_loop_error,
        ]
        for one in found.sequences
    ]
    overall: list[Cell] = [
        "all",
        sum(one.frames for one in found.sequences),
        found.a.ao,
        found.b.ao,
        agreement.mean_iou if agreement else None,
        agreement.iou_above_0_9 if agreement else None,
        f"{agreement.diverged} of {agreement.sequences}" if agreement else None,
        agreement.recovered if agreement else None,
        opened.box_error if opened else None,
    ]
    return Table(columns, [*rows, overall], list(_notes(found)))


def _notes(found: CompareRecord) -> Iterator[str]:
    """What ran, and what is in the figures; the difference of AO and its verdict last, but for failures."""
    cut = "" if found.limit is None else f", at most {counted(found.limit, 'frame')} of each sequence"
    threads = "thread" if found.threads == 1 else "threads"
    yield f"A: {_named(found.a)}"
    yield f"B: {_named(found.b)}"
    yield (
        f"on {found.dataset}: {counted(len(found.sequences), 'sequence')}{cut}; each follows its own boxes, "
        f"{found.threads} {threads}"
    )
    if found.agreement is not None:
        yield _agreement_note(found.agreement)
    if found.open_loop is not None:
        yield _open_note(found.open_loop)
    if found.error_gain is not None:
        yield f"error gain: in closed loop the error of the boxes (1 - IoU) is {found.error_gain:.3g} times as large"
    if found.one_pass is not None:
        span = ""
        if found.one_pass.low is not None and found.one_pass.high is not None:
            span = f" ({POINTS * found.one_pass.low:+.2f} to {POINTS * found.one_pass.high:+.2f})"
        yield f"AO of B - A, one pass: {POINTS * found.one_pass.value:+.2f} points{span}; one flipped decision moves it"
    if found.delta_ao is not None:
        few = (
            f"; too narrow with fewer than {FEW_SEQUENCES} sequences"
            if found.delta_ao.sequences < FEW_SEQUENCES
            else ""
        )
        yield (
            f"AO of B - A, paired runs of up to {found.anchor_length} frames from every {found.anchor_spacing}th "
            f"frame: {found.delta_ao.describe()}{few}"
        )
    for failure in found.failures:
        yield f"FAILED: {failure.name}: {failure.error}"


def _named(side: CompareSide) -> str:
    anchored = "" if side.anchored_ao is None else f", {number(side.anchored_ao, 3)} over anchored runs"
    return f"{side.label} ({side.weights} weights): AO {number(side.ao, 3)}{anchored}"


def _agreement_note(found: Agreement) -> str:
    middle = "" if found.first_divergence is None else f", half of them by frame {found.first_divergence:g}"
    return (
        f"diverged (IoU of A and B at or below {DIVERGED:g}): {found.diverged} of "
        f"{counted(found.sequences, 'sequence')}{middle}; "
        f"{found.recovered} recover (above {AGREEING:g}) and do not diverge again"
    )


def _open_note(found: OpenLoopErrors) -> str:
    maps = ", ".join(
        f"{error.name} {NONE if error.relative_rms is None else f'{100 * error.relative_rms:.2g} %'} "
        f"(at most {error.max_abs:.2g})"
        for error in found.maps
    )
    return f"on the same crops: 1 - IoU {found.box_error:.2g}, centres {found.center_px:.2g} pixels apart; " + (
        f"RMS error of the maps: {maps}" if maps else "no maps of the same name and shape: not comparable"
    )


def check_plot(path: Path) -> None:
    """Check that a picture can be drawn there, before anything is tracked.

    Raises:
        BackendMissingError: matplotlib is not installed.
        UsageError: the name has another ending than a picture's, or there is no such folder.
    """
    require_extra("--plot", "plot", "matplotlib")
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"--plot {path}: expected a name that ends in one of {', '.join(_SUFFIXES)}")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--plot {path}: there is no folder {path.absolute().parent}; make it first")


def draw_plot(found: CompareRecord, path: Path) -> None:
    """IoU of A's and B's boxes over frames, an axis for each sequence; dashed lines at agreeing and diverged.

    Raises:
        EdgetrackError: the file cannot be written; what was there is kept.
    """
    from matplotlib.figure import Figure

    lines = math.ceil(max(1, len(found.sequences)) / _PLOT_COLUMNS)
    figure = Figure(figsize=(12, 1 + 1.6 * lines), dpi=100, layout="constrained")
    axes = figure.subplots(lines, _PLOT_COLUMNS, squeeze=False).flat
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
    figure.suptitle(f"A: {labels[0]}, B: {labels[1]}, each follows its own boxes; red: first diverged", fontsize=10)
    drawn = io.BytesIO()
    figure.savefig(drawn, format=path.suffix[1:].lower())
    try:
        replace_whole(path, drawn.getbuffer())
    except OSError as error:
        raise EdgetrackError(f"--plot {path} cannot be written: {error.strerror or error}") from error
