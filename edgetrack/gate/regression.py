"""Whether the candidate takes more than so many times what the baseline takes, from turns that ran beside each other.

Two views must agree before anything is called. Ranks: a Mann-Whitney test of the turns within blocks (van Elteren, "On
the combination of independent two sample tests of Wilcoxon", 1960), with its exact distribution, so that a machine that
slows down from block to block moves nothing. Size: the middle of the ratios of all pairs of turns within blocks, with a
bootstrap interval that resamples whole blocks, since frames of a turn are alike. Both ask about the limit itself, which
is thereby the least effect that is ever called: of `1.05 x baseline` a fail says "above 1.05", not "above 1".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import numpy.typing as npt

from edgetrack.errors import UsageError
from edgetrack.gate.bounds import Bounds
from edgetrack.gate.verdict import Verdict

Values = npt.NDArray[np.float64]
_LEAST_RESAMPLES = 2000
_IN_THE_TAIL = 10
_MOST_BLOCKS = 100_000


@dataclass(frozen=True)
class RatioFound:
    """What turns of two bundles say of the ratio of a quantile.

    Attributes:
        value: candidate over baseline.
        low, high: of the bootstrap; each holds with probability 1 - alpha by itself. None where there are too few
            blocks or turns for that.
        p_above, p_below: Mann-Whitney's, that ranks as these come about though the ratio is no more (no less) than the
            limit.
        verdict: see the module.
        more: how many more blocks (turns, where they are not paired) would probably decide; None where none would.
    """

    value: float
    low: float | None
    high: float | None
    p_above: float
    p_below: float
    verdict: Verdict
    more: int | None


def paired(baseline: Values, candidate: Values, limit: float, alpha: float, rng: np.random.Generator) -> RatioFound:
    """From blocks in which both took turns.

    Args:
        baseline, candidate: float64 (blocks, turns), a quantile of each turn in one unit, positive.
        limit: the ratio that is asked about, above 0.
        alpha: chance to call a ratio within the limit above it, and of the opposite.
        rng: resamples.

    Raises:
        UsageError: no blocks, or other numbers of blocks.
    """
    from scipy import stats

    if not len(baseline) or len(baseline) != len(candidate):
        raise UsageError(f"{len(baseline)} blocks against {len(candidate)}: expected as many of both, one at least")
    blocks = len(baseline)
    ratios = (np.log(candidate)[:, :, None] - np.log(baseline)[:, None, :]).reshape(blocks, -1)

    def middle(chosen: Values, axis: int = -1) -> Values:
        drawn = ratios[np.moveaxis(chosen, axis, -1).astype(np.intp)]
        return midmean(drawn.reshape(*drawn.shape[:-2], -1))

    value = float(middle(np.arange(blocks, dtype=np.float64)))
    low = high = None
    if blocks >= blocks_needed(alpha):
        found = stats.bootstrap(
            (np.arange(blocks),),
            middle,
            n_resamples=_resamples(alpha),
            confidence_level=1 - 2 * alpha,
            method="percentile",
            random_state=rng,
        ).confidence_interval
        low, high = float(found.low), float(found.high)
    wins = won(candidate / limit, baseline)
    null = null_of_blocks(len(wins), baseline.shape[1], candidate.shape[1])
    above, below = tails(null, float(wins.sum()))
    verdict = _judge(low, high, math.log(limit), above, below, alpha)
    more = None
    if verdict == "undecided":
        each = baseline.shape[1] * candidate.shape[1]
        excess = float(wins.mean()) - each / 2
        spread = math.sqrt(each * (baseline.shape[1] + candidate.shape[1] + 1) / 12)
        half = _half(ratios.mean(axis=1), alpha) if low is None or high is None else (high - low) / 2
        more = _more(blocks, value - math.log(limit), half, excess, spread, alpha)
    return RatioFound(math.exp(value), _exp(low), _exp(high), above, below, verdict, more)


def unpaired(baseline: Values, candidate: Values, limit: float, alpha: float, rng: np.random.Generator) -> RatioFound:
    """From turns of different times; a machine that was slower at one of them is not told from a slower bundle.

    Args:
        baseline, candidate: float64 (turns,), a quantile of each turn in one unit, positive.
        limit, alpha, rng: as for `paired`.

    Raises:
        UsageError: no turns.
    """
    from scipy import stats

    if not len(baseline) or not len(candidate):
        raise UsageError(f"{len(baseline)} turns against {len(candidate)}: expected one of each at least")
    logs = np.log(candidate), np.log(baseline)
    value = float(_difference(*logs))
    low = high = None
    if min(map(len, logs)) >= 4 and math.comb(len(baseline) + len(candidate), len(baseline)) * alpha >= 1:
        found = stats.bootstrap(
            logs,
            _difference,
            n_resamples=_resamples(alpha),
            confidence_level=1 - 2 * alpha,
            method="percentile",
            random_state=rng,
        ).confidence_interval
        low, high = float(found.low), float(found.high)
    above, below = (
        float(stats.mannwhitneyu(candidate / limit, baseline, alternative=side).pvalue) for side in ("greater", "less")
    )
    verdict = _judge(low, high, math.log(limit), above, below, alpha)
    more = None
    if verdict == "undecided":
        n = min(map(len, logs))
        half = stats.norm.isf(alpha) * math.sqrt(
            sum(float(np.var(x, ddof=1)) / len(x) if len(x) > 1 else 0 for x in logs)
        )
        more = _more(n, value - math.log(limit), half, 0.0, 0.0, alpha)
    return RatioFound(math.exp(value), _exp(low), _exp(high), above, below, verdict, more)


def of_processes(baseline: Values, candidate: Values, alpha: float) -> Bounds:
    """The ratio of what processes take of memory or time to load, one positive figure from each.

    The median of the ratios of all pairs, and bounds that Mann-Whitney's test does not reject at `alpha` (Hodges &
    Lehmann, "Estimates of location based on rank tests", 1963): they hold where one side is a multiple of the other.

    Raises:
        UsageError: no processes.
    """
    if not len(baseline) or not len(candidate):
        raise UsageError(f"{len(baseline)} processes against {len(candidate)}: expected one of each at least")
    ratios = np.sort((candidate[:, None] / baseline[None, :]).ravel())
    rank = int(np.searchsorted(np.cumsum(null_of_blocks(1, len(baseline), len(candidate))), alpha, side="right"))
    return Bounds(
        value=float(np.median(ratios)),
        low=float(ratios[rank - 1]) if rank else None,
        high=float(ratios[-rank]) if rank else None,
        count=len(candidate),
        effective=len(candidate),
    )


def turn_quantiles(turns: Sequence[Sequence[Values]], q: float) -> Values:
    """float64 (blocks, turns): the quantile `q` of every turn."""
    return np.array([[np.quantile(turn, q) for turn in block] for block in turns], np.float64)


def midmean(values: Values, axis: int = -1) -> Values:
    """The mean of the middle half: a turn that another program disturbed moves it little."""
    from scipy import stats

    found: Values = stats.trim_mean(values, 0.25, axis=axis)
    return found


def won(candidate: Values, baseline: Values) -> Values:
    """float64 (blocks,): Mann-Whitney's U in each block: in how many pairs the candidate is slower; ties count half."""
    c, b = candidate[:, :, None], baseline[:, None, :]
    found: Values = ((c > b) + 0.5 * (c == b)).sum(axis=(1, 2))
    return found


