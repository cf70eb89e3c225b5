"""What a measurement was made on: processor, cores that may be used, memory, GPU, packages.

Read from /proc, /sys and two short commands; nothing heavy is imported and nothing fails: what cannot be read is None
or empty. The record names no host, no user, no serial number and no path.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import psutil

from edgetrack.resources import (
    RunCommand,
    allowed_cores,
    cgroup_folders,
    command_output,
    cpu_quota,
    fast_cores,
    read_text,
)
from edgetrack.system.opencv import OPENCV

PACKAGES = ("edgetrack", "numpy", *OPENCV)
"""Distributions whose versions every record states; callers add those of the targets."""
CPU_FLAGS = (
    "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni", "amx_tile", "amx_bf16", "amx_int8",
    "amx_fp16", "f16c", "fma", "asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve",
    "svebf16", "svei8mm", "sve2",
)  # fmt: skip
"""Flags that decide which kernels a runtime picks, as Linux writes them in /proc/cpuinfo."""

_ARM_PARTS: dict[tuple[int | None, int | None], str] = {
    (0x41, 0xD02): "Cortex-A34",
    (0x41, 0xD03): "Cortex-A53",
    (0x41, 0xD04): "Cortex-A35",
    (0x41, 0xD05): "Cortex-A55",
    (0x41, 0xD07): "Cortex-A57",
    (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD09): "Cortex-A73",
    (0x41, 0xD0A): "Cortex-A75",
    (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse-N1",
    (0x41, 0xD0D): "Cortex-A77",
    (0x41, 0xD0E): "Cortex-A76AE",
    (0x41, 0xD40): "Neoverse-V1",
    (0x41, 0xD41): "Cortex-A78",
    (0x41, 0xD42): "Cortex-A78AE",
    (0x41, 0xD44): "Cortex-X1",
    (0x41, 0xD46): "Cortex-A510",
    (0x41, 0xD47): "Cortex-A710",
    (0x41, 0xD48): "Cortex-X2",
    (0x41, 0xD49): "Neoverse-N2",
    (0x41, 0xD4A): "Neoverse-E1",
    (0x41, 0xD4B): "Cortex-A78C",
    (0x41, 0xD4C): "Cortex-X1C",
    (0x41, 0xD4D): "Cortex-A715",
    (0x41, 0xD4E): "Cortex-X3",
    (0x41, 0xD4F): "Neoverse-V2",
    (0x41, 0xD80): "Cortex-A520",
    (0x41, 0xD81): "Cortex-A720",
    (0x41, 0xD82): "Cortex-X4",
    (0x41, 0xD83): "Neoverse-V3AE",
    (0x41, 0xD84): "Neoverse-V3",
    (0x41, 0xD85): "Cortex-X925",
    (0x41, 0xD87): "Cortex-A725",
    (0x41, 0xD8E): "Neoverse-N3",
    (0x4E, 0x003): "Denver 2",
    (0x4E, 0x004): "Carmel",
    (0x51, 0x001): "Oryon",
    (0xC0, 0xAC3): "AmpereOne",
    (0xC0, 0xAC4): "AmpereOne A",
    (0x61, 0x022): "Apple M1 Icestorm",
    (0x61, 0x023): "Apple M1 Firestorm",
    (0x61, 0x024): "Apple M1 Pro Icestorm",
    (0x61, 0x025): "Apple M1 Pro Firestorm",
    (0x61, 0x028): "Apple M1 Max Icestorm",
    (0x61, 0x029): "Apple M1 Max Firestorm",
    (0x61, 0x032): "Apple M2 Blizzard",
    (0x61, 0x033): "Apple M2 Avalanche",
    (0x61, 0x034): "Apple M2 Pro Blizzard",
    (0x61, 0x035): "Apple M2 Pro Avalanche",
    (0x61, 0x038): "Apple M2 Max Blizzard",
    (0x61, 0x039): "Apple M2 Max Avalanche",
}
"""(implementer, part) of /proc/cpuinfo, as in the kernel's arch/arm64/include/asm/cputype.h."""

_KIB_PER_MIB = 2**10
_BYTES_PER_MIB = 2**20


