"""Memory of a process in MiB: resident, its peak, and the part that no other process shares.

Virtual memory is never reported: a runtime reserves address space that it does not use.
"""

from __future__ import annotations

import re
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from edgetrack.resources import read_text
from edgetrack.system.sensors import Reading

_STATUS = Path("/proc/self/status")
_BYTES_PER_MB = 2**20
_KIB_PER_MB = 2**10
_USS_EVERY_S = 5.0
"""The kernel walks all page tables for it, and holds up the process when it asks for memory meanwhile."""


def peak_rss_mb(*, status: Path = _STATUS, platform: str = sys.platform) -> float:
    """The most memory that this process has held resident since it started, in MiB.

    On Linux this is VmHWM of `/proc/self/status`, which starts again with each program. `ru_maxrss` does not: a child
    inherits its parent's peak through fork and exec (getrusage(2)), so it only stands in where VmHWM is missing.

    Args:
        status: the process's status file.
        platform: as `sys.platform`; `ru_maxrss` counts bytes on "darwin" and KiB elsewhere.
    """
    high_water = re.search(r"^VmHWM:\s*(\d+) kB$", read_text(status) or "", re.MULTILINE)
    if high_water:
        return int(high_water[1]) / _KIB_PER_MB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (_BYTES_PER_MB if platform == "darwin" else _KIB_PER_MB)


def current_rss_mb(pid: int | None = None) -> float:
    """The memory that a process holds resident now, in MiB; of this process without a number.

    Raises:
        psutil.Error: there is no such process.
    """
    return float(psutil.Process(pid).memory_info().rss) / _BYTES_PER_MB


def uss_mb(pid: int | None = None) -> float | None:
    """The memory that would be freed if a process ended now, in MiB; None where the system hides it.

    Slower than `current_rss_mb` (the kernel walks the page tables): not for use inside a timed loop.
    """
    try:
        return float(psutil.Process(pid).memory_full_info().uss) / _BYTES_PER_MB
    except (AttributeError, psutil.Error, OSError):
        return None


class ProcessMemory:
    """Resident memory at each reading, and unique memory every few seconds, in MiB.

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
            yield Reading("rss_mb", self._label, current_rss_mb(self._pid))
        except psutil.Error as error:
            raise OSError(f"process of {self._label}: {error}") from error
        if self._now() >= self._next_uss:
            self._next_uss = self._now() + _USS_EVERY_S
            unique = uss_mb(self._pid)
            if unique is not None:
                yield Reading("uss_mb", self._label, unique)

    def close(self) -> None:
        """Nothing is held."""
