"""Typed FP16: small differences, and what would overflow stays in FP32."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper, shape_inference

from edgetrack.export.half import to_half


def model(factor: float) -> Any:
    """y = sqrt(mean((factor x)^2)) beside z = 3 x."""
    nodes = [
        helper.make_node("Mul", ["x", "f"], ["large"], "large"),
        helper.make_node("Mul", ["large", "large"], ["square"], "square"),
        helper.make_node("ReduceMean", ["square"], ["mean"], "mean", axes=[1], keepdims=1),
        helper.make_node("Sqrt", ["mean"], ["y"], "root"),
        helper.make_node("Mul", ["x", "three"], ["z"], "triple"),
    ]
    shapes = {"y": (1, 1), "z": (1, 8)}
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    constants = [numpy_helper.from_array(np.float32(value), name) for name, value in (("f", factor), ("three", 3))]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 8))], outputs, constants
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return shape_inference.infer_shapes(made)


X = {"x": np.linspace(-1, 1, 8, dtype=np.float32)[None]}


def run(made: Any) -> list[Any]:
    onnx.checker.check_model(made, full_check=True)
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    assert [i.type for i in (*session.get_inputs(), *session.get_outputs())] == ["tensor(float)"] * 3
    return list(session.run(None, X))


@pytest.mark.parametrize("factor", [2.0, 300.0])
def test_half_gives_nearly_the_same(factor: float) -> None:
    expected = run(model(factor))
    half, wide = to_half(model(factor), [X], ())
    for a, b in zip(run(half), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3)
    # 300 squared is beyond 65504: the product and what reads it stay in FP32.
    assert ("square" in wide) is (factor == 300.0)


def kinds(made: Any) -> dict[str, int]:
    inferred = shape_inference.infer_shapes(made)
    return {info.name: info.type.tensor_type.elem_type for info in inferred.graph.value_info}


def test_named_nodes_and_sums_stay_in_fp32() -> None:
    half, wide = to_half(model(2.0), [X], ("tri.*",))
    assert wide == ()
    produced = {node.name: node for node in half.graph.node}
    casts = [node.name for node in half.graph.node if node.op_type == "Cast"]
    assert casts
    types = kinds(half)
    assert types[produced["square"].output[0]] == TensorProto.FLOAT16
    for name in ("triple", "mean", "root"):
        assert types.get(produced[name].output[0], TensorProto.FLOAT) == TensorProto.FLOAT
