"""Jetson boards: `tegrastats`, jetson-stats (`jtop`) and the power mode; all are asked, nothing is changed.

tegrastats prints one line per interval on every Jetson. Lines differ between boards and releases (Jetson Linux
Developer Guide, "Tegrastats Utility"):

    RAM 2690/6854MB (lfb 6x1MB) CPU [3%@1904,off] EMC_FREQ 0%@1600 GR3D_FREQ 0%@[510] AUX@39C VDD_IN 5079mW/5079mW
    ... GR3D_FREQ 33% cpu@50C/50C tj@50C/50C VDD_IN 9761mW/9761mW/9761mW ...          JetPack 7
    ... VDD_GPU -392mW/-392mW VDD_CPU_SOC_MSS 3924mW/3924mW VIN_SYS_5V0 ... VIN ...   Thor
    ... GPU 0mW/0mW CPU 465mW/465mW SOC 1242mW/1242mW SYS5V 2760mW/2760mW             AGX Xavier
    ... GR3D_FREQ 0% PLL@21C PMIC@100C POM_5V_IN 2545/2547                            JetPack 4

What is not understood is passed over.

jetson-stats 4 or later (`pip install jetson-stats`; its service `jtop` must run): `jtop.power` holds rails in
milliwatts (`rail`, and `tot` for all of the module), `jtop.temperature` zones in degrees, `jtop.gpu` and `jtop.cpu`
clocks in kHz, `jtop.memory` KiB. Versions and boards differ: what is absent is passed over.
"""

from __future__ import annotations

import importlib
import math
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from edgetrack.resources import RunCommand, command_output
from edgetrack.system.sensors import Quantity, Reading, read_number

COMMAND = ("tegrastats", "--interval", "500")
_LONGEST_LINE = 4096
_STALE_S = 3.0
_GRACE_S = 2.0
_NO_SENSOR_C = -200.0
"""Zones that are powered down read -256."""

_NUMBER = r"(\d{1,7}(?:\.\d{1,6})?)"
_RAM = re.compile(rf"\bRAM {_NUMBER}/{_NUMBER}MB")
_CORES = re.compile(r"\bCPU \[([^\]]*)\]")
_CORE = re.compile(r"(\d{1,3})%@(\d{1,5})")
_GPU = re.compile(r"\bGR3D_FREQ (\d{1,3})%(?:@\[?(\d{1,5}))?")
_EMC = re.compile(r"\bEMC_FREQ \d{1,3}%@(\d{1,5})")
_HEAT = re.compile(r"(?<![\w@])([A-Za-z]\w{0,31})@(-?\d{1,4}(?:\.\d{1,6})?)C\b")
# Thor's idle GPU reads below zero: an uncalibrated offset of its chip.
_RAIL = re.compile(r"(?<![\w/])([A-Z][A-Z0-9_]{1,31}) (-?\d{1,7})mW/-?\d{1,7}mW")
_OLD_RAIL = re.compile(r"(?<![\w/])((?:POM|VDD|VIN)_\w{1,31}) (\d{1,7})/\d{1,7}(?![\w.])")
PLACEHOLDERS = ("PMIC", "NC")
"""No sensors: PMIC is a constant, 50 or 100 degrees, on every board; NC is a channel that nothing is connected to."""


