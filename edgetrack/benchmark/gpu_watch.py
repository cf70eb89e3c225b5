"""One NVIDIA GPU through NVML (`pip install 'edgetrack[gpu]'`): who is on it, and how much of it this process takes.

NVML counts GPUs as nvidia-smi does. How a GPU's power, clock and temperature go is `edgetrack.telemetry.nvml`'s.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

from edgetrack.device_name import cuda_index, is_cuda

_BYTES_PER_MB = 2**20


class GpuWatch:
    """One GPU, seen through NVML.

    Args:
        device: `cuda:N`.
        library: NVIDIA's module `pynvml`; by default it is imported.
        environ: where `CUDA_VISIBLE_DEVICES` and `CUDA_DEVICE_ORDER` stand.

    Raises:
        OSError: NVML cannot be used, or it is not known which GPU CUDA means.
    """

    def __init__(self, device: str, *, library: Any = None, environ: Mapping[str, str] = os.environ) -> None:
        try:
            self._nvml = library if library is not None else importlib.import_module("pynvml")
            self._nvml.nvmlInit()
        except Exception as error:  # ImportError, or NVML's own class for a missing driver
            raise OSError(f"NVML cannot be used: {error}") from error
        self._open = True
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

    def used_mb(self) -> float:
        """What all processes hold, in MB of 2**20 bytes."""
        return float(self._nvml.nvmlDeviceGetMemoryInfo(self._gpu).used) / _BYTES_PER_MB

    def processes(self) -> dict[int, float | None]:
        """Process -> MB that it holds; None where the driver does not say."""
        listed = [
            process
            for ask in ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses")
            for process in self._ask(ask, ())
        ]
        return {p.pid: None if p.usedGpuMemory is None else p.usedGpuMemory / _BYTES_PER_MB for p in listed}

    def load_percent(self) -> float | None:
        """Share of the last moment in which a kernel ran, 0..100; None where it is not told."""
        rates = self._ask("nvmlDeviceGetUtilizationRates", None)
        return None if rates is None else float(rates.gpu)

    def _ask(self, name: str, otherwise: Any) -> Any:
        try:
            return getattr(self._nvml, name)(self._gpu)
        except self._nvml.NVMLError:
            return otherwise

    def close(self) -> None:
        """Let go of the driver."""
        if self._open:
            self._open = False
            self._nvml.nvmlShutdown()


Watch = Callable[[str], GpuWatch]


class ProcessMemory:
    """How much of a GPU this process takes: make it before anything is loaded, ask afterwards.

    Where the driver does not list the process (containers), it is by how much the whole device's use grew.
    """

    def __init__(self, device: str, watch: Watch = GpuWatch) -> None:
        self._device, self._watch = device, watch
        self._before = self._read(GpuWatch.used_mb)

    def mb(self) -> float | None:
        """MB of 2**20 bytes; None without NVML, or on another device than a GPU."""
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
