"""The difference of two trackers over the same short runs, with its interval and what may be said of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from edgetrack.arrays import Floats
from edgetrack.errors import UsageError
from edgetrack.evaluation.anchors import AnchoredRun, AnchorRun
from edgetrack.stats.bootstrap import mean_of_means, two_level_interval
from edgetrack.stats.verdict import DifferenceVerdict, judge_difference, runs_to_settle

POINTS = 100
"""Points in an AO of 1."""


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """B minus A.

    Attributes:
        value: mean over sequences of the mean difference of paired runs, -1..1 (0.01 is one point of AO).
        low, high: its 95 % interval, bootstrapped over sequences and the runs within them.
        verdict: of B. `equal`: the interval lies within +-`margin`. `better`, `worse`: it lies on one side of 0 and not
            within the margin. `undecided`: none of these.
        runs, sequences: how many were paired.
        margin: what counts as equal, 0..1.
        more_runs: with `undecided`, how many further runs would probably settle it: the interval's half-width goes with
            1 / sqrt(runs), as long as they come from as many further sequences; None otherwise and where none can.
    """

    value: float
    low: float
    high: float
    verdict: DifferenceVerdict
    runs: int
    sequences: int
    margin: float
    more_runs: int | None

    @property
    def equal(self) -> bool:
        """Whether it is shown that the two differ by no more than the margin."""
        return self.verdict == "equal"

    @property
    def not_worse(self) -> bool:
        """Whether it is shown that B loses no more than the margin; what it may gain is not asked."""
        return self.low >= -self.margin

    def describe(self) -> str:
        """In points of AO, such as `-0.31 points (-0.52 to -0.10): worse (82 runs of 10 sequences)`."""
        value, low, high = (POINTS * number for number in (self.value, self.low, self.high))
        said: str = self.verdict
        if self.verdict == "equal":
            said = f"equal within {POINTS * self.margin:g}"
        elif self.verdict == "undecided" and self.more_runs is not None:
            said = f"undecided, about {self.more_runs} more runs would probably settle it"
        return (
            f"{value:+.2f} points ({low:+.2f} to {high:+.2f}): {said} ({self.runs} runs of {self.sequences} sequences)"
        )


def paired_difference(
    a_runs: Sequence[AnchoredRun],
    b_runs: Sequence[AnchoredRun],
    margin: float,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Difference:
    """B minus A, run by run from the same anchors.

    Args:
        a_runs, b_runs: of each tracker, one per sequence. Sequences that one of them lacks are left out.
        margin: what counts as equal, 0..1: 0.005 is half a point of AO.
        confidence, resamples, seed: of the bootstrap.

    Raises:
        UsageError: a margin that is no such number, a sequence twice, runs of a sequence that start at other anchors or
            were scored over other frames, or fewer than two pairs: one pair says nothing of how far it may move.
    """
    check_margin(margin)
    groups = _paired(a_runs, b_runs)
    runs = sum(map(len, groups))
    if runs < 2:
        raise UsageError(f"{runs} paired runs; a difference needs 2 or more; give more sequences, or anchors closer by")
    value = mean_of_means(groups)
    low, high = two_level_interval(groups, confidence=confidence, resamples=resamples, seed=seed)
    verdict = judge_difference(low, high, margin)
    return Difference(
        value=value,
        low=low,
        high=high,
        verdict=verdict,
        runs=runs,
        sequences=len(groups),
        margin=margin,
        more_runs=runs_to_settle(value, (high - low) / 2, margin, runs) if verdict == "undecided" else None,
    )


def check_margin(margin: float) -> None:
    """Check what counts as equal.

    Raises:
        UsageError: it is below 0 or not finite.
    """
    if not (math.isfinite(margin) and margin >= 0):
        raise UsageError(
            f"margin {margin:g} ({POINTS * margin:g} points): expected 0 or more, such as half a point, 0.005 of AO"
        )


def _paired(a_runs: Sequence[AnchoredRun], b_runs: Sequence[AnchoredRun]) -> list[Floats]:
    a_by, b_by = _by_name(a_runs), _by_name(b_runs)
    groups = []
    for name, a in a_by.items():
        b = b_by.get(name)
        if b is None:
            continue
        if [_start(run) for run in a.runs] != [_start(run) for run in b.runs]:
            raise UsageError(
                f"the runs of {name} do not pair: {len(a.runs)} and {len(b.runs)} of them, from other anchors or over "
                "other frames; run both trackers with one plan on one annotation"
            )
        if a.runs:
            groups.append(np.asarray(b.values - a.values, np.float64))
    return groups


def _by_name(runs: Sequence[AnchoredRun]) -> dict[str, AnchoredRun]:
    found = {run.sequence: run for run in runs}
    if len(found) != len(runs):
        raise UsageError(f"{len(runs)} anchored runs of {len(found)} sequences; give each sequence once")
    return found


def _start(run: AnchorRun) -> tuple[int, str, int]:
    return run.frame, run.direction, run.frames
