"""TensorRT's own: refusals here, control flow on a scripted device, and the real thing where there is a GPU."""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgetrack.bundle import open_bundle
from edgetrack.bundle.manifest import GraphInfo, TensorInfo
from edgetrack.errors import (
    BackendMissingError,
    BundleIntegrityError,
    DeviceUnavailableError,
    EdgetrackError,
    UsageError,
)
from edgetrack.runtime.backends.base import BackendOptions
from edgetrack.runtime.backends.tensorrt.backend import TensorRtGraph, Times
from edgetrack.runtime.verify import verify_bundle

X, Y = (TensorInfo(name=name, dtype="float32", shape=(1, 8, 16, 16)) for name in ("x", "y"))
# An ONNX model with a graph of nothing.
EMPTY = b"\x3a\x00"
INFO = GraphInfo(name="step", role="step", file="step.onnx", inputs=(X,), outputs=(Y,))


class ScriptedEngine:
    """An engine and its execution context in one."""

    num_io_tensors = 2

    def __init__(self, shape: tuple[int, ...] = X.shape, runs: bool = True) -> None:
        self.shape, self.runs, self.addresses = shape, runs, dict[str, int]()

    def get_tensor_name(self, index: int) -> str:
        return ("x", "y")[index]

    def get_tensor_mode(self, name: str) -> str:
        return {"x": "in", "y": "out"}[name]

    def get_tensor_dtype(self, name: str) -> str:
        return "DataType.FLOAT"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shape

    def create_execution_context(self) -> ScriptedEngine:
        return self

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        return self.runs


class Capability(Enum):
    """What the scripted TensorRT builds for."""

    SM86 = "8.6"
    SM89 = "8.9"


class ScriptedTensorRt:
    """The package as far as one engine is built and loaded; `loads` is the engine that deserialising gives."""

    __version__ = "1.7"
    TensorIOMode = SimpleNamespace(INPUT="in", OUTPUT="out")
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=0)
    BuilderFlag = SimpleNamespace(TF32=1)
    ProfilingVerbosity = SimpleNamespace(DETAILED=1)
    ComputeCapability = Capability

    class ILogger:
        """The base of loggers."""

        WARNING = 2

    def __init__(self, loads: ScriptedEngine | None) -> None:
        self.loads, self.loaded, self.built = loads, list[bytes](), 0

    def Builder(self, logger: Any) -> Any:  # noqa: N802
        def build(network: Any, config: Any) -> bytes:
            self.built += 1
            return b"engine for " + config.capability.value.encode()

        return SimpleNamespace(
            create_network=lambda flags: SimpleNamespace(num_outputs=1),
            create_builder_config=Config,
            build_serialized_network=build,
        )

    def OnnxParser(self, network: Any, logger: Any) -> Any:  # noqa: N802
        return SimpleNamespace(parse=lambda data: data == EMPTY)

    def Runtime(self, logger: Any) -> Any:  # noqa: N802
        def deserialize(data: bytes) -> ScriptedEngine | None:
            self.loaded.append(data)
            if self.loads is None:
                logger.log(1, "scripted reason")
            return self.loads

        return SimpleNamespace(deserialize_cuda_engine=deserialize)


class Config:
    """A builder's settings."""

    capability = Capability.SM89

    def clear_flag(self, flag: int) -> None:
        assert flag == ScriptedTensorRt.BuilderFlag.TF32

    def set_compute_capability(self, wanted: Capability, index: int) -> None:
        self.capability = wanted


