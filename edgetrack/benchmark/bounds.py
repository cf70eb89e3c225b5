"""What samples prove, with the binomial distribution alone: one-sided bounds on a percentile and on a share."""

from __future__ import annotations

import numpy as np

from edgetrack.benchmark.statistics import Samples, check_fraction, checked, log_binomial
from edgetrack.errors import UsageError

CONFIDENCE = 0.95
_BISECTIONS = 100


def percentile_upper(samples: Samples, q: float, confidence: float = CONFIDENCE) -> float | None:
    """A value that the quantile `q` does not exceed, with probability `confidence` or more, whatever the distribution.

    The number of n independent samples at or below the quantile is at most k - 1 with probability P(B <= k - 1), B
    binomial(n, q): the bound is the smallest order statistic k for which that reaches `confidence` (Conover,
    "Practical Nonparametric Statistics", section 3.2).

    Args:
        samples: finite numbers, not negative, in any order.
        q, confidence: strictly between 0 and 1.

    Returns:
        The bound in the samples' unit, or None where even the largest sample is none: below 299 samples for a p99.

    Raises:
        UsageError: no samples, or an argument outside its range.
    """
    check_fraction("quantile", q)
    check_fraction("confidence", confidence)
    values = np.sort(checked(samples))
    below = np.cumsum(np.exp(log_binomial(values.size, q)))  # below[k] = P(B <= k)
    rank = int(np.searchsorted(below[:-1], confidence * (1 - 1e-12), side="left")) + 1
    return float(values[rank - 1]) if rank <= values.size else None


def share_upper(hits: int, count: int, confidence: float = CONFIDENCE) -> float:
    """A share that the true one does not exceed, with probability `confidence`, after `hits` of `count` trials.

    The exact bound of Clopper & Pearson ("The use of confidence or fiducial limits", Biometrika 26, 1934): the p for
    which no more than `hits` have probability 1 - confidence. None of 300 gives 0.0099 at 0.95.

    Raises:
        UsageError: not 0 <= hits <= count with a positive count, or `confidence` outside its range.
    """
    check_fraction("confidence", confidence)
    if not 0 <= hits <= count or count < 1:
        raise UsageError(f"{hits} of {count}: expected 0 to count, of at least one")
    if hits == count:
        return 1.0
    low, high = hits / count, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        if float(np.exp(log_binomial(count, middle)[: hits + 1]).sum()) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high
