"""The layer over CUDA: which device, which memory, and that all is given back."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgetrack.bundle.manifest import TensorInfo
from edgetrack.errors import DeviceUnavailableError, EdgetrackError
from edgetrack.runtime.backends.tensorrt.cuda import PAGE, Device, capability_here, import_runtime

Scripted = Callable[..., Any]


@pytest.mark.parametrize("name", ["cpu", "gpu", "CPU", "", "cuda:", "cuda:x", "cuda:-1"])
def test_device_that_is_no_gpu_is_refused(scripted: Scripted, name: str) -> None:
    with pytest.raises(DeviceUnavailableError, match="add --device cuda:0") as caught:
        Device(scripted(), name)
    assert repr(name) in str(caught.value)
    assert caught.value.exit_code == 4


def test_device_that_is_not_there_is_refused(scripted: Scripted) -> None:
    with pytest.raises(DeviceUnavailableError, match="this machine has cuda:0 to cuda:1"):
        Device(scripted(devices=2), "cuda:2")
    for absent in (scripted(devices=0), scripted(fails="cudaGetDeviceCount")):
        with pytest.raises(DeviceUnavailableError, match="no NVIDIA GPU can be used for 'cuda'"):
            Device(absent, "cuda")


def test_capability_is_read_from_the_chosen_device(scripted: Scripted) -> None:
    device = Device(scripted(devices=2), "cuda:1")
    assert (device.index, device.capability) == (1, "8.6")


def test_failing_call_names_itself(scripted: Scripted) -> None:
    device = Device(scripted(fails="cudaMalloc"), "cuda:0")
    with pytest.raises(EdgetrackError, match="cudaMalloc failed: scripted failure"):
        device.memory(1)


def test_pinned_arrays_have_whole_pages_of_their_own(scripted: Scripted) -> None:
    tensors = (
        TensorInfo(name="image", dtype="uint8", shape=(5, 7, 3)),
        TensorInfo(name="maps", dtype="float32", shape=(1, 2, 33)),
        TensorInfo(name="scalar", dtype="float16", shape=()),
    )
    runtime = scripted()
    device = Device(runtime, "cuda:0")
    arrays = device.pinned(tensors)
    starts = [array.ctypes.data for array in arrays.values()]
    assert starts[0] % PAGE == 0
    assert all(start % 256 == 0 for start in starts)
    for tensor, array in zip(tensors, arrays.values(), strict=True):
        assert (str(array.dtype), array.shape) == (tensor.dtype, tensor.shape)
        assert array.flags.c_contiguous
        array.fill(1)
    assert np.all(arrays["image"] == 1)
    device.close()
    assert runtime.calls.count("cudaHostUnregister") == 1


def test_close_gives_back_everything_in_reverse_and_once(scripted: Scripted) -> None:
    runtime = scripted()
    device = Device(runtime, "cuda:0")
    device.memory(10)
    stream = device.stream()
    device.event()
    assert device.capture(lambda: True, stream) == 10
    del runtime.calls[:]
    device.close()
    device.close()
    assert runtime.calls == ["cudaGraphExecDestroy", "cudaEventDestroy", "cudaStreamDestroy", "cudaFree"]


@pytest.mark.parametrize(("fails", "enqueues"), [("cudaStreamEndCapture", True), ("", False)])
def test_what_cannot_be_captured_is_none(scripted: Scripted, fails: str, enqueues: bool) -> None:
    device = Device(scripted(fails=fails), "cuda:0")
    assert device.capture(lambda: enqueues, device.stream()) is None


def test_bindings_have_every_function_that_is_called(scripted: Scripted) -> None:
    pytest.importorskip("cuda.bindings", reason="CUDA-BINDINGS ABSENT: pip install 'edgetrack[tensorrt]'")
    runtime, installed = scripted(), import_runtime()
    device = Device(runtime, "cuda:0")
    assert device.capability == "8.6"
    arrays = device.pinned((TensorInfo(name="x", dtype="uint8", shape=(4,)),))
    stream, address = device.stream(), {"x": device.memory(4)}
    device.event()
    device.upload(arrays, address, stream)
    device.download(arrays, address, stream)
    device.capture(lambda: True, stream)
    device.close()
    assert len(set(runtime.calls)) > 15
    assert [name for name in runtime.calls if not hasattr(installed, name)] == []
    for kind in ("cudaDeviceAttr", "cudaMemcpyKind", "cudaStreamCaptureMode"):
        assert vars(getattr(runtime, kind)).keys() <= set(dir(getattr(installed, kind)))
    assert hasattr(installed, "cudaStreamNonBlocking")


def test_capability_here_is_none_without_a_gpu_or_the_bindings(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    for runtime, expected in ((scripted(), "8.6"), (scripted(devices=0), None), (None, None)):
        bindings = None if runtime is None else SimpleNamespace(runtime=runtime)
        monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
        assert capability_here() == expected
