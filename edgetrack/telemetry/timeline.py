"""The record of all sensors on one axis of time, with what was measured when."""

from __future__ import annotations

import msgspec
import numpy as np

from edgetrack.telemetry.power_mode import UNKNOWN, PowerMode
from edgetrack.telemetry.reading import Quantity


class Series(msgspec.Struct, frozen=True):
    """One sensor; as many values as `Timeline.t_s` has instants, null where it said nothing."""

    source: str
    quantity: Quantity
    name: str
    values: list[float | None]


class Window(msgspec.Struct, frozen=True):
    """One slice of one contestant: seconds on the timeline's axis, and frames that were recorded in it.

    `busy_s` is the last part of it, in which those frames ran; what was before was loading and unrecorded frames.
    """

    contestant: str
    kind: str
    start_s: float
    end_s: float
    busy_s: float
    frames: int


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


def energy_of(timeline: Timeline, contestant: str, kind: str, rails: tuple[str, ...], least: int = 3) -> Energy | None:
    """Energy per frame of one contestant, from the first of `rails` that was read often enough.

    Args:
        timeline: where the rails are.
        contestant, kind: whose slices.
        rails: each `source:name`, or `source:name+name` for a sum; the first that is known counts.
        least: fewest readings while the frames ran.
    """
    windows = [window for window in timeline.windows if (window.contestant, window.kind) == (contestant, kind)]
    frames, busy = sum(window.frames for window in windows), sum(window.busy_s for window in windows)
    instants = [index for window in windows for index in inside(timeline, window)]
    for rail in rails:
        power = _rail(timeline, rail)
        known = [power[index] for index in instants if index < len(power) and power[index] is not None]
        if frames and len(known) >= least:
            mean = float(np.mean(np.array(known, dtype=np.float64)))
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
