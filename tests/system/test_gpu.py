from __future__ import annotations

from types import SimpleNamespace

import pytest

from edgetrack.system.gpu import GpuMemory, GpuWatch, NvmlSensors
from tests.system.conftest import ScriptedNvml, absent, watching


@pytest.mark.parametrize(
    ("device", "environ", "gpus", "handle"),
    [
        ("cuda:0", {}, 1, "gpu 0"),
        ("cuda", {}, 1, "gpu 0"),
        ("cuda:1", {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, 2, "gpu 1"),
        ("cuda:0", {"CUDA_VISIBLE_DEVICES": "1,0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, 2, "gpu 1"),
        ("cuda:0", {"CUDA_VISIBLE_DEVICES": "GPU-abc"}, 2, "gpu GPU-abc"),
    ],
)
def test_the_gpu_is_the_one_that_cuda_means(device, environ, gpus, handle):
    nvml = ScriptedNvml(gpus)
    watch = GpuWatch(device, library=nvml, environ=environ)
    watch.used_mb()
    assert nvml.asked[-1] == ("nvmlDeviceGetMemoryInfo", handle)
    watch.close()
    watch.close()
    assert nvml.opened == 0


@pytest.mark.parametrize(
    ("device", "environ", "gpus", "words"),
    [
        ("cuda:0", {}, 2, "CUDA_DEVICE_ORDER=PCI_BUS_ID"),
        ("cuda:1", {}, 1, "does not know cuda:1"),
        ("cuda:1", {"CUDA_VISIBLE_DEVICES": "0"}, 1, "does not know cuda:1"),
    ],
)
def test_a_gpu_that_is_not_known_is_said_and_the_driver_let_go(device, environ, gpus, words):
    nvml = ScriptedNvml(gpus)
    with pytest.raises(OSError, match=words):
        GpuWatch(device, library=nvml, environ=environ)
    assert nvml.opened == 0


def test_memory_is_the_process_own_or_what_the_device_grew_by():
    nvml = ScriptedNvml(others=(100,))
    memory = GpuMemory("cuda:0", watching(nvml))
    nvml.own = 300
    assert memory.mb() == 300
    nvml.own, nvml.others = None, (100, 250)
    assert memory.mb() == 250
    nvml.others = ()
    assert memory.mb() == 0
    assert GpuMemory("cpu", watching(nvml)).mb() is None
    assert GpuMemory("cuda:0", absent).mb() is None
    assert nvml.opened == 0


def test_a_quiet_driver_leaves_out_what_it_does_not_say():
    silent = ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetUtilizationRates")
    watch = GpuWatch("cuda:0", library=ScriptedNvml(silent=silent), environ={})
    assert (watch.processes(), watch.load_percent()) == ({}, None)


def test_a_gpu_without_memory_of_its_own_is_watched_all_the_same():
    nvml = ScriptedNvml(others=(100,), silent=("nvmlDeviceGetMemoryInfo",))
    assert GpuWatch("cuda:0", library=nvml, environ={}).used_mb() is None
    assert GpuMemory("cuda:0", watching(nvml)).mb() is None
    nvml.own = 300
    assert GpuMemory("cuda:0", watching(nvml)).mb() == 300


class Library:
    """NVML with one GPU that does not tell its memory."""

    NVML_TEMPERATURE_GPU, NVML_CLOCK_SM = 0, 1

    class NVMLError(Exception):
        pass

    def __init__(self, count=1, reasons=0):
        self.count, self.reasons, self.shut = count, reasons, 0

    def nvmlInit(self):  # noqa: N802 - NVML's names
        pass

    def nvmlShutdown(self):  # noqa: N802
        self.shut += 1

    def __getattr__(self, name):
        answers = {
            "nvmlDeviceGetCount": lambda: self.count,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetPowerUsage": lambda gpu: 123456,
            "nvmlDeviceGetTemperature": lambda gpu, kind: 61,
            "nvmlDeviceGetClockInfo": lambda gpu, kind: 1980,
            "nvmlDeviceGetUtilizationRates": lambda gpu: SimpleNamespace(gpu=97),
            "nvmlDeviceGetCurrentClocksThrottleReasons": lambda gpu: self.reasons,
        }
        if name in answers:
            return answers[name]

        def refuse(*arguments):
            raise self.NVMLError(name)

        return refuse


@pytest.mark.parametrize(("reasons", "throttled"), [(0x1, 0.0), (0x4, 1.0), (0x20, 1.0), (0x2, 0.0)])
def test_nvml_in_our_units(reasons, throttled):
    library = Library(reasons=reasons)
    source = NvmlSensors(library)
    assert [(reading.quantity, reading.name, reading.value) for reading in source.read()] == [
        ("power_w", "cuda:0", 123.456),
        ("temperature_c", "cuda:0", 61.0),
        ("clock_mhz", "cuda:0", 1980.0),
        ("load_percent", "cuda:0", 97.0),
        ("throttled", "cuda:0", throttled),
    ]
    source.close()
    source.close()
    assert library.shut == 1


def test_no_gpu_is_an_error():
    with pytest.raises(OSError, match="no GPU"):
        NvmlSensors(Library(count=0))
