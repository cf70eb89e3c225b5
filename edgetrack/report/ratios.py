"""How much faster one contestant of a benchmark is than another, from their paired rounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgetrack.benchmark.record import BenchResult
from edgetrack.errors import UsageError
from edgetrack.stats.bootstrap import ratio_of_medians

_SEED = 0
_RESAMPLES = 1000


@dataclass(frozen=True)
class Faster:
    """The other's median track latency over this one's, above 1 is faster; `interval` is its 95 % one."""

    ratio: float
    interval: tuple[float, float] | None

    @property
    def shown(self) -> bool:
        """Whether it is shown to be faster."""
        return self.interval is not None and self.interval[0] > 1

    def describe(self) -> str:
        """Such as `2.05 (1.98-2.11)`."""
        return f"{self.ratio:.2f}" + (
            "" if self.interval is None else f" ({self.interval[0]:.2f}-{self.interval[1]:.2f})"
        )

    def sentence(self) -> str:
        """Such as `It is 2.05 (1.98-2.11) times as fast`."""
        if self.interval is None:
            return f"It ran {self.ratio:.2f} times as fast, in too few rounds for an interval"
        if self.shown:
            return f"It is {self.describe()} times as fast"
        slower = "slower" if self.interval[1] < 1 else "not shown to be faster"
        return f"It is {slower}, {self.describe()} times the speed"


def faster(one: BenchResult, other: BenchResult) -> Faster | None:
    """How much faster `one` is than `other`; None where their rounds do not pair, or a sample is 0.

    Rounds of one benchmark ran next to each other; those of two benchmarks must not be given.
    """
    pairs = list(zip(other.samples_ms.track, one.samples_ms.track, strict=False))
    try:
        found = ratio_of_medians(
            [a for a, _ in pairs], [b for _, b in pairs], rng=np.random.default_rng(_SEED), resamples=_RESAMPLES
        )
    except UsageError:
        return None
    return Faster(found.value, None if found.low is None or found.high is None else (found.low, found.high))
