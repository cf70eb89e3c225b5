"""Scales of a quantized graph, moved out of its activations into the weights beside them (decision 0021).

A quantizer rounds x / s to an integer and multiplies by s again. Where convolutions make x, through nothing but biases
and ReLUs, and convolutions alone read it, their weights can take 1 / s and s: the integers stay the same, and what was
a scale, or one for every channel, is one step of 1. That is faster (what follows a convolution is left with less to
do), and no scale of a channel is left behind a convolution, which ONNX Runtime refuses on ARM.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgetrack.exporting.lowering import drop_unread

Doubles = NDArray[np.float64]
LEVELS = 256
UNEVEN = 4.0
"""Largest scale of a channel over the median, above which channels of one tensor need a scale each (decision 0034)."""
_CONVOLUTIONS = ("Convolution", "GroupConvolution")
_SAME_VALUES = ("VariadicSplit", "Split", "Reshape", "Transpose", "Slice", "StridedSlice")


class Range(NamedTuple):
    """Of a quantizer: one number each, or one for each channel, (1, C, 1, 1)."""

    low: Doubles
    high: Doubles

    @property
    def signed(self) -> bool:
        """Whether there are values below zero."""
        return bool((self.low < 0).any())

    @property
    def step(self) -> Doubles:
        """From one integer to the next."""
        return (self.high - self.low) / (LEVELS - 1)


def join_ranges(model: Any) -> int:
    """Give all quantizers whose tensors one Concat joins one range, the widest; how many Concats that were.

    Else the plugin leaves what is joined in float. A Concat with an input that is not quantized stays as it is.

    Args:
        model: an OpenVINO model, quantized; changed in place.
    """
    joined = 0
    for concat in [node for node in model.get_ordered_ops() if node.get_type_name() == "Concat"]:
        makers = [_maker(concat.input_value(index)) for index in range(concat.get_input_size())]
        ranges = [_range(maker) for maker in makers]
        found = [one for one in ranges if one is not None and one.low.size == 1]
        if len(found) < len(makers) or all(one == found[0] for one in found):
            continue
        low, high = (min(float(one.low.min()) for one in found), max(float(one.high.max()) for one in found))
        if low < 0:
            # Symmetric, as NNCF's are: 128 steps below zero, 127 above.
            low = min(low, -high * 128 / 127)
            high = -low * 127 / 128
        for maker in makers:
            _set_range(maker, low, high)
        joined += 1
    return joined


def even_ranges(model: Any) -> int:
    """Give a tensor with a range for each channel the widest of them, if they differ little; how many were given one.

    NNCF's range of a channel is a mean over crops, which cuts the highest values off; the widest cuts off less. Behind
    a convolution `unit_steps` moves the ranges into the weights: those stay.

    Args:
        model: an OpenVINO model, quantized; changed in place.
    """
    given = 0
    for quantizer in [node for node in model.get_ordered_ops() if node.get_type_name() == "FakeQuantize"]:
        found = _range(quantizer)
        if found is None or found.step.size == 1 or found.step.max() > UNEVEN * np.median(found.step):
            continue
        if _before(quantizer) is None:
            _set_range(quantizer, float(found.low.min()), float(found.high.max()))
            given += 1
    return given


def unit_steps(model: Any) -> int:
    """Make the step of every quantizer between convolutions 1; returns how many were made so.

    A quantizer with a step for each channel is taken only where each channel is read by itself, by a depthwise layer.

    Args:
        model: an OpenVINO model, quantized, its weights stored as integers with a scale; changed in place.
    """
    made = 0
    for quantizer in [node for node in model.get_ordered_ops() if node.get_type_name() == "FakeQuantize"]:
        found = _range(quantizer)
        if found is None or not _symmetric(found):
            continue
        if _takes_bytes(quantizer):
            _set_range(quantizer, 0.0, 255.0)
            made += 1
            continue
        users = [user.get_node() for user in quantizer.output(0).get_target_inputs()]
        before = _before(quantizer)
        if before is None or not users or not all(_can_take(user, found.step.size) for user in users):
            continue
        for node in before:
            _scale(node, 1 / found.step)
        for user in users:
            _scale(user, found.step, inputs=True)
        _set_range(quantizer, -128.0 if found.signed else 0.0, 127.0 if found.signed else 255.0)
        made += 1
    return made


def _takes_bytes(quantizer: Any) -> bool:
    """Whether it is fed integers of 0..255, an image's, as they are."""
    convert = _maker(quantizer.input_value(0))
    return convert.get_type_name() == "Convert" and str(convert.get_input_element_type(0).to_string()) == "u8"


