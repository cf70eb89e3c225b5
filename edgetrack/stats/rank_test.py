"""Whether the candidate takes more than a given multiple of the baseline's time, from rounds that ran side by side.

Two views must agree before anything is called. Ranks: a Mann-Whitney test of the rounds within blocks (van Elteren, "On
the combination of independent two sample tests of Wilcoxon", 1960), with its exact distribution, so that a machine that
slows down from block to block moves nothing. Size: the interquartile mean of the ratios of all pairs of rounds within
blocks, with a bootstrap interval that resamples whole blocks, since frames of a round are alike. Both ask about the
limit itself, which is thereby the least effect that is ever called: of `1.05 x baseline` a fail says "above 1.05", not
"above 1".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from statistics import NormalDist

import numpy as np

from edgetrack.arrays import Floats
from edgetrack.errors import UsageError
from edgetrack.stats.bootstrap import (
    interquartile_mean,
    paired_mean_interval,
    resamples_for,
    rounds_needed,
    unpaired_mean_interval,
)
from edgetrack.stats.quantile import QuantileBounds
from edgetrack.stats.verdict import Verdict, judge_limit

_MOST_BLOCKS = 100_000
PROCESS_ALPHA = 0.05
"""Chance, over all analyses, that processes agree on a slowdown that is their own and not the bundle's."""


@dataclass(frozen=True)
class RatioTest:
    """What rounds of two bundles say about the ratio of a quantile.

    Attributes:
        value: candidate over baseline.
        low, high: of the bootstrap; each holds with probability 1 - alpha by itself. None where there are too few
            blocks or rounds for that.
        p_above, p_below: Mann-Whitney's p-values for "the ratio is no more (no less) than the limit".
        verdict: see the module.
        more: how many more blocks (rounds, where they are not paired) would probably decide; None where none would.
    """

    value: float
    low: float | None
    high: float | None
    p_above: float
    p_below: float
    verdict: Verdict
    more: int | None


def paired_ratio_test(
    baseline: Floats, candidate: Floats, limit: float, alpha: float, rng: np.random.Generator
) -> RatioTest:
    """From blocks in which both ran.

    Args:
        baseline, candidate: float64 (blocks, rounds), a quantile of each round in one unit, positive.
        limit: the ratio that is asked about, above 0.
        alpha: chance to call a ratio within the limit above it, and of the opposite.
        rng: resamples.

    Raises:
        UsageError: no blocks, or unequal numbers of blocks.
    """
    if not len(baseline) or len(baseline) != len(candidate):
        raise UsageError(
            f"{len(baseline)} blocks against {len(candidate)}: expected the same number of both, at least one"
        )
    blocks = len(baseline)
    ratios = (np.log(candidate)[:, :, None] - np.log(baseline)[:, None, :]).reshape(blocks, -1)
    value = float(interquartile_mean(ratios.ravel()))
    low = high = None
    if blocks >= rounds_needed(alpha):
        low, high = paired_mean_interval(ratios, alpha, resamples_for(alpha), rng)
    wins = block_wins(candidate / limit, baseline)
    above, below = tails(null_of_blocks(blocks, baseline.shape[1], candidate.shape[1]), float(wins.sum()))
    verdict = _judge(low, high, math.log(limit), above, below, alpha)
    more = None
    if verdict == "undecided":
        each = baseline.shape[1] * candidate.shape[1]
        excess = float(wins.mean()) - each / 2
        spread = math.sqrt(each * (baseline.shape[1] + candidate.shape[1] + 1) / 12)
        if low is None or high is None:
            deviation = float(np.std(ratios.mean(axis=1), ddof=1)) if blocks > 1 else 0.0
            half = _normal(alpha) * deviation / math.sqrt(blocks)
        else:
            half = (high - low) / 2
        more = _more(blocks, value - math.log(limit), half, excess, spread, alpha)
    return RatioTest(math.exp(value), _exp(low), _exp(high), above, below, verdict, more)


def processes_agree(baseline: Floats, candidate: Floats, process_of: Sequence[int], limit: float, alpha: float) -> bool:
    """Whether pairs of processes, each of them one observation, show that the ratio is above the limit.

    Blocks of one pair share what its processes got by chance (their place in memory, a core), and cannot tell that from
    the bundles' speed. Student's t of the pairs' ratios, at `alpha`; a single pair shows nothing.

    Args:
        baseline, candidate, limit: as for `paired_ratio_test`.
        process_of: for each block the number of its pair.
    """
    from scipy import stats

    of = np.array(process_of)
    ratios = (np.log(candidate)[:, :, None] - np.log(baseline)[:, None, :]).reshape(len(candidate), -1)
    excess = [float(interquartile_mean(ratios[of == one].ravel())) - math.log(limit) for one in np.unique(of)]
    if len(excess) < 2:
        return False
    half = float(stats.t.ppf(1 - alpha, len(excess) - 1)) * float(np.std(excess, ddof=1))
    return bool(np.mean(excess) > half / math.sqrt(len(excess)))


