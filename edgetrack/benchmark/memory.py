"""Memory of this process in MB of 2**20 bytes: resident, its peak, and the part that no other process shares.

Virtual memory is never reported: a runtime reserves address space that it does not use.
"""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

import psutil

_STATUS = Path("/proc/self/status")
_BYTES_PER_MB = 2**20
_KIB_PER_MB = 2**10


def peak_rss_mb(*, status: Path = _STATUS, platform: str = sys.platform) -> float:
    """The most memory that this process has held resident since it started, in MB of 2**20 bytes.

    On Linux this is VmHWM of `/proc/self/status`, which starts anew with each program. `ru_maxrss` does not: a child
    inherits its parent's peak through fork and exec (getrusage(2)), so it only stands in where VmHWM is missing.

    Args:
        status: the process's status file.
        platform: as `sys.platform`; `ru_maxrss` counts bytes on "darwin" and KiB elsewhere.
    """
    high_water_kib = _status_kib(status, "VmHWM")
    if high_water_kib is not None:
        return high_water_kib / _KIB_PER_MB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (_BYTES_PER_MB if platform == "darwin" else _KIB_PER_MB)


def current_rss_mb(*, status: Path = _STATUS) -> float:
    """The memory that this process holds resident now, in MB of 2**20 bytes."""
    resident_kib = _status_kib(status, "VmRSS")
    if resident_kib is not None:
        return resident_kib / _KIB_PER_MB
    return float(psutil.Process().memory_info().rss) / _BYTES_PER_MB


def uss_mb() -> float | None:
    """The memory that would be freed if this process ended now, in MB of 2**20 bytes; None where the system hides it.

    Slower than `current_rss_mb` (the kernel walks the page tables): not for use inside a timed loop.
    """
    try:
        return float(psutil.Process().memory_full_info().uss) / _BYTES_PER_MB
    except (AttributeError, psutil.Error, OSError):
        return None


def _status_kib(status: Path, name: str) -> int | None:
    try:
        text = status.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(rf"^{name}:\s*(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) if found else None