class Gpu(msgspec.Struct, frozen=True):
    """One NVIDIA GPU as nvidia-smi names it; memory in MiB, None where it shares the system's (Jetson)."""

    name: str
    driver: str | None
    memory_mib: int | None


class MachineRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The machine at one instant. None or empty: not readable here, or not applicable.

    `usable_cores` is what affinity, the fast cores where they differ (`fast_cores`, of Arm's big.LITTLE) and the
    cgroup's CPU quota (`cpu_quota`, in cores) leave of the logical cores, at least 1. `memory_total_mib` and
    `memory_available_mib` respect the cgroup's limit. `current_mhz` and `max_mhz` are those of the fastest core;
    `load_average` is over 1, 5 and 15 minutes. `l4t` is the Jetson Linux release, such as "36.4.0".
    """

    schema: int = 1
    os: str
    kernel: str
    architecture: str
    python: str
    cpu_model: str | None = None
    physical_cores: int | None = None
    logical_cores: int | None = None
    usable_cores: int | None = None
    fast_cores: int | None = None
    cpu_quota: float | None = None
    cpu_flags: tuple[str, ...] = ()
    governor: str | None = None
    current_mhz: float | None = None
    max_mhz: float | None = None
    memory_total_mib: int | None = None
    memory_available_mib: int | None = None
    load_average: tuple[float, float, float] | None = None
    device_model: str | None = None
    is_jetson: bool = False
    l4t: str | None = None
    nvidia_present: bool = False
    nvidia_driver: str | None = None
    gpus: tuple[Gpu, ...] = ()
    container: str | None = None
    packages: dict[str, str]

    @property
    def processor(self) -> str:
        """Its name, else the architecture; with its instruction sets where the name has no number.

        Virtual machines report names such as "AMD EPYC" for processors of several generations, with and without
        AVX-512 and bfloat16.
        """
        name = self.cpu_model or self.architecture
        return name if any(map(str.isdigit, name)) or not self.cpu_flags else f"{name} ({' '.join(self.cpu_flags)})"

    @property
    def kind(self) -> str:
        """What tells one kind of machine from another: device or processor, cores that may be used, GPUs."""
        cores = self.usable_cores
        parts = [self.device_model or self.processor]
        if cores:
            parts.append("1 core" if cores == 1 else f"{cores} cores")
        return ", ".join([*parts, *dict.fromkeys(gpu.name for gpu in self.gpus)])

    def to_json(self) -> bytes:
        """The record as UTF-8 JSON."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, data: bytes | str) -> MachineRecord:
        """The record that `to_json` wrote.

        Raises:
            msgspec.ValidationError: a field is missing or of another type.
        """
        return msgspec.json.decode(data, type=cls)


def collect(
    packages: Sequence[str] = (),
    *,
    root: Path = Path("/"),
    run: RunCommand = subprocess.run,
    system: str | None = None,
    affinity: Callable[[], Collection[int] | None] | None = None,
    version: Callable[[str], str] = importlib.metadata.version,
) -> MachineRecord:
    """Look at this machine.

    Args:
        packages: further distributions whose versions the record states.
        root: the folder that holds proc, sys, etc and dev.
        run: starts a command as `subprocess.run` does (nvidia-smi everywhere, sysctl on macOS).
        system: as `platform.system()`, which is the default; /proc and /sys are read only for "Linux".
        affinity: the cores that this process may run on; by default the scheduler is asked.
        version: a package's version; raises importlib.metadata.PackageNotFoundError where it is absent.
    """
    system = system or platform.system()
    allowed = (affinity or allowed_cores)()
    common = {
        "architecture": platform.machine(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": _versions((*PACKAGES, *packages), version),
        **_nvidia(root, run),
    }
    host = _linux(root, allowed) if system == "Linux" else _elsewhere(system, run, allowed)
    return MachineRecord(**common, **host)


def cpu_flags(root: Path = Path("/")) -> tuple[str, ...]:
    """Those of `CPU_FLAGS` that every core has, since a thread may run on any of them; empty where /proc is missing.

    Args:
        root: the folder that holds proc.
    """
    cpus = _cpuinfo(read_text(root / "proc/cpuinfo") or "")
    every = [set((cpu.get("flags") or cpu.get("Features") or "").split()) for cpu in cpus]
    common = set.intersection(*every) if every else set()
    return tuple(flag for flag in CPU_FLAGS if flag in common)


def lacks_vnni(architecture: str | None, flags: Collection[str]) -> bool:
    """Whether an x86 processor, by the flags that it shows, adds products of bytes in 16 bits (decision 0033)."""
    return architecture == "x86_64" and bool(flags) and not any("vnni" in flag for flag in flags)


def _linux(root: Path, allowed: Collection[int] | None) -> dict[str, Any]:
    cpus = _cpuinfo(read_text(root / "proc/cpuinfo") or "")
    logical = len(cpus) or None
    quota = cpu_quota(root)
    fast = fast_cores(root, allowed)
    cores = [len(some) for some in (allowed, fast) if some is not None]
    limits = [limit for limit in (logical, *cores, quota) if limit is not None]
    board = read_text(root / "proc/device-tree/model") or None
    l4t = _l4t(read_text(root / "etc/nv_tegra_release") or "")
    current = [khz / 1000 for khz in _numbers(_cpufreq(root, "scaling_cur_freq"))]
    load = _numbers((read_text(root / "proc/loadavg") or "").split()[:3])
    release = re.search(r'^PRETTY_NAME="?([^"\n]+)"?$', read_text(root / "etc/os-release") or "", re.MULTILINE)
    total, available = memory_mib(root)
    return {
        "os": release[1] if release else "Linux",
        "kernel": read_text(root / "proc/sys/kernel/osrelease") or platform.release(),
        "cpu_model": _cpu_model(cpus),
        "physical_cores": _physical_cores(root, cpus),
        "logical_cores": logical,
        "usable_cores": max(1, int(min(limits))) if limits else None,
        "fast_cores": None if fast is None else len(fast),
        "cpu_quota": quota,
        "cpu_flags": cpu_flags(root),
        "governor": ", ".join(sorted(set(_cpufreq(root, "scaling_governor")))) or None,
        "current_mhz": max(current or _numbers(cpu.get("cpu MHz", "") for cpu in cpus), default=None),
        "max_mhz": max((khz / 1000 for khz in _numbers(_cpufreq(root, "cpuinfo_max_freq"))), default=None),
        "memory_total_mib": total,
        "memory_available_mib": available,
        "load_average": tuple(load) if len(load) == 3 else None,
        "device_model": board,
        "is_jetson": l4t is not None or "jetson" in (board or "").lower(),
        "l4t": l4t,
        "container": _container(root),
    }


def _elsewhere(system: str, run: RunCommand, allowed: Collection[int] | None) -> dict[str, Any]:
    """macOS and others, through psutil and, on macOS, sysctl."""
    memory = psutil.virtual_memory()
    logical = psutil.cpu_count()
    mac = system == "Darwin"
    return {
        "os": f"macOS {platform.mac_ver()[0]}".strip() if mac else system,
        "kernel": platform.release(),
        "cpu_model": (
            command_output(run, ["sysctl", "-n", "machdep.cpu.brand_string"]) if mac else platform.processor()
        )
        or None,
        "physical_cores": psutil.cpu_count(logical=False),
        "logical_cores": logical,
        "usable_cores": len(allowed or ()) or logical,
        "memory_total_mib": memory.total // _BYTES_PER_MIB,
        "memory_available_mib": memory.available // _BYTES_PER_MIB,
        "load_average": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "device_model": (command_output(run, ["sysctl", "-n", "hw.model"]) if mac else None) or None,
    }


def _versions(names: Iterable[str], version: Callable[[str], str]) -> dict[str, str]:
    found = {name: _version(name, version) for name in dict.fromkeys(names)}
    return {name: stated for name, stated in found.items() if stated}


def _version(name: str, version: Callable[[str], str]) -> str | None:
    try:
        return version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _nvidia(root: Path, run: RunCommand) -> dict[str, Any]:
    module = read_text(root / "proc/driver/nvidia/version")
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    gpus = tuple(_gpu(line) for line in command_output(run, query).splitlines() if line.count(",") == 2)
    stated = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)", module or "")
    return {
        "nvidia_present": module is not None or (root / "dev/nvidia0").exists() or bool(gpus),
        "nvidia_driver": stated[1] if stated else next((gpu.driver for gpu in gpus), None),
        "gpus": gpus,
    }


def _gpu(line: str) -> Gpu:
    name, driver, memory = (field.strip() for field in line.split(","))
    mib = re.fullmatch(r"(\d+) MiB", memory)
    return Gpu(name=name, driver=None if driver.startswith("[") else driver, memory_mib=int(mib[1]) if mib else None)


def _cpuinfo(text: str) -> list[dict[str, str]]:
    """One mapping per logical core; the board's lines at the end of an Arm file ("Serial", "Model") belong to none."""
    blocks = [
        {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in block.splitlines())}
        for block in re.split(r"\n\s*\n", text)
    ]
    return [block for block in blocks if "processor" in block]


