"""Graphs of lower precision: quantize/dequantize pairs and typed FP16 in ONNX."""

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
from onnx import TensorProto, helper, numpy_helper, shape_inference

from edgetrack.errors import EdgetrackError
from edgetrack.exporting.lowering import (
    Ignored,
    Method,
    fold_weights,
    quantize,
    quantized,
    quantized_types,
    signed,
    to_half,
    unshare_weights,
)
from edgetrack.runtime.backends.openvino.backend import shared_core

Array = NDArray[Any]


def paired_model(
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


def run_paired(made: Any, x: Array) -> Array:
    onnx.checker.check_model(made, full_check=True)
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    found: Array = session.run(None, {"x": x})[0]
    return found


def pair(zero: Array, scale: float = 0.02) -> Any:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "quantize"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], "dequantize"),
    ]
    return paired_model(nodes, {"s": np.float32(scale), "z": zero}, (64,))


@given(
    values=arrays(np.float32, (3, 4), elements=st.floats(-100, 100, width=32)),
    scales=arrays(np.float32, 3, elements=st.floats(0.0078125, 4, width=32)),
    dtype=st.sampled_from([np.int8, np.uint8]),
)
def test_quantized_is_quantize_linear(values: Array, scales: Array, dtype: type[np.generic]) -> None:
    zero = np.full(3, 0, dtype)
    kind = TensorProto.INT8 if dtype is np.int8 else TensorProto.UINT8
    node = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"], axis=0)
    expected = run_paired(paired_model([node], {"s": scales, "z": zero}, (3, 4), kind), values)
    assert np.array_equal(quantized(values, scales, zero, axis=0), expected)


def test_an_unsigned_pair_becomes_signed_with_the_same_range() -> None:
    x = np.linspace(-1, 6, 64, dtype=np.float32)
    made = pair(np.uint8(0))
    before = run_paired(made, x)
    signed(made)
    assert quantized_types(made) == {"int8"}
    # Steps are twice as wide, so results move by half a new step at most; 255 steps became 127.
    assert np.abs(run_paired(made, x) - before)[x >= 0].max() <= 0.02 + 0.02


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
    made = paired_model(nodes, {"w": weight, "s": scales, "z": zeros}, (1, 3, 4, 4), y=(1, 5, 4, 4))
    x = rng.standard_normal((1, 3, 4, 4)).astype(np.float32)
    before = run_paired(made, x)
    assert fold_weights(made) == 1
    assert [node.op_type for node in made.graph.node] == ["DequantizeLinear", "Conv"]
    assert "w" not in {tensor.name for tensor in made.graph.initializer}
    np.testing.assert_allclose(run_paired(made, x), before, rtol=1e-6, atol=1e-6)


def test_each_reader_of_a_quantized_weight_gets_its_own() -> None:
    rng = np.random.default_rng(0)
    weight = rng.integers(-127, 128, (3, 3, 1, 1), np.int8)
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["first"], "one", axis=0),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["second"], "two", axis=0),
        helper.make_node("Conv", ["x", "first"], ["a"]),
        helper.make_node("Conv", ["a", "second"], ["b"]),
        helper.make_node("Conv", ["b", "second"], ["y"]),
    ]
    scales = np.full(3, 0.01, np.float32)
    made = paired_model(nodes, {"w": weight, "s": scales, "z": np.zeros(3, np.int8)}, (1, 3, 4, 4))
    x = rng.standard_normal((1, 3, 4, 4)).astype(np.float32)
    before = run_paired(made, x)
    assert unshare_weights(made) == 4  # two of the weight, two of its zero point
    assert unshare_weights(made) == 0
    onnx.checker.check_model(made, full_check=True)
    weights = [node for node in made.graph.node if node.op_type == "DequantizeLinear"]
    assert len({node.input[0] for node in weights}) == len({node.output[0] for node in weights}) == 3
    assert np.array_equal(run_paired(made, x), before)


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


def test_seven_bits_of_weights_do_not_saturate_on_any_processor() -> None:
    """y = 64 x: two layers of the largest weights there are, and inputs of the largest magnitude."""
    weights = {f"w{index}": np.ones((8, 8, 1, 1), np.float32) for index in range(2)}
    nodes = [helper.make_node("Conv", ["x", "w0"], ["t"], "a"), helper.make_node("Conv", ["t", "w1"], ["y"], "b")]
    core, made = shared_core(), paired_model(nodes, weights, (1, 8, 4, 4))
    inputs = [{"x": np.full((1, 8, 4, 4), value, np.float32)} for value in (-1, 1)]
    found = quantize(core.read_model(made.SerializeToString()), inputs, Method(weight_bits=7), Ignored())
    constants = [node.data for node in found.get_ops() if node.get_type_name() == "Constant"]
    assert [int(np.abs(one).max()) for one in constants if one.dtype == np.int8] == [63, 63]
    np.testing.assert_allclose(core.compile_model(found, "CPU")(inputs[1])[0], 64, rtol=0.03)


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_what_is_kept_goes_by_its_whole_name(kind: str) -> None:
    rng = np.random.default_rng(0)
    names = ["/a/Conv", "/a/Conv_1", "/a/Conv_10", "/a/b/Conv"]
    tensors = ["x", "t0", "t1", "t2", "y"]
    constants = {f"w{n}": rng.standard_normal((4, 4, 3, 3)).astype(np.float32) for n in range(4)}
    constants |= {f"b{n}": rng.standard_normal(4).astype(np.float32) for n in range(4)}
    nodes = [
        helper.make_node("Conv", [tensors[n], f"w{n}", f"b{n}"], [tensors[n + 1]], name, pads=[1, 1, 1, 1])
        for n, name in enumerate(names)
    ]
    made: Any = paired_model(nodes, constants, (1, 4, 8, 8))
    if kind == "openvino":
        made = shared_core().read_model(made.SerializeToString())
    inputs = [{"x": rng.standard_normal((1, 4, 8, 8)).astype(np.float32)} for _ in range(3)]
    # A whole name, and a class of names that ends at the next slash.
    for pattern, left in (("/a/Conv_1", [0, 2, 3]), ("/a/[^/]*", [3]), ("/a/.*", [])):
        found = quantize(made, inputs, Method(), Ignored((pattern,)))
        if kind == "onnx":
            makers = {output: node.op_type for node in found.graph.node for output in node.output}
            lowered = {n.name for n in found.graph.node if n.op_type == "Conv" and n.input[1] in makers}
        else:
            lowered = {
                node.get_friendly_name().removesuffix("/WithoutBiases")
                for node in found.get_ops()
                if node.get_type_name() == "Convolution"
                and node.input_value(1).get_node().get_type_name() != "Constant"
            }
        assert lowered == {names[n] for n in left}, pattern
