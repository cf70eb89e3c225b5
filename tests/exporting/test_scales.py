"""Scales move from activations into weights: the integers stay, and the numbers are those of float64 algebra."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from openvino import opset13

from edgetrack.exporting.scales import even_ranges, join_ranges, per_tensor_activations, unit_steps
from edgetrack.runtime.backends.openvino.backend import shared_core

Array = NDArray[Any]
CHANNELS = 4
FIRST, LAST, FULL = (CHANNELS, 3, 1, 1), (CHANNELS, 1, 1, 3, 3), (2, CHANNELS, 1, 1)
STEPS = st.lists(st.integers(-6, 2).map(lambda power: 2.0**power), min_size=CHANNELS, max_size=CHANNELS)
"""Powers of two: products of scales round nothing, so results have to be the same to the last bit."""


def weights(shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Integers, and a scale for each output channel."""
    rng = np.random.default_rng(len(shape) + shape[0])
    scale = 2.0 ** rng.integers(-8, -4, (shape[0], *[1] * (len(shape) - 1)))
    return rng.integers(-127, 128, shape, np.int8), scale.astype(np.float32)


def stored(shape: tuple[int, ...]) -> Any:
    integers, scale = weights(shape)
    return opset13.multiply(opset13.convert(opset13.constant(integers), "f32"), opset13.constant(scale))


def quantizer(x: Any, step: Any, *, signed: bool = False) -> Any:
    step = np.asarray(step, np.float32)
    step = step.reshape(1, -1, 1, 1) if step.ndim else step
    low, high = (-128 if signed else 0) * step, (127 if signed else 255) * step
    return opset13.fake_quantize(x, low, high, low, high, 256)


def conv(x: Any, kernel: Any) -> Any:
    if len(kernel.get_output_shape(0)) == 5:
        return opset13.group_convolution(x, kernel, [1, 1], [1, 1], [1, 1], [1, 1])
    return opset13.convolution(x, kernel, [1, 1], [0, 0], [0, 0], [1, 1])


def image(kind: type[np.generic] = np.float32) -> Any:
    return opset13.parameter([1, 3, 6, 5], kind, name="x")


def chain(step: Any, *, signed: bool = False, last: tuple[int, ...] = LAST) -> openvino.Model:
    """conv, bias, ReLU unless signed, quantizer, conv."""
    x = image()
    bias = np.array([3, -2, 1, 0], np.float32).reshape(1, CHANNELS, 1, 1)
    y = opset13.add(conv(quantizer(x, 1.0), stored(FIRST)), opset13.constant(bias))
    y = quantizer(y if signed else opset13.relu(y), step, signed=signed)
    return openvino.Model([opset13.result(conv(y, stored(last)))], [x], "chain")


def ranges(model: openvino.Model) -> list[list[Array]]:
    """Of all quantizers, in order: lowest and highest."""
    found = [node for node in model.get_ordered_ops() if node.get_type_name() == "FakeQuantize"]
    return [[np.array(node.input_value(k).get_node().data) for k in (1, 2)] for node in found]


def computed(model: openvino.Model) -> list[Array]:
    pixels = np.random.default_rng(9).integers(0, 256, (1, 3, 6, 5)).astype(np.float32)
    compiled = shared_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [np.array(value) for value in compiled([pixels]).values()]


@settings(deadline=None, max_examples=5)
@given(steps=STEPS, signed=st.booleans())
def test_steps_of_channels_before_a_depthwise_layer_become_one(steps: list[float], signed: bool) -> None:
    model = chain(steps, signed=signed)
    (before,) = computed(model)
    assert unit_steps(model) == 1
    assert [bound.tolist() for bound in ranges(model)[1]] == ([-128, 127] if signed else [0, 255])
    assert np.array_equal(computed(model)[0], before)


@pytest.mark.parametrize("signed", [True, False])
def test_a_step_moves_into_the_weights_on_both_sides(signed: bool) -> None:
    """Of any step: the new scales are the float64 products, rounded once."""
    model = chain(0.0731, signed=signed, last=FULL)
    low, high = (bound.astype(np.float64) for bound in ranges(model)[1])
    step = (high - low) / 255
    (before,) = computed(model)
    assert unit_steps(model) == 1
    products = [node for node in model.get_ordered_ops() if node.get_type_name() == "Multiply"]
    found = {tuple(node.get_output_shape(0)): node.input_value(1).get_node().data for node in products}
    for shape, factor in ((FIRST, 1 / step), (FULL, step)):
        expected = weights(shape)[1].astype(np.float64) * factor
        assert np.array_equal(found[shape], expected.astype(np.float32))
    # A value at the middle between two integers may go to the other one.
    np.testing.assert_allclose(computed(model)[0], before, rtol=1e-5, atol=step * 127 * 2.0**-5)