def unpaired_ratio_test(
    baseline: Floats, candidate: Floats, limit: float, alpha: float, rng: np.random.Generator
) -> RatioTest:
    """From rounds of different times; a machine that was slower at one of them is not told from a slower bundle.

    Args:
        baseline, candidate: float64 (rounds,), a quantile of each round in one unit, positive.
        limit, alpha, rng: as for `paired_ratio_test`.

    Raises:
        UsageError: no rounds.
    """
    from scipy import stats

    if not len(baseline) or not len(candidate):
        raise UsageError(f"{len(baseline)} rounds against {len(candidate)}: expected at least one of each")
    logs = np.log(candidate), np.log(baseline)
    value = float(interquartile_mean(logs[0]) - interquartile_mean(logs[1]))
    fewest = min(map(len, logs))
    low = high = None
    if fewest >= 4 and math.comb(len(baseline) + len(candidate), len(baseline)) * alpha >= 1:
        low, high = unpaired_mean_interval(*logs, alpha, resamples_for(alpha), rng)
    above, below = (
        float(stats.mannwhitneyu(candidate / limit, baseline, alternative=side).pvalue) for side in ("greater", "less")
    )
    verdict = _judge(low, high, math.log(limit), above, below, alpha)
    more = None
    if verdict == "undecided":
        variance = sum(float(np.var(x, ddof=1)) / len(x) if len(x) > 1 else 0 for x in logs)
        more = _more(fewest, value - math.log(limit), _normal(alpha) * math.sqrt(variance), 0.0, 0.0, alpha)
    return RatioTest(math.exp(value), _exp(low), _exp(high), above, below, verdict, more)


def process_ratio_bounds(baseline: Floats, candidate: Floats, alpha: float) -> QuantileBounds:
    """The ratio of what processes take of memory or time to load, one positive figure from each.

    The median of the ratios of all pairs, and bounds that Mann-Whitney's test does not reject at `alpha` (Hodges &
    Lehmann, "Estimates of location based on rank tests", 1963): they hold where one side is a multiple of the other.

    Raises:
        UsageError: no processes.
    """
    if not len(baseline) or not len(candidate):
        raise UsageError(f"{len(baseline)} processes against {len(candidate)}: expected at least one of each")
    ratios = np.sort((candidate[:, None] / baseline[None, :]).ravel())
    rank = int(np.searchsorted(np.cumsum(null_of_blocks(1, len(baseline), len(candidate))), alpha, side="right"))
    return QuantileBounds(
        value=float(np.median(ratios)),
        low=float(ratios[rank - 1]) if rank else None,
        high=float(ratios[-rank]) if rank else None,
        count=len(candidate),
        effective=len(candidate),
    )


def block_wins(candidate: Floats, baseline: Floats) -> Floats:
    """float64 (blocks,): Mann-Whitney's U in each block: in how many pairs the candidate is slower; ties count half."""
    c, b = candidate[:, :, None], baseline[:, None, :]
    found: Floats = ((c > b) + 0.5 * (c == b)).sum(axis=(1, 2))
    return found


@lru_cache(maxsize=32)
def null_of_blocks(blocks: int, baseline: int, candidate: int) -> Floats:
    """float64: probabilities of the sum of U over blocks, from 0 up, where all orders within a block are as likely."""
    one = _null_of_one(baseline, candidate)
    total: Floats = np.ones(1)
    for _ in range(blocks):
        total = np.convolve(total, one)
    return total


def tails(null: Floats, u: float) -> tuple[float, float]:
    """P(U >= u) and P(U <= u); where ties make `u` a half, of the whole number beside it that says less."""
    return float(min(1.0, null[math.floor(u) :].sum())), float(min(1.0, null[: math.ceil(u) + 1].sum()))


def _null_of_one(m: int, n: int) -> Floats:
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
    """The interval's verdict, where the ranks agree with it."""
    verdict = "undecided" if low is None or high is None else judge_limit(low, high, limit)
    agree = above <= alpha if verdict == "fail" else below <= alpha
    return verdict if agree else "undecided"


def _more(n: int, distance: float, half: float, excess: float, spread: float, alpha: float) -> int | None:
    """Blocks beyond these `n` at which interval and ranks would both leave the limit, if they go on as they do.

    Both narrow with 1 / sqrt(n).
    """
    if distance == 0 or excess * distance < 0:
        return None
    wanted = n * (half / distance) ** 2
    if spread > 0:
        if excess == 0:
            return None
        wanted = max(wanted, (_normal(alpha) * spread / excess) ** 2)
    wanted = max(wanted, rounds_needed(alpha))
    return max(1, math.ceil(wanted) - n) if wanted <= _MOST_BLOCKS else None


def _normal(alpha: float) -> float:
    return NormalDist().inv_cdf(1 - alpha)


def _exp(value: float | None) -> float | None:
    return None if value is None else math.exp(value)
