"""Percentile bootstrap intervals (Efron & Tibshirani, "An Introduction to the Bootstrap", chapter 13).

What is resampled are whole sequences, rounds or blocks, since frames and runs of one are alike: drawing those alone
would be far too sure of itself (block bootstrap; the same book, chapter 8). Generators are seeded: the same values give
the same interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgetrack.arrays import Floats
from edgetrack.errors import UsageError
from edgetrack.stats.quantile import Samples, check_fraction, checked_samples

FEW_SEQUENCES = 10
"""With fewer, an interval over sequences is too narrow to be taken at its word."""
_CHUNK = 4_000_000
"""Values drawn at a time: 32 MiB."""
_LEAST_RESAMPLES = 2000
_SEED = 0


class Ratio(msgspec.Struct, frozen=True):
    """A ratio of medians with its bootstrap interval; `low` and `high` are None where there are too few rounds."""

    value: float
    low: float | None
    high: float | None


def mean_of_means(groups: Sequence[Floats]) -> float:
    """The mean over sequences of the mean over each one's runs.

    Raises:
        UsageError: no group, or an empty one.
    """
    _check_groups(groups)
    return float(np.mean([group.mean() for group in groups]))


def two_level_interval(
    groups: Sequence[Floats], *, confidence: float = 0.95, resamples: int = 2000, seed: int = _SEED
) -> tuple[float, float]:
    """The interval of `mean_of_means`.

    With one sequence it is about that sequence alone; with fewer than about ten it is too narrow.

    Args:
        groups: float64 (runs,) for each sequence.
        confidence: strictly between 0 and 1.
        resamples: how often to draw.
        seed: of the generator.

    Raises:
        UsageError: no group, an empty one, or a number outside its range.
    """
    check_fraction("confidence", confidence)
    low, high = _ends(resampled_means(groups, resamples, np.random.default_rng(seed)), (1 - confidence) / 2)
    return float(low), float(high)


def resampled_means(
    groups: Sequence[Floats], resamples: int, random: np.random.Generator, chunk: int = _CHUNK
) -> Floats:
    """float64 (resamples,): `mean_of_means` of as many data sets drawn from these groups.

    Sequences are drawn with replacement, then runs within each that was drawn (Davison & Hinkley, "Bootstrap Methods
    and their Application", section 3.8, strategy 1 at both levels). The variance tends to (variance of the groups'
    means + mean of each group's variance / its runs) / groups, where variances divide by the number of values.

    Raises:
        UsageError: no group, an empty one, or `resamples` below 1.
    """
    _check_groups(groups)
    if resamples < 1:
        raise UsageError(f"resamples {resamples}: expected 1 or more, such as 2000")
    runs = np.array([len(group) for group in groups])
    table = np.zeros((len(groups), runs.max()))
    for row, group in zip(table, groups, strict=True):
        row[: len(group)] = group
    count, most = table.shape

    def draw(size: int) -> Floats:
        drawn = random.integers(count, size=(size, count))
        have = runs[drawn][..., None]
        chosen = np.floor(random.random((size, count, most)) * have).astype(np.int64)
        values = table[drawn[..., None], chosen]
        values[np.arange(most) >= have] = 0.0
        means: Floats = (values.sum(axis=2) / have[..., 0]).mean(axis=1)
        return means

    return _in_chunks(draw, resamples, table.size, chunk)


def weighted_mean_intervals(
    values: Floats, weights: Floats, *, confidence: float = 0.95, resamples: int = 2000, seed: int = _SEED
) -> tuple[Floats, Floats]:
    """The ends, both (figures,), of the intervals of each figure's weighted mean over sequences.

    Args:
        values, weights: float64 (sequences, figures).
        confidence, resamples, seed: as for `two_level_interval`.
    """
    drawn = np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))
    low, high = _ends((values * weights)[drawn].sum(axis=1) / weights[drawn].sum(axis=1), (1 - confidence) / 2)
    return low, high


def rounds_needed(alpha: float) -> int:
    """How many rounds an interval needs that may miss with probability `alpha` on each side: 6 at 0.025, 7 at 0.01.

    The whole range of k independent rounds misses their median with probability 2**-k on each side. A resampled
    interval hardly leaves that range, so with fewer it would claim a confidence that not even the range has.

    Raises:
        UsageError: `alpha` is not strictly between 0 and 1.
    """
    check_fraction("alpha", alpha)
    return math.ceil(-math.log2(alpha))


def resamples_for(alpha: float) -> int:
    """How often to draw so that ten draws are expected beyond each bound."""
    return max(_LEAST_RESAMPLES, math.ceil(10 / alpha))


def ratio_of_medians(
    a: Sequence[Samples],
    b: Sequence[Samples],
    *,
    confidence: float = 0.95,
    rng: np.random.Generator,
    resamples: int = 2000,
) -> Ratio:
    """median(a) / median(b) over all rounds, with an interval that resamples whole pairs of rounds.

    Round i of `a` and round i of `b` ran next to each other, so a machine that slows down slows both. Resampling the
    pairs keeps that, and keeps the dependence of samples within a round.

    Args:
        a: one sequence of samples per round, positive, in any unit.
        b: the same number of rounds, in the same unit.
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
        raise UsageError(f"{len(a)} rounds against {len(b)}: expected the same number of both, at least one")
    rounds_a, rounds_b = ([checked_samples(samples, positive=True) for samples in rounds] for rounds in (a, b))

    def ratio(chosen: NDArray[np.int64]) -> float:
        of_a, of_b = (np.median(np.concatenate([side[i] for i in chosen])) for side in (rounds_a, rounds_b))
        return float(of_a / of_b)

    count, alpha = len(rounds_a), (1 - confidence) / 2
    value = ratio(np.arange(count))
    if count < rounds_needed(alpha):
        return Ratio(value=value, low=None, high=None)
    low, high = _ends(np.array([ratio(chosen) for chosen in rng.integers(count, size=(resamples, count))]), alpha)
    return Ratio(value=value, low=float(low), high=float(high))


def interquartile_mean(values: Floats) -> Floats:
    """The mean of the middle half along the last axis: a round that another program disturbed moves it little."""
    count = values.shape[-1]
    middle: Floats = np.sort(values)[..., count // 4 : count - count // 4].mean(axis=-1)
    return middle


def paired_mean_interval(blocks: Floats, alpha: float, resamples: int, rng: np.random.Generator) -> tuple[float, float]:
    """Bounds of the interquartile mean of all values, from resampled blocks; each misses with probability `alpha`.

    Args:
        blocks: float64 (blocks, values).
        alpha: of each bound, below 0.5.
        resamples: how often to draw.
        rng: draws.
    """

    def draw(size: int) -> Floats:
        drawn = blocks[rng.integers(len(blocks), size=(size, len(blocks)))]
        return interquartile_mean(drawn.reshape(size, -1))

    low, high = _ends(_in_chunks(draw, resamples, blocks.size), alpha)
    return float(low), float(high)


def unpaired_mean_interval(
    a: Floats, b: Floats, alpha: float, resamples: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Bounds of the interquartile mean of `a` less that of `b`, each resampled alone; see `paired_mean_interval`."""

    def draw(size: int) -> Floats:
        of_a, of_b = (interquartile_mean(x[rng.integers(len(x), size=(size, len(x)))]) for x in (a, b))
        return of_a - of_b

    low, high = _ends(_in_chunks(draw, resamples, len(a) + len(b)), alpha)
    return float(low), float(high)


def _in_chunks(draw: Callable[[int], Floats], resamples: int, width: int, chunk: int = _CHUNK) -> Floats:
    """`resamples` figures, drawn in chunks that hold no more than `chunk` values of data sets."""
    most = max(1, chunk // width)
    return np.concatenate([draw(min(most, resamples - done)) for done in range(0, resamples, most)])


def _ends(drawn: Floats, alpha: float) -> Floats:
    ends: Floats = np.percentile(drawn, [100 * alpha, 100 * (1 - alpha)], axis=0)
    return ends


def _check_groups(groups: Sequence[Floats]) -> None:
    if not groups or not all(len(group) for group in groups):
        raise UsageError(
            f"{len(groups)} groups of {[len(g) for g in groups][:9]} values: expected one value or more each"
        )
