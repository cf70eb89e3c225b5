"""A set of latencies in numbers: percentiles, and how far each of them can be trusted."""

from __future__ import annotations

import math

import msgspec
import numpy as np

from edgetrack.errors import UsageError
from edgetrack.stats.quantile import CONFIDENCE, checked_samples, percentile, quantile_bounds

_PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}

Rounds = list[list[float]]
"""Samples in the order in which they ran, one list per round."""


class Bounds(msgspec.Struct, frozen=True):
    """What the samples prove of a percentile, by order statistics of the effective sample size.

    `low` and `high` hold it with 95 % probability or more, and so does everything up to `upper`; null where there are
    too few samples for that. `effective` is the number of independent frames that the samples amount to for the one
    bound `upper`; null in records of versions that took frames for independent.
    """

    low: float | None
    high: float | None
    upper: float | None
    effective: float | None = None


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """All samples of one speed; `interval` holds the median with 95 % probability or more, `bounds` the percentiles.

    A percentile is null where fewer than one sample is expected beyond it. `cv` is the standard deviation (n - 1 in the
    denominator) over the mean, null below two samples or for a zero mean.
    """

    p50: float
    p90: float | None
    p95: float | None
    p99: float | None
    mean: float
    min: float
    max: float
    cv: float | None
    count: int
    interval: tuple[float, float] | None
    bounds: dict[str, Bounds] = {}


def latency_of(rounds: Rounds) -> Latency:
    """The summary of all rounds together.

    Raises:
        UsageError: no samples, or one that is negative or not finite.
    """
    values = checked_samples(np.concatenate(rounds) if rounds else [])
    mean = float(values.mean())
    measured = [samples for samples in rounds if samples]
    bounds = {name: _bounds(measured, q) for name, q in _PERCENTILES.items()}
    low, high = bounds["p50"].low, bounds["p50"].high
    return Latency(
        p50=float(np.median(values)),
        p90=percentile(values, 0.90),
        p95=percentile(values, 0.95),
        p99=percentile(values, 0.99),
        mean=mean,
        min=float(values.min()),
        max=float(values.max()),
        cv=float(values.std(ddof=1)) / mean if values.size > 1 and mean > 0 else None,
        count=values.size,
        interval=None if low is None or high is None else (low, high),
        bounds=bounds,
    )


def fps(p50_ms: float) -> float:
    """Frames per second of a median latency in milliseconds: 1000 / p50.

    Raises:
        UsageError: the latency is not a positive finite number.
    """
    if not (math.isfinite(p50_ms) and p50_ms > 0):
        raise UsageError(f"median latency {p50_ms} ms: expected a positive finite number")
    return 1000 / p50_ms


def _bounds(rounds: Rounds, q: float) -> Bounds:
    two_sided = quantile_bounds(rounds, q, (1 - CONFIDENCE) / 2)
    upper = quantile_bounds(rounds, q, 1 - CONFIDENCE)
    both = two_sided.low is not None and two_sided.high is not None
    return Bounds(
        low=two_sided.low if both else None,
        high=two_sided.high if both else None,
        upper=upper.high,
        effective=upper.effective,
    )