def _cpu_model(cpus: list[dict[str, str]]) -> str | None:
    names = []
    for cpu in cpus:
        implementer, part = _hex(cpu.get("CPU implementer")), _hex(cpu.get("CPU part"))
        fallback = None if part is None else f"Arm implementer {implementer or 0:#x} part {part:#x}"
        names.append(_ARM_PARTS.get((implementer, part)) or cpu.get("model name") or fallback)
    return " + ".join(dict.fromkeys(name for name in names if name)) or None


def _physical_cores(root: Path, cpus: list[dict[str, str]]) -> int | None:
    folders = (root / "sys/devices/system/cpu").glob("cpu[0-9]*")
    siblings = {read_text(folder / "topology/thread_siblings_list") for folder in folders} - {None}
    stated = {(cpu.get("physical id"), cpu["core id"]) for cpu in cpus if "core id" in cpu}
    return len(siblings) or len(stated) or None


def _cpufreq(root: Path, name: str) -> list[str]:
    files = (root / "sys/devices/system/cpu").glob(f"cpu[0-9]*/cpufreq/{name}")
    return [text for text in map(read_text, files) if text]


def memory_mib(root: Path = Path("/")) -> tuple[int | None, int | None]:
    """Total and available MiB under every limit on the way up; file cache that can be dropped counts as available.

    Args:
        root: the folder that holds proc and sys; without proc/meminfo both are None.
    """
    info = dict(re.findall(r"^(\w+):\s+(\d+) kB$", read_text(root / "proc/meminfo") or "", re.MULTILINE))
    totals = [int(info["MemTotal"]) // _KIB_PER_MIB] if "MemTotal" in info else []
    available = [int(info["MemAvailable"]) // _KIB_PER_MIB] if "MemAvailable" in info else []
    for folder in cgroup_folders(root, "memory"):
        limit = read_text(folder / "memory.max") or read_text(folder / "memory.limit_in_bytes") or ""
        used = read_text(folder / "memory.current") or read_text(folder / "memory.usage_in_bytes") or ""
        if not limit.isdigit():
            continue
        totals.append(int(limit) // _BYTES_PER_MIB)
        if used.isdigit():
            cache = dict(re.findall(r"^(\w+) (\d+)$", read_text(folder / "memory.stat") or "", re.MULTILINE))
            droppable = int(cache.get("total_inactive_file") or cache.get("inactive_file") or 0)
            available.append(max(0, int(limit) - int(used) + droppable) // _BYTES_PER_MIB)
    total = min(totals, default=None)
    return total, min(available, default=None)


def _container(root: Path) -> str | None:
    if (root / ".dockerenv").exists():
        return "docker"
    if (root / "run/.containerenv").exists():
        return "podman"
    found = re.search(r"kubepods|docker|libpod|lxc|containerd", read_text(root / "proc/1/cgroup") or "")
    return found[0] if found else None


def _l4t(text: str) -> str | None:
    """From "# R36 (release), REVISION: 4.0, ..." the release "36.4.0"."""
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", text)
    return f"{found[1]}.{found[2]}" if found else None


def _numbers(texts: Iterable[str]) -> list[float]:
    return [float(text) for text in texts if re.fullmatch(r"\d+(\.\d+)?", text)]


def _hex(text: str | None) -> int | None:
    return int(text, 16) if text and re.fullmatch(r"0x[0-9a-fA-F]+", text) else None
