"""From sequences to a data set: means, and how far they would move with other sequences."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from edgetrack.arrays import Floats
from edgetrack.evaluation.metrics import Scored, Scores
from edgetrack.evaluation.sequence import Protocol
from edgetrack.stats.bootstrap import weighted_mean_intervals

FIGURES = Scores.__struct_fields__
_OF_FRAMES = ("ao", "sr50", "sr75")


def overall(sequences: Sequence[Scored], protocol: Protocol) -> Scores:
    """The mean of each figure over the sequences that have it.

    Where the protocol says `over_frames`, AO and SR weigh a sequence by its frames: GOT-10k's toolkit joins the IoUs of
    all sequences before it takes the mean (experiments/got10k.py, `report`).
    """
    if not any(s.frames for s in sequences):
        return Scores()
    values, weights = _table(sequences, protocol)
    means = (values * weights).sum(axis=0) / weights.sum(axis=0)
    return Scores(**dict(zip(FIGURES, map(float, means), strict=True)))


def intervals(
    sequences: Sequence[Scored], protocol: Protocol, *, confidence: float = 0.95, resamples: int = 2000
) -> dict[str, tuple[float, float] | None]:
    """A percentile bootstrap interval for each figure of `overall`; None with fewer than two scored sequences.

    Whole sequences are resampled, since frames of one sequence are not independent (Efron & Tibshirani, "An
    Introduction to the Bootstrap", chapters 8 and 13). The generator is seeded: the same scores give the same interval.
    """
    scored = [s for s in sequences if s.frames]
    if len(scored) < 2:
        return dict.fromkeys(FIGURES)
    values, weights = _table(scored, protocol)
    low, high = weighted_mean_intervals(values, weights, confidence=confidence, resamples=resamples)
    return {name: (float(a), float(b)) for name, a, b in zip(FIGURES, low, high, strict=True)}


def _table(sequences: Sequence[Scored], protocol: Protocol) -> tuple[Floats, Floats]:
    """Values and weights, both (sequences, figures)."""
    scored = [s for s in sequences if s.frames]
    values = np.array([msgspec.structs.astuple(s.scores) for s in scored], np.float64)
    weights = np.ones_like(values)
    if protocol.over_frames:
        columns = [FIGURES.index(name) for name in _OF_FRAMES]
        weights[:, columns] = np.array([[s.frames] for s in scored])
    return values, weights
