"""A set of latencies in numbers: percentiles, and how far each of them can be trusted."""

from __future__ import annotations

import msgspec
import numpy as np

from edgetrack.benchmark.bounds import percentile_upper
from edgetrack.benchmark.statistics import Interval, Samples, percentile_interval, summarize

_PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}

Rounds = list[list[float]]
"""Samples in the order in which they ran, one list per round."""


class Bounds(msgspec.Struct, frozen=True):
    """What the samples prove of a percentile, by the exact binomial distribution.

    `low` and `high` hold it with 95 % probability or more, and so does everything up to `upper`; null where there are
    too few samples for that. Frames that are alike in time are no independent samples: the true ones are wider.
    """

    low: float | None
    high: float | None
    upper: float | None


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """All samples of one speed; `interval` holds the median with 95 % probability or more, `bounds` the percentiles."""

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
    values = np.sort(np.concatenate(rounds))
    summary = summarize(values)
    intervals = {name: percentile_interval(values, q) for name, q in _PERCENTILES.items()}
    median = intervals["p50"]
    return Latency(
        p50=summary.p50,
        p90=summary.p90,
        p95=summary.p95,
        p99=summary.p99,
        mean=summary.mean,
        min=summary.minimum,
        max=summary.maximum,
        cv=summary.cv,
        count=summary.count,
        interval=(median.low, median.high) if median else None,
        bounds={name: _bounds(values, q, intervals[name]) for name, q in _PERCENTILES.items()},
    )


def _bounds(values: Samples, q: float, interval: Interval | None) -> Bounds:
    return Bounds(
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        upper=percentile_upper(values, q),
    )
