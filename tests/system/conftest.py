from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from edgetrack.system.gpu import GpuWatch

MB = 2**20


class NVMLError(Exception):
    """As NVIDIA's module names it."""


class ScriptedNvml:
    """NVIDIA's module on a machine with GPUs: `own` and `others` hold MB of the first."""

    NVMLError = NVMLError

    def __init__(self, gpus=1, own=None, others=(), load=0, silent=()):
        self.gpus, self.own, self.others, self.load, self.silent = gpus, own, others, load, silent
        self.asked, self.opened = [], 0

    def __getattr__(self, name):
        def answer(*arguments):
            self.asked.append((name, *arguments))
            if name in self.silent:
                raise NVMLError(f"{name} is not supported")
            return getattr(self, f"_{name.removeprefix('nvml')}", lambda *given: None)(*arguments)

        return answer

    def _Init(self):  # noqa: N802
        self.opened += 1

    def _Shutdown(self):  # noqa: N802
        self.opened -= 1

    def _DeviceGetCount(self):  # noqa: N802
        return self.gpus

    def _DeviceGetHandleByIndex(self, index):  # noqa: N802
        if index >= self.gpus:
            raise NVMLError("invalid argument")
        return f"gpu {index}"

    def _DeviceGetHandleByUUID(self, uuid):  # noqa: N802
        return f"gpu {uuid}"

    def _DeviceGetMemoryInfo(self, gpu):  # noqa: N802
        return SimpleNamespace(used=(sum(self.others) + (self.own or 0)) * MB)

    def _DeviceGetComputeRunningProcesses(self, gpu):  # noqa: N802
        own = [] if self.own is None else [SimpleNamespace(pid=os.getpid(), usedGpuMemory=self.own * MB)]
        return [*own, *(SimpleNamespace(pid=i, usedGpuMemory=mb * MB) for i, mb in enumerate(self.others))]

    def _DeviceGetGraphicsRunningProcesses(self, gpu):  # noqa: N802
        return []

    def _DeviceGetUtilizationRates(self, gpu):  # noqa: N802
        return SimpleNamespace(gpu=self.load)


def watching(nvml):
    return lambda device: GpuWatch(device, library=nvml, environ={})


def absent(device):
    raise OSError("NVML cannot be used: Driver Not Loaded")


@pytest.fixture
def write(tmp_path):
    def put(path, text):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
        return file

    return put
