"""NVIDIA GPUs through NVML (`pip install nvidia-ml-py`): board power, temperature, clock, load, memory, throttling."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

from edgetrack.telemetry.reading import Quantity, Reading

_BYTES_PER_MB = 2**20
_THROTTLING = 0x4 | 0x8 | 0x20 | 0x40 | 0x80
"""nvmlClocksEventReasons: power cap, hardware slowdown, software thermal, hardware thermal, external power brake."""


class Nvml:
    """All GPUs that the driver lists.

    Args:
        library: NVIDIA's module `pynvml`; by default it is imported.

    Raises:
        OSError: the package or the driver is missing, or there is no GPU.
    """

    name = "nvml"

    def __init__(self, library: Any = None) -> None:
        try:
            self._library = library if library is not None else importlib.import_module("pynvml")
            self._library.nvmlInit()
            count = self._library.nvmlDeviceGetCount()
            self._gpus = [self._library.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        except Exception as error:  # ImportError, or NVML's own class for a missing driver
            raise OSError(f"NVML cannot be used: {error}") from error
        self._open = True
        if not self._gpus:
            self.close()
            raise OSError("NVML lists no GPU")

    def read(self) -> Iterator[Reading]:
        for index, gpu in enumerate(self._gpus):
            for quantity, ask in self._questions(gpu).items():
                value = self._ask(ask)
                if value is not None:
                    yield Reading(quantity, f"cuda:{index}", value)

    def close(self) -> None:
        """Let go of the driver."""
        if self._open:
            self._open = False
            self._library.nvmlShutdown()

    def _questions(self, gpu: Any) -> dict[Quantity, Callable[[], float]]:
        nvml = self._library
        return {
            "power_w": lambda: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
            "temperature_c": lambda: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
            "clock_mhz": lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM),
            "load_percent": lambda: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu,
            "memory_mb": lambda: nvml.nvmlDeviceGetMemoryInfo(gpu).used / _BYTES_PER_MB,
            "throttled": lambda: bool(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu) & _THROTTLING),
        }

    def _ask(self, ask: Callable[[], float]) -> float | None:
        """A value, or None where this GPU does not have it."""
        try:
            return float(ask())
        except self._library.NVMLError:
            return None
