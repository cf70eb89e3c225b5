"""Typed FP16 in ONNX: half precision throughout but where observed values or sums would not survive it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgetrack.export.lowering import Inputs

LARGEST = 65504.0
HEADROOM = 8.0
"""A node stays in FP32 where an observed value comes nearer than this factor to the largest half-precision number."""
KEPT_TYPES = ("ReduceMean", "ReduceSum", "Softmax", "Exp", "Sqrt", "Pow")
"""Sums over many elements, and what makes large numbers of small ones."""
OBSERVED = 8
"""Crops on which ranges are observed: extremes of activations, not their distribution, are wanted."""


def to_half(model: Any, inputs: Sequence[Inputs], kept: Sequence[str]) -> tuple[Any, tuple[str, ...]]:
    """A copy with casts to and from FP16; inputs and outputs of the graph keep their types.

    Args:
        model: ONNX, FP32.
        inputs: what it is fed; ranges are observed on a few of them.
        kept: regular expressions for the whole names of nodes that stay in FP32.

    Returns:
        The model, and the names of the nodes that stayed for their observed range.
    """
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    wide = _out_of_range(model, inputs[:: max(1, len(inputs) // OBSERVED)])
    patterns = [re.compile(text) for text in kept]
    named = [node.name for node in model.graph.node if any(p.fullmatch(node.name) for p in patterns)]
    half = convert_float_to_float16(
        model,
        keep_io_types=True,
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, *KEPT_TYPES],
        node_block_list=sorted({*named, *wide}),
    )
    _drop_repeated(half)
    _join_kept(half)
    # The converter appends the casts of inputs behind their readers, which the standard forbids.
    OnnxModel(half).topological_sort(is_deterministic=True)
    return half, tuple(wide)


def _drop_repeated(model: Any) -> None:
    """The converter writes the same cast once for every use of a tensor by kept nodes; one of them is enough."""
    seen: set[str] = set()
    for node in list(model.graph.node):
        if node.op_type == "Cast" and node.output[0] in seen:
            model.graph.node.remove(node)
        seen.update(node.output)


def _join_kept(model: Any) -> None:
    """Between two kept nodes the converter casts to FP16 and back, which large values do not survive: leave it out."""
    from onnx import TensorProto

    casts = {node.output[0]: node for node in model.graph.node if node.op_type == "Cast"}
    outputs = {output.name for output in model.graph.output}
    whole = {}
    for name, node in casts.items():
        before = casts.get(node.input[0])
        back = _to(node) == TensorProto.FLOAT and before is not None and _to(before) == TensorProto.FLOAT16
        if back and before is not None and name not in outputs:
            whole[name] = before.input[0]
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = whole.get(name, name)
    used = {name for node in model.graph.node for name in node.input} | outputs
    while dead := [node for node in model.graph.node if node.op_type == "Cast" and node.output[0] not in used]:
        for node in dead:
            model.graph.node.remove(node)
        used = {name for node in model.graph.node for name in node.input} | outputs


def _to(cast: Any) -> int:
    return int(next(attribute.i for attribute in cast.attribute if attribute.name == "to"))


def _out_of_range(model: Any, inputs: Sequence[Inputs]) -> list[str]:
    """Names of nodes that read or write a value near or beyond FP16's range, in the graph's order."""
    import onnx
    import onnxruntime

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    known = {output.name for output in watched.graph.output}
    floats = {
        info.name
        for info in (*watched.graph.value_info, *watched.graph.output)
        if info.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    watched.graph.output.extend(info for info in watched.graph.value_info if info.name in floats - known)
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    largest = dict.fromkeys(names, 0.0)
    for fed in inputs:
        for name, value in zip(names, session.run(names, dict(fed)), strict=True):
            if name in floats:
                largest[name] = max(largest[name], float(np.abs(value).max(initial=0.0)))
    limit = LARGEST / HEADROOM
    return [
        node.name
        for node in model.graph.node
        if any(largest.get(name, 0.0) > limit for name in (*node.input, *node.output))
    ]
