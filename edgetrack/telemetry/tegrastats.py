"""NVIDIA's `tegrastats`, which prints one line per interval on every Jetson.

Lines differ between boards and releases (Jetson Linux Developer Guide, "Tegrastats Utility"):

    RAM 2690/6854MB (lfb 6x1MB) CPU [3%@1904,off] EMC_FREQ 0%@1600 GR3D_FREQ 0%@[510] AUX@39C VDD_IN 5079mW/5079mW
    ... GR3D_FREQ 33% cpu@50C/50C tj@50C/50C VDD_IN 9761mW/9761mW/9761mW ...          JetPack 7
    ... GPU 0mW/0mW CPU 465mW/465mW SOC 1242mW/1242mW SYS5V 2760mW/2760mW             AGX Xavier
    ... GR3D_FREQ 0% PLL@21C PMIC@100C POM_5V_IN 2545/2547                            JetPack 4

What is not understood is passed over.
"""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from edgetrack.telemetry.reading import Reading

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
_RAIL = re.compile(r"(?<![\w/])([A-Z][A-Z0-9_]{1,31}) (\d{1,7})mW/\d{1,7}mW")
_OLD_RAIL = re.compile(r"(?<![\w/])((?:POM|VDD|VIN)_\w{1,31}) (\d{1,7})/\d{1,7}(?![\w.])")
PLACEHOLDERS = ("PMIC",)
"""A constant, no sensor: 50 or 100 degrees on every board."""


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
