"""NVIDIA GPUs through NVML (`pip install 'edgetrack[gpu]'`): their sensors, who uses one, and this process's memory.

NVML counts GPUs as nvidia-smi does.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from typing import Any

from edgetrack.device_name import cuda_index, is_cuda
from edgetrack.system.sensors import Quantity, Reading

_BYTES_PER_MB = 2**20
_THROTTLING = 0x4 | 0x8 | 0x20 | 0x40 | 0x80
"""nvmlClocksEventReasons: power cap, hardware slowdown, software thermal, hardware thermal, external power brake."""


class _Nvml:
    """NVML, opened; `library` is NVIDIA's module `pynvml`, which is imported by default.

    Raises:
        OSError: the package or the driver is missing.
    """

    def __init__(self, library: Any = None) -> None:
        try:
            self._nvml = library if library is not None else importlib.import_module("pynvml")
            self._nvml.nvmlInit()
        except Exception as error:  # ImportError, or NVML's own class for a missing driver
            raise OSError(f"NVML cannot be used: {error}") from error
        self._open = True

    def close(self) -> None:
        """Release the driver; any number of times."""
        if self._open:
            self._open = False
            self._nvml.nvmlShutdown()

    def _ask(self, name: str, gpu: Any, otherwise: Any) -> Any:
        """NVML's answer, or `otherwise` where this GPU has none."""
        try:
            return getattr(self._nvml, name)(gpu)
        except self._nvml.NVMLError:
            return otherwise

    def _used_mb(self, gpu: Any) -> float | None:
        """None where the memory is the processor's, too (Thor, DGX Spark): the driver counts none as the GPU's."""
        info = self._ask("nvmlDeviceGetMemoryInfo", gpu, None)
        return None if info is None else float(info.used) / _BYTES_PER_MB


class NvmlSensors(_Nvml):
    """Board power, temperature, clock, load, memory and throttling of all GPUs that the driver lists.

    Raises:
        OSError: the package or the driver is missing, or there is no GPU.
    """

    name = "nvml"

    def __init__(self, library: Any = None) -> None:
        super().__init__(library)
        try:
            count = self._nvml.nvmlDeviceGetCount()
            self._gpus = [self._nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        except self._nvml.NVMLError as error:
            self.close()
            raise OSError(f"NVML cannot be used: {error}") from error
        if not self._gpus:
            self.close()
            raise OSError("NVML lists no GPU")

    def read(self) -> Iterator[Reading]:
        for index, gpu in enumerate(self._gpus):
            for quantity, ask in self._questions(gpu).items():
                value = None
                with suppress(self._nvml.NVMLError):  # this GPU does not have it
                    value = ask()
                if value is not None:
                    yield Reading(quantity, f"cuda:{index}", float(value))

    def _questions(self, gpu: Any) -> dict[Quantity, Callable[[], float | None]]:
        nvml = self._nvml
        return {
            "power_w": lambda: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
            "temperature_c": lambda: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
            "clock_mhz": lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM),
            "load_percent": lambda: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu,
            "memory_mb": lambda: self._used_mb(gpu),
            "throttled": lambda: bool(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu) & _THROTTLING),
        }


class GpuWatch(_Nvml):
    """One GPU, seen through NVML.

    Args:
        device: `cuda:N`.
        library: NVIDIA's module `pynvml`; by default it is imported.
        environ: where `CUDA_VISIBLE_DEVICES` and `CUDA_DEVICE_ORDER` stand.

    Raises:
        OSError: NVML cannot be used, or it is not known which GPU CUDA means.
    """

    def __init__(self, device: str, *, library: Any = None, environ: Mapping[str, str] = os.environ) -> None:
        super().__init__(library)
        try:
            self._gpu = self._find(cuda_index(device) or 0, environ)
        except BaseException:
            self.close()
            raise

    def _find(self, index: int, environ: Mapping[str, str]) -> Any:
        nvml = self._nvml
        visible = environ.get("CUDA_VISIBLE_DEVICES", "")
        try:
            if visible:
                chosen = visible.split(",")[index]
                if not chosen.isdigit():
                    return nvml.nvmlDeviceGetHandleByUUID(chosen)
                index = int(chosen)
            if nvml.nvmlDeviceGetCount() > 1 and environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
                raise OSError(
                    "CUDA counts several GPUs by speed, NVML by place; type CUDA_DEVICE_ORDER=PCI_BUS_ID before it"
                )
            return nvml.nvmlDeviceGetHandleByIndex(index)
        except (IndexError, nvml.NVMLError) as error:
            raise OSError(f"NVML does not know cuda:{index} (CUDA_VISIBLE_DEVICES={visible!r}): {error}") from error

    def used_mb(self) -> float | None:
        """What all processes hold, in MiB; None where the GPU has no memory of its own."""
        return self._used_mb(self._gpu)

    def processes(self) -> dict[int, float | None]:
        """Process -> MiB that it holds; None where the driver does not say."""
        listed = [
            process
            for ask in ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses")
            for process in self._ask(ask, self._gpu, ())
        ]
        return {p.pid: None if p.usedGpuMemory is None else p.usedGpuMemory / _BYTES_PER_MB for p in listed}

    def load_percent(self) -> float | None:
        """Share of the last moment in which a kernel ran, 0..100; None where it is not told."""
        rates = self._ask("nvmlDeviceGetUtilizationRates", self._gpu, None)
        return None if rates is None else float(rates.gpu)


Watch = Callable[[str], GpuWatch]
"""Opens NVML for a device."""


class GpuMemory:
    """How much of a GPU this process takes: make it before anything is loaded, ask afterwards.

    Where the driver does not list the process (containers), it is by how much the whole device's use grew.
    """

    def __init__(self, device: str, watch: Watch = GpuWatch) -> None:
        self._device, self._watch = device, watch
        self._before = self._read(GpuWatch.used_mb)

    def mb(self) -> float | None:
        """MiB; None without NVML, on another device than a GPU, or where nothing tells (unified memory)."""
        own = self._read(lambda gpu: gpu.processes().get(os.getpid()))
        after = self._read(GpuWatch.used_mb)
        if own is not None or self._before is None or after is None:
            return own
        return max(0.0, after - self._before)

    def _read(self, ask: Callable[[GpuWatch], float | None]) -> float | None:
        if not is_cuda(self._device):
            return None
        try:
            with closing(self._watch(self._device)) as gpu:
                return ask(gpu)
        except OSError:
            return None
