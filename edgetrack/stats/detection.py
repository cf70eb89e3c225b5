"""How well a score tells two kinds of frames apart: the ROC curve, the area under it, and rates at a threshold.

Frames come in groups, one a sequence, and are pooled: one threshold must serve all sequences. Intervals resample whole
groups, as in `edgetrack.stats.bootstrap`. Here a *low* score speaks for the event.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgetrack.arrays import Floats
from edgetrack.errors import UsageError

Events = NDArray[np.bool_]
_RESAMPLES = 2000
_SEED = 0
_SPARE = 0.01
_EDGE = 1e-6


class ScoredFrames(NamedTuple):
    """Frames of one group: the score of each, and whether the event was there; both (frames,)."""

    score: Floats
    event: Events


def auroc(groups: Sequence[ScoredFrames]) -> float | None:
    """The chance that a frame with the event scores lower than one without, ties counting half: the area under the ROC
    curve, exact (Hanley & McNeil, "The meaning and use of the area under a ROC curve", Radiology 143, 1982).

    Returns:
        0..1, where 0.5 is a coin's; None unless there are frames of both kinds.
    """
    score, event = _pooled(groups)
    wins = _wins(score[event], score[~event])
    return float(wins.sum() / (event.sum() * (~event).sum())) if wins.size and not event.all() else None


def auroc_interval(
    groups: Sequence[ScoredFrames], *, confidence: float = 0.95, resamples: int = _RESAMPLES, seed: int = _SEED
) -> tuple[float, float] | None:
    """The interval of `auroc` over groups; data sets drawn without one of the kinds are left out.

    Returns:
        Its ends; None where fewer than two groups have frames of a kind.
    """
    if min(_groups_with(groups, True), _groups_with(groups, False)) < 2:
        return None
    wins = np.array([[_wins(a.score[a.event], b.score[~b.event]).sum() for b in groups] for a in groups])
    events = np.array([group.event.sum() for group in groups], np.float64)
    others = np.array([(~group.event).sum() for group in groups], np.float64)
    drawn = _drawn(len(groups), resamples, seed)
    pairs = (drawn @ events) * (drawn @ others)
    areas = np.einsum("ri,ij,rj->r", drawn, wins, drawn)[pairs > 0] / pairs[pairs > 0]
    return _ends(areas, confidence)


def roc(groups: Sequence[ScoredFrames], points: int = 101) -> list[tuple[float, float, float]]:
    """The ROC curve as (threshold, false alarms, recall): shares of frames below the threshold, without and with the
    event.

    Args:
        groups: frames of both kinds.
        points: at most so many, spread over the curve's length; the corner that decides is kept.

    Raises:
        UsageError: frames of one kind only.
    """
    score, event = _pooled(groups)
    if event.all() or not event.any():
        raise UsageError("a ROC curve needs frames of both kinds")
    levels, index = np.unique(score, return_inverse=True)
    # Every threshold is finite: JSON has no infinity.
    thresholds = np.append(levels, np.nextafter(levels[-1], np.inf))
    alarms, recall = (
        np.append(0, np.cumsum(np.bincount(index[kind], minlength=len(levels)))) / kind.sum()
        for kind in (~event, event)
    )
    length = np.append(0, np.cumsum(np.abs(np.diff(alarms)) + np.abs(np.diff(recall))))
    kept = np.unique(np.searchsorted(length, np.linspace(0, length[-1], points)).clip(0, len(length) - 1))
    return [(float(thresholds[i]), float(alarms[i]), float(recall[i])) for i in kept]


def ratio_interval(
    counts: Floats, totals: Floats, *, confidence: float = 0.95, resamples: int = _RESAMPLES, seed: int = _SEED
) -> tuple[float, float] | None:
    """The interval of sum(counts) / sum(totals) over groups, both float64 (groups,).

    Returns:
        Its ends; None where fewer than two groups have a total above 0.
    """
    counts, totals = counts[totals > 0], totals[totals > 0]
    if len(totals) < 2:
        return None
    drawn = _drawn(len(totals), resamples, seed)
    return _ends((drawn @ counts) / (drawn @ totals), confidence)


class Counts(NamedTuple):
    """How many frames of each group are below each of rising thresholds, and how many there are.

    Attributes:
        alarms, hits: float64 (thresholds, groups), of the frames without and with the event.
        others, events: float64 (groups,), how many of either there are.
    """

    alarms: Floats
    hits: Floats
    others: Floats
    events: Floats

    def allowed(self, rate: float, drawn: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The range of thresholds that suit data sets of these groups: first and last index for each, both (sets,).

        The last is the highest at which no more than `rate` of the frames without the event are alarms. The first is
        the lowest that finds as many of the others, less one in a hundred.

        Args:
            rate: 0..1.
            drawn: float64 (sets, groups), how often each group is in each set.
        """
        alarms, hits = self.alarms @ drawn.T, self.hits @ drawn.T
        last = np.maximum((alarms <= rate * (drawn @ self.others)).sum(axis=0) - 1, 0)
        enough = np.take_along_axis(hits, last[None], axis=0) - _SPARE * (drawn @ self.events)
        return (hits < enough).sum(axis=0), last


