"""Overlap and distance of boxes, and the figures that papers report. numpy only; all figures are 0..1.

Sources: GOT-10k's toolkit (github.com/got-10k/toolkit, 0.1.3: utils/metrics.py, experiments/got10k.py, experiments/
otb.py), LaSOT's (github.com/HengLan/LaSOT_Evaluation_Toolkit: eval_tracker.m, calc_seq_err_robust.m), TrackingNet's
paper (ECCV 2018, section 4) and devkit (metrics.py), AVisT's paper (BMVC 2022, section 4), RGBT234's paper (Li et al.,
"RGB-T Object Tracking: Benchmark and Baseline", section 3.3), VOT's toolkit (vot/analysis/tpr.py) after Lukezic et al.,
"Now you see me: evaluating performance in long-term visual tracking" (2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from edgetrack.arrays import Boxes, Floats
from edgetrack.box import Box, center_distances, ious
from edgetrack.errors import UsageError
from edgetrack.evaluation.datasets.clip import Flags, ScoringRules
from edgetrack.stats.bootstrap import weighted_mean_intervals

OVERLAPS: Floats = np.linspace(0, 1, 21)
"""Thresholds of the success curve."""
PIXELS: Floats = np.arange(51, dtype=np.float64)
"""Thresholds of the precision curve, in pixels."""
FRACTIONS: Floats = np.arange(51) / 100
"""Thresholds of the normalised precision curve, in sizes of the target."""
AGREEING = 0.9
"""IoU of two trackers' boxes above which they agree."""
DIVERGED = 0.5
"""IoU of two trackers' boxes at and below which they have diverged."""


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a sequence or a data set, 0..1; None where no frame can be scored.

    Attributes:
        ao: mean IoU, without the first frame (GOT-10k's average overlap).
        sr50, sr75: share of the same frames whose IoU is above 0.5 and 0.75.
        auc: mean of the success curve over `OVERLAPS`, first frame included (OTB, LaSOT).
        precision: share of frames whose centre is within 20 pixels (GTOT: 5), first frame included.
        p_norm: mean of the normalised precision curve over `FRACTIONS` (TrackingNet's area under the curve).
        p_norm20: that curve at 0.2, which LaSOT's toolkit and most papers after it print as P_norm.
        op50, op75: the success curve at 0.5 and 0.75, first frame included (AVisT).
    """

    ao: float | None = None
    sr50: float | None = None
    sr75: float | None = None
    auc: float | None = None
    precision: float | None = None
    p_norm: float | None = None
    p_norm20: float | None = None
    op50: float | None = None
    op75: float | None = None


FIGURES = Scores.__struct_fields__
_FRAME_FIGURES = ("ao", "sr50", "sr75")


class Scored(NamedTuple):
    """A sequence's figures, and over how many frames AO and SR are means."""

    scores: Scores
    frames: int


def into_frame(boxes: Boxes, size: tuple[int, int]) -> Boxes:
    """Boxes moved into a frame of (width, height) pixels as GOT-10k's toolkit does it (`rect_iou` with a bound).

    The corner is moved into the frame and keeps its size, which is then cut: a box that sticks out on the left is moved
    to the right, not cut. This is the published definition, and is kept.
    """
    limits = np.array(size, np.float64)
    corner = np.clip(boxes[:, :2], 0, limits)
    return np.hstack([corner, np.clip(boxes[:, 2:], 0, limits - corner)])


def normalized_distance(found: Boxes, truth: Boxes) -> Floats:
    """Distance of the centres with x in widths and y in heights of the true box (TrackingNet, LaSOT), row by row."""
    offsets = (found[:, :2] + found[:, 2:] / 2 - truth[:, :2] - truth[:, 2:] / 2) / truth[:, 2:]
    lengths: Floats = np.hypot(offsets[:, 0], offsets[:, 1])
    return lengths


def success_curve(overlap: Floats) -> Floats:
    """Share of frames whose IoU is above (not at) each of `OVERLAPS`."""
    curve: Floats = (overlap[:, None] > OVERLAPS).mean(axis=0)
    return curve


def precision_curve(distances: Floats, thresholds: Floats = PIXELS) -> Floats:
    """Share of frames whose distance is at most each threshold."""
    curve: Floats = (distances[:, None] <= thresholds).mean(axis=0)
    return curve


def overlaps(found: Boxes, truth: Boxes, counted: Flags, rules: ScoringRules, size: tuple[int, int]) -> Floats:
    """IoU of the frames that are counted, of which AO and SR are means; bounded where the rules say so."""
    pair = [into_frame(b[counted], size) if rules.bounded else b[counted] for b in (found, truth)]
    return ious(*pair)


def score(found: Boxes, truth: Boxes, visible: Flags, rules: ScoringRules, size: tuple[int, int]) -> Scored:
    """The figures of one sequence.

    Args:
        found: float64 (n, 4), the tracker's boxes; the first is the one that it was given.
        truth: float64 (n, 4), NaN where the target is absent.
        visible: bool (n,), which frames count.
        rules: the data set's.
        size: (width, height) of the frames in pixels.
    """
    later = visible.copy()
    later[0] = False
    later_ious = overlaps(found, truth, later, rules, size)
    if not later_ious.size:
        return Scored(Scores(), 0)
    # An IoU of -1 and an infinite distance pass no threshold, as in pytracking's calc_seq_err_robust.
    missed = int((~visible).sum()) if rules.absent_fails else 0
    found, truth = found[visible], truth[visible]
    success = success_curve(np.append(ious(found, truth), np.full(missed, -1.0)))
    far = np.full(missed, np.inf)
    pixels = precision_curve(np.append(center_distances(found, truth), far))
    sizes = precision_curve(np.append(normalized_distance(found, truth), far), FRACTIONS)
    scores = Scores(
        ao=float(later_ious.mean()),
        sr50=float((later_ious > 0.5).mean()),
        sr75=float((later_ious > 0.75).mean()),
        auc=float(success.mean()),
        precision=float(pixels[rules.pixels]),
        p_norm=float(sizes.mean()),
        p_norm20=float(sizes[20]),
        op50=float(success[10]),
        op75=float(success[15]),
    )
    return Scored(scores, later_ious.size)


def overall(sequences: Sequence[Scored], rules: ScoringRules) -> Scores:
    """The mean of each figure over the sequences that have it.

    Where the rules say `over_frames`, AO and SR weigh a sequence by its frames: GOT-10k's toolkit joins the IoUs of
    all sequences before it takes the mean (experiments/got10k.py, `report`).
    """
    if not any(s.frames for s in sequences):
        return Scores()
    values, weights = _table(sequences, rules)
    means = (values * weights).sum(axis=0) / weights.sum(axis=0)
    return Scores(**dict(zip(FIGURES, map(float, means), strict=True)))


def intervals(
    sequences: Sequence[Scored], rules: ScoringRules, *, confidence: float = 0.95, resamples: int = 2000
) -> dict[str, tuple[float, float] | None]:
    """A percentile bootstrap interval for each figure of `overall`; None with fewer than two scored sequences.

    Whole sequences are resampled, since frames of one sequence are not independent (Efron & Tibshirani, "An
    Introduction to the Bootstrap", chapters 8 and 13). The generator is seeded: the same scores give the same interval.
    """
    scored = [s for s in sequences if s.frames]
    if len(scored) < 2:
        return dict.fromkeys(FIGURES)
    values, weights = _table(scored, rules)
    low, high = weighted_mean_intervals(values, weights, confidence=confidence, resamples=resamples)
    return {name: (float(a), float(b)) for name, a, b in zip(FIGURES, low, high, strict=True)}


def _table(sequences: Sequence[Scored], rules: ScoringRules) -> tuple[Floats, Floats]:
    """Values and weights, both (sequences, figures)."""
    scored = [s for s in sequences if s.frames]
    values = np.array([msgspec.structs.astuple(s.scores) for s in scored], np.float64)
    weights = np.ones_like(values)
    if rules.over_frames:
        columns = [FIGURES.index(name) for name in _FRAME_FIGURES]
        weights[:, columns] = np.array([[s.frames] for s in scored])
    return values, weights


class PairScores(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a tracker whose target has a box of its own in each modality, 0..1; None where nothing is scored.

    Attributes:
        precision_second, auc_second: P and AUC by the second modality's boxes (those by the first are `Scores`').
        mpr, msr: P and AUC where each frame counts by the nearer box and by the larger overlap: RGBT234's maximum
            precision and success rate.
    """

    precision_second: float | None = None
    auc_second: float | None = None
    mpr: float | None = None
    msr: float | None = None


def score_pair(found: Boxes, first: Boxes, second: Boxes, visible: Flags, rules: ScoringRules) -> PairScores:
    """The figures of one sequence; `first`, `second` are the truths of both modalities, else as in `score`."""
    by_first = _errors(found, first, visible)
    by_second = _errors(found, second, ~np.asarray(np.isnan(second).any(axis=1)))
    either = np.maximum(by_first[0], by_second[0]), np.minimum(by_first[1], by_second[1])
    precision, auc = _rates(*by_second, rules)
    mpr, msr = _rates(*either, rules)
    return PairScores(precision_second=precision, auc_second=auc, mpr=mpr, msr=msr)


def _errors(found: Boxes, truth: Boxes, there: Flags) -> tuple[Floats, Floats]:
    """Overlap and distance of every frame; -1 and infinity, which pass no threshold, where the target is not."""
    overlap, distance = np.full(len(found), -1.0), np.full(len(found), np.inf)
    overlap[there] = ious(found[there], truth[there])
    distance[there] = center_distances(found[there], truth[there])
    return overlap, distance


def _rates(overlap: Floats, distance: Floats, rules: ScoringRules) -> tuple[float | None, float | None]:
    counted = np.ones(len(overlap), np.bool_) if rules.absent_fails else np.isfinite(distance)
    if not counted.any():
        return None, None
    precision = precision_curve(distance[counted])[rules.pixels]
    return float(precision), float(success_curve(overlap[counted]).mean())


PAIR_FIGURES = PairScores.__struct_fields__


def overall_pair(
    sequences: Sequence[tuple[PairScores, int]], rules: ScoringRules
) -> tuple[PairScores, dict[str, tuple[float, float] | None]]:
    """The mean of each figure over sequences, or over their frames where the rules say so, and 95 % intervals.

    Args:
        sequences: the figures of each, and its number of frames.
        rules: the data set's.
    """
    scored = [(scores, frames) for scores, frames in sequences if None not in msgspec.structs.astuple(scores)]
    if not scored:
        return PairScores(), dict.fromkeys(PAIR_FIGURES)
    values = np.array([msgspec.structs.astuple(scores) for scores, _ in scored], np.float64)
    weights = np.ones_like(values)
    if rules.over_frames:
        weights *= np.array([[frames] for _, frames in scored])
    means = (values * weights).sum(axis=0) / weights.sum(axis=0)
    figures = PairScores(**dict(zip(PAIR_FIGURES, map(float, means), strict=True)))
    if len(scored) < 2:
        return figures, dict.fromkeys(PAIR_FIGURES)
    low, high = weighted_mean_intervals(values, weights)
    ends = zip(PAIR_FIGURES, low, high, strict=True)
    return figures, {name: (float(a), float(b)) for name, a, b in ends}


class LongTermScores(msgspec.Struct, frozen=True, kw_only=True):
    """VOT's figures of a tracker that may say that the target is gone, 0..1, where their F-score is largest.

    Attributes:
        precision: mean overlap of the frames whose confidence is at least `threshold`; 0 where the target is absent.
        recall: the sum of the same overlaps over the number of frames with the target.
        f_score: 2 precision recall / (precision + recall).
        threshold: of the confidence; None where every frame is taken, or none.
    """

    precision: float
    recall: float
    f_score: float
    threshold: float | None


class ConfidentRun(NamedTuple):
    """What VOT's long-term figures are made of: overlap and confidence of each frame, and how many have the target."""

    overlap: Floats
    confidence: Floats
    present: int


THRESHOLDS = 100
"""As many points of the precision-recall curve as VOT's toolkit takes."""


def confident_run(
    found: Boxes, confidence: Sequence[float | None], truth: Boxes, size: tuple[int, int]
) -> ConfidentRun:
    """A sequence's part of `long_term`; boxes as in `score`.

    As in the toolkit, the first frame, in which the box was given, has overlap 0 and confidence 0 and counts as one
    with the target; boxes are cut to the frame of (width, height) pixels.
    """
    there = ~np.asarray(np.isnan(truth).any(axis=1))
    overlap = np.zeros(len(found))
    overlap[there] = ious(_cut(found[there], size), _cut(truth[there], size))
    overlap[0] = 0.0
    return ConfidentRun(overlap, np.array([0.0, *confidence[1:]], np.float64), int(there.sum()))


def _cut(boxes: Boxes, size: tuple[int, int]) -> Boxes:
    limits = np.array(size, np.float64)
    corner, end = (np.clip(part, 0, limits) for part in (boxes[:, :2], boxes[:, :2] + boxes[:, 2:]))
    return np.hstack([corner, end - corner])


def long_term(runs: Sequence[ConfidentRun]) -> LongTermScores | None:
    """Precision and recall, each a mean over sequences, at the confidence where their F-score is largest."""
    if not runs:
        return None
    thresholds = _thresholds(np.concatenate([run.confidence for run in runs]))
    curves = np.array([[_at(run, threshold) for threshold in thresholds] for run in runs]).mean(axis=0)
    total = curves.sum(axis=1)
    f_scores = np.divide(2 * curves.prod(axis=1), total, out=np.zeros(len(total)), where=total > 0)
    best = int(f_scores.argmax())
    return LongTermScores(
        precision=float(curves[best, 0]),
        recall=float(curves[best, 1]),
        f_score=float(f_scores[best]),
        threshold=float(thresholds[best]) if np.isfinite(thresholds[best]) else None,
    )


def _thresholds(confidence: Floats) -> Floats:
    """Evenly spread over the sorted confidences of all sequences, from infinity down to minus infinity."""
    falling = np.sort(confidence)[::-1]
    inner = THRESHOLDS - 2
    if len(falling) > inner:
        margin = len(falling) // inner
        falling = falling[np.rint(np.linspace(margin, len(falling) - margin, inner)).astype(int)]
    return np.concatenate([[np.inf], falling, [-np.inf]])


def _at(run: ConfidentRun, threshold: float) -> tuple[float, float]:
    taken = run.overlap[run.confidence >= threshold]
    return (float(taken.mean()), float(taken.sum()) / run.present) if len(taken) else (1.0, 0.0)


class Divergence(msgspec.Struct, frozen=True, kw_only=True):
    """How far two runs of a sequence, each of which follows its own boxes, are apart.

    Attributes:
        iou: IoU of the two boxes in every frame, 0..1; in the first frame both were given the same.
        first: the first frame, counted from 0, with an IoU of `DIVERGED` or less; None where there is none.
        recovery: the first frame above `AGREEING` after the last one of `DIVERGED` or less; None where there is none.
    """

    iou: list[float]
    first: int | None
    recovery: int | None

    @property
    def later(self) -> list[float]:
        """IoU without the first frame."""
        return self.iou[1:]


def divergence(a: Sequence[Box], b: Sequence[Box]) -> Divergence:
    """Compare the boxes of two runs of one sequence.

    Raises:
        UsageError: they have different numbers of frames.
    """
    if len(a) != len(b):
        raise UsageError(f"runs of {len(a)} and {len(b)} frames; expected two of the same frames")
    curve = ious(np.array(a, np.float64).reshape(-1, 4), np.array(b, np.float64).reshape(-1, 4))
    apart = np.flatnonzero(curve[1:] <= DIVERGED) + 1
    first = int(apart[0]) if apart.size else None
    recovery = None
    if apart.size:
        last = int(apart[-1])
        again = np.flatnonzero(curve[last:] > AGREEING)
        recovery = last + int(again[0]) if again.size else None
    return Divergence(iou=[float(value) for value in curve], first=first, recovery=recovery)
