"""How far a mean over runs would move with other sequences and other anchors: a bootstrap of two levels.

Sequences are drawn with replacement, then runs within each that was drawn (Davison & Hinkley, "Bootstrap Methods and
their Application", section 3.8, strategy 1 at both levels). Runs of one sequence are alike, so that drawing runs alone
would be far too sure of itself. The generator is seeded: the same values give the same interval.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgetrack.errors import UsageError

Values = NDArray[np.float64]
_SEED = 0
_BLOCK = 4_000_000
"""Values drawn at a time: 32 MB."""


def mean_of_means(groups: Sequence[Values]) -> float:
    """The mean over sequences of the mean over each one's runs.

    Raises:
        UsageError: no group, or an empty one.
    """
    _check(groups)
    return float(np.mean([group.mean() for group in groups]))


def interval(
    groups: Sequence[Values], *, confidence: float = 0.95, resamples: int = 2000, seed: int = _SEED
) -> tuple[float, float]:
    """The percentile interval of `mean_of_means` (Efron & Tibshirani, "An Introduction to the Bootstrap", chapter 13).

    With one sequence it speaks of that sequence alone; with fewer than about ten it is too narrow.

    Args:
        groups: float64 (runs,) for each sequence.
        confidence: strictly between 0 and 1.
        resamples: how often to draw.
        seed: of the generator.

    Raises:
        UsageError: no group, an empty one, or a number outside its range.
    """
    if not 0 < confidence < 1:
        raise UsageError(f"confidence {confidence}: expected a number strictly between 0 and 1, such as 0.95")
    means = resampled_means(groups, resamples, np.random.default_rng(seed))
    tail = 50 * (1 - confidence)
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)


def resampled_means(groups: Sequence[Values], resamples: int, random: np.random.Generator) -> Values:
    """float64 (resamples,): `mean_of_means` of as many data sets drawn from these groups.

    Its variance tends to (variance of the groups' means + mean of each group's variance / its runs) / groups, where
    variances divide by the number of values: what the tests hold it against.

    Raises:
        UsageError: no group, an empty one, or `resamples` below 1.
    """
    _check(groups)
    if resamples < 1:
        raise UsageError(f"resamples {resamples}: expected 1 or more, such as 2000")
    runs = np.array([len(group) for group in groups])
    table = np.zeros((len(groups), runs.max()))
    for row, group in zip(table, groups, strict=True):
        row[: len(group)] = group
    block = max(1, _BLOCK // table.size)
    return np.concatenate([_draw(table, runs, min(block, resamples - at), random) for at in range(0, resamples, block)])


def _draw(table: Values, runs: NDArray[np.int64], count: int, random: np.random.Generator) -> Values:
    """float64 (count,) from (groups, most runs), of which row i holds `runs[i]` values."""
    groups, most = table.shape
    drawn = random.integers(groups, size=(count, groups))
    have = runs[drawn][..., None]
    chosen = np.floor(random.random((count, groups, most)) * have).astype(np.int64)
    values = table[drawn[..., None], chosen]
    values[np.arange(most) >= have] = 0.0
    means: Values = (values.sum(axis=2) / have[..., 0]).mean(axis=1)
    return means


def _check(groups: Sequence[Values]) -> None:
    if not groups or not all(len(group) for group in groups):
        raise UsageError(
            f"{len(groups)} groups of {[len(g) for g in groups][:9]} values: expected one value or more each"
        )