def test_layers_that_share_weights_get_their_own() -> None:
    """As a layer that search region and template pass, with other ranges."""
    x, first, last = image(), stored(FIRST), stored(LAST)
    halves = [quantizer(opset13.relu(conv(quantizer(x, 1.0), first)), [step] * CHANNELS) for step in (0.5, 0.125)]
    model = openvino.Model([opset13.result(conv(half, last)) for half in halves], [x], "shared")
    before = computed(model)
    assert unit_steps(model) == 2
    assert all(np.array_equal(a, b) for a, b in zip(computed(model), before, strict=True))


@pytest.mark.parametrize("case", ["channels before a full layer", "asymmetric", "read by others", "an output"])
def test_what_cannot_move_stays(case: str) -> None:
    x = image()
    y = conv(quantizer(x, 1.0), stored(FIRST))
    if case == "asymmetric":
        q = opset13.fake_quantize(y, *np.float32([-1, 3, -1, 3]), 256)
    else:
        q = quantizer(y, [1.0, 2, 3, 4] if case.startswith("channels") else 0.5, signed=True)
    others = {"read by others": [opset13.sigmoid(q)], "an output": [y]}.get(case, [])
    results = [opset13.result(value) for value in (conv(q, stored(FULL)), *others)]
    model = openvino.Model(results, [x], "stays")
    before = ranges(model)
    assert unit_steps(model) == 0
    assert repr(ranges(model)) == repr(before)


def test_an_image_has_all_its_values() -> None:
    x = image(np.uint8)
    y = conv(quantizer(opset13.convert(x, "f32"), 254.3 / 255), stored(FIRST))
    model = openvino.Model([opset13.result(y)], [x], "image")
    assert unit_steps(model) == 1
    assert [bound.item() for bound in ranges(model)[0]] == [0, 255]


def clipped(steps: list[float]) -> openvino.Model:
    """conv, clip, quantizer, depthwise layer."""
    x = image()
    y = opset13.clamp(conv(quantizer(x, 1.0), stored(FIRST)), 0.0, 6.0)
    return openvino.Model([opset13.result(conv(quantizer(y, steps), stored(LAST)))], [x], "clipped")


def test_channels_that_differ_little_get_the_widest_range_behind_a_clip() -> None:
    model = clipped([1 / 64, 1 / 32, 1 / 64, 1 / 32])
    assert even_ranges(model) == 1
    assert [float(bound.item()) for bound in ranges(model)[1]] == [0.0, 255 / 32]
    assert even_ranges(model) == 0
    np.testing.assert_array_equal(computed(model)[0], computed(clipped([1 / 32] * CHANNELS))[0])


def test_channels_that_differ_much_or_lie_behind_a_convolution_keep_their_ranges() -> None:
    assert even_ranges(clipped([1 / 64, 1 / 64, 1 / 64, 1 / 8])) == 0
    assert even_ranges(chain([1 / 64, 1 / 32, 1 / 64, 1 / 32])) == 0


def test_what_is_joined_has_one_range() -> None:
    x = image()
    turned = opset13.reshape(quantizer(x, 0.25, signed=True), np.array([1, 3, 5, 6]), special_zero=False)
    parts = [quantizer(opset13.relu(x), 0.5), opset13.transpose(turned, np.array([0, 1, 3, 2]))]
    model = openvino.Model([opset13.result(opset13.concat(parts, 1))], [x], "joined")
    assert join_ranges(model) == 1
    for low, high in ranges(model):
        assert [low.item(), high.item()] == pytest.approx([-127.5 * 128 / 127, 127.5], rel=1e-6)
    assert join_ranges(model) == 0


def test_what_is_joined_with_what_is_not_quantized_stays() -> None:
    x = image()
    model = openvino.Model([opset13.result(opset13.concat([quantizer(x, 0.5), x], 1))], [x], "half")
    assert join_ranges(model) == 0


