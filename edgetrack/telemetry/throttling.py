"""Did the device slow itself down while something was measured, and from when on?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from edgetrack.telemetry.sysfs import STATED
from edgetrack.telemetry.timeline import Series, Timeline

STEADY = 0.9
"""A clock below this share of its highest value has changed."""
_LEAST_READINGS = 5
_NOT_UNDER_LOAD = ("EMC",)
"""The memory's clock follows what is asked of it."""


class Finding(msgspec.Struct, frozen=True):
    """What happened to a sensor; `onset_s` is when on the timeline's axis."""

    kind: Literal["throttled", "clock-changed"]
    sensor: str
    detail: str
    onset_s: float


def find_throttling(timeline: Timeline, contestant: str, kinds: Sequence[str]) -> list[Finding]:
    """Throttling that was reported, and clocks that fell by more than a tenth, while a contestant ran.

    Args:
        timeline: what was read.
        contestant: whose windows count.
        kinds: which of them.
    """
    windows = [w for w in timeline.windows if w.contestant == contestant and w.kind in kinds]
    instants = [
        index for index, t in enumerate(timeline.t_s) if any(w.end_s - w.busy_s <= t <= w.end_s for w in windows)
    ]
    return [found for series in timeline.series for found in _findings(series, timeline.t_s, instants)]


def visible(timeline: Timeline) -> bool:
    """Whether throttling would have been seen: a true clock or a count of it was read."""
    telling = ("clock_mhz", "throttled", "throttle_count")
    return any(series.quantity in telling and series.name != STATED for series in timeline.series)


def _findings(series: Series, t_s: Sequence[float], instants: Sequence[int]) -> Iterator[Finding]:
    sensor = f"{series.source}:{series.name}"
    known = [(t_s[index], value) for index in instants if (value := series.values[index]) is not None]
    if series.quantity in ("throttled", "throttle_count") and known:
        floor = known[0][1] if series.quantity == "throttle_count" else 0.0
        onset = next((t for t, value in known if value > floor), None)
        if onset is not None:
            yield Finding("throttled", sensor, f"{sensor} reports throttling from {onset:.0f} s on", onset)
    if series.quantity == "clock_mhz" and len(known) >= _LEAST_READINGS and series.name not in _NOT_UNDER_LOAD:
        highest = 0.0
        for t, value in known:
            highest = max(highest, value)
            if value < STEADY * highest:
                low, high = min(value for _, value in known), max(value for _, value in known)
                detail = f"{sensor} ran at {low:.0f} to {high:.0f} MHz, and fell first after {t:.0f} s"
                yield Finding("clock-changed", sensor, detail, t)
                return
