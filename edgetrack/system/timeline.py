"""All sensors on one axis of time with what was measured when: energy per frame, and whether a device slowed down."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Literal

import msgspec

from edgetrack.device_name import is_cuda
from edgetrack.system.jetson import UNKNOWN, PowerMode
from edgetrack.system.sensors import STATED, Quantity

STEADY = 0.9
"""A clock below this share of its highest value has changed."""
_LEAST_READINGS = 5
_PROCESSOR, _MEMORY = "CPU", "EMC"
"""How the names of those clocks begin; all others are a GPU's."""


class Series(msgspec.Struct, frozen=True):
    """One sensor; as many values as `Timeline.t_s` has instants, null where it said nothing."""

    source: str
    quantity: Quantity
    name: str
    values: list[float | None]


class Window(msgspec.Struct, frozen=True):
    """One slice of one candidate: seconds on the timeline's axis, and frames that were recorded in it.

    `busy_s` is the last part of it, in which those frames ran; what was before was loading and unrecorded frames.
    `device` is where its graphs ran, empty in records that are older than the field.
    """

    candidate: str = msgspec.field(name="contestant")
    kind: str
    start_s: float
    end_s: float
    busy_s: float
    frames: int
    device: str = ""


class Missing(msgspec.Struct, frozen=True):
    """A source that was to be read and was not, and why."""

    source: str
    reason: str


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """All readings; seconds since sampling began, one instant per round of readings."""

    interval_s: float
    t_s: list[float] = []
    series: list[Series] = []
    windows: list[Window] = []
    missing: list[Missing] = []
    power_mode: PowerMode = UNKNOWN


class Energy(msgspec.Struct, frozen=True):
    """What a frame cost: millijoules, and the mean watts of `rail` while the frames ran, from that many readings."""

    mj_per_frame: float
    mean_w: float
    rail: str
    readings: int


def values_of(
    timeline: Timeline, quantity: Quantity, name: str, source: str | None = None
) -> list[float | None] | None:
    """A sensor's values, or None where there is no such sensor."""
    for series in timeline.series:
        if (series.quantity, series.name) == (quantity, name) and source in (None, series.source):
            return series.values
    return None


def inside(timeline: Timeline, window: Window) -> list[int]:
    """The instants that lie in the window's busy part."""
    start = window.end_s - window.busy_s
    return [index for index, t in enumerate(timeline.t_s) if start <= t <= window.end_s]


def energy_of(timeline: Timeline, candidate: str, kind: str, rails: tuple[str, ...], least: int = 3) -> Energy | None:
    """Energy per frame of one candidate, from the first of `rails` that was read often enough.

    Args:
        timeline: where the rails are.
        candidate, kind: whose slices.
        rails: each `source:name`, or `source:name+name` for a sum; the first that is known counts.
        least: fewest readings while the frames ran.
    """
    windows = [window for window in timeline.windows if (window.candidate, window.kind) == (candidate, kind)]
    frames, busy = sum(window.frames for window in windows), sum(window.busy_s for window in windows)
    instants = [index for window in windows for index in inside(timeline, window)]
    for rail in rails:
        power = _rail(timeline, rail)
        known = [watts for index in instants if index < len(power) and (watts := power[index]) is not None]
        if frames and len(known) >= least:
            mean = fmean(known)
            return Energy(1000 * mean * busy / frames, mean, rail, len(known))
    return None


def _rail(timeline: Timeline, rail: str) -> list[float | None]:
    """The sum of a rail's parts at each instant; None where one of them is unknown."""
    source, _, names = rail.partition(":")
    parts = [values_of(timeline, "power_w", name, source) for name in names.split("+")]
    known = [part for part in parts if part is not None]
    if len(known) != len(parts):
        return []
    return [
        None if any(value is None for value in values) else sum(value for value in values if value is not None)
        for values in zip(*known, strict=True)
    ]


class Finding(msgspec.Struct, frozen=True):
    """What happened to a sensor; `onset_s` is when on the timeline's axis."""

    kind: Literal["throttled", "clock-changed"]
    sensor: str
    detail: str
    onset_s: float


def find_throttling(timeline: Timeline, candidate: str, kinds: Sequence[str]) -> list[Finding]:
    """Throttling that was reported, and clocks that fell by more than a tenth, while a candidate ran.

    Args:
        timeline: what was read.
        candidate: whose windows count.
        kinds: which of them.
    """
    windows = [w for w in timeline.windows if w.candidate == candidate and w.kind in kinds]
    return [
        found
        for series in timeline.series
        for found in _findings(
            series, timeline.t_s, [index for w in windows if _tells(series, w) for index in inside(timeline, w)]
        )
    ]


def highest_clock(timeline: Timeline, windows: Sequence[Window], *, gpu: bool) -> float | None:
    """The highest clock, in MHz, of the processor or of the GPU in windows of bundles that ran on it."""
    read = [
        value
        for series in timeline.series
        if series.quantity == "clock_mhz" and series.name.startswith(_PROCESSOR) != gpu
        for window in windows
        if _tells(series, window)
        for index in inside(timeline, window)
        if (value := series.values[index]) is not None
    ]
    return max(read, default=None)


def _tells(series: Series, window: Window) -> bool:
    """Whether a sensor says how fast a bundle could run: the memory's clock follows what is asked of it, an idle GPU's
    nothing at all."""
    if series.quantity != "clock_mhz" or series.name.startswith(_PROCESSOR):
        return True
    return series.name != _MEMORY and (not window.device or is_cuda(window.device))


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
    if series.quantity == "clock_mhz" and len(known) >= _LEAST_READINGS:
        highest = 0.0
        for t, value in known:
            highest = max(highest, value)
            if value < STEADY * highest:
                low, high = min(value for _, value in known), max(value for _, value in known)
                detail = f"{sensor} ran at {low:.0f} to {high:.0f} MHz, and fell first after {t:.0f} s"
                yield Finding("clock-changed", sensor, detail, t)
                return
