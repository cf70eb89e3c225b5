"""From the runs of two bundles to the figures of their comparison."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

import numpy as np

from edgetrack.bundle.ref import BundleRef
from edgetrack.evaluation.book import Book
from edgetrack.evaluation.comparison_record import Agreement, Comparison, OnePassDelta, OpenLoop, SequencePair, Side
from edgetrack.evaluation.difference import Difference, paired_difference
from edgetrack.evaluation.divergence import TOGETHER, Divergence, divergence
from edgetrack.evaluation.metrics import center_distance, iou
from edgetrack.evaluation.openloop import Replay, ReplayRun, map_errors
from edgetrack.evaluation.record import Failure, Result
from edgetrack.evaluation.run import summarize
from edgetrack.evaluation.tasks import Anchored, OnePass
from edgetrack.stats.bootstrap import two_level_interval

Tracked = tuple[BundleRef, Book, Book]
"""A bundle, its runs from its own boxes and from anchors, and its runs on A's crops."""


def summarize_pair(a: Tracked, b: Tracked, margin: float) -> Comparison:
    """Hold B against A; the files of the maps of both must still be there. `margin` is 0..1."""
    options, plan = a[1].options, a[1].options.anchors
    figures = summarize(a[1]), summarize(b[1])
    pairs = _pairs(a, b)
    closed = [value for pair in pairs for value in pair.apart.later]
    opened = _opened(pairs)
    rows = _rows(pairs, *figures)
    return Comparison(
        a=_side(a[0], figures[0]),
        b=_side(b[0], figures[1]),
        dataset=options.dataset.name,
        limit=options.frames,
        threads=options.threads_each,
        anchor_spacing=plan.spacing if plan else 0,
        anchor_length=plan.length if plan else 0,
        delta_ao=_delta(a[1], b[1], margin),
        one_pass=_one_pass(rows),
        agreement=_agreement([pair.apart for pair in pairs if pair.apart.later]),
        open_loop=opened,
        error_gain=(1 - float(np.mean(closed))) / opened.box_error if opened and opened.box_error > 0 else None,
        sequences=rows,
        failures=_failures(a, b),
    )


@dataclass(frozen=True)
class _Pair:
    name: str
    apart: Divergence
    open_a: ReplayRun | None
    open_b: ReplayRun | None

    @property
    def open_error(self) -> float | None:
        """Mean of 1 - IoU on the same crops."""
        if self.open_a is None or self.open_b is None:
            return None
        return 1 - float(iou(np.array(self.open_a.boxes), np.array(self.open_b.boxes)).mean())


def _pairs(a: Tracked, b: Tracked) -> list[_Pair]:
    runs = {sequence.name: run for sequence, run in b[1].of(OnePass)}
    open_a, open_b = ({sequence.name: run for sequence, run in side[2].of(Replay)} for side in (a, b))
    return [
        _Pair(s.name, divergence(run.boxes, runs[s.name].boxes), open_a.get(s.name), open_b.get(s.name))
        for s, run in a[1].of(OnePass)
        if s.name in runs
    ]


def _side(named: BundleRef, figures: Result) -> Side:
    return Side(
        bundle=named.name,
        hint=named.hint,
        tracker=named.manifest.tracker,
        target=named.manifest.target,
        precision=named.manifest.precision,
        weights=named.manifest.weights.origin,
        ao=figures.ao,
        anchored_ao=None if figures.anchored is None else figures.anchored.ao,
    )


def _rows(pairs: list[_Pair], a: Result, b: Result) -> list[SequencePair]:
    ao_a, ao_b = ({one.name: one.ao for one in figures.sequences} for figures in (a, b))
    return [
        SequencePair(
            name=pair.name,
            frames=len(pair.apart.iou),
            ao_a=ao_a[pair.name],
            ao_b=ao_b[pair.name],
            mean_iou=float(np.mean(pair.apart.later)) if pair.apart.later else None,
            iou_above_0_9=_above(pair.apart.later) if pair.apart.later else None,
            first_divergence=pair.apart.first,
            recovery=pair.apart.recovery,
            open_loop_error=pair.open_error,
            iou=pair.apart.iou,
        )
        for pair in pairs
    ]


def _delta(a: Book, b: Book, margin: float) -> Difference | None:
    sides = [{sequence.name: run for sequence, run in book.of(Anchored)} for book in (a, b)]
    names = [name for name in sides[0] if name in sides[1]]
    if sum(len(sides[0][name].runs) for name in names) < 2:
        return None
    return paired_difference([sides[0][n] for n in names], [sides[1][n] for n in names], margin)


def _one_pass(rows: list[SequencePair]) -> OnePassDelta | None:
    deltas = [row.ao_b - row.ao_a for row in rows if row.ao_a is not None and row.ao_b is not None]
    if not deltas:
        return None
    ends = two_level_interval([np.array([delta]) for delta in deltas]) if len(deltas) > 1 else (None, None)
    return OnePassDelta(value=float(np.mean(deltas)), low=ends[0], high=ends[1])


def _agreement(curves: list[Divergence]) -> Agreement | None:
    if not curves:
        return None
    values = [value for curve in curves for value in curve.later]
    firsts = [curve.first for curve in curves if curve.first is not None]
    return Agreement(
        mean_iou=float(np.mean(values)),
        iou_above_0_9=_above(values),
        first_divergence=float(median(firsts)) if firsts else None,
        diverged=len(firsts),
        recovered=sum(curve.recovery is not None for curve in curves),
        sequences=len(curves),
    )


def _opened(pairs: list[_Pair]) -> OpenLoop | None:
    both = [(pair.open_a, pair.open_b) for pair in pairs if pair.open_a is not None and pair.open_b is not None]
    if not both:
        return None
    boxes_a = np.array([box for a, _ in both for box in a.boxes], np.float64)
    boxes_b = np.array([box for _, b in both for box in b.boxes], np.float64)
    return OpenLoop(
        box_error=1 - float(iou(boxes_a, boxes_b).mean()),
        center_px=float(center_distance(boxes_a, boxes_b).mean()),
        maps=map_errors(both),
    )


def _failures(a: Tracked, b: Tracked) -> list[Failure]:
    return [
        Failure(name=f"{side[0].label}: {what}", error=error)
        for side in (a, b)
        for what, error in {**side[2].errors, **side[1].errors}.items()
    ]


def _above(values: list[float]) -> float:
    return float((np.array(values) > TOGETHER).mean())
