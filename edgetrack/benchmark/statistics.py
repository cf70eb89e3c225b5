"""Statistics of latency samples: percentiles with their support, distribution-free intervals, ratios of paired rounds.

Percentiles follow numpy's "linear" method (type 7 of Hyndman & Fan, "Sample Quantiles in Statistical Packages", 1996):
the value at position q * (n - 1) of the sorted samples, interpolated between its neighbours. No sample is ever dropped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import msgspec
import numpy as np
import numpy.typing as npt

from edgetrack.errors import UsageError

Samples = Sequence[float] | npt.NDArray[np.floating]
"""One-dimensional samples: finite and not negative."""


class Summary(msgspec.Struct, frozen=True):
    """What a set of latency samples says; all but `count`, `cv` and `notes` in the samples' unit (milliseconds).

    A percentile is None where fewer than one sample is expected beyond it; `notes` then says how many samples it needs.
    `cv` is the standard deviation (n - 1 in the denominator) over the mean, None below two samples or for a zero mean.
    """

    count: int
    mean: float
    p50: float
    p90: float | None
    p95: float | None
    p99: float | None
    minimum: float
    maximum: float
    cv: float | None
    notes: tuple[str, ...] = ()


class Interval(msgspec.Struct, frozen=True):
    """Two order statistics and the exact probability that they hold the quantile, no less than was asked for."""

    low: float
    high: float
    coverage: float


class Ratio(msgspec.Struct, frozen=True):
    """A ratio of medians with its bootstrap interval; `low` and `high` are None where there are too few rounds."""

    value: float
    low: float | None
    high: float | None


def samples_needed(q: float) -> int:
    """How many samples the quantile `q` in [0, 1) needs so that at least one is expected beyond it: n * (1 - q) >= 1.

    Raises:
        UsageError: `q` is outside [0, 1).
    """
    if not 0 <= q < 1:
        raise UsageError(f"quantile {q}: expected a number from 0 up to, not including, 1, such as 0.99")
    return math.ceil(1 / (1 - Fraction(str(q))))


def summarize(samples_ms: Samples) -> Summary:
    """Count, mean, percentiles, extremes and variation of latencies in milliseconds.

    Raises:
        UsageError: no samples, or one that is negative or not finite.
    """
    values = checked(samples_ms)
    count = values.size
    mean = float(values.mean())
    notes: list[str] = []

    def percentile(q: float) -> float | None:
        needed = samples_needed(q)
        if count < needed:
            notes.append(f"p{round(100 * q)} needs at least {needed} samples, there are {count}")
            return None
        return float(np.percentile(values, 100 * q))

    return Summary(
        count=count,
        mean=mean,
        p50=float(np.percentile(values, 50)),
        p90=percentile(0.90),
        p95=percentile(0.95),
        p99=percentile(0.99),
        minimum=float(values.min()),
        maximum=float(values.max()),
        cv=float(values.std(ddof=1)) / mean if count > 1 and mean > 0 else None,
        notes=tuple(notes),
    )


def percentile_interval(samples: Samples, q: float, confidence: float = 0.95) -> Interval | None:
    """An interval for the quantile `q` of the distribution behind the samples, whatever that distribution is.

    Of n independent samples the number below the quantile is binomial(n, q), so the order statistics of ranks l < u
    hold it with probability P(l <= B <= u - 1). The ranks are the tightest whose two tails each stay within
    (1 - confidence) / 2 (Conover, "Practical Nonparametric Statistics", section 3.2). Latencies of neighbouring frames
    are not independent; the interval is then too narrow.

    Args:
        samples: finite numbers, not negative, in any order.
        q: strictly between 0 and 1.
        confidence: strictly between 0 and 1.

    Returns:
        The interval in the samples' unit, or None where n is too small for two such ranks to exist.

    Raises:
        UsageError: no samples, a sample that is negative or not finite, `q` or `confidence` outside its range.
    """
    check_fraction("quantile", q)
    check_fraction("confidence", confidence)
    values = np.sort(checked(samples))
    ranks = _ranks(values.size, q, (1 - confidence) / 2)
    if ranks is None:
        return None
    lower, upper, coverage = ranks
    return Interval(low=float(values[lower - 1]), high=float(values[upper - 1]), coverage=coverage)


def rounds_needed(confidence: float) -> int:
    """How many rounds `ratio_of_medians` needs before it gives an interval: 5 at 0.90, 6 at 0.95, 8 at 0.99.

    The whole range of k independent rounds holds their median with probability 1 - 2**(1 - k). A resampled interval
    hardly leaves that range, so below this k it would claim a confidence that not even the range has.

    Raises:
        UsageError: `confidence` is not strictly between 0 and 1.
    """
    check_fraction("confidence", confidence)
    return math.ceil(1 - math.log2(1 - confidence))


def ratio_of_medians(
    a: Sequence[Samples],
    b: Sequence[Samples],
    *,
    confidence: float = 0.95,
    rng: np.random.Generator,
    resamples: int = 2000,
) -> Ratio:
    """median(a) / median(b) over all rounds, with a percentile bootstrap interval that resamples whole pairs of rounds.

    Round i of `a` and round i of `b` ran next to each other, so a machine that slows down slows both. Resampling the
    pairs keeps that, and keeps the dependence of samples within a round, which resampling single samples would lose
    (block bootstrap; Efron & Tibshirani, "An Introduction to the Bootstrap", chapters 8 and 13).

    Args:
        a: one sequence of samples per round, positive, in any unit.
        b: as many rounds, in the same unit.
        confidence: strictly between 0 and 1.
        rng: the source of the resampling.
        resamples: how many times to resample, at least 1.

    Raises:
        UsageError: no rounds, unequal numbers of rounds, an empty round, a sample that is not a positive finite number,
            `confidence` or `resamples` outside its range.
    """
    check_fraction("confidence", confidence)
    if resamples < 1:
        raise UsageError(f"resamples is {resamples}: expected at least 1")
    if not a or len(a) != len(b):
        raise UsageError(f"{len(a)} rounds against {len(b)}: expected as many of both, at least one")
    rounds_a, rounds_b = ([checked(samples, positive=True) for samples in rounds] for rounds in (a, b))

    def ratio(chosen: npt.NDArray[np.int64]) -> float:
        return _pooled_median(rounds_a, chosen) / _pooled_median(rounds_b, chosen)

    count = len(rounds_a)
    value = ratio(np.arange(count))
    if count < rounds_needed(confidence):
        return Ratio(value=value, low=None, high=None)
    drawn = [ratio(chosen) for chosen in rng.integers(count, size=(resamples, count))]
    tail = 50 * (1 - confidence)
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return Ratio(value=value, low=float(low), high=float(high))


def fps(p50_ms: float) -> float:
    """Frames per second of a median latency in milliseconds: 1000 / p50.

    Raises:
        UsageError: the latency is not a positive finite number.
    """
    if not (math.isfinite(p50_ms) and p50_ms > 0):
        raise UsageError(f"median latency {p50_ms} ms: expected a positive finite number")
    return 1000 / p50_ms


def _pooled_median(rounds: list[npt.NDArray[np.float64]], chosen: npt.NDArray[np.int64]) -> float:
    return float(np.median(np.concatenate([rounds[index] for index in chosen])))


def _ranks(n: int, q: float, tail: float) -> tuple[int, int, float] | None:
    """1-based ranks (lower, upper) and their coverage, or None where a tail is heavier than allowed even at the end."""
    weights = np.exp(log_binomial(n, q))
    at_most = np.cumsum(weights)  # at_most[k] = P(B <= k)
    at_least_from_top = np.cumsum(weights[::-1])  # at_least_from_top[k] = P(B >= n - k)
    allowed = tail * (1 + 1e-9)  # the sums' rounding must not decide where a tail equals the bound exactly
    lower = int(np.searchsorted(at_most, allowed, side="right"))
    upper = n + 1 - int(np.searchsorted(at_least_from_top, allowed, side="right"))
    if lower < 1 or upper > n:
        return None
    return lower, upper, float(weights[lower:upper].sum())


def log_binomial(n: int, q: float) -> npt.NDArray[np.float64]:
    """log P(B = k) for k = 0..n of a binomial(n, q), q strictly between 0 and 1."""
    factorials = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, n + 1, dtype=np.float64)))))
    k = np.arange(n + 1)
    return np.asarray(factorials[n] - factorials - factorials[::-1] + k * math.log(q) + (n - k) * math.log1p(-q))


def checked(samples: Samples, *, positive: bool = False) -> npt.NDArray[np.float64]:
    """The samples as an array.

    Raises:
        UsageError: none, or one that is negative (or zero, where they must be positive) or not finite.
    """
    values = np.asarray(samples, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise UsageError(f"samples of shape {values.shape}: expected one dimension and at least one sample")
    wrong = ~np.isfinite(values) | (values <= 0 if positive else values < 0)
    if wrong.any():
        index = int(np.argmax(wrong))
        expected = "positive" if positive else "0 or more"
        raise UsageError(f"sample {index} is {values[index]}: expected a finite number, {expected}")
    return values


def check_fraction(name: str, value: float) -> None:
    """Raise a UsageError unless the value lies strictly between 0 and 1."""
    if not 0 < value < 1:
        raise UsageError(f"{name} {value}: expected a number strictly between 0 and 1, such as 0.95")
