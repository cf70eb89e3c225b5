"""Overlap and distance of boxes, and the figures that papers report. numpy only; all figures are 0..1.

Sources: GOT-10k's toolkit (github.com/got-10k/toolkit, 0.1.3: utils/metrics.py, experiments/got10k.py, experiments/
otb.py), LaSOT's (github.com/HengLan/LaSOT_Evaluation_Toolkit: eval_tracker.m, calc_seq_err_robust.m), TrackingNet's
paper (ECCV 2018, section 4) and devkit (metrics.py), AVisT's paper (BMVC 2022, section 4).
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgetrack.evaluation.sequence import Boxes, Flags, Protocol

Values = NDArray[np.float64]
OVERLAPS: Values = np.linspace(0, 1, 21)
"""Thresholds of the success curve."""
PIXELS: Values = np.arange(51, dtype=np.float64)
"""Thresholds of the precision curve, in pixels."""
FRACTIONS: Values = np.arange(51) / 100
"""Thresholds of the normalised precision curve, in sizes of the target."""


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a sequence or a data set, 0..1; None where no frame can be scored.

    Attributes:
        ao: mean IoU, without the first frame (GOT-10k's average overlap).
        sr50, sr75: share of the same frames whose IoU is above 0.5 and 0.75.
        auc: mean of the success curve over `OVERLAPS`, first frame included (OTB, LaSOT).
        precision: share of frames whose centre is within 20 pixels, first frame included.
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


class Scored(NamedTuple):
    """A sequence's figures, and over how many frames AO and SR are means."""

    scores: Scores
    frames: int


def iou(a: Boxes, b: Boxes) -> Values:
    """Intersection over union, row by row of two (n, 4) arrays of x, y, w, h; 0 where a box has no area or is NaN."""
    with np.errstate(invalid="ignore", divide="ignore"):
        corner = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
        sides = np.maximum(corner - np.maximum(a[:, :2], b[:, :2]), 0)
        shared = sides.prod(axis=1)
        found = shared / (a[:, 2:].prod(axis=1) + b[:, 2:].prod(axis=1) - shared)
    clipped: Values = np.clip(np.nan_to_num(found, nan=0.0), 0, 1)
    return clipped


def into_frame(boxes: Boxes, size: tuple[int, int]) -> Boxes:
    """Boxes moved into a frame of (width, height) pixels as GOT-10k's toolkit does it (`rect_iou` with a bound).

    The corner is moved into the frame and keeps its size, which is then cut: a box that sticks out on the left is moved
    to the right, not cut. This is the published definition, and is kept.
    """
    limits = np.array(size, np.float64)
    corner = np.clip(boxes[:, :2], 0, limits)
    return np.hstack([corner, np.clip(boxes[:, 2:], 0, limits - corner)])


def center_distance(a: Boxes, b: Boxes) -> Values:
    """Distance of the centres in pixels, row by row."""
    return _length(a[:, :2] + a[:, 2:] / 2 - b[:, :2] - b[:, 2:] / 2)


def normalized_distance(found: Boxes, truth: Boxes) -> Values:
    """Distance of the centres with x in widths and y in heights of the true box (TrackingNet, LaSOT), row by row."""
    return _length((found[:, :2] + found[:, 2:] / 2 - truth[:, :2] - truth[:, 2:] / 2) / truth[:, 2:])


def _length(offsets: Values) -> Values:
    lengths: Values = np.hypot(offsets[:, 0], offsets[:, 1])
    return lengths


def success_curve(ious: Values) -> Values:
    """Share of frames whose IoU is above (not at) each of `OVERLAPS`."""
    curve: Values = (ious[:, None] > OVERLAPS).mean(axis=0)
    return curve


def precision_curve(distances: Values, thresholds: Values = PIXELS) -> Values:
    """Share of frames whose distance is at most each threshold."""
    curve: Values = (distances[:, None] <= thresholds).mean(axis=0)
    return curve


def overlaps(found: Boxes, truth: Boxes, counted: Flags, protocol: Protocol, size: tuple[int, int]) -> Values:
    """IoU of the frames that are counted, of which AO and SR are means; bounded where the protocol says so."""
    pair = [into_frame(b[counted], size) if protocol.bounded else b[counted] for b in (found, truth)]
    return iou(*pair)


def score(found: Boxes, truth: Boxes, visible: Flags, protocol: Protocol, size: tuple[int, int]) -> Scored:
    """The figures of one sequence.

    Args:
        found: float64 (n, 4), the tracker's boxes; the first is the one that it was given.
        truth: float64 (n, 4), NaN where the target is absent.
        visible: bool (n,), which frames count.
        protocol: the data set's rules.
        size: (width, height) of the frames in pixels.
    """
    later = visible.copy()
    later[0] = False
    ious = overlaps(found, truth, later, protocol, size)
    if not ious.size:
        return Scored(Scores(), 0)
    # An IoU of -1 and an infinite distance pass no threshold, as in pytracking's calc_seq_err_robust.
    missed = int((~visible).sum()) if protocol.absent_fails else 0
    found, truth = found[visible], truth[visible]
    success = success_curve(np.append(iou(found, truth), np.full(missed, -1.0)))
    far = np.full(missed, np.inf)
    pixels = precision_curve(np.append(center_distance(found, truth), far))
    sizes = precision_curve(np.append(normalized_distance(found, truth), far), FRACTIONS)
    scores = Scores(
        ao=float(ious.mean()),
        sr50=float((ious > 0.5).mean()),
        sr75=float((ious > 0.75).mean()),
        auc=float(success.mean()),
        precision=float(pixels[20]),
        p_norm=float(sizes.mean()),
        p_norm20=float(sizes[20]),
        op50=float(success[10]),
        op75=float(success[15]),
    )
    return Scored(scores, ious.size)