@lru_cache(maxsize=32)
def null_of_blocks(blocks: int, baseline: int, candidate: int) -> Values:
    """float64: probabilities of the sum of U over blocks, from 0 up, where all orders within a block are as likely."""
    one = _null_of_one(baseline, candidate)
    total: Values = np.ones(1)
    for _ in range(blocks):
        total = np.convolve(total, one)
    return total


def tails(null: Values, u: float) -> tuple[float, float]:
    """P(U >= u) and P(U <= u); where ties make `u` a half, of the whole number beside it that says less."""
    return float(min(1.0, null[math.floor(u) :].sum())), float(min(1.0, null[: math.ceil(u) + 1].sum()))


def _null_of_one(m: int, n: int) -> Values:
    """Probabilities of U for m and n values, from how many orders give it.

    The largest value is of one side or of the other: ways(m, n, u) = ways(m - 1, n, u - n) + ways(m, n - 1, u).
    """

    @cache
    def ways(m: int, n: int, u: int) -> int:
        if u < 0:
            return 0
        if m == 0 or n == 0:
            return int(u == 0)
        return ways(m - 1, n, u - n) + ways(m, n - 1, u)

    return np.array([ways(m, n, u) for u in range(m * n + 1)], np.float64) / math.comb(m + n, m)


def _judge(low: float | None, high: float | None, limit: float, above: float, below: float, alpha: float) -> Verdict:
    if low is None or high is None:
        return "undecided"
    if low > limit and above <= alpha:
        return "fail"
    return "pass" if high <= limit and below <= alpha else "undecided"


def blocks_needed(alpha: float) -> int:
    """Blocks whose whole range holds the median but for `alpha` on each side; a resampled interval hardly leaves it."""
    return math.ceil(-math.log2(alpha))


def _resamples(alpha: float) -> int:
    return max(_LEAST_RESAMPLES, math.ceil(_IN_THE_TAIL / alpha))


def _half(ratios: Values, alpha: float) -> float:
    """Half of the interval that a normal spread of the blocks would give."""
    from scipy import stats

    return float(stats.norm.isf(alpha) * np.std(ratios, ddof=1) / math.sqrt(len(ratios))) if len(ratios) > 1 else 0.0


def _more(n: int, distance: float, half: float, excess: float, spread: float, alpha: float) -> int | None:
    """Blocks beyond these `n` at which interval and ranks would both leave the limit, if they go on as they do.

    Both narrow with 1 / sqrt(n).
    """
    from scipy import stats

    if distance == 0 or excess * distance < 0:
        return None
    wanted = n * (half / distance) ** 2
    if spread > 0:
        if excess == 0:
            return None
        wanted = max(wanted, (float(stats.norm.isf(alpha)) * spread / excess) ** 2)
    wanted = max(wanted, blocks_needed(alpha))
    return max(1, math.ceil(wanted) - n) if wanted <= _MOST_BLOCKS else None


def _difference(candidate: Values, baseline: Values, axis: int = -1) -> Values:
    found: Values = midmean(candidate, axis) - midmean(baseline, axis)
    return found


def _exp(value: float | None) -> float | None:
    return None if value is None else math.exp(value)
