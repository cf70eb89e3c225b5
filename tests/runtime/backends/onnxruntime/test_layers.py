"""A graph's layers in ONNX Runtime, and each one as a graph of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from edgetrack.errors import BackendMissingError
from edgetrack.runtime.backends.base import BackendOptions
from edgetrack.runtime.backends.onnxruntime.layers import OnnxRuntimeLayers

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """A convolution, a product with itself, a sum that reads an optional input's place, softmax and a view."""
    helper, kinds = onnx.helper, onnx.TensorProto
    weights = onnx.numpy_helper.from_array(np.ones((16, 16, 3, 3), np.float32), "weights")
    shape = onnx.numpy_helper.from_array(np.array([16, 1024]), "shape")
    nodes = [
        helper.make_node("Conv", ["x", "weights"], ["a"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("Reshape", ["b", "shape"], ["c"], "view"),
        helper.make_node("Transpose", ["c"], ["d"], "turned", perm=[1, 0]),
        helper.make_node("MatMul", ["c", "d"], ["e"], "product"),
        helper.make_node("Clip", ["e", "", "high"], ["f"], "clip"),
        helper.make_node("Softmax", ["f"], ["y"], "softmax"),
    ]
    high = onnx.numpy_helper.from_array(np.array(9.0, np.float32), "high")
    ends = [helper.make_tensor_value_info("x", kinds.FLOAT, [1, 16, 32, 32])]
    made = helper.make_graph(
        nodes, "g", ends, [helper.make_tensor_value_info("y", kinds.FLOAT, [16, 16])], [weights, shape, high]
    )
    path = tmp_path / "g.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def test_every_layer_that_computes_runs_alone(graph: Path) -> None:
    timer = OnnxRuntimeLayers(graph, BackendOptions())
    found = timer.layers(0.01)
    compute = {one.kind for one in found if one.role == "compute"}
    assert {"Conv", "Softmax"} <= compute
    assert "Reshape" not in {one.kind for one in found}
    for one in found:
        alone = timer.alone(one, 0.01)
        assert alone is not None, one
        assert alone.seconds > 0
    assert all(one.moved > 0 for one in found)


def test_traffic_takes_time_by_its_size(graph: Path) -> None:
    timer = OnnxRuntimeLayers(graph, BackendOptions())
    assert timer.move(1 << 22, 0.01) > timer.move(1 << 12, 0.01) > 0


def test_without_the_package_onnx_it_says_what_to_install(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(BackendMissingError, match=r"pip install 'edgetrack\[export\]'"):
        OnnxRuntimeLayers(graph, BackendOptions())