def _can_take(user: Any, scales: int) -> bool:
    """Whether a node is a convolution whose weights can take that many scales of its input."""
    if user.get_type_name() not in _CONVOLUTIONS or _weights(user) is None:
        return False
    shape = user.input_value(1).get_shape()
    return scales == 1 or (len(shape) == 5 and shape[0] == scales and shape[2] == 1)


def _symmetric(found: Range) -> bool:
    """Whether zero is one of the steps and the integers are those of int8 or uint8."""
    lowest = -128 if found.signed else 0
    return bool((found.step > 0).all() and np.allclose(found.low / found.step, lowest, rtol=0, atol=1e-3))


def _maker(output: Any) -> Any:
    """The node that made a tensor's values, past those that only move them."""
    node = output.get_node()
    while node.get_type_name() in _SAME_VALUES:
        node = node.input_value(0).get_node()
    return node


def _range(node: Any) -> Range | None:
    """Of a quantizer of 256 levels that gives what it takes, rounded; None for any other node."""
    if node.get_type_name() != "FakeQuantize" or node.get_attributes()["levels"] != LEVELS:
        return None
    sources = [node.input_value(index).get_node() for index in range(1, 5)]
    if any(source.get_type_name() != "Constant" for source in sources):
        return None
    low, high, out_low, out_high = (np.asarray(source.data, np.float64) for source in sources)
    return Range(low, high) if np.array_equal(low, out_low) and np.array_equal(high, out_high) else None


def _set_range(quantizer: Any, low: float, high: float) -> None:
    from openvino import opset13

    for index, bound in enumerate((low, high, low, high), 1):
        quantizer.input(index).replace_source_output(opset13.constant(np.float32(bound)).output(0))


def _weights(conv: Any) -> tuple[Any, Any] | None:
    """A convolution's integers and their scale, both Constants; None where its weights are not stored so."""
    product = conv.input_value(1).get_node()
    if product.get_type_name() != "Multiply":
        return None
    convert, scale = product.input_value(0).get_node(), product.input_value(1).get_node()
    if convert.get_type_name() != "Convert" or scale.get_type_name() != "Constant":
        return None
    stored = convert.input_value(0).get_node()
    return (stored, scale) if stored.get_type_name() == "Constant" else None


def _before(quantizer: Any) -> list[Any] | None:
    """The convolution that makes what a quantizer takes, and the biases since; None where anything else is between."""
    nodes: list[Any] = []
    output = quantizer.input_value(0)
    while len(output.get_target_inputs()) == 1:
        node = output.get_node()
        kind = node.get_type_name()
        if kind in _CONVOLUTIONS:
            return [*nodes, node] if _weights(node) else None
        if kind == "Add" and (side := _bias_side(node)) is not None:
            nodes.append(node)
            output = node.input_value(1 - side)
        elif kind == "Relu":
            output = node.input_value(0)
        else:
            return None
    return None


def _bias_side(add: Any) -> int | None:
    sides = [side for side in range(2) if add.input_value(side).get_node().get_type_name() == "Constant"]
    return sides[0] if sides else None


def _scale(node: Any, factor: Doubles, *, inputs: bool = False) -> None:
    """Multiply what a convolution makes, or what it takes, or a bias, by one number or one for each channel."""
    from openvino import opset13

    if node.get_type_name() == "Add":
        side = _bias_side(node) or 0
        bias = np.asarray(node.input_value(side).get_node().data, np.float64)
        node.input(side).replace_source_output(opset13.constant((bias * factor).astype(np.float32)).output(0))
        return
    weights = _weights(node)
    if weights is None:  # `_before` and `_can_take` have looked
        raise ValueError(f"{node.get_friendly_name()} has no weights stored as integers")
    stored, scale = weights
    shape = tuple(node.input_value(1).get_shape())
    if factor.size > 1:
        # Weights are (outputs, inputs, h, w), or (groups, outputs each, inputs each, h, w).
        outputs = shape[:2] if len(shape) == 5 and not inputs else shape[:1]
        factor = factor.reshape(*outputs, *[1] * (len(shape) - len(outputs)))
    new = (np.asarray(scale.data, np.float64) * factor).astype(np.float32)
    # Weights of its own: a layer that runs twice in a frame has other ranges the other time.
    own = opset13.constant(np.array(stored.data), dtype=stored.get_element_type(), name=stored.get_friendly_name())
    own = opset13.convert(own, "f32")
    product = opset13.multiply(own, opset13.constant(new), name=node.input_value(1).get_node().get_friendly_name())
    node.input(1).replace_source_output(product.output(0))


def per_tensor_activations(model: Any) -> int:
    """Leave no activation of an ONNX model with a scale for each channel; returns how many had one.

    The scales go into the weights before and behind, the integers stay the same. Where anything but one convolution
    makes the tensor, a product with one factor a channel takes the place of the weights before, if it is worth its time
    (`UNEVEN`); else, and where anything but depthwise layers reads the tensor, all channels get the largest scale.

    Args:
        model: with signed quantize/dequantize pairs, its weights stored as INT8; changed in place.
    """
    found = _Pairs(model).per_tensor()
    drop_unread(model)
    return found


