"""A scripted CUDA runtime for control flow, and small ONNX files for real builds."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


class Error(IntEnum):
    """Codes of the CUDA runtime's `cudaError_t`."""

    OK = 0
    NO_DEVICE = 100
    CAPTURE = 900


class ScriptedCuda:
    """Answers as the CUDA runtime does, computes nothing, and records who was called."""

    cudaStreamNonBlocking = 1  # noqa: N815
    cudaDeviceAttr = SimpleNamespace(cudaDevAttrComputeCapabilityMajor=75, cudaDevAttrComputeCapabilityMinor=76)  # noqa: N815
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)  # noqa: N815
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)  # noqa: N815

    def __init__(self, devices: int = 1, fails: str = "", capability: tuple[int, int] = (8, 6)) -> None:
        self.devices, self.fails, self.capability = devices, fails, capability
        self.calls: list[str] = []

    def cudaGetErrorString(self, error: Any) -> tuple[Error, bytes]:  # noqa: N802
        return Error.OK, b"scripted failure"

    def __getattr__(self, name: str) -> Callable[..., tuple[Any, ...]]:
        values: dict[str, Any] = {
            "cudaGetDeviceCount": self.devices, "cudaMalloc": 4096, "cudaStreamCreateWithFlags": 7,
            "cudaEventCreate": 8, "cudaEventElapsedTime": 0.5, "cudaStreamEndCapture": 9, "cudaGraphInstantiate": 10,
        }  # fmt: skip

        def call(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append(name)
            if name == self.fails:
                return (Error.CAPTURE, None)
            if name == "cudaDeviceGetAttribute":
                return Error.OK, self.capability[arguments[0] - 75]
            return (Error.OK, values[name]) if name in values else (Error.OK,)

        return call


@pytest.fixture
def scripted() -> Callable[..., ScriptedCuda]:
    """scripted(devices=0) -> a CUDA runtime without a GPU."""
    return ScriptedCuda


@pytest.fixture
def small_onnx() -> Callable[..., bytes]:
    """small_onnx() -> a convolution; with zero="uint8" or "int8" behind a quantize/dequantize pair."""

    def make(zero: str | None = None) -> bytes:
        rng = np.random.default_rng(0)
        constants = [numpy_helper.from_array(rng.normal(size=(8, 8, 3, 3)).astype(np.float32), "w")]
        nodes, fed = [], "x"
        if zero is not None:
            constants += [numpy_helper.from_array(np.array(0.1, np.float32), "s")]
            constants += [numpy_helper.from_array(np.array(0, zero), "z")]
            nodes = [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"])]
            nodes += [helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"])]
            fed = "d"
        nodes.append(helper.make_node("Conv", [fed, "w"], ["y"], "conv", pads=[1] * 4))
        sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8, 16, 16]) for name in ("x", "y")]
        graph = helper.make_graph(nodes, "small", sides[:1], sides[1:], constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.checker.check_model(model, full_check=True)
        data: bytes = model.SerializeToString()
        return data

    return make
