"""ONNX Runtime's own: a provider that is silently replaced, a tensor type that is not offered, INT8 without VNNI."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from edgetrack.bundle.manifest import GraphInfo, TensorInfo
from edgetrack.errors import BundleIntegrityError, DeviceUnavailableError
from edgetrack.exporting.lowering import unshare_weights
from edgetrack.runtime.backends.base import BackendOptions
from edgetrack.runtime.backends.onnxruntime.backend import OnnxRuntimeGraph


def test_another_provider_than_asked_for_is_refused(
    graph_file: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime.InferenceSession, "get_providers", lambda self: ["AzureExecutionProvider"])
    with pytest.raises(DeviceUnavailableError, match="chose AzureExecutionProvider instead of CPUExecutionProvider"):
        graph_file("onnx").open()


@pytest.mark.parametrize("kind", [onnx.TensorProto.DOUBLE, onnx.TensorProto.BOOL])
def test_tensor_types_without_a_name_here_are_refused(graph_file: Callable[..., Any], kind: int) -> None:
    file = graph_file("onnx")
    (info,) = file.info.inputs
    (output,) = file.info.outputs
    given = onnx.helper.make_tensor_value_info(info.name, kind, info.shape)
    taken = onnx.helper.make_tensor_value_info(output.name, onnx.TensorProto.FLOAT, info.shape)
    node = onnx.helper.make_node("Cast", [info.name], [output.name], to=onnx.TensorProto.FLOAT)
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", [given], [taken]), opset_imports=[onnx.helper.make_opsetid("", 17)]
    )
    model.ir_version = 9
    onnx.save(model, str(file.path))
    with pytest.raises(BundleIntegrityError, match="the file's inputs are"):
        file.open()


def test_open_dimension_is_refused(graph_file: Callable[..., Any]) -> None:
    file = graph_file("onnx")
    model = onnx.load(str(file.path))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "height"
    onnx.save(model, str(file.path))
    with pytest.raises(BundleIntegrityError, match=r"the file's inputs are .*height"):
        file.open()


CHANNELS = 8


def largest(shared: bool) -> Any:
    """y = 64 x: two 1x1 convolutions of the largest weights of INT8, of which two may share theirs."""
    nodes = []
    for index, (given, taken) in enumerate((("x", "between"), ("between", "y"))):
        weight = "w" if shared else f"w{index}"
        nodes += [
            helper.make_node("QuantizeLinear", [given, f"s{index}", "z"], [f"q{index}"]),
            helper.make_node("DequantizeLinear", [f"q{index}", f"s{index}", "z"], [f"d{index}"]),
            helper.make_node(
                "DequantizeLinear", [weight, "ws", f"wz{index}"], [f"wd{index}"], f"weight{index}", axis=0
            ),
            helper.make_node("Conv", [f"d{index}", f"wd{index}"], [f"c{index}"]),
            helper.make_node("QuantizeLinear", [f"c{index}", f"s{index + 1}", "z"], [f"o{index}"]),
            helper.make_node("DequantizeLinear", [f"o{index}", f"s{index + 1}", "z"], [taken]),
        ]
    weights = np.full((CHANNELS, CHANNELS, 1, 1), 127, np.int8)
    constants = {f"s{index}": np.float32(CHANNELS**index / 127) for index in range(3)}
    constants |= {f"wz{index}": np.zeros(CHANNELS, np.int8) for index in range(2)}
    constants |= {"z": np.int8(0), "ws": np.full(CHANNELS, 1 / 127, np.float32)}
    constants |= {"w": weights} if shared else {"w0": weights, "w1": weights}
    shape = (1, CHANNELS, 4, 4)
    ports = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in "xy"]
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def opened(model: Any, path: Path) -> OnnxRuntimeGraph:
    onnx.save(model, str(path))
    x, y = (TensorInfo(name=name, dtype="float32", shape=(1, CHANNELS, 4, 4)) for name in "xy")
    return OnnxRuntimeGraph(
        GraphInfo(name="g", role="step", file=path.name, inputs=(x,), outputs=(y,)), path, BackendOptions(threads=1)
    )


def test_sums_of_int8_do_not_saturate_on_any_processor(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """255 * 127 + 255 * 127 is more than 16 bits hold, which is where processors without VNNI add two products."""
    graph = opened(largest(shared=False), tmp_path / "g.onnx")
    graph.inputs["x"][...] = 1
    graph.run()
    np.testing.assert_allclose(graph.outputs["y"], CHANNELS**2, rtol=1e-5)
    assert not caplog.records


def test_a_weight_of_two_nodes_runs_and_unshared_it_is_exact(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = largest(shared=True)
    graph = opened(model, tmp_path / "g.onnx")
    graph.inputs["x"][...] = 1
    graph.run()
    assert graph.outputs["y"].min() == pytest.approx(CHANNELS**2, rel=1e-5) or "export the bundle again" in caplog.text
    caplog.clear()
    assert unshare_weights(model) == 1
    graph = opened(model, tmp_path / "g.onnx")
    graph.inputs["x"][...] = 1
    graph.run()
    np.testing.assert_allclose(graph.outputs["y"], CHANNELS**2, rtol=1e-5)
    assert not caplog.records
