"""What the device's sensors said while it was measured: power, temperature, clocks, throttling, memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from edgetrack.report.latency_plots import title_pair
from edgetrack.report.svg import INK, PX, Marks, both
from edgetrack.telemetry.reading import Quantity
from edgetrack.telemetry.throttling import Finding, find_throttling
from edgetrack.telemetry.timeline import Series, Timeline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Values = NDArray[np.float64]
SHOWN: dict[Quantity, tuple[str, str]] = {
    "power_w": ("power", "W"),
    "temperature_c": ("temperature", "°C"),
    "clock_mhz": ("clock", "MHz"),
    "throttled": ("throttled", ""),
    "throttle_count": ("throttle count", ""),
    "rss_mb": ("resident memory", "MB"),
}
"""What is drawn, in this order, with its name and unit; loads and the rest stay in the record."""
MOST_OF_A_KIND = 4
_ROW = 62
_STRIP = 0.06
"""Height of the strip, as a share of the row's."""


def sensor_plot(name: str, timeline: Timeline) -> Markup:
    """A row for each sensor on one axis of seconds, a grey strip below while frames ran.

    Nothing where no sensor was read. Of more than four sensors of a kind those with the highest values are drawn. Where
    there are more readings than columns, a column shows the median and the whole range of its readings. A dashed line
    is where throttling began.
    """
    rows = drawn(timeline)
    if not rows:
        return Markup()
    onsets = {found.sensor: found for found in onsets_of(timeline)}

    def draw(width: float, marks: Marks) -> Figure:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width * PX, (40 + _ROW * len(rows)) * PX), dpi=72, layout="constrained")
        axes = figure.subplots(len(rows), 1, sharex="all", squeeze=False).flat
        for axis, series in zip(axes, rows, strict=True):
            for window in timeline.windows:
                axis.axvspan(window.end_s - window.busy_s, window.end_s, 0, _STRIP, color=INK["muted"], linewidth=0)
            x, middle, lowest, highest = columns(timeline.t_s, series.values, int(width / 2.5))
            axis.fill_between(x, lowest, highest, color=INK["soft"], linewidth=0)
            axis.plot(x, middle, color=INK["accent"], linewidth=1.2, marker=".", markersize=2)
            found = onsets.get(f"{series.source}:{series.name}")
            if found is not None:
                axis.axvline(found.onset_s, color=INK["ink"], linewidth=1.2, linestyle=(0, (4, 3)))
            low, high = _limits(series)
            axis.set_ylim(low, high)
            axis.set_yticks([])
            axis.spines["left"].set_visible(False)
            axis.tick_params(length=0)
            title_pair(axis, label(series), span(series), width)
        axis.set_xlabel("seconds")
        return figure

    return both(name, f"Readings of {len(rows)} sensors over time", draw)


def drawn(timeline: Timeline) -> list[Series]:
    """The sensors that a plot shows, each with at least one reading."""
    read = [series for series in timeline.series if any(value is not None for value in series.values)]
    found = []
    for quantity in SHOWN:
        some = [series for series in read if series.quantity == quantity]
        found += sorted(some, key=lambda series: -max(_known(series)))[:MOST_OF_A_KIND]
    return found


def onsets_of(timeline: Timeline) -> Iterator[Finding]:
    """Throttling and falling clocks of all contestants."""
    kinds = {(window.contestant, window.kind) for window in timeline.windows}
    for contestant in sorted({contestant for contestant, _ in kinds}):
        yield from find_throttling(timeline, contestant, sorted(kind for who, kind in kinds if who == contestant))


def label(series: Series) -> str:
    """A sensor for people, such as `power VDD_IN`."""
    return f"{SHOWN[series.quantity][0]} {series.name}"


def span(series: Series) -> str:
    """Its lowest and highest reading."""
    known = _known(series)
    unit = SHOWN[series.quantity][1]
    digits = 2 if series.quantity == "power_w" else 0 if series.quantity in ("clock_mhz", "throttled") else 1
    return f"{min(known):.{digits}f} to {max(known):.{digits}f} {unit}".rstrip()


def columns(t_s: Sequence[float], values: Sequence[float | None], most: int) -> tuple[Values, Values, Values, Values]:
    """Readings as at most so many columns: seconds, median, smallest and largest; a column without any is a gap."""
    read = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    pieces = np.array_split(np.arange(len(read)), max(1, min(most, len(read))))
    times = np.asarray(t_s, dtype=np.float64)
    x = np.array([float(np.mean(times[piece])) for piece in pieces])
    known = [read[piece][~np.isnan(read[piece])] for piece in pieces]
    middle, lowest, highest = (
        np.array([float(pick(some)) if some.size else np.nan for some in known]) for pick in (np.median, np.min, np.max)
    )
    return x, middle, lowest, highest


def _known(series: Series) -> list[float]:
    return [value for value in series.values if value is not None]


def _limits(series: Series) -> tuple[float, float]:
    """Room around the readings; what hardly changes is drawn flat, not blown up to the height of the row."""
    known = _known(series)
    low, high = min(known), max(known)
    room = max(0.15 * (high - low), 0.05 * abs(high), 0.1)
    return low - room, high + room
