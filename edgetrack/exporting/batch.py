"""A graph of one target to the same graph of N: every tensor that depends on an input gets a leading N.

An ONNX model of fixed shapes is rewritten node by node. A tensor of shape (1, ...) becomes (N, ...), one of any other
shape becomes (N, *shape). No rule lets an operator reach across the new axis, so rows never mix; nodes keep their
names, so stages hold. An export compares every row with the graph of one target (docs/run.md, Several targets).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from torch import nn

from edgetrack.arrays import Array
from edgetrack.bundle.manifest import batch_shape
from edgetrack.errors import UsageError
from edgetrack.exporting.onnx_model import dtype_of, open_session, opset_of, reads
from edgetrack.exporting.parity import count_flops
from edgetrack.models.base import GraphModule

Sides = tuple[int, ...]
# fmt: off
ELEMENTWISE = frozenset((
    "Abs", "Add", "And", "Cast", "Ceil", "Clip", "Cos", "DequantizeLinear", "Div", "Dropout", "Elu", "Equal", "Erf",
    "Exp", "Expand", "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu",
    "Less", "LessOrEqual", "Log", "Max", "Min", "Mish", "Mul", "Neg", "Not", "Or", "Pow", "PRelu", "QuantizeLinear",
    "Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Sin", "Softplus", "Sqrt", "Sub", "Tanh", "Where",
))
"""A number of the output depends on one number of each input, by broadcasting."""
RESHAPES = frozenset(("Flatten", "Reshape", "Squeeze", "Unsqueeze"))
LEADING = frozenset((
    "AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "DepthToSpace", "GlobalAveragePool", "GlobalMaxPool",
    "InstanceNormalization", "MaxPool", "SpaceToDepth",
))
"""The first axis is ONNX's own batch; what is not the first input is the same for all of it."""
# fmt: on
REDUCTIONS = frozenset(["ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"])
ALONG = {
    **dict.fromkeys(("ArgMax", "ArgMin", "Concat", "Gather", "GatherElements", "ScatterElements", "Split"), 0),
    **dict.fromkeys(("LayerNormalization", "LogSoftmax", "Softmax", "TopK"), -1),
}
"""Operators along one axis, and which it is where none is named."""


class ManyTargets(nn.Module):
    """A `step` for several targets; not run in PyTorch, `to_onnx` writes it."""

    def __init__(self, step: GraphModule, count: int) -> None:
        super().__init__()
        self.step, self.count = step, count

    def flops(self) -> int:
        """Of one run."""
        return self.count * count_flops(self.step)


def for_many(step: GraphModule, count: int) -> GraphModule:
    """Graph `batch`: `step` for `count` targets, every input and output with a row for each."""
    inputs, outputs = (
        tuple(msgspec.structs.replace(t, shape=batch_shape(t.shape, count)) for t in side)
        for side in (step.inputs, step.outputs)
    )
    return GraphModule("batch", "batch", ManyTargets(step, count), inputs, outputs)


def batched(model: Any, count: int) -> Any:
    """The model for `count` targets; see the module.

    Args:
        model: of fixed shapes, as `to_onnx` writes it; not changed.
        count: rows, 2 or more.

    Raises:
        UsageError: an operator for which there is no rule; the message names its node.
    """
    import onnx

    result = onnx.helper.make_model(_Rewriter(model, count).graph(), opset_imports=model.opset_import)
    result.ir_version = model.ir_version
    return result


def _run_once(model: Any) -> dict[str, Array]:
    """All tensors of a run on zeros: their shapes, and the values of those that depend on no input."""
    import onnx

    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    known = {value.name for value in whole.graph.output}
    names = [name for node in whole.graph.node for name in node.output if name]
    whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    session = open_session(whole, f"graph {model.graph.name!r}")
    feed = {
        value.name: np.zeros([d.dim_value for d in value.type.tensor_type.shape.dim], dtype_of(value))
        for value in model.graph.input
        if value.name not in {tensor.name for tensor in model.graph.initializer}
    }
    outputs = [value.name for value in session.get_outputs()]
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    return weights | feed | dict(zip(outputs, session.run(outputs, feed), strict=True))


