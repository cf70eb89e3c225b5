"""Devices of OpenVINO: AUTO and HETERO on the processor for real, GPU and NPU through a scripted core."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from edgetrack.errors import DeviceUnavailableError
from edgetrack.runtime.backends.base import BackendOptions
from edgetrack.runtime.backends.openvino import backend
from edgetrack.runtime.backends.openvino.devices import configuration, members, placement_of, plugin_name
from edgetrack.runtime.verify import run_graph

ABLE = {"CPU": ["FP32", "INT8", "EXPORT_IMPORT"], "GPU.0": ["FP32", "FP16", "INT8", "EXPORT_IMPORT"],
        "GPU.1": ["FP32", "FP16"], "NPU": ["FP16", "INT8", "EXPORT_IMPORT"]}  # fmt: skip


class Told:
    """A value of a node's runtime information."""

    def __init__(self, text: str) -> None:
        self.text = text

    def astype(self, kind: type) -> str:
        return self.text


class Compiled:
    """A compiled model that says where it runs."""

    def __init__(self, places: list[str], precision: str, model: Any = None) -> None:
        self.places, self.precision, self.model = places, precision, model

    def get_property(self, name: str) -> list[str]:
        assert name == "EXECUTION_DEVICES"
        return self.places

    def get_runtime_model(self) -> Any:
        arithmetic = [(kind, self.precision) for kind in ("Convolution", "FullyConnected")]
        layers = [("Input", "u8"), *arithmetic, ("Reorder", "f32")]
        nodes = [{"layerType": Told(kind), "runtimePrecision": Told(precision)} for kind, precision in layers]
        return SimpleNamespace(get_ordered_ops=lambda: [SimpleNamespace(get_rt_info=lambda n=n: n) for n in nodes])

    def export_model(self, stream: Any) -> None:
        stream.write(b"blob")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


class ScriptedCore:
    """OpenVINO's core on a machine with two GPUs and an NPU; models run on the processor all the same.

    Args:
        place: where compiled models say that they run; None: where they were compiled for.
        refuses: whether cached blobs are refused, as by a newer driver.
    """

    available_devices = ("CPU", "GPU.0", "GPU.1", "NPU")
    numbers: ClassVar[dict[str, list[str]]] = {}

    def __init__(self, place: list[str] | None = None, refuses: bool = False) -> None:
        self.place, self.refuses, self.calls = place, refuses, []
        self.real = backend.shared_core()

    def get_property(self, name: str, what: str) -> Any:
        if what == "AVAILABLE_DEVICES":
            listed = [one.partition(".") for one in self.available_devices]
            return self.numbers.get(name, [number for kind, _, number in listed if kind == name])
        name = "GPU.0" if name == "GPU" else name
        return ABLE[name] if what == "OPTIMIZATION_CAPABILITIES" else f"a {name}"

    def read_model(self, *given: Any) -> Any:
        return self.real.read_model(*given)

    def _made(self, name: str, config: dict[str, Any], model: Any) -> Compiled:
        own = {"GPU": "GPU.0"}.get(name, name.partition(":")[2].partition(",")[0] or name)
        properties = config.get("DEVICE_PROPERTIES", {}).get(own, config)
        return Compiled(self.place or [own], properties["INFERENCE_PRECISION_HINT"], model)

    def compile_model(self, model: Any, name: str, config: dict[str, Any]) -> Compiled:
        self.calls.append(("compile", name, config))
        self.model = self.real.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return self._made(name, config, self.model)

    def import_model(self, blob: bytes, name: str, config: dict[str, Any]) -> Compiled:
        self.calls.append(("import", name, config))
        if self.refuses:
            raise RuntimeError("driver\nThe blob was made by another driver")
        return self._made(name, config, self.model)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ScriptedCore]:
    def take(**given: Any) -> ScriptedCore:
        core = ScriptedCore(**given)
        monkeypatch.setattr(backend, "shared_core", lambda: core)
        return core

    return take


@pytest.mark.parametrize(
    ("device", "name"),
    [("cpu", "CPU"), ("gpu", "GPU"), ("gpu:1", "GPU.1"), ("npu", "NPU"), ("auto", "AUTO"),
     ("auto:gpu.1,cpu", "AUTO:GPU.1,CPU"), ("hetero:gpu,cpu", "HETERO:GPU,CPU")],
)  # fmt: skip
def test_names_are_openvinos(device: str, name: str) -> None:
    assert plugin_name(device) == name


@pytest.mark.parametrize("device", ["auto", "auto:cpu", "hetero:cpu"])
def test_virtual_devices_run_on_the_processor_in_the_files_precision(
    graph_file: Callable[..., Any], recorded: Callable[..., Any], device: str
) -> None:
    file, given = graph_file("openvino"), recorded("openvino")
    graph = file.open(device=device)
    assert graph.placement == "CPU in f32"
    found = run_graph(graph, given["in"])
    assert np.allclose(found["template_features"], given["out"]["template_features"], rtol=1e-3, atol=1e-3)
    graph.close()


@pytest.mark.parametrize(
    ("device", "lacks", "words"),
    [
        ("gpu", "GPU", "apt-get install intel-opencl-icd"),
        ("npu", "NPU", "intel-level-zero-npu"),
        ("auto:gpu,cpu", "GPU", "the group render"),
        ("hetero:npu,cpu", "NPU", "intel-driver-compiler-npu"),
    ],
)
def test_a_device_that_is_missing_is_never_replaced(
    graph_file: Callable[..., Any], device: str, lacks: str, words: str
) -> None:
    with pytest.raises(DeviceUnavailableError, match=f"device '{device}': OpenVINO finds no {lacks} here") as caught:
        graph_file("openvino").open(device=device)
    assert words in str(caught.value)