class _Pairs:
    """The quantize/dequantize pairs of an ONNX model, with who makes and reads what."""

    def __init__(self, model: Any) -> None:
        from onnx import numpy_helper

        self.graph = model.graph
        self.values = {tensor.name: numpy_helper.to_array(tensor) for tensor in self.graph.initializer}
        self.makers = {name: node for node in self.graph.node for name in node.output}
        self.readers: dict[str, list[Any]] = {}
        for node in self.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.outputs = {output.name for output in self.graph.output}

    def per_tensor(self) -> int:
        found = [
            node for node in self.graph.node if node.op_type == "QuantizeLinear" and self.values[node.input[1]].size > 1
        ]
        for number, quantize in enumerate(found):
            scales = self.values[quantize.input[1]].astype(np.float64)
            step = scales.max()
            pairs = [quantize, *self.readers[quantize.output[0]]]
            before = self._conv_before(quantize)
            users = [user for node in pairs[1:] for user in self.readers[node.output[0]]]
            if all(map(self._is_depthwise, users)) and (before is not None or step > UNEVEN * np.median(scales)):
                if before is None:
                    self._multiply(quantize, step / scales, f"{number}_made")
                else:
                    self._scale(before, step / scales, f"{number}_made", bias=True)
                for index, user in enumerate(users):
                    self._scale(user, scales / step, f"{number}_read_{index}", bias=False)
            scale = self._keep(f"{quantize.output[0]}_step", np.array(step, np.float32))
            zero = self._keep(f"{quantize.output[0]}_zero", np.array(0, self.values[quantize.input[2]].dtype))
            for node in pairs:
                node.input[1:3] = [scale, zero]
                del node.attribute[:]
        return len(found)

    def _conv_before(self, quantize: Any) -> Any | None:
        """The convolution that alone makes what is quantized, past a ReLU, with its weights stored as INT8."""
        name = quantize.input[0]
        while len(self.readers[name]) == 1 and name not in self.outputs:
            node = self.makers.get(name)
            if node is None or node.op_type not in ("Relu", "Identity", "Conv"):
                return None
            if node.op_type == "Conv":
                return node if self._has_weights(node) else None
            name = node.input[0]
        return None

    def _has_weights(self, conv: Any) -> bool:
        stored = self.makers.get(conv.input[1])
        return stored is not None and stored.op_type == "DequantizeLinear" and stored.input[0] in self.values

    def _is_depthwise(self, node: Any) -> bool:
        if node.op_type != "Conv" or not self._has_weights(node):
            return False
        shape = self.values[self.makers[node.input[1]].input[0]].shape
        groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
        return bool(groups == shape[0] and shape[1] == 1)

    def _scale(self, conv: Any, factors: Doubles, name: str, *, bias: bool) -> None:
        """Multiply each output channel; in weights of the convolution's own, since another may share them."""
        from onnx import helper

        stored = self.makers[conv.input[1]]
        scale = np.broadcast_to(self.values[stored.input[1]].astype(np.float64), factors.shape) * factors
        zero = np.zeros(factors.shape, self.values[stored.input[2]].dtype)
        inputs = [
            stored.input[0],
            self._keep(f"scale_{name}", scale.astype(np.float32)),
            self._keep(f"zero_{name}", zero),
        ]
        own = helper.make_node("DequantizeLinear", inputs, [f"weight_{name}"], f"weight_{name}", axis=0)
        self.graph.node.insert(list(self.graph.node).index(conv), own)
        self.makers[own.output[0]] = own
        conv.input[1] = own.output[0]
        if bias and len(conv.input) > 2:
            conv.input[2] = self._keep(f"bias_{name}", (self.values[conv.input[2]] * factors).astype(np.float32))

    def _multiply(self, quantize: Any, factors: Doubles, name: str) -> None:
        """Multiply each channel of what is quantized: of a tensor that a depthwise layer reads, (1, C, H, W)."""
        from onnx import helper

        factor = self._keep(f"factor_{name}", factors.reshape(1, -1, 1, 1).astype(np.float32))
        product = helper.make_node("Mul", [quantize.input[0], factor], [f"even_{name}"], f"even_{name}")
        self.graph.node.insert(list(self.graph.node).index(quantize), product)
        self.makers[product.output[0]] = product
        quantize.input[0] = product.output[0]

    def _keep(self, name: str, value: NDArray[Any]) -> str:
        from onnx import numpy_helper

        self.graph.initializer.append(numpy_helper.from_array(value, name))
        self.values[name] = value
        return name