class _Rewriter:
    """Writes the nodes of a model anew.

    Between two rules a tensor that depends on an input has the shape `batch_shape`; a rule asks for another one by
    `_shaped`, such as (N, *shape), in which every axis has moved by one.
    """

    def __init__(self, model: Any, count: int) -> None:
        import onnx

        self.onnx, self.count, self.opset = onnx, count, opset_of(model)
        self.source = model.graph
        self.initializers = list(self.source.initializer)
        self.tensors = _run_once(model)
        self.rows: set[str] = set()
        """Tensors that depend on an input."""
        self.kept = {value.name for value in self.source.output}
        self.same: dict[str, str] = {}
        """Tensors of which another has the numbers in the shape that is wanted."""
        self.nodes: list[Any] = []
        self.made: dict[tuple[str, Sides], str] = {}

    def graph(self) -> Any:
        """The new graph."""
        make, own = self.onnx.helper.make_graph, {tensor.name for tensor in self.source.initializer}
        inputs = [value for value in self.source.input if value.name not in own]
        self.rows.update(value.name for value in inputs)
        for node in self.source.node:
            self._node(node)
        for node in self.nodes:
            names = [self._found(name) for name in node.input]
            del node.input[:]
            node.input.extend(names)
        sides = [[self._info(value) for value in values] for values in (inputs, self.source.output)]
        if fixed := [value.name for value in self.source.output if value.name not in self.rows]:
            raise UsageError(f"output {fixed[0]!r} depends on no input, so it is the same for all targets")
        nodes, needed = list[Any](), {value.name for value in self.source.output}
        for node in reversed(self.nodes):
            # What shapes were computed from is read no more.
            if needed.intersection(node.output):
                nodes.insert(0, node)
                needed.update(reads(node))
        weights = [tensor for tensor in self.initializers if tensor.name in needed]
        return make(nodes, self.source.name, *sides, weights)

    def _found(self, name: str) -> str:
        while name in self.same:
            name = self.same[name]
        return name

    def _info(self, value: Any) -> Any:
        shape = batch_shape(self._shape(value.name), self.count)
        return self.onnx.helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, shape)

    def _node(self, node: Any) -> None:
        kind = node.op_type
        if not any(name in self.rows for name in node.input):
            self.nodes.append(self._copy(node))
            return
        if kind in ("Shape", "Size"):
            self._sizes(node)
            return
        rule = self._rule(kind)
        unknown = [name for name in (*node.input, *node.output) if name and name not in self.tensors]
        if rule is None or node.domain not in ("", "ai.onnx") or unknown:
            raise self._refused(node, f"tensor {unknown[0]!r} was not computed" if unknown else "there is no rule")
        rule(node)
        self.rows.update(name for name in node.output if name)

    def _rule(self, kind: str) -> Callable[[Any], None] | None:
        for kinds, rule in ((ELEMENTWISE, self._elementwise), (RESHAPES, self._reshape), (LEADING, self._leading)):
            if kind in kinds:
                return rule
        if kind in REDUCTIONS:
            return self._reduce
        if kind in ALONG:
            return self._along
        single = {
            "CumSum": self._cumsum,
            "Gemm": self._gemm,
            "MatMul": self._matmul,
            "Pad": self._pad,
            "Slice": self._slice,
            "Tile": self._tile,
            "Transpose": self._transpose,
        }
        return single.get(kind)

    def _refused(self, node: Any, why: str) -> UsageError:
        return UsageError(
            f"graph {self.source.name!r} cannot be made for {self.count} targets: node {node.name!r} ({node.op_type}): "
            f"{why}; export it without --batch"
        )

    # What rules are made of

    def _shape(self, name: str) -> Sides:
        """Of the tensor of one target."""
        return self.tensors[name].shape

    def _constant(self, values: Any) -> str:
        array = np.array(values, np.int64)
        name = f"rows/constant_{len(self.initializers)}"
        self.initializers.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def _values(self, node: Any, name: str) -> list[int]:
        """Whole numbers that no input of the graph reaches."""
        if name in self.rows:
            raise self._refused(node, f"its {name!r} depends on the input")
        return [int(value) for value in self.tensors[name].reshape(-1)]

    def _copy(self, node: Any) -> Any:
        new = self.onnx.NodeProto()
        new.CopyFrom(node)
        return new

    def _given(self, node: Any, position: int) -> str:
        return str(node.input[position]) if len(node.input) > position else ""

    def _attribute(self, node: Any, name: str, default: Any) -> Any:
        found = [a for a in node.attribute if a.name == name]
        return self.onnx.helper.get_attribute_value(found[0]) if found else default

    def _whole(self, name: str) -> Sides:
        """(N, *shape): every axis has moved by one."""
        return (self.count, *self._shape(name))

    def _shaped(self, name: str, wanted: Sides) -> str:
        """A tensor in another shape of the same numbers; one that no input reaches is repeated for all rows."""
        if name in self.rows and batch_shape(self._shape(name), self.count) == wanted:
            return name
        if (name, wanted) not in self.made:
            new = f"{name}/rows_{len(self.made)}"
            kind = "Reshape" if name in self.rows else "Expand"
            self.nodes.append(self.onnx.helper.make_node(kind, [name, self._constant(wanted)], [new], name=new))
            self.made[name, wanted] = new
        return self.made[name, wanted]

    def _emit(self, node: Any, inputs: Sequence[str], shapes: Sequence[Sides], **attributes: Any) -> None:
        """The node on other inputs, with some attributes set; `shapes` are what its outputs come out in."""
        new = self._copy(node)
        del new.input[:]
        new.input.extend(inputs)
        kept = [a for a in node.attribute if a.name not in attributes]
        del new.attribute[:]
        new.attribute.extend(kept)
        new.attribute.extend(self.onnx.helper.make_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(new)
        for position, (name, shape) in enumerate(zip(node.output, shapes, strict=False)):
            wanted = batch_shape(self._shape(name), self.count) if name else shape
            if shape != wanted:
                new.output[position] = f"{name}/whole"
                again = [new.output[position], self._constant(wanted)]
                self.nodes.append(self.onnx.helper.make_node("Reshape", again, [name], name=f"{name}/rows"))

    def _as_is(self, node: Any, **attributes: Any) -> None:
        self._emit(node, node.input, [batch_shape(self._shape(n), self.count) for n in node.output], **attributes)

    def _moved(self, node: Any, inputs: Sequence[str], **attributes: Any) -> None:
        """The node on tensors whose axes have moved by one, and so have those of its outputs."""
        self._emit(node, inputs, [self._whole(name) for name in node.output], **attributes)

    def _leads(self, *names: str) -> bool:
        """Whether the tensors begin with a 1, in the place of which N stands."""
        return all(self._shape(name)[:1] == (1,) for name in names)

    # The rules

    def _sizes(self, node: Any) -> None:
        """The sizes of one target's tensor: whatever is computed of them is that of one target, too."""
        shape = self._shape(node.input[0])
        start, end = self._attribute(node, "start", 0), self._attribute(node, "end", len(shape))
        values = shape[start:end] if node.op_type == "Shape" else math.prod(shape)
        self.initializers.append(self.onnx.numpy_helper.from_array(np.array(values, np.int64), node.output[0]))

    def _elementwise(self, node: Any) -> None:
        out = self._shape(node.output[0])
        leads = self._leads(node.output[0])
        rank = len(out) if leads else len(out) + 1
        inputs = []
        for position, name in enumerate(node.input):
            if name not in self.rows:
                # What an Expand is expanded to is the one input that is no operand.
                to = node.op_type == "Expand" and position == 1
                inputs.append(self._constant(batch_shape(out, self.count)) if to else name)
                continue
            shape = self._shape(name)
            tail = shape[1:] if leads and len(shape) == len(out) else shape
            inputs.append(self._shaped(name, (self.count, *(1,) * (rank - 1 - len(tail)), *tail)))
        # With a step for each channel, which is along axis 1 where none is named.
        channels = node.op_type in ("QuantizeLinear", "DequantizeLinear") and self._shape(node.input[1]) != ()
        axis = self._attribute(node, "axis", 1 if channels else None)
        moved = {} if axis is None or leads else {"axis": axis + (1 if axis >= 0 else 0)}
        self._emit(node, inputs, [batch_shape(out, self.count)], **moved)

    def _reshape(self, node: Any) -> None:
        name, out = node.input[0], node.output[0]
        wanted = batch_shape(self._shape(out), self.count)
        if batch_shape(self._shape(name), self.count) == wanted and out not in self.kept:
            # One tensor by two names: an Identity in its place would have OpenVINO rename an input.
            self.same[out] = name
            return
        self.nodes.append(self.onnx.helper.make_node("Reshape", [name, self._constant(wanted)], [out], name=node.name))

    def _leading(self, node: Any) -> None:
        first, *others = node.input
        if first not in self.rows or any(name in self.rows for name in others):
            raise self._refused(node, "its parameters depend on the input")
        if len(node.output) > 1:
            raise self._refused(node, "it has more than one output")
        shape, out = self._shape(first), self._shape(node.output[0])
        wanted, found = ((self.count * s[0], *s[1:]) for s in (shape, out))
        self._emit(node, [self._shaped(first, wanted), *others], [found])

    def _reduce(self, node: Any) -> None:
        name, listed = node.input[0], self._given(node, 1)
        axes = self._values(node, listed) if listed else list(self._attribute(node, "axes", ()))
        rank = len(self._shape(name))
        axes = [axis % rank for axis in axes] or list(range(rank))
        if 0 not in axes and self._leads(name):
            self._as_is(node)
            return
        moved = [axis + 1 for axis in axes]
        inside = self.opset >= (13 if node.op_type == "ReduceSum" else 18)
        inputs = [self._shaped(name, self._whole(name)), *([self._constant(moved)] if inside else [])]
        self._moved(node, inputs, **({} if inside else {"axes": moved}))

    def _along(self, node: Any) -> None:
        kind, data = node.op_type, node.input[0]
        before_13 = self.opset < 13 and kind in ("Softmax", "LogSoftmax")
        axis = self._attribute(node, "axis", 1 if before_13 else ALONG[kind]) % len(self._shape(data))
        operands = len(node.input) if kind in ("Concat", "GatherElements", "ScatterElements") else 1
        names, others = list(node.input[:operands]), list(node.input[operands:])
        if (data not in self.rows and operands == 1) or any(name in self.rows for name in others):
            raise self._refused(node, "an input that is no operand depends on the input of the graph")
        if axis and self._leads(*names):
            inputs = [self._shaped(name, batch_shape(self._shape(name), self.count)) for name in names]
            self._emit(node, [*inputs, *others], [batch_shape(self._shape(n), self.count) for n in node.output])
            return
        self._moved(node, [*(self._shaped(name, self._whole(name)) for name in names), *others], axis=axis + 1)

    def _cumsum(self, node: Any) -> None:
        data, (axis,) = node.input[0], self._values(node, node.input[1])
        moved = self._constant(axis % len(self._shape(data)) + 1)
        self._moved(node, [self._shaped(data, self._whole(data)), moved])

    def _slice(self, node: Any) -> None:
        data, rank = node.input[0], len(self._shape(node.input[0]))
        starts, ends = (self._values(node, name) for name in node.input[1:3])
        listed, steps = self._given(node, 3), self._given(node, 4)
        axes = [axis % rank for axis in self._values(node, listed)] if listed else list(range(len(starts)))
        if 0 not in axes and self._leads(data):
            self._as_is(node)
            return
        numbers = [starts, ends, [axis + 1 for axis in axes], self._values(node, steps) if steps else [1] * len(axes)]
        self._moved(node, [self._shaped(data, self._whole(data)), *map(self._constant, numbers)])

    def _pad(self, node: Any) -> None:
        data, rank = node.input[0], len(self._shape(node.input[0]))
        pads, listed = self._values(node, node.input[1]), self._given(node, 3)
        axes = [axis % rank for axis in self._values(node, listed)] if listed else list(range(rank))
        whole = [0] * (2 * rank)
        for place, axis in enumerate(axes):
            whole[axis], whole[rank + axis] = pads[place], pads[len(axes) + place]
        leads = self._leads(data) and whole[0] == whole[rank] == 0
        if not leads:
            whole = [0, *whole[:rank], 0, *whole[rank:]]
        inputs = [data if leads else self._shaped(data, self._whole(data)), self._constant(whole)]
        inputs += [self._given(node, 2)] if self._given(node, 2) else []
        shapes = [self._whole(node.output[0])]
        self._emit(node, inputs, [batch_shape(self._shape(node.output[0]), self.count)] if leads else shapes)

    def _tile(self, node: Any) -> None:
        data, repeats = node.input[0], self._values(node, node.input[1])
        if repeats[0] == 1 and self._leads(data):
            self._as_is(node)
        else:
            self._moved(node, [self._shaped(data, self._whole(data)), self._constant([1, *repeats])])

    def _transpose(self, node: Any) -> None:
        data = node.input[0]
        order = list(self._attribute(node, "perm", range(len(self._shape(data)))[::-1]))
        if order[0] == 0 and self._leads(data):
            self._as_is(node)
        else:
            self._moved(node, [self._shaped(data, self._whole(data))], perm=[0, *(axis + 1 for axis in order)])

    def _matmul(self, node: Any) -> None:
        shapes = [self._shape(name) for name in node.input]
        rank = max(map(len, shapes))
        if min(map(len, shapes)) < 2:
            raise self._refused(node, "an operand is a vector")
        first, second = (name in self.rows for name in node.input)
        alike = first and second and len(shapes[0]) == len(shapes[1]) > 2 and self._leads(*node.input)
        if alike or (first and not second and len(shapes[1]) == 2):
            self._as_is(node)
            return
        inputs = [
            self._shaped(name, (self.count, *(1,) * (rank - len(shape)), *shape)) if name in self.rows else name
            for name, shape in zip(node.input, shapes, strict=True)
        ]
        self._moved(node, inputs)

    def _gemm(self, node: Any) -> None:
        first, *others = node.input
        added = self._shape(others[1]) if len(others) > 1 and others[1] else ()
        if first not in self.rows or any(name in self.rows for name in others) or self._attribute(node, "transA", 0):
            raise self._refused(node, "its parameters depend on the input")
        if len(added) == 2 and added[0] != 1:
            raise self._refused(node, "it adds a matrix")
        wanted, found = ((self.count * s[0], s[1]) for s in (self._shape(first), self._shape(node.output[0])))
        self._emit(node, [self._shaped(first, wanted), *others], [found])
