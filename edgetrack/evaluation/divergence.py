"""How far two trackers that each follow their own boxes are apart, frame by frame."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from edgetrack.box import Box
from edgetrack.errors import UsageError
from edgetrack.evaluation.metrics import iou

TOGETHER = 0.9
"""IoU of the two boxes above which they are taken to be the same."""
APART = 0.5
"""IoU of the two boxes at and below which they have diverged."""


class Divergence(msgspec.Struct, frozen=True, kw_only=True):
    """Two runs of a sequence.

    Attributes:
        iou: IoU of the two boxes in every frame, 0..1; in the first frame both were given the same.
        first: the first frame, counted from 0, in which they have diverged; None where they never do.
        recovery: the first frame in which they are together again for good, that is after the last one in which they
            were apart; None where that never comes.
    """

    iou: list[float]
    first: int | None
    recovery: int | None

    @property
    def later(self) -> list[float]:
        """IoU without the first frame."""
        return self.iou[1:]


def divergence(a: Sequence[Box], b: Sequence[Box]) -> Divergence:
    """Hold the boxes of two runs of one sequence against one another.

    Raises:
        UsageError: they have different numbers of frames.
    """
    if len(a) != len(b):
        raise UsageError(f"runs of {len(a)} and {len(b)} frames; expected two of the same frames")
    curve = iou(np.array(a, np.float64).reshape(-1, 4), np.array(b, np.float64).reshape(-1, 4))
    apart = np.flatnonzero(curve[1:] <= APART) + 1
    first = int(apart[0]) if apart.size else None
    recovery = None
    if apart.size:
        last = int(apart[-1])
        again = np.flatnonzero(curve[last:] > TOGETHER)
        recovery = last + int(again[0]) if again.size else None
    return Divergence(iou=[float(value) for value in curve], first=first, recovery=recovery)
