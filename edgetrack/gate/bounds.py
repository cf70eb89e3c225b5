"""Bounds of a percentile that hold whatever the latencies' distribution is, and the verdict on a limit.

Of n independent samples the number below the quantile q is binomial(n, q), so that order statistics of suitable ranks
bound it (Conover, "Practical Nonparametric Statistics", section 3.2). Latencies of neighbouring frames are not
independent: slow ones come in rows. The ranks are therefore those of a smaller sample, n over the design effect: how
much more the share of slow frames varies between turns than it would among independent frames (Kish, "Survey Sampling",
section 8.2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgetrack.errors import UsageError
from edgetrack.gate.verdict import Verdict

Samples = npt.NDArray[np.float64]
_MOST = 10_000_000
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


def quantile_bounds(turns: Sequence[Samples], q: float, alpha: float) -> Bounds:
    """One-sided bounds for the quantile `q`, each wrong with probability `alpha` at most.

    Args:
        turns: samples of each turn, in any unit, finite; none empty.
        q, alpha: strictly between 0 and 1.

    Raises:
        UsageError: no samples.
    """
    values = np.sort(_together(turns))
    count = len(values)
    value = float(np.quantile(values, q))
    effective = count / design_effect(turns, q)
    whole = max(1, math.floor(effective * (1 + _ROUNDING)))
    lower, upper = ranks(whole, q, alpha)
    return Bounds(
        value=value,
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


def design_effect(turns: Sequence[Samples], q: float) -> float:
    """How many samples count as one, 1 or more.

    The mean square, over turns, of the share of samples above the quantile less 1 - q, over what independent samples
    would give. One turn tells nothing of that and gives 1.
    """
    if len(turns) < 2:
        return 1.0
    level = np.quantile(_together(turns), q)
    above = np.array([np.mean(turn > level) for turn in turns])
    share = np.average(above, weights=[len(turn) for turn in turns])
    count = sum(map(len, turns))
    alone = np.mean([share * (1 - share) / len(turn) for turn in turns]) * count / max(1, count - 1)
    spread = np.sum((above - share) ** 2) / (len(turns) - 1)
    return max(1.0, float(spread / alone)) if alone > 0 else 1.0


def samples_to_decide(turns: Sequence[Samples], q: float, limit: float, alpha: float) -> int | None:
    """How many more samples would probably decide, if the share above the limit stays what it is.

    None where none would: the share is 1 - q itself, or so near it that ten million samples are too few.
    """
    values = _together(turns)
    above = float(np.mean(values > limit))
    if above == 1 - q:
        return None
    effect = design_effect(turns, q)
    n = max(2, math.floor(len(values) / effect))
    while n * effect <= _MOST:
        lower, upper = ranks(n, q, alpha)
        over = above * n
        if (over <= n - upper) if above < 1 - q else (lower >= 1 and over >= n - lower + 1):
            return max(1, math.ceil(n * effect) - len(values))
        n += max(1, n // 20)
    return None


def _together(turns: Sequence[Samples]) -> Samples:
    if not turns or not all(len(turn) for turn in turns):
        raise UsageError(f"{len(turns)} turns, of which one is empty or there are none: expected samples")
    return np.concatenate(turns)