def choose_threshold(thresholds: Floats, counts: Counts, rate: float) -> float:
    """The middle, in log-odds, of the range of thresholds that `Counts.allowed` gives for all groups together.

    On either side there is as much room for data that differ: the highest that is allowed may be the last before a
    cliff of false alarms, and the lowest the last before one of misses.

    Args:
        thresholds: float64 (thresholds,), rising, 0..1.
        counts: at them.
        rate: of false alarms, 0..1.
    """
    return float(_middles(thresholds, counts, rate, np.ones((1, len(counts.others))))[0])


def threshold_interval(
    thresholds: Floats,
    counts: Counts,
    rate: float,
    *,
    confidence: float = 0.95,
    resamples: int = _RESAMPLES,
    seed: int = _SEED,
) -> tuple[float, float] | None:
    """The interval over groups of what `choose_threshold` takes; arguments as there.

    Returns:
        Its ends; None where fewer than two groups have frames of a kind.
    """
    if min((counts.others > 0).sum(), (counts.events > 0).sum()) < 2:
        return None
    drawn = _drawn(len(counts.others), resamples, seed)
    drawn = drawn[(drawn @ counts.events > 0) & (drawn @ counts.others > 0)]
    return _ends(_middles(thresholds, counts, rate, drawn), confidence)


def _middles(thresholds: Floats, counts: Counts, rate: float, drawn: Floats) -> Floats:
    known = np.clip(thresholds, _EDGE, 1 - _EDGE)
    odds = np.log(known / (1 - known))
    first, last = counts.allowed(rate, drawn)
    middles: Floats = 1 / (1 + np.exp(-(odds[first] + odds[last]) / 2))
    return middles


def _pooled(groups: Sequence[ScoredFrames]) -> tuple[Floats, Events]:
    score = np.concatenate([np.empty(0), *(group.score for group in groups)])
    return score, np.concatenate([np.empty(0, np.bool_), *(group.event for group in groups)])


def _wins(events: Floats, others: Floats) -> Floats:
    """Of each event's score, how many others are above it, those at it counting half."""
    ordered = np.sort(others)
    at_most, below = (np.searchsorted(ordered, events, side) for side in ("right", "left"))
    wins: Floats = len(ordered) - 0.5 * (at_most + below).astype(np.float64)
    return wins


def _groups_with(groups: Sequence[ScoredFrames], event: bool) -> int:
    return sum(bool((group.event == event).any()) for group in groups)


def _drawn(groups: int, resamples: int, seed: int) -> Floats:
    """How often each group is in each of the data sets drawn: float64 (resamples, groups)."""
    random = np.random.default_rng(seed)
    return random.multinomial(groups, np.full(groups, 1 / groups), size=resamples).astype(np.float64)


def _ends(values: Floats, confidence: float) -> tuple[float, float]:
    tail = 50 * (1 - confidence)
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)