@pytest.fixture
def machine(scripted: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """machine(loads=engine, fails="cudaMalloc") -> its TensorRT, its CUDA, and what opens a graph on it."""
    (tmp_path / "step.onnx").write_bytes(EMPTY)
    monkeypatch.setattr("edgetrack.runtime.backends.tensorrt.installation.JETSON_FILE", tmp_path / "none")

    def make(loads: ScriptedEngine | None = None, **cuda: Any) -> tuple[ScriptedTensorRt, Any, Callable[[], Any]]:
        tensorrt, runtime = ScriptedTensorRt(loads), scripted(**cuda)
        monkeypatch.setitem(sys.modules, "tensorrt_rtx", tensorrt)
        monkeypatch.setitem(sys.modules, "cuda.bindings", SimpleNamespace(runtime=runtime))
        options = BackendOptions(device="cuda:0", cache=tmp_path / "cache")
        return tensorrt, runtime, lambda: TensorRtGraph(INFO, tmp_path / "step.onnx", options)

    return make


def test_graph_is_built_for_the_device_captured_and_timed(machine: Callable[..., Any]) -> None:
    package, cuda, opening = machine(ScriptedEngine())
    graph = opening()
    assert (package.built, package.loaded) == (1, [b"engine for 8.6"])
    assert "cudaStreamBeginCapture" in cuda.calls
    del cuda.calls[:]
    graph.run()
    assert graph.times == Times(0.5, 0.5, 0.5)
    assert cuda.calls == [
        "cudaEventRecord", "cudaMemcpyAsync", "cudaEventRecord", "cudaGraphLaunch", "cudaEventRecord",
        "cudaMemcpyAsync", "cudaEventRecord", "cudaStreamSynchronize", *["cudaEventElapsedTime"] * 3,
    ]  # fmt: skip
    graph.close()
    with pytest.raises(UsageError, match="graph 'step' is closed"):
        graph.run()
    opening().close()
    assert package.built == 1, "the second time it comes from the cache"


def test_graph_that_cannot_be_captured_runs_and_says_so(
    machine: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    _, cuda, opening = machine(ScriptedEngine(), fails="cudaStreamEndCapture")
    graph = opening()
    assert "cannot be captured" in caplog.text
    graph.run()
    assert "cudaGraphLaunch" not in cuda.calls


def test_engine_that_is_not_loaded_or_does_not_run_is_an_error(machine: Callable[..., Any]) -> None:
    with pytest.raises(EdgetrackError, match="does not load the engine of graph 'step': scripted reason"):
        machine(None)[2]()
    with pytest.raises(EdgetrackError, match="could not run graph 'step'"):
        machine(ScriptedEngine(runs=False))[2]()


def test_engine_of_another_signature_is_refused_and_the_device_given_back(machine: Callable[..., Any]) -> None:
    _, cuda, opening = machine(ScriptedEngine(shape=(1, 8, 16, 17)))
    with pytest.raises(BundleIntegrityError, match="the file's inputs are"):
        opening()
    taken = [name for name in cuda.calls if name in ("cudaMalloc", "cudaHostRegister")]
    assert taken == []


def test_capability_that_the_package_does_not_know_is_refused(machine: Callable[..., Any]) -> None:
    *_, opening = machine(ScriptedEngine(), capability=(9, 0))
    with pytest.raises(DeviceUnavailableError, match=r"does not know compute capability 9\.0.*8\.6, 8\.9"):
        opening()


def test_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("tensorrt_rtx", "tensorrt"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendMissingError, match=r"pip install 'edgetrack\[tensorrt\]'.*Jetson") as caught:
        TensorRtGraph(INFO, tmp_path / "step.onnx", BackendOptions(device="cuda:0"))
    assert caught.value.exit_code == 3


def gpu() -> bool:
    """Whether a GPU can be used here."""
    try:
        from cuda.bindings import runtime

        error, count = runtime.cudaGetDeviceCount()
    except ImportError:
        return False
    return not int(error) and bool(count)


@pytest.fixture
def nano(exported: Callable[..., Path]) -> Path:
    """NanoTrack for TensorRT, untrained."""
    pytest.importorskip("tensorrt_rtx", reason="TENSORRT-RTX ABSENT: pip install 'edgetrack[tensorrt]'")
    return exported("tensorrt", tracker="nanotrack_v2")


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_without_a_gpu_the_bundle_says_what_to_do(nano: Path, device: str) -> None:
    if gpu():
        pytest.skip("A GPU IS HERE: its absence cannot be tested")
    with open_bundle(nano) as bundle, pytest.raises(DeviceUnavailableError) as caught:
        verify_bundle(bundle, BackendOptions(device=device))
    assert caught.value.exit_code == 4
    assert ("--device cuda:0" if device == "cpu" else "take the bundle to a machine with one") in str(caught.value)


def test_engine_computes_what_pytorch_computed(nano: Path, tmp_path: Path) -> None:
    if not gpu():
        pytest.skip("NO GPU: no engine can be run; see bench/gpu.md")
    for _ in range(2):
        with open_bundle(nano) as bundle:
            found = verify_bundle(bundle, BackendOptions(device="cuda:0", cache=tmp_path))
        assert found.ok
    assert np.isfinite([check.max_abs for check in found.checks]).all()