def paired(steps: Any, *, between: str = "Relu", shared: bool = False, full: bool = False) -> Any:
    """ONNX: conv, `between`, a pair with a scale for each channel, a depthwise or full layer; twice where `shared`."""
    last = (CHANNELS, CHANNELS if full else 1, 3, 3)
    constants: dict[str, Array] = {
        "one": np.array(1, np.float32),
        "zero": np.array(0, np.int8),
        "steps": np.array(steps, np.float32),
        "zeros": np.zeros(CHANNELS, np.int8),
        "bias": np.array([3, -2, 1, 0], np.float32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "one", "zero"], ["xf"]),
    ]
    for name, shape in (("a", FIRST), ("b", last)):
        integers, scale = weights(shape)
        constants |= {f"{name}_w": integers, f"{name}_s": scale.ravel()}
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}_w", f"{name}_s", "zeros"], [name], axis=0))
    outputs = [f"y{index}" for index in range(1 + shared)]
    for y in outputs:
        nodes += [
            helper.make_node("Conv", ["xf", "a", "bias"], [f"{y}c"]),
            helper.make_node(between, [f"{y}c"], [f"{y}r"]),
            helper.make_node("QuantizeLinear", [f"{y}r", "steps", "zeros"], [f"{y}q"], axis=1),
            helper.make_node("DequantizeLinear", [f"{y}q", "steps", "zeros"], [f"{y}d"], axis=1),
            helper.make_node("Conv", [f"{y}d", "b"], [y], group=1 if full else CHANNELS, pads=[1, 1, 1, 1]),
        ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 6, 5))],
        [helper.make_tensor_value_info(y, TensorProto.FLOAT, (1, CHANNELS, 6, 5)) for y in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run_paired(model: Any, allowed: str, *, fused: bool = True) -> list[Array]:
    """With activations of int8 refused, as on x86-64 ("0"), and taken, as everywhere else ("1")."""
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.qdqisint8allowed", allowed)
    if not fused:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(9).integers(-128, 128, (1, 3, 6, 5)).astype(np.float32)
    return [np.asarray(value) for value in session.run(None, {"x": x})]


@settings(deadline=None, max_examples=5)
@given(steps=STEPS, shared=st.booleans())
def test_pairs_with_scales_of_channels_become_plain_ones(steps: list[float], shared: bool) -> None:
    model = paired(steps, shared=shared)
    before = run_paired(model, "0", fused=False)
    assert per_tensor_activations(model) == 1 + shared
    assert all(np.array_equal(a, b) for a, b in zip(run_paired(model, "0", fused=False), before, strict=True))
    stored_scales = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            assert stored_scales[node.input[1]] == ()


def test_arm_refuses_a_scale_for_each_channel_behind_a_convolution_and_takes_what_is_written() -> None:
    steps = [0.5, 0.25, 1, 2]
    with pytest.raises(Exception, match="QLinearConv"):
        run_paired(paired(steps, between="Identity"), "1")
    model = paired(steps, between="Identity")
    per_tensor_activations(model)
    on_x86, on_arm = run_paired(model, "0")[0], run_paired(model, "1")[0]
    np.testing.assert_allclose(on_arm, on_x86, rtol=0, atol=1e-6 * np.abs(on_x86).max())


def step_of_pair(model: Any) -> Array:
    (pair,) = (node for node in model.graph.node if node.output[0] == "y0q")
    (scale,) = (tensor for tensor in model.graph.initializer if tensor.name == pair.input[1])
    return np.asarray(numpy_helper.to_array(scale))


@pytest.mark.parametrize(
    ("steps", "options"),
    [
        ([0.5, 0.25, 1, 2], {"full": True}),
        ([8, 0.25, 1, 2], {"full": True}),
        ([1, 0.5, 1, 4], {"between": "HardSwish"}),
    ],
    ids=["full", "full-uneven", "nearly-even"],
)
def test_where_scales_cannot_or_need_not_move_the_largest_serves_all(steps: list[float], options: Any) -> None:
    model = paired(steps, **options)
    assert per_tensor_activations(model) == 1
    assert step_of_pair(model) == max(steps)
    assert "Mul" not in {node.op_type for node in model.graph.node}
    assert np.isfinite(run_paired(model, "1")).all()


@pytest.mark.parametrize("shared", [False, True])
def test_behind_an_activation_a_product_makes_uneven_channels_even_and_keeps_the_integers(shared: bool) -> None:
    steps = [0.125, 16, 0.25, 0.5]
    model = paired(steps, between="HardSwish", shared=shared)
    before = run_paired(model, "0", fused=False)
    assert per_tensor_activations(model) == 1 + shared
    assert [node.op_type for node in model.graph.node].count("Mul") == 1 + shared
    assert step_of_pair(model) == 16
    for ours, theirs in zip(run_paired(model, "0", fused=False), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    on_x86, on_arm = run_paired(model, "0")[0], run_paired(model, "1")[0]
    np.testing.assert_allclose(on_arm, on_x86, rtol=0, atol=1e-6 * np.abs(on_x86).max())
