"""Quantize/dequantize pairs in ONNX as TensorRT and ONNX Runtime both take them: signed, symmetric, weights as INT8.

NNCF leaves UINT8 pairs behind ReLUs and every weight as an FP32 tensor behind a QuantizeLinear. TensorRT reads UINT8
pairs as INT8, which silently clips the upper half of the range, and keeps such weights in FP32: the engine is then
larger than an FP16 one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetrack.errors import EdgetrackError


def signed(model: Any) -> None:
    """Make every pair INT8 with zero point 0, in place: a UINT8 one with zero point 0 gets twice the scale.

    Raises:
        EdgetrackError: a pair has another zero point, so that no symmetric pair covers its range alike.
    """
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    doubled: set[str] = set()
    for node in _pairs(model):
        zero = constants.get(node.input[2]) if len(node.input) > 2 else None
        if zero is None:
            raise EdgetrackError(f"{node.op_type} {node.name!r} has no stored zero point; it cannot be made signed")
        point = numpy_helper.to_array(zero)
        if point.dtype == np.int8 and not point.any():
            continue
        if point.dtype != np.uint8 or point.any():
            raise EdgetrackError(
                f"{node.op_type} {node.name!r} is not symmetric (zero point {point.ravel()[0]} of {point.dtype}); "
                "quantize with the symmetric preset"
            )
        doubled.add(node.input[1])
    for node in _pairs(model):
        if node.input[1] in doubled:
            zero = constants[node.input[2]]
            zero.CopyFrom(numpy_helper.from_array(np.zeros(tuple(zero.dims), np.int8), zero.name))
    for name in doubled:
        scale = constants[name]
        # 256 steps from -128: 0..255 of the old scale is 0..127.5 of twice that.
        scale.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(scale), name))
    _declare_signed(model)


def _declare_signed(model: Any) -> None:
    """Types of integers and zero points, which the file may state a second time: the checker compares them."""
    from onnx import TensorProto

    integers = {node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    integers.update(node.input[2] for node in _pairs(model))
    for info in model.graph.value_info:
        if info.name in integers:
            info.type.tensor_type.elem_type = TensorProto.INT8


def fold_weights(model: Any) -> int:
    """Store quantized constants as INT8 behind their DequantizeLinear, in place; returns how many there were."""
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    folded = []
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] not in constants:
            continue
        weight, scale, zero = (numpy_helper.to_array(constants[name]) for name in node.input)
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        stored = numpy_helper.from_array(quantized(weight, scale, zero, axis), f"{node.output[0]}_int8")
        model.graph.initializer.append(stored)
        for user in model.graph.node:
            for index, name in enumerate(user.input):
                if name == node.output[0]:
                    user.input[index] = stored.name
        folded.append(node)
    for node in folded:
        model.graph.node.remove(node)
    _drop_unused(model)
    return len(folded)


def quantized(
    values: NDArray[Any], scale: NDArray[Any], zero: NDArray[Any], axis: int
) -> NDArray[np.int8] | NDArray[np.uint8]:
    """QuantizeLinear of ONNX (opset 13): round half to even, then saturate to the zero point's type."""
    shape = [1] * values.ndim
    if scale.ndim:
        shape[axis] = -1
    steps = np.rint(values / scale.reshape(shape)) + zero.astype(np.float64).reshape(shape)
    limits = np.iinfo(zero.dtype)
    found: NDArray[np.int8] = np.clip(steps, limits.min, limits.max).astype(zero.dtype)
    return found


def quantized_types(model: Any) -> set[str]:
    """The integer types that a model's pairs have, such as {"int8"}."""
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    return {
        str(numpy_helper.to_array(constants[node.input[2]]).dtype)
        for node in _pairs(model)
        if len(node.input) > 2 and node.input[2] in constants
    }


def _pairs(model: Any) -> list[Any]:
    return [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]


def _drop_unused(model: Any) -> None:
    used = {name for node in model.graph.node for name in node.input}
    used.update(output.name for output in model.graph.output)
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in used]:
        model.graph.initializer.remove(tensor)
