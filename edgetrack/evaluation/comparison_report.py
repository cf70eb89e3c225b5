"""A comparison for people: one table of words, drawn by rich or as Markdown, and what goes with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgetrack.evaluation.comparison import Agreement, CompareRecord, CompareSide, OpenLoopErrors
from edgetrack.evaluation.metrics import AGREEING, DIVERGED
from edgetrack.evaluation.protocols.anchored import POINTS
from edgetrack.stats.bootstrap import FEW_SEQUENCES

if TYPE_CHECKING:
    from rich.table import Table

_NONE = "-"
HEADINGS = (
    "sequence",
    "frames",
    "AO of A",
    "AO of B",
    "IoU of A and B",
    f"above {AGREEING:g}",
    "apart at",
    "again at",
    "open-loop error",
)


def rows(found: CompareRecord) -> Iterator[list[str]]:
    """A row per sequence, and one for all of them."""
    for one in found.sequences:
        yield [
            one.name,
            str(one.frames),
            _number(one.ao_a),
            _number(one.ao_b),
            _number(one.mean_iou),
            _number(one.iou_above_0_9),
            _frame(one.first_divergence),
            _frame(one.recovery),
            _number(one.open_loop_error, 4),
        ]
    agreement = found.agreement
    yield [
        "all",
        str(sum(one.frames for one in found.sequences)),
        _number(found.a.ao),
        _number(found.b.ao),
        _number(agreement.mean_iou if agreement else None),
        _number(agreement.iou_above_0_9 if agreement else None),
        f"{agreement.diverged} of {agreement.sequences}" if agreement else _NONE,
        str(agreement.recovered) if agreement else _NONE,
        _number(found.open_loop.box_error if found.open_loop else None, 4),
    ]


def notes(found: CompareRecord) -> Iterator[str]:
    """What goes with the table, one line each; the difference of AO and its verdict last, but for failures."""
    cut = "" if found.limit is None else f", at most {found.limit} frames of each sequence"
    yield f"A: {_named(found.a)}"
    yield f"B: {_named(found.b)}"
    yield f"on {found.dataset}: {len(found.sequences)} sequences{cut}; each fed its own boxes, {found.threads} threads"
    if found.agreement is not None:
        yield _agreement_note(found.agreement)
    if found.open_loop is not None:
        yield _open_note(found.open_loop)
    if found.error_gain is not None:
        yield f"error gain: fed back, the error of the boxes (1 - IoU) becomes {found.error_gain:.3g} times as large"
    if found.one_pass is not None:
        span = ""
        if found.one_pass.low is not None and found.one_pass.high is not None:
            span = f" ({POINTS * found.one_pass.low:+.2f} to {POINTS * found.one_pass.high:+.2f})"
        yield f"AO of B - A, one pass: {POINTS * found.one_pass.value:+.2f} points{span}; one flipped decision moves it"
    if found.delta_ao is not None:
        few = "; too narrow with so few sequences" if found.delta_ao.sequences < FEW_SEQUENCES else ""
        yield (
            f"AO of B - A, paired runs of up to {found.anchor_length} frames from every {found.anchor_spacing}th "
            f"frame: {found.delta_ao.describe()}{few}"
        )
    for failure in found.failures:
        yield f"FAILED: {failure.name}: {failure.error}"


def markdown(found: CompareRecord) -> str:
    """The table and its notes as GitHub's Markdown."""
    lines = [list(HEADINGS), ["---", *("---:" for _ in HEADINGS[1:])], *rows(found)]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", *(f"- {note}" for note in notes(found))])


def table(found: CompareRecord) -> Table:
    """The table for a terminal."""
    from rich.table import Table

    drawn = Table(box=None, pad_edge=False)
    for index, title in enumerate(HEADINGS):
        drawn.add_column(title, justify="right" if index else "left", no_wrap=True)
    for line in rows(found):
        drawn.add_row(*line)
    return drawn


def _named(side: CompareSide) -> str:
    hint = "" if side.hint is None else f"@{side.hint}"
    anchored = "" if side.anchored_ao is None else f", {_number(side.anchored_ao)} over runs from anchors"
    return f"{side.bundle}{hint} ({side.weights} weights): AO {_number(side.ao)}{anchored}"


def _agreement_note(found: Agreement) -> str:
    middle = "" if found.first_divergence is None else f", half of them by frame {found.first_divergence:g}"
    return (
        f"apart: IoU of A and B at or below {DIVERGED:g}, in {found.diverged} of {found.sequences} sequences{middle}; "
        f"{found.recovered} come together again (above {AGREEING:g}) for good"
    )


def _open_note(found: OpenLoopErrors) -> str:
    maps = ", ".join(
        f"{error.name} {_NONE if error.relative_rms is None else f'{100 * error.relative_rms:.2g} %'} "
        f"(at most {error.max_abs:.2g})"
        for error in found.maps
    )
    return f"on the same crops: 1 - IoU {found.box_error:.2g}, centres {found.center_px:.2g} pixels apart; " + (
        f"RMS error of the maps: {maps}" if maps else "no maps of the same name and shape: not comparable"
    )


def _number(value: float | None, digits: int = 3) -> str:
    return _NONE if value is None else f"{value:.{digits}f}"


def _frame(value: int | None) -> str:
    return _NONE if value is None else str(value)