def parse_line(line: str) -> list[Reading]:
    """The readings of one line; none for a line that is no line of tegrastats.

    Power is that of the moment, not the average behind it; watts, degrees Celsius, MHz, percent, MB of 2**20 bytes.
    """
    line = line[:_LONGEST_LINE]
    readings: list[Reading] = []
    ram = _RAM.search(line)
    if ram:
        readings.append(Reading("memory_mb", "RAM", float(ram[1])))
    cores = _CORES.search(line)
    clocks = [(float(load), float(mhz)) for load, mhz in _CORE.findall(cores[1])] if cores else []
    if clocks:
        readings.append(Reading("load_percent", "CPU", sum(load for load, _ in clocks) / len(clocks)))
        readings.append(Reading("clock_mhz", "CPU", max(mhz for _, mhz in clocks)))
    gpu = _GPU.search(line)
    if gpu:
        readings.append(Reading("load_percent", "GPU", float(gpu[1])))
        if gpu[2]:
            readings.append(Reading("clock_mhz", "GPU", float(gpu[2])))
    emc = _EMC.search(line)
    if emc:
        readings.append(Reading("clock_mhz", "EMC", float(emc[1])))
    for name, celsius in _HEAT.findall(line):
        if float(celsius) > _NO_SENSOR_C and name not in PLACEHOLDERS:
            readings.append(Reading("temperature_c", name, float(celsius)))
    for name, milliwatts in (*_RAIL.findall(line), *_OLD_RAIL.findall(line)):
        if name not in PLACEHOLDERS:
            readings.append(Reading("power_w", name, float(milliwatts) / 1000))
    return readings


