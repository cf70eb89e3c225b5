"""Whether something grows: the Theil-Sen slope, which no single sample can bend, with its interval."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import NormalDist

import msgspec
import numpy as np

from edgetrack.errors import UsageError
from edgetrack.stats.quantile import check_fraction

_LEAST_POINTS = 6
"""With fewer, the normal approximation of the interval's ranks is not to be trusted."""


class Slope(msgspec.Struct, frozen=True):
    """A slope, in the values' unit over the times' unit, and its interval; null where there are too few points."""

    value: float
    low: float | None
    high: float | None

    @property
    def grows(self) -> bool | None:
        """Whether the interval lies above zero; None without an interval."""
        return None if self.low is None else self.low > 0


def theil_sen(times: Sequence[float], values: Sequence[float], confidence: float = 0.95) -> Slope | None:
    """The median of the slopes between all pairs of points.

    Sen, "Estimates of the regression coefficient based on Kendall's tau", JASA 63, 1968: the interval's ends are the
    slopes at ranks (N -+ z sigma) / 2, sigma that of Kendall's statistic, with ties among the values.

    Args:
        times: strictly increasing.
        values: as many finite numbers; medians of windows, so that neighbours depend little on each other.
        confidence: strictly between 0 and 1.

    Returns:
        The slope, or None for fewer than 2 points.

    Raises:
        UsageError: times that do not increase, numbers that are not finite, or another number of values.
    """
    check_fraction("confidence", confidence)
    x, y = np.asarray(times, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise UsageError(f"{x.shape} times and {y.shape} values: expected the same number of finite values for both")
    if (np.diff(x) <= 0).any():
        raise UsageError("times: expected strictly increasing ones")
    count = x.size
    if count < 2:
        return None
    first, second = np.triu_indices(count, 1)
    slopes = np.sort((y[second] - y[first]) / (x[second] - x[first]))
    value = float(np.median(slopes))
    if count < _LEAST_POINTS:
        return Slope(value, None, None)
    ties = sum(n * (n - 1) * (2 * n + 5) for n in Counter(y.tolist()).values())
    sigma = math.sqrt(max(0.0, (count * (count - 1) * (2 * count + 5) - ties) / 18))
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * sigma
    lower = max(round((slopes.size - reach) / 2) - 1, 0)
    upper = min(round((slopes.size + reach) / 2), slopes.size - 1)
    return Slope(value, float(slopes[lower]), float(slopes[upper]))
