"""Quantiles of samples and what the samples prove of them, whatever their distribution is.

Percentiles follow numpy's "linear" method (type 7 of Hyndman & Fan, "Sample Quantiles in Statistical Packages", 1996).

Bounds are order statistics: of n independent samples the number below the quantile q is binomial(n, q) (Conover,
"Practical Nonparametric Statistics", section 3.2). Latencies of neighbouring frames are not independent: slow ones come
in bursts. The ranks are therefore those of a smaller sample, the effective sample size: n over the design effect, how
much more the share of slow frames varies between batches than it would among independent frames (Kish, "Survey
Sampling", section 8.2). Batches are rounds, and 2, 4, 8, ... rounds in a row, since a machine may be slow for longer
than a round; the largest effect counts (blocking: Flyvbjerg & Petersen, "Error estimates on averages of correlated
data", 1989). Few batches tell little about how they vary, which widens the bounds as Student's t is wider than the
normal distribution (Korn & Graubard, "Confidence intervals for proportions with small expected number of positive
counts estimated from survey data", 1998).

Nothing here needs scipy: devices measure with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from edgetrack.arrays import Floats
from edgetrack.errors import UsageError

Samples = Sequence[float] | npt.NDArray[np.floating]
"""One-dimensional samples: finite and not negative."""
CONFIDENCE = 0.95
_LARGEST_SAMPLE = 10_000_000
_LEAST_BATCHES = 16
"""Fewer batches say too little about how batches vary. A single round is cut into as many."""
_ROUNDING = 1e-9
"""So that 9 independent samples are not taken for 8.999, nor a tail that meets its limit for a heavier one."""
_BISECTIONS = 100


@dataclass(frozen=True)
class QuantileBounds:
    """A quantile of the distribution behind the samples, in their unit.

    Attributes:
        value: the samples' own, interpolated.
        low, high: each holds by itself with the probability that was asked for; None where there are too few samples.
        count: number of samples.
        effective: the effective sample size, 1..count.
    """

    value: float
    low: float | None
    high: float | None
    count: int
    effective: float


def samples_needed(q: float) -> int:
    """How many samples the quantile `q` in [0, 1) needs so that at least one is expected beyond it: n * (1 - q) >= 1.

    Raises:
        UsageError: `q` is outside [0, 1).
    """
    if not 0 <= q < 1:
        raise UsageError(f"quantile {q}: expected a number from 0 up to, not including, 1, such as 0.99")
    return math.ceil(1 / (1 - Fraction(str(q))))


def percentile(samples: Samples, q: float) -> float | None:
    """The quantile `q` of the samples; None where fewer than one sample is expected beyond it."""
    return float(np.quantile(samples, q)) if len(samples) >= samples_needed(q) else None


def quantile_bounds(rounds: Sequence[Samples], q: float, alpha: float) -> QuantileBounds:
    """One-sided bounds for the quantile `q` of frames, each wrong with probability `alpha` at most.

    What did not occur during the measurement, such as a rare burst of another program, is in no bound.

    Args:
        rounds: samples of each round in their order, in any unit, finite; none empty.
        q: strictly between 0 and 1.
        alpha: strictly between 0 and 0.5.

    Raises:
        UsageError: no samples, or an argument outside its range.
    """
    batches = [np.asarray(samples, np.float64) for samples in rounds]
    values = _joined(batches)
    return _bounds(values, q, alpha, max(1.0, len(values) / _largest(_effects(batches, q), alpha)))


def independent_bounds(values: Samples, q: float, alpha: float) -> QuantileBounds:
    """The same for independent samples, such as one figure from each of several processes."""
    joined = _joined([np.asarray(values, np.float64)])
    return _bounds(joined, q, alpha, len(joined))


def ranks(n: int, q: float, alpha: float) -> tuple[int, int]:
    """The 1-based ranks that bound the quantile `q` of `n` samples from below and above; 0 and n + 1 where none does.

    The largest l with P(B <= l - 1) <= alpha and the smallest u with P(B >= u) <= alpha, B binomial(n, q).
    """
    first, weights = _binomial(n, q)
    allowed = alpha * (1 + _ROUNDING)
    lower = first + int(np.searchsorted(np.cumsum(weights), allowed, side="right"))
    last = first + len(weights) - 1
    return lower, last + 1 - int(np.searchsorted(np.cumsum(weights[::-1]), allowed, side="right"))


def clopper_pearson_upper(hits: int, count: int, confidence: float = CONFIDENCE) -> float:
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
        first, weights = _binomial(count, middle)
        if weights[: max(0, hits + 1 - first)].sum() > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def design_effect(batches: Sequence[Floats], q: float) -> float:
    """How many samples count as one, 1 or more.

    The mean square, over batches, of the share of samples above the quantile less 1 - q, over what independent samples
    would give. A single batch tells nothing about that and gives 1.
    """
    if len(batches) < 2:
        return 1.0
    level = np.quantile(_joined(batches), q)
    above = np.array([np.mean(batch > level) for batch in batches])
    share = np.average(above, weights=[len(batch) for batch in batches])
    count = sum(map(len, batches))
    alone = np.mean([share * (1 - share) / len(batch) for batch in batches]) * count / max(1, count - 1)
    spread = np.sum((above - share) ** 2) / (len(batches) - 1)
    return max(1.0, float(spread / alone)) if alone > 0 else 1.0


def samples_to_decide(rounds: Sequence[Floats], q: float, limit: float, alpha: float) -> int | None:
    """How many more samples would probably decide, if the share above the limit stays what it is.

    None where none would: the share is 1 - q itself, or so near it that ten million samples are too few.
    """
    values = _joined(rounds)
    above = float(np.mean(values > limit))
    if above == 1 - q:
        return None
    effects, total = _effects(rounds, q), len(values)
    while total <= _LARGEST_SAMPLE:
        n = math.floor(total / _largest(effects, alpha, total / len(values)))
        lower, upper = ranks(max(1, n), q, alpha)
        over = above * n
        if (over <= n - upper) if above < 1 - q else (lower >= 1 and over >= n - lower + 1):
            return max(1, total - len(values))
        total += max(1, total // 20)
    return None


def checked_samples(samples: Samples, *, positive: bool = False) -> Floats:
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


@lru_cache(maxsize=256)
def student_t(alpha: float, freedom: float) -> float:
    """The value that Student's t with `freedom` degrees of freedom, 1 or more, exceeds with probability `alpha`.

    With t = sqrt(freedom) tan(angle) the density is cos(angle) ** (freedom - 1), which is integrated numerically, in
    ever finer steps towards the tail; off by less than 1e-4 of the value.
    """
    angle = min(math.pi / 2, 40 / math.sqrt(freedom)) * (1 - np.linspace(1, 0, 8001) ** 3)
    density = np.cos(angle) ** (freedom - 1)
    mass = np.concatenate([[0.0], np.cumsum(np.diff(angle) * (density[1:] + density[:-1]) / 2)])
    return math.sqrt(freedom) * math.tan(float(np.interp(mass[-1] * (1 - 2 * alpha), mass, angle)))


def _bounds(samples: Floats, q: float, alpha: float, effective: float) -> QuantileBounds:
    check_fraction("quantile", q)
    check_fraction("twice alpha", 2 * alpha)
    values, count = np.sort(samples), len(samples)
    whole = math.floor(effective * (1 + _ROUNDING))
    lower, upper = ranks(whole, q, alpha)
    return QuantileBounds(
        value=float(np.quantile(values, q)),
        low=None if lower < 1 else float(values[max(1, lower * count // whole) - 1]),
        high=None if upper > whole else float(values[min(count, -(-upper * count // whole)) - 1]),
        count=count,
        effective=effective,
    )


def _binomial(n: int, q: float) -> tuple[int, Floats]:
    """(k, p): P(B = k + i) is p[i], B binomial(n, q); what lies outside has a probability below 1e-30."""
    mode, reach = int((n + 1) * q), int(12 * math.sqrt(n * q * (1 - q))) + 100
    first, last = max(0, mode - reach), min(n, mode + reach)
    k = np.arange(first, last)
    steps = np.log((n - k) / (k + 1)) + math.log(q / (1 - q))  # log of P(B = k + 1) / P(B = k)
    logs = np.concatenate([[0.0], np.cumsum(steps)])
    weights: Floats = np.exp(logs - logs.max())
    return first, weights / weights.sum()


def _effects(rounds: Sequence[Floats], q: float) -> list[tuple[float, int]]:
    """The design effect of every size of batches, and how many batches it comes from."""
    return [(design_effect(batches, q), len(batches)) for batches in _batches(rounds)]


def _largest(effects: Sequence[tuple[float, int]], alpha: float, longer: float = 1.0) -> float:
    """The largest effect, each widened for its number of batches; infinite where there is a single frame.

    `longer`: as if this multiple of the batches varied as these do.
    """
    normal = NormalDist().inv_cdf(1 - alpha)
    largest = 1.0
    for effect, count in effects:
        freedom = longer * count - 1
        if freedom < 1:
            return math.inf
        largest = max(largest, effect * (student_t(alpha, freedom) / normal) ** 2)
    return largest


def _batches(rounds: Sequence[Floats]) -> Iterator[list[Floats]]:
    """The rounds, then 2, 4, 8, ... in a row while there are enough; what is left at the end joins the last batch."""
    found = list(rounds) if len(rounds) > 1 else np.array_split(rounds[0], min(_LEAST_BATCHES, len(rounds[0])))
    yield found
    size = 2
    while len(found) // size >= _LEAST_BATCHES:
        starts = range(0, len(found) - size + 1, size)
        ends = [*starts[1:], len(found)]
        yield [np.concatenate(found[start:end]) for start, end in zip(starts, ends, strict=True)]
        size *= 2


def _joined(rounds: Sequence[Floats]) -> Floats:
    if not rounds or not all(len(samples) for samples in rounds):
        raise UsageError(f"{len(rounds)} rounds, of which one is empty or there are none: expected samples")
    return np.concatenate(rounds)