class Tegrastats:
    """A running tegrastats, whose last line is what it says now.

    Args:
        command: the program and its arguments.
        now: seconds of a clock that never goes back; a line that is three seconds old is none any more.

    Raises:
        OSError: it cannot be started.
    """

    name = "tegrastats"

    def __init__(self, command: Sequence[str] = COMMAND, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._last: tuple[float, list[Reading]] | None = None
        self._process = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._reader = threading.Thread(target=self._follow, name="tegrastats", daemon=True)
        self._reader.start()

    def read(self) -> Iterator[Reading]:
        last = self._last
        if last is not None and self._now() - last[0] <= _STALE_S:
            yield from last[1]
        elif self._process.poll() is not None:
            raise OSError(f"tegrastats ended with exit code {self._process.returncode}")

    def close(self) -> None:
        """End it and wait for it."""
        self._process.terminate()
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _follow(self) -> None:
        output = self._process.stdout
        if output is None:
            return
        with suppress(OSError, ValueError):
            for line in iter(lambda: output.readline(_LONGEST_LINE), b""):
                readings = parse_line(line.decode("utf-8", "replace"))
                if readings:
                    self._last = (self._now(), readings)


class Jtop:
    """A connection to jetson-stats' service.

    Args:
        connection: an opened `jtop.jtop()`; by default one is made.

    Raises:
        OSError: jetson-stats is not installed, or its service does not answer.
    """

    name = "jtop"

    def __init__(self, connection: Any = None) -> None:
        self._connection = connection if connection is not None else _connect()

    def read(self) -> Iterator[Reading]:
        jetson = self._connection
        try:
            fields = [
                _mapping(getattr(jetson, name, None)) for name in ("power", "temperature", "gpu", "cpu", "memory")
            ]
        except Exception as error:  # jetson-stats raises its own class when its service goes
            raise OSError(f"jetson-stats cannot be read: {error}") from error
        power, temperature, gpu, cpu, memory = fields
        yield from _power(power)
        yield from _heat(temperature)
        yield from _clocks(gpu, cpu)
        used = _number(_mapping(memory.get("RAM")).get("used"))
        if used is not None:
            yield Reading("memory_mb", "RAM", used / 1024)

    def power_mode(self) -> str | None:
        """The name of the active nvpmodel."""
        stated = _mapping(getattr(self._connection, "stats", None)).get("nvp model")
        return _mode_name(str(stated)) if stated else None

    def jetson_clocks(self) -> bool | None:
        """Whether jetson_clocks holds the clocks at their maximum; None where it does not say."""
        stated = str(_mapping(getattr(self._connection, "stats", None)).get("jetson_clocks", "")).upper()
        return {"ON": True, "OFF": False}.get(stated)

    def close(self) -> None:
        """Leave the service."""
        self._connection.close()


def _connect() -> Any:
    try:
        connection = importlib.import_module("jtop").jtop(interval=0.5)
        connection.start()
    except Exception as error:  # not installed, no right to the socket, service of another version
        raise OSError(f"jetson-stats does not answer: {error}") from error
    return connection


def _power(power: Mapping[str, Any]) -> Iterator[Reading]:
    for name, rail in _mapping(power.get("rail")).items():
        if name not in PLACEHOLDERS:
            yield from _reading("power_w", str(name), _mapping(rail).get("power"), 1000)
    yield from _reading("power_w", "TOT", _mapping(power.get("tot")).get("power"), 1000)


def _heat(zones: Mapping[str, Any]) -> Iterator[Reading]:
    for name, zone in zones.items():
        celsius = _number(_mapping(zone).get("temp"))
        if celsius is not None and celsius > _NO_SENSOR_C and name not in PLACEHOLDERS:
            yield Reading("temperature_c", str(name), celsius)


def _clocks(gpus: Mapping[str, Any], cpu: Mapping[str, Any]) -> Iterator[Reading]:
    for name, gpu in gpus.items():
        yield from _reading("clock_mhz", str(name), _mapping(_mapping(gpu).get("freq")).get("cur"), 1000)
        yield from _reading("load_percent", str(name), _mapping(_mapping(gpu).get("status")).get("load"), 1)
    cores = cpu.get("cpu")
    listed = [_mapping(core) for core in cores] if isinstance(cores, (list, tuple)) else []
    clocks = [_number(_mapping(core.get("freq")).get("cur")) for core in listed if core.get("online")]
    known = [khz for khz in clocks if khz is not None]
    if known:
        yield Reading("clock_mhz", "CPU", max(known) / 1000)


def _reading(quantity: Quantity, name: str, value: Any, scale: float) -> Iterator[Reading]:
    number = _number(value)
    if number is not None:
        yield Reading(quantity, name, number / scale)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(value: Any) -> float | None:
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if plain and math.isfinite(value) else None


class PowerMode(msgspec.Struct, frozen=True):
    """`name` as nvpmodel calls it, such as MAXN or 15W; null means that it could not be read."""

    name: str | None = None
    jetson_clocks: bool | None = None


UNKNOWN = PowerMode()


def parse_nvpmodel(text: str) -> str | None:
    """The mode's name in what `nvpmodel -q` prints; `MODE_15W` is `15W`."""
    found = re.search(r"NV Power Mode:[ \t]*([\w-]{1,64})", text)
    return _mode_name(found[1]) if found else None


def _mode_name(stated: str) -> str:
    """Boards of one kind call a mode `MODE_15W` under one release, `15W` under another."""
    return stated.removeprefix("MODE_")


def parse_jetson_clocks(text: str) -> bool | None:
    """Whether what `jetson_clocks --show` prints has each core that is on, and the GPU, at one frequency.

    Releases before JetPack 4.3 do not say which cores are on, and list only those.
    """
    cores = re.findall(r"^cpu\d+:(?!.*\bOnline=0).*?MinFreq=(\d+) MaxFreq=(\d+)", text, re.MULTILINE)
    gpu = re.findall(r"^GPU MinFreq=(\d+) MaxFreq=(\d+)", text, re.MULTILINE)
    return all(low == high for low, high in (*cores, *gpu)) if cores else None


def read_power_mode(root: Path = Path("/"), run: RunCommand = subprocess.run) -> PowerMode:
    """Ask nvpmodel and jetson_clocks; where the latter wants root, the processor's limits tell.

    Args:
        root: the folder that holds sys.
        run: starts a command as `subprocess.run` does.
    """
    fixed = parse_jetson_clocks(command_output(run, ("jetson_clocks", "--show")))
    return PowerMode(parse_nvpmodel(command_output(run, ("nvpmodel", "-q"))), _fixed(root) if fixed is None else fixed)


def _fixed(root: Path) -> bool | None:
    policies = sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy[0-9]*"))
    limits = [(read_number(path / "scaling_min_freq"), read_number(path / "scaling_max_freq")) for path in policies]
    known = [(low, high) for low, high in limits if low is not None and high is not None]
    return all(low == high for low, high in known) if known else None
