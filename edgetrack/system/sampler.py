"""Finds the sensors of this machine and reads them again and again, beside a benchmark that runs in other processes."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Annotated, Literal, get_args

import msgspec

from edgetrack.system.gpu import NvmlSensors
from edgetrack.system.jetson import UNKNOWN, Jtop, PowerMode, Tegrastats, read_power_mode
from edgetrack.system.sensors import (
    CpuClocks,
    ProcessMemory,
    Quantity,
    Rapl,
    Reading,
    Source,
    ThermalZones,
    ThrottleCounts,
)
from edgetrack.system.timeline import Missing, Series, Timeline, Window

INTERVAL_S = 0.5
SourceName = Literal["jtop", "tegrastats", "nvml", "rapl", "thermal", "cpufreq", "throttle"]
SOURCE_NAMES: tuple[SourceName, ...] = get_args(SourceName)
RAILS = (
    "jtop:VDD_GPU_SOC+VDD_CPU_CV+VIN_SYS_5V0",
    "jtop:TOT",
    "tegrastats:VDD_IN",
    "tegrastats:POM_5V_IN",
    "tegrastats:VDD_GPU_SOC+VDD_CPU_CV+VIN_SYS_5V0",
    "tegrastats:VIN",
    "tegrastats:VDD_GPU+VDD_CPU_SOC_MSS+VIN_SYS_5V0",
    "rapl:psys",
    "rapl:package-0+package-1",
    "rapl:package-0",
    "nvml:cuda:0",
)
"""What stands for the whole device's power where no profile says so, best first; processor and GPU alone come last."""


Megahertz = Annotated[float, msgspec.Meta(gt=0, le=100_000)]


