"""Memory of one process: resident, and what it alone holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import psutil

from edgetrack.telemetry.reading import Reading

_MB = 2**20
_USS_EVERY_S = 5.0
"""The kernel walks all page tables for it, and holds up the process when it asks for memory meanwhile."""


class ProcessMemory:
    """Resident memory at each reading, and unique memory every few seconds, in MB of 2**20 bytes.

    Args:
        label: what people call the process.
        pid: its number.
        now: seconds of a clock that never goes back.
    """

    name = "process"

    def __init__(self, label: str, pid: int, now: Callable[[], float] = time.monotonic) -> None:
        self._label = label
        self._pid = pid
        self._now = now
        self._next_uss = now()

    def read(self) -> Iterator[Reading]:
        try:
            process = psutil.Process(self._pid)
            yield Reading("rss_mb", self._label, process.memory_info().rss / _MB)
            if self._now() >= self._next_uss:
                self._next_uss = self._now() + _USS_EVERY_S
                yield Reading("uss_mb", self._label, process.memory_full_info().uss / _MB)
        except psutil.Error as error:
            raise OSError(f"process of {self._label}: {error}") from error

    def close(self) -> None:
        """Nothing is held."""
