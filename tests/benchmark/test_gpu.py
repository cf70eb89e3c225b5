"""A benchmark on a GPU, as far as it goes without one: NVML is scripted, the rest is real."""

from __future__ import annotations

import os
from dataclasses import replace
from types import SimpleNamespace

import msgspec
import pytest

from edgetrack.benchmark.candidates import (
    FAST_HINT,
    choose,
    on_device,
    opened,
    require_gpu,
    with_fast_reference,
)
from edgetrack.benchmark.gpu_watch import GpuWatch, ProcessMemory
from edgetrack.benchmark.machine import MachineRecord
from edgetrack.benchmark.record import VersusPaper
from edgetrack.benchmark.run import Environment, measure
from edgetrack.bundle.manifest import PaperFigures
from edgetrack.capabilities import find_target, reference_target
from edgetrack.errors import DeviceUnavailableError
from tests.builders import bench_request

MB = 2**20
BARE = MachineRecord(os="an OS", kernel="1", architecture="x86_64", python="CPython", usable_cores=2, packages={})


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
    memory = ProcessMemory("cuda:0", watching(nvml))
    nvml.own = 300
    assert memory.mb() == 300
    nvml.own, nvml.others = None, (100, 250)
    assert memory.mb() == 250
    nvml.others = ()
    assert memory.mb() == 0
    assert ProcessMemory("cpu", watching(nvml)).mb() is None
    assert ProcessMemory("cuda:0", absent).mb() is None
    assert nvml.opened == 0


def test_a_quiet_driver_leaves_out_what_it_does_not_say():
    silent = ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetUtilizationRates")
    watch = GpuWatch("cuda:0", library=ScriptedNvml(silent=silent), environ={})
    assert (watch.processes(), watch.load_percent()) == ({}, None)


def test_a_machine_without_a_driver_is_refused_before_anything_is_done():
    with pytest.raises(DeviceUnavailableError, match=r"'cuda:0': no NVIDIA driver.*Driver Not Loaded") as caught:
        require_gpu("cuda:0", False, absent)
    assert caught.value.exit_code == 4
    require_gpu("cuda:0", False, watching(ScriptedNvml()))


@pytest.mark.parametrize(
    ("nvml", "codes"),
    [
        (ScriptedNvml(), []),
        (ScriptedNvml(others=(500, 20)), ["gpu-shared"]),
        (ScriptedNvml(load=60), ["gpu-shared"]),
        (None, ["no-gpu-memory"]),
    ],
)
def test_who_else_is_on_the_gpu_is_warned_of(make_bundle, nvml, codes):
    ours = opened(make_bundle("ours"))
    watch = absent if nvml is None else watching(nvml)
    (found,) = on_device([ours], None, "cuda:0", watch)
    assert [warning.code for warning in found.warnings] == codes
    assert on_device([ours], None, "cpu", absent) == [ours]
    if nvml is not None and nvml.others:
        assert "2 other processes, 520 MiB in use" in found.warnings[0].detail


def test_the_fast_reference_stands_beside_the_eager_one(make_bundle):
    target = replace(reference_target(), name="onnx")
    ours, eager = opened(make_bundle("ours")), opened(make_bundle("eager", target="onnx"))
    candidates = [replace(ours, reference="eager"), replace(eager, reference="eager")]
    found = with_fast_reference(candidates, target)
    assert [c.label for c in found] == ["ours", "eager", f"eager@{FAST_HINT}"]
    assert found[-1].reference == "eager"
    assert with_fast_reference(found, target) == found
    assert FAST_HINT in reference_target().hints


def test_bundles_at_hand_that_do_not_run_there_are_left_out(make_bundle, tmp_path):
    make_bundle("processor", folder=tmp_path / "out")
    make_bundle("card", folder=tmp_path / "out", target="tensorrt")
    told = []
    for device, label in (("cuda:0", "card"), ("cpu", "processor")):
        found = choose((), None, export=None, best_target=None, notify=told.append, folder=tmp_path / "out",
                       device=device)  # fmt: skip
        assert [c.label for c in found] == [label]
    assert told == ["left out: processor does not run on cuda:0", "left out: card does not run on cpu"]


def test_a_run_has_the_papers_gpu_and_no_roof(make_bundle, scripted, tmp_path):
    machine = msgspec.structs.replace(BARE, nvidia_present=True)
    asked = []
    environment = Environment(
        export=None,
        notify=lambda line: None,
        progress=lambda *step: None,
        start=lambda label, threads: scripted(label, asked),
        look=lambda: machine,
        reference_target=lambda: replace(find_target("fake"), packages=(), hints=(FAST_HINT,)),
        watch=watching(ScriptedNvml(others=(9,))),
        folder=tmp_path / "out",
    )
    paper = PaperFigures(cpu_fps=37.0, gpu_fps=158.0, gpu="a card")
    request = bench_request(
        make_bundle("ours", paper=paper),
        device="cuda:0",
        source="synthetic:drift?frames=6&size=96x64",
        iterations=8,
        rounds=2,
        duration_s=0.0,
    )
    found = measure(request, environment)
    assert {label for label, _ in asked} == {"ours", f"ours@{FAST_HINT}"}
    for result in found.results:
        assert result.device == "cuda:0"
        assert result.vs_paper == VersusPaper(fps=158.0, ratio=result.fps.track / 158.0, gpu="a card", source=None)
        assert result.roofline.model is None
        assert "gpu-shared" in {warning.code for warning in result.warnings}
    assert found.results[1].vs_pytorch.track == pytest.approx(1.0)


def test_a_gpu_on_a_machine_without_one_ends_before_the_export(scripted):
    environment = Environment(export=None, notify=None, progress=None, look=lambda: BARE, watch=absent)
    with pytest.raises(DeviceUnavailableError, match="no NVIDIA driver was found here"):
        measure(bench_request(device="cuda:0"), environment)
