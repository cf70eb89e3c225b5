"""Which sensors there are here: those that were asked for, or all that answer."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from edgetrack.telemetry.jtop import Jtop
from edgetrack.telemetry.nvml import Nvml
from edgetrack.telemetry.power_mode import UNKNOWN, PowerMode, read_power_mode
from edgetrack.telemetry.reading import Source
from edgetrack.telemetry.sysfs import CpuClocks, Rapl, ThermalZones, ThrottleCounts
from edgetrack.telemetry.tegrastats import Tegrastats
from edgetrack.telemetry.timeline import Missing

SourceName = Literal["jtop", "tegrastats", "nvml", "rapl", "thermal", "cpufreq", "throttle"]
SOURCE_NAMES: tuple[SourceName, ...] = get_args(SourceName)
RAILS = (
    "jtop:VDD_GPU_SOC+VDD_CPU_CV+VIN_SYS_5V0",
    "jtop:TOT",
    "tegrastats:VDD_IN",
    "tegrastats:POM_5V_IN",
    "tegrastats:VDD_GPU_SOC+VDD_CPU_CV+VIN_SYS_5V0",
    "rapl:psys",
    "rapl:package-0+package-1",
    "rapl:package-0",
    "nvml:cuda:0",
)
"""What stands for the whole device's power where no profile says so, best first; processor and GPU alone come last."""


@dataclass(frozen=True)
class Expectation:
    """What a profile says of its device; nothing of it is ever set.

    Attributes:
        sources: what to read; None for all that answer.
        rails: what stands for the whole device's power, see `timeline.energy_of`.
        power_modes: the modes that figures are compared in; empty where the device has none.
        jetson_clocks: whether clocks are to be fixed; None where it does not matter.
        cpu_mhz, gpu_mhz: the clocks under load.
    """

    sources: tuple[SourceName, ...] | None = None
    rails: tuple[str, ...] = RAILS
    power_modes: tuple[str, ...] = ()
    jetson_clocks: bool | None = None
    cpu_mhz: float | None = None
    gpu_mhz: float | None = None


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
        return Nvml()
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
