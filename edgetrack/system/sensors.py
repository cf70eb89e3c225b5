"""A reading of a sensor and where readings come from; Linux's own sensors under /sys, each found once.

Thermal zones, frequencies, counts of throttling, Intel's and AMD's energy counters; `found` is false where none of a
class can be read.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import psutil

from edgetrack.resources import read_text

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


def read_number(path: Path) -> float | None:
    """A file of /sys that holds one whole number; None where it cannot be read or holds something else."""
    text = read_text(path)
    try:
        return None if text is None else float(int(text))
    except ValueError:
        return None


STATED = "CPU as stated"
"""The name of a clock that may be a constant."""
_COOLEST_C, _HOTTEST_C = -100.0, 250.0
"""Zones without a sensor report absurd values: -256 on Jetson, -274 on some laptops."""


class ThermalZones:
    """Temperatures of /sys/class/thermal (Documentation/driver-api/thermal/sysfs-api.rst), in degrees Celsius."""

    name = "thermal"

    def __init__(self, root: Path = Path("/")) -> None:
        zones = sorted((root / "sys/class/thermal").glob("thermal_zone[0-9]*"), key=lambda path: path.name)
        named = [(read_text(zone / "type") or zone.name, zone / "temp") for zone in zones]
        self._zones = _unique([(name, path) for name, path in named if _celsius(path) is not None])

    @property
    def found(self) -> bool:
        """Whether there is a zone with a sensor."""
        return bool(self._zones)

    def read(self) -> Iterator[Reading]:
        for name, path in self._zones:
            value = _celsius(path)
            if value is not None:
                yield Reading("temperature_c", name, value)

    def close(self) -> None:
        """Nothing is held."""


class CpuClocks:
    """The frequency of the fastest core, in MHz: of /sys/devices/system/cpu/cpufreq, else of /proc/cpuinfo.

    The fastest core is the one that works; idle ones slow down without meaning anything. /proc/cpuinfo names a
    frequency on x86 alone; under a hypervisor it is often a constant.
    """

    name = "cpufreq"

    def __init__(self, root: Path = Path("/")) -> None:
        files = (root / "sys/devices/system/cpu/cpufreq").glob("policy[0-9]*/scaling_cur_freq")
        self._files = sorted(path for path in files if read_number(path) is not None)
        self._cpuinfo = root / "proc/cpuinfo"

    @property
    def found(self) -> bool:
        """Whether a frequency can be read."""
        return any(True for _ in self.read())

    def read(self) -> Iterator[Reading]:
        name = "CPU"
        if self._files:
            clocks = [khz / 1000 for khz in map(read_number, self._files) if khz is not None]
        else:
            stated = [_after_colon(line) for line in _lines(self._cpuinfo) if line.startswith("cpu MHz")]
            clocks = [mhz for mhz in stated if mhz is not None]
            name = STATED
        if clocks:
            yield Reading("clock_mhz", name, max(clocks))

    def close(self) -> None:
        """Nothing is held."""


class ThrottleCounts:
    """How often the processor was throttled: Intel's counters per core, and the Raspberry Pi's firmware's flags."""

    name = "throttle"

    def __init__(self, root: Path = Path("/")) -> None:
        cores = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/core_throttle_count")
        self._counts = sorted(path for path in cores if read_number(path) is not None)
        # Raspberry Pi 4: soc/soc:firmware; Raspberry Pi 5: soc@107c000000/soc@107c000000:firmware.
        flags = (root / "sys/devices/platform").glob("soc*/*firmware/get_throttled")
        self._firmware = next(iter(sorted(flags)), None)

    @property
    def found(self) -> bool:
        """Whether throttling can be seen."""
        return bool(self._counts) or self._flags() is not None

    def read(self) -> Iterator[Reading]:
        counts = [count for count in map(read_number, self._counts) if count is not None]
        if counts:
            yield Reading("throttle_count", "cores", sum(counts))
        flags = self._flags()
        if flags is not None:
            # Bits 0 to 3 are about now: undervoltage, frequency capped, throttled, soft temperature limit.
            yield Reading("throttled", "firmware", float(bool(flags & 0xF)))

    def close(self) -> None:
        """Nothing is held."""

    def _flags(self) -> int | None:
        try:
            return None if self._firmware is None else int(read_text(self._firmware) or "", 16)
        except ValueError:
            return None


class Rapl:
    """Power of processor packages from their energy counters (/sys/class/powercap, power capping framework), in watts.

    The counters count microjoules and start again at `max_energy_range_uj`; power is the difference over the time since
    the last reading, so the first reading gives none. Only root may read them on most systems.

    Args:
        root: the folder that holds sys.
        now: seconds of a clock that never goes back.
    """

    name = "rapl"

    def __init__(self, root: Path = Path("/"), now: Callable[[], float] = time.monotonic) -> None:
        zones = sorted((root / "sys/class/powercap").glob("*-rapl:*"), key=lambda path: path.name)
        whole = [zone for zone in zones if zone.name.count(":") == 1]
        named = [(read_text(zone / "name") or zone.name, zone / "energy_uj") for zone in whole]
        self._zones = _unique([(name, path) for name, path in named if read_number(path) is not None])
        self._now = now
        self._last: dict[str, tuple[float, float]] = {}

    @property
    def found(self) -> bool:
        """Whether a counter can be read."""
        return bool(self._zones)

    def read(self) -> Iterator[Reading]:
        for name, path in self._zones:
            energy, now = read_number(path), self._now()
            if energy is None:
                continue
            before = self._last.get(name)
            self._last[name] = (now, energy)
            if before is None or now <= before[0]:
                continue
            used = energy - before[1]
            if used < 0:
                used += read_number(path.parent / "max_energy_range_uj") or 0
            if used >= 0:
                yield Reading("power_w", name, used / 1e6 / (now - before[0]))

    def close(self) -> None:
        """Nothing is held."""


def _celsius(path: Path) -> float | None:
    """A zone's temperature; most drivers write thousandths of a degree."""
    value = read_number(path)
    if value is None or not _COOLEST_C < value / 1000 < _HOTTEST_C:
        return None
    return value / 1000


def _unique(named: list[tuple[str, Path]]) -> list[tuple[str, Path]]:
    """Names that occur twice get their folder's name behind them."""
    names = [name for name, _ in named]
    return [(name if names.count(name) == 1 else f"{name} {path.parent.name}", path) for name, path in named]


def _lines(path: Path) -> list[str]:
    return (read_text(path) or "").splitlines()


def _after_colon(line: str) -> float | None:
    try:
        return float(line.partition(":")[2])
    except ValueError:
        return None


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
    try:
        import resource
    except ImportError:  # Windows, which keeps the peak itself
        memory = psutil.Process().memory_info()
        return float(getattr(memory, "peak_wset", memory.rss)) / _BYTES_PER_MB
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
