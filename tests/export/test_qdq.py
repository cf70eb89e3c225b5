"""Signed pairs and stored weights against ONNX Runtime, which reads the file as the standard says."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgetrack.errors import EdgetrackError
from edgetrack.export.qdq import fold_weights, quantized, quantized_types, signed

Array = NDArray[Any]


def model(
    nodes: list[Any],
    constants: dict[str, Array],
    shape: tuple[int, ...],
    out: int = TensorProto.FLOAT,
    y: tuple[int, ...] | None = None,
) -> Any:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", out, y or shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(made: Any, x: Array) -> Array:
    onnx.checker.check_model(made, full_check=True)
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    found: Array = session.run(None, {"x": x})[0]
    return found


def pair(zero: Array, scale: float = 0.02) -> Any:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "quantize"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], "dequantize"),
    ]
    return model(nodes, {"s": np.float32(scale), "z": zero}, (64,))


@given(
    values=arrays(np.float32, (3, 4), elements=st.floats(-100, 100, width=32)),
    scales=arrays(np.float32, 3, elements=st.floats(0.0078125, 4, width=32)),
    dtype=st.sampled_from([np.int8, np.uint8]),
)
def test_quantized_is_quantize_linear(values: Array, scales: Array, dtype: type[np.generic]) -> None:
    zero = np.full(3, 0, dtype)
    kind = TensorProto.INT8 if dtype is np.int8 else TensorProto.UINT8
    node = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"], axis=0)
    expected = run(model([node], {"s": scales, "z": zero}, (3, 4), kind), values)
    assert np.array_equal(quantized(values, scales, zero, axis=0), expected)


def test_an_unsigned_pair_becomes_signed_with_the_same_range() -> None:
    x = np.linspace(-1, 6, 64, dtype=np.float32)
    made = pair(np.uint8(0))
    before = run(made, x)
    signed(made)
    assert quantized_types(made) == {"int8"}
    # Steps are twice as wide, so results move by half a new step at most; 255 steps became 127.
    assert np.abs(run(made, x) - before)[x >= 0].max() <= 0.02 + 0.02


def test_a_signed_pair_stays_as_it_is() -> None:
    made = pair(np.int8(0))
    before = made.SerializeToString(deterministic=True)
    signed(made)
    assert made.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("zero", [np.uint8(7), np.int8(-3)])
def test_an_asymmetric_pair_is_refused(zero: Array) -> None:
    with pytest.raises(EdgetrackError, match=r"'quantize' is not symmetric \(zero point -?\d+"):
        signed(pair(zero))


def test_a_pair_without_stored_zero_point_is_refused() -> None:
    made = pair(np.int8(0))
    made.graph.node[0].input.pop()
    with pytest.raises(EdgetrackError, match="no stored zero point"):
        signed(made)


def test_weights_are_stored_as_integers_and_give_the_same() -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((5, 3, 1, 1)).astype(np.float32)
    scales, zeros = (np.abs(weight).max(axis=(1, 2, 3)) / 127).astype(np.float32), np.zeros(5, np.int8)
    nodes = [
        helper.make_node("QuantizeLinear", ["w", "s", "z"], ["wq"], axis=0),
        helper.make_node("DequantizeLinear", ["wq", "s", "z"], ["wd"], axis=0),
        helper.make_node("Conv", ["x", "wd"], ["y"]),
    ]
    made = model(nodes, {"w": weight, "s": scales, "z": zeros}, (1, 3, 4, 4), y=(1, 5, 4, 4))
    x = rng.standard_normal((1, 3, 4, 4)).astype(np.float32)
    before = run(made, x)
    assert fold_weights(made) == 1
    assert [node.op_type for node in made.graph.node] == ["DequantizeLinear", "Conv"]
    assert "w" not in {tensor.name for tensor in made.graph.initializer}
    np.testing.assert_allclose(run(made, x), before, rtol=1e-6, atol=1e-6)
