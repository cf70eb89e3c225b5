"""Bounds of a percentile that hold whatever the latencies' distribution is, and the verdict on a limit.

Of n independent samples the number below the quantile q is binomial(n, q), so that order statistics of suitable ranks
bound it (Conover, "Practical Nonparametric Statistics", section 3.2). Latencies of neighbouring frames are not
independent: slow ones come in rows. The ranks are therefore those of a smaller sample, n over the design effect: how
much more the share of slow frames varies between batches than it would among independent frames (Kish, "Survey
Sampling", section 8.2). Batches are turns, and rows of 2, 4, 8, ... of them, since a machine may be slow for longer
than a turn; the largest effect counts (blocking: Flyvbjerg & Petersen, "Error estimates on averages of correlated
data", 1989). That few batches tell little of how they vary widens the bounds, by as much as Student's t is wider than
the normal (Korn & Graubard, "Confidence intervals for proportions with small expected number of positive counts
estimated from survey data", 1998).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgetrack.errors import UsageError
from edgetrack.gate.verdict import Verdict

Samples = npt.NDArray[np.float64]
_MOST = 10_000_000
_LEAST_BATCHES = 16
"""Fewer rows of turns say too little of how rows vary. One turn alone is cut into as many."""
_ROUNDING = 1e-9
"""So that 9 independent samples are not taken for 8.999."""


@dataclass(frozen=True)
class Bounds:
    """A quantile of the distribution behind the samples, in their unit.

    Attributes:
        value: the samples' own, interpolated.
        low, high: each holds with the asked-for probability by itself; None where there are too few samples.
        count: how many samples there were.
        effective: to how many independent ones they amount, 1..count.
    """

    value: float
    low: float | None
    high: float | None
    count: int
    effective: float

    def judge(self, limit: float) -> Verdict:
        """`pass` where the quantile is shown to be no more than the limit, `fail` where it is shown to be above."""
        if self.high is not None and self.high <= limit:
            return "pass"
        return "fail" if self.low is not None and self.low > limit else "undecided"


def frame_bounds(turns: Sequence[Samples], q: float, alpha: float) -> Bounds:
    """One-sided bounds for the quantile `q` of frames, each wrong with probability `alpha` at most.

    What did not come about while it was measured, such as a rare burst of another program, is in no bound.

    Args:
        turns: samples of each turn in their order, in any unit, finite; none empty.
        q: strictly between 0 and 1.
        alpha: strictly between 0 and 0.5.

    Raises:
        UsageError: no samples.
    """
    values = _together(turns)
    return _bounds(values, q, alpha, max(1.0, len(values) / _largest(_effects(turns, q), alpha)))


def independent_bounds(values: Samples, q: float, alpha: float) -> Bounds:
    """The same for samples that know nothing of each other, such as one figure from each of several processes."""
    return _bounds(_together([values]), q, alpha, len(values))


def _bounds(samples: Samples, q: float, alpha: float, effective: float) -> Bounds:
    values, count = np.sort(samples), len(samples)
    whole = math.floor(effective * (1 + _ROUNDING))
    lower, upper = ranks(whole, q, alpha)
    return Bounds(
        value=float(np.quantile(values, q)),
        low=None if lower < 1 else float(values[max(1, lower * count // whole) - 1]),
        high=None if upper > whole else float(values[min(count, -(-upper * count // whole)) - 1]),
        count=count,
        effective=effective,
    )


def ranks(n: int, q: float, alpha: float) -> tuple[int, int]:
    """The 1-based ranks that bound the quantile from below and above; 0 and n + 1 where no rank does.

    The largest l with P(B <= l - 1) <= alpha and the smallest u with P(B >= u) <= alpha, B binomial(n, q).
    """
    from scipy.stats import binom

    return int(binom.ppf(alpha, n, q)), int(binom.isf(alpha, n, q)) + 1


def design_effect(batches: Sequence[Samples], q: float) -> float:
    """How many samples count as one, 1 or more.

    The mean square, over batches, of the share of samples above the quantile less 1 - q, over what independent samples
    would give. One batch tells nothing of that and gives 1.
    """
    if len(batches) < 2:
        return 1.0
    level = np.quantile(_together(batches), q)
    above = np.array([np.mean(batch > level) for batch in batches])
    share = np.average(above, weights=[len(batch) for batch in batches])
    count = sum(map(len, batches))
    alone = np.mean([share * (1 - share) / len(batch) for batch in batches]) * count / max(1, count - 1)
    spread = np.sum((above - share) ** 2) / (len(batches) - 1)
    return max(1.0, float(spread / alone)) if alone > 0 else 1.0


def _effects(turns: Sequence[Samples], q: float) -> list[tuple[float, int]]:
    """The design effect of every size of batches, and how many batches it comes from."""
    return [(design_effect(batches, q), len(batches)) for batches in _batches(turns)]


def _largest(effects: Sequence[tuple[float, int]], alpha: float, longer: float = 1.0) -> float:
    """The largest effect, each with what its number of batches leaves unsure; infinite where there is but one frame.

    `longer`: as if so many times as many batches had been as alike as these.
    """
    from scipy import stats

    free = np.array([longer * count - 1 for _, count in effects])
    unsure = (stats.t.isf(alpha, np.maximum(free, 1e-9)) / stats.norm.isf(alpha)) ** 2
    return float(np.max(np.where(free > 0, np.array([effect for effect, _ in effects]) * unsure, np.inf)))


def _batches(turns: Sequence[Samples]) -> Iterator[list[Samples]]:
    """The turns, then rows of 2, 4, 8, ... of them while there are enough; what is left at the end is in the last."""
    found = list(turns) if len(turns) > 1 else np.array_split(turns[0], min(_LEAST_BATCHES, len(turns[0])))
    yield found
    size = 2
    while len(found) // size >= _LEAST_BATCHES:
        starts = range(0, len(found) - size + 1, size)
        ends = [*starts[1:], len(found)]
        yield [np.concatenate(found[start:end]) for start, end in zip(starts, ends, strict=True)]
        size *= 2


def samples_to_decide(turns: Sequence[Samples], q: float, limit: float, alpha: float) -> int | None:
    """How many more samples would probably decide, if the share above the limit stays what it is.

    None where none would: the share is 1 - q itself, or so near it that ten million samples are too few.
    """
    values = _together(turns)
    above = float(np.mean(values > limit))
    if above == 1 - q:
        return None
    effects, total = _effects(turns, q), len(values)
    while total <= _MOST:
        n = math.floor(total / _largest(effects, alpha, total / len(values)))
        lower, upper = ranks(max(1, n), q, alpha)
        over = above * n
        if (over <= n - upper) if above < 1 - q else (lower >= 1 and over >= n - lower + 1):
            return max(1, total - len(values))
        total += max(1, total // 20)
    return None


def _together(turns: Sequence[Samples]) -> Samples:
    if not turns or not all(len(turn) for turn in turns):
        raise UsageError(f"{len(turns)} turns, of which one is empty or there are none: expected samples")
    return np.concatenate(turns)
