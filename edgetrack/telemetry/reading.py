"""One reading of one sensor, and what gives readings."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

Quantity = Literal[
    "power_w", "temperature_c", "clock_mhz", "load_percent", "memory_mb", "rss_mb", "uss_mb", "throttled",
    "throttle_count",
]  # fmt: skip
"""What is read, with its unit; `throttled` is 0 or 1, `throttle_count` counts since the start of the system.

Clocks in MHz, memory in MB of 2**20 bytes: `memory_mb` is what is in use on the whole device, `rss_mb` and `uss_mb` are
one process's.
"""


class Reading(NamedTuple):
    """A value of a sensor: `name` is the rail, zone, clock or process."""

    quantity: Quantity
    name: str
    value: float


class Source(Protocol):
    """Something that can be read again and again."""

    name: str

    def read(self) -> Iterable[Reading]:
        """What it says now; nothing where it has nothing new.

        Raises:
            OSError, ValueError: it cannot be read any more.
        """

    def close(self) -> None:
        """Release it; any number of times."""


def read_text(path: Path) -> str | None:
    """A small file of /proc or /sys, stripped; None where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \t\n")
    except OSError:
        return None


def read_number(path: Path) -> float | None:
    """A file of /sys that holds one whole number; None where it cannot be read or holds something else."""
    text = read_text(path)
    try:
        return None if text is None else float(int(text))
    except ValueError:
        return None