class Clocks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Clocks under load in MHz, None where nothing is expected."""

    cpu_mhz: Megahertz | None = None
    gpu_mhz: Megahertz | None = None


@dataclass(frozen=True)
class Expectation:
    """What a profile says of its device; nothing of it is ever set.

    Attributes:
        sources: what to read; None for all that answer.
        rails: what stands for the whole device's power, see `timeline.energy_of`.
        power_modes: the modes that figures are compared in; empty where the device has none.
        jetson_clocks: whether clocks are to be fixed; None where it does not matter.
        cpu_mhz, gpu_mhz: the clocks under load, where the power mode has none of its own in `clocks`.
        clocks: those of power modes.
    """

    sources: tuple[SourceName, ...] | None = None
    rails: tuple[str, ...] = RAILS
    power_modes: tuple[str, ...] = ()
    jetson_clocks: bool | None = None
    cpu_mhz: float | None = None
    gpu_mhz: float | None = None
    clocks: Mapping[str, Clocks] = field(default_factory=dict)

    def clocks_in(self, power_mode: str | None) -> Clocks:
        """The clocks under load in a power mode."""
        return self.clocks.get(power_mode or "") or Clocks(cpu_mhz=self.cpu_mhz, gpu_mhz=self.gpu_mhz)


@dataclass(frozen=True)
class Sensors:
    """Sources that answer, those that were asked for and do not, and the power mode."""

    sources: list[Source] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    power_mode: PowerMode = UNKNOWN


def find_sensors(wanted: Sequence[SourceName] | None = None, *, root: Path = Path("/")) -> Sensors:
    """Open the sources; jetson-stats and tegrastats say the same, so the second is left out where the first answers.

    Args:
        wanted: the names; None tries all and reports none as missing.
        root: the folder that holds sys and proc.
    """
    found: list[Source] = []
    missing: list[Missing] = []
    for name in wanted if wanted is not None else SOURCE_NAMES:
        if name == "tegrastats" and any(source.name == "jtop" for source in found):
            continue
        try:
            found.append(_open(name, root))
        except OSError as error:
            missing.append(Missing(name, str(error)))
    if any(source.name == "tegrastats" for source in found):
        missing = [one for one in missing if one.source != "jtop"]
    return Sensors(found, missing if wanted is not None else [], _power_mode(found, root))


def _open(name: SourceName, root: Path) -> Source:
    if name == "jtop":
        return Jtop()
    if name == "nvml":
        return NvmlSensors()
    if name == "tegrastats":
        if shutil.which("tegrastats") is None:
            raise OSError("there is no command tegrastats; it is part of Jetson Linux")
        return Tegrastats()
    return _sysfs(name, root)


def _sysfs(name: SourceName, root: Path) -> Source:
    kinds: dict[str, tuple[Callable[[Path], Rapl | ThermalZones | CpuClocks | ThrottleCounts], str]] = {
        "rapl": (Rapl, "no energy counter under /sys/class/powercap can be read; most systems let only root"),
        "thermal": (ThermalZones, "/sys/class/thermal has no zone with a sensor"),
        "cpufreq": (CpuClocks, "no frequency under /sys/devices/system/cpu/cpufreq or in /proc/cpuinfo"),
        "throttle": (ThrottleCounts, "the processor does not tell when it throttles"),
    }
    kind, absent = kinds[name]
    source = kind(root)
    if not source.found:
        raise OSError(absent)
    return source


def _power_mode(sources: Sequence[Source], root: Path) -> PowerMode:
    """Of jetson-stats, and what it does not say of nvpmodel and jetson_clocks."""
    mode = UNKNOWN
    for source in sources:
        if isinstance(source, Jtop):
            mode = PowerMode(source.power_mode(), source.jetson_clocks())
    if mode.name is not None and mode.jetson_clocks is not None:
        return mode
    if shutil.which("nvpmodel") is None:
        return mode
    asked = read_power_mode(root)
    return PowerMode(mode.name or asked.name, asked.jetson_clocks if mode.jetson_clocks is None else mode.jetson_clocks)


class Sampler:
    """The timeline as it grows; a context manager that runs the thread and closes the sources at its end.

    Args:
        sources: what is read; one that fails is given up, and the timeline says why.
        missing: what was to be read and does not answer.
        power_mode: as it was found.
        interval_s: seconds between two rounds of readings.
        now: seconds of a clock that never goes back.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        missing: Sequence[Missing] = (),
        power_mode: PowerMode = UNKNOWN,
        interval_s: float = INTERVAL_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sources = list(sources)
        self._missing = list(missing)
        self._power_mode = power_mode
        self._interval_s = interval_s
        self._now = now
        self._start = now()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self._t_s: list[float] = []
        self._series: dict[tuple[str, Quantity, str], list[float | None]] = {}
        self._windows: list[Window] = []
        self._processes: dict[tuple[str, int], ProcessMemory] = {}
        self._watched: ProcessMemory | None = None

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        for source in self._sources:
            with suppress(OSError):
                source.close()

    def seconds(self) -> float:
        """Now, on the timeline's axis."""
        return self._now() - self._start

    @contextmanager
    def watch(self, label: str, pid: int) -> Iterator[None]:
        """Read the memory of a process meanwhile."""
        source = self._processes.setdefault((label, pid), ProcessMemory(label, pid, self._now))
        with self._lock:
            self._watched = source
        try:
            yield
        finally:
            with self._lock:
                self._watched = None

    def add(self, window: Window) -> None:
        """Note what was measured when."""
        with self._lock:
            self._windows.append(window)

    def sample(self) -> None:
        """One round of readings."""
        t_s, watched = self.seconds(), self._watched
        readings = [(source.name, reading) for source in list(self._sources) for reading in self._read(source)]
        if watched is not None:
            readings += [(watched.name, reading) for reading in _suppressed(watched)]
        with self._lock:
            self._t_s.append(t_s)
            for source, (quantity, name, value) in readings:
                values = self._series.setdefault((source, quantity, name), [])
                values.extend([None] * (len(self._t_s) - 1 - len(values)))
                values[len(self._t_s) - 1 :] = [value]

    def timeline(self) -> Timeline:
        """All there is by now."""
        with self._lock:
            count = len(self._t_s)
            return Timeline(
                interval_s=self._interval_s,
                t_s=list(self._t_s),
                series=[
                    Series(source, quantity, name, [*values, *[None] * (count - len(values))])
                    for (source, quantity, name), values in self._series.items()
                ],
                windows=list(self._windows),
                missing=list(self._missing),
                power_mode=self._power_mode,
            )

    def _run(self) -> None:
        self.sample()
        while not self._stop.wait(self._interval_s):
            self.sample()

    def _read(self, source: Source) -> list[Reading]:
        try:
            return list(source.read())
        except (OSError, ValueError) as error:
            with suppress(OSError):
                source.close()
            with self._lock:
                self._sources.remove(source)
                self._missing.append(Missing(source.name, f"stopped after {self.seconds():.0f} s: {error}"))
            return []


def _suppressed(process: ProcessMemory) -> list[Reading]:
    """A process that has ended has no memory to be read."""
    with suppress(OSError):
        return list(process.read())
    return []