def test_the_only_gpu_goes_by_its_number_too(
    graph_file: Callable[..., Any], scripted: Callable[..., ScriptedCore], monkeypatch: pytest.MonkeyPatch
) -> None:
    core = scripted()
    # OpenVINO lists two GPUs as GPU.0 and GPU.1, one as GPU; its plug-in numbers either.
    monkeypatch.setattr(core, "available_devices", ("CPU", "GPU"))
    monkeypatch.setattr(core, "numbers", {"GPU": ["0"]})
    for device in ("gpu", "gpu:0"):
        graph = graph_file("openvino").open(device=device)
        assert graph.placement == "GPU.0 in f32"
        graph.close()
    with pytest.raises(DeviceUnavailableError, match=r"OpenVINO finds no GPU\.1 here, only CPU, GPU;"):
        graph_file("openvino").open(device="gpu:1")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the mapped libraries are read from /proc")
def test_a_graph_on_the_processor_leaves_other_plugins_alone(graph_file: Callable[..., Any]) -> None:
    path = graph_file("openvino").path
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from edgetrack.runtime.backends.openvino import backend, devices\n"
        "core = backend.shared_core()\n"
        "devices.require_present(core, 'cpu', ('CPU',))\n"
        "core.compile_model(backend.read_ir(core, Path(sys.argv[1])), 'CPU')\n"
        "print(Path('/proc/self/maps').read_text())"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    mapped = {line.rpartition("/")[2] for line in done.stdout.splitlines()}
    plugins = {name for name in mapped if "plugin" in name}
    assert any("cpu_plugin" in name for name in plugins), mapped
    assert not any("gpu" in name or "npu" in name for name in plugins)


def test_a_gpu_is_asked_for_fp32_and_its_compiled_graph_kept(
    graph_file: Callable[..., Any], scripted: Callable[..., ScriptedCore], tmp_path: Any
) -> None:
    core, file = scripted(), graph_file("openvino")
    for _ in range(2):
        graph = file.open(device="gpu", cache=tmp_path)
        assert graph.placement == "GPU.0 in f32"
        graph.close()
    wanted = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    assert core.calls == [("compile", "GPU", wanted), ("import", "GPU", wanted)]


def test_a_compiled_graph_that_a_new_driver_refuses_is_made_again(
    graph_file: Callable[..., Any], scripted: Callable[..., ScriptedCore], tmp_path: Any, caplog: Any
) -> None:
    core, file = scripted(refuses=True), graph_file("openvino")
    for _ in range(2):
        file.open(device="gpu", cache=tmp_path).close()
    assert [call[0] for call in core.calls] == ["compile", "import", "compile"]
    assert "refuses the cached compiled graph: building again" in caplog.text


def test_an_npu_computes_in_fp16_and_that_is_said(
    graph_file: Callable[..., Any], scripted: Callable[..., ScriptedCore], caplog: Any
) -> None:
    scripted()
    graph = graph_file("openvino").open(device="npu")
    assert graph.placement == "NPU in f16"
    assert "OpenVINO's NPU computes FP32 graphs in FP16" in caplog.text
    graph.close()


@pytest.mark.parametrize(
    ("device", "place"),
    [("gpu", ["CPU"]), ("gpu:1", ["GPU.0"]), ("auto:gpu,npu", ["(CPU)"]), ("hetero:gpu,npu", ["GPU.0", "CPU"])],
)
def test_a_graph_that_runs_elsewhere_is_refused(
    graph_file: Callable[..., Any], scripted: Callable[..., ScriptedCore], device: str, place: list[str]
) -> None:
    scripted(place=place)
    with pytest.raises(DeviceUnavailableError, match="OpenVINO runs this graph on"):
        graph_file("openvino").open(device=device)


def test_virtual_devices_state_each_members_settings_and_fall_back_on_none(
    scripted: Callable[..., ScriptedCore],
) -> None:
    core = scripted()
    cpu = {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 3, "INFERENCE_PRECISION_HINT": "f32"}
    found = configuration(core, "AUTO:GPU.1,CPU", BackendOptions(threads=3))
    assert found == {
        "PERFORMANCE_HINT": "LATENCY", "ENABLE_STARTUP_FALLBACK": False, "ENABLE_RUNTIME_FALLBACK": False,
        "DEVICE_PROPERTIES": {"GPU.1": {"INFERENCE_PRECISION_HINT": "f32"}, "CPU": cpu},
    }  # fmt: skip
    assert members(core, "AUTO") == core.available_devices
    assert "ENABLE_STARTUP_FALLBACK" not in configuration(core, "HETERO:GPU.1,CPU", BackendOptions())


@pytest.mark.parametrize(("device", "hint"), [("CPU", "fp16"), ("NPU", "bf16"), ("HETERO:GPU,CPU", "fp16")])
def test_a_hint_that_a_device_cannot_follow_is_refused(
    scripted: Callable[..., ScriptedCore], device: str, hint: str
) -> None:
    core = scripted()
    with pytest.raises(DeviceUnavailableError, match="drop the hint"):
        configuration(core, device, BackendOptions(precision_hint=hint))
    assert configuration(core, "GPU", BackendOptions(precision_hint="fp16"))["INFERENCE_PRECISION_HINT"] == "f16"


def test_a_model_that_says_nothing_of_its_precision() -> None:
    silent = Compiled(["GPU.0"], "f16")
    silent.get_runtime_model = lambda: SimpleNamespace(get_ordered_ops=list)
    assert placement_of(silent, "GPU", ["GPU"]) == "GPU.0 in a precision that it does not tell"
