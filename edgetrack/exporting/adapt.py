"""Writes what a recipe says of given ONNX files into graphs of roles: pre- and post-processing around their nodes.

`edgetrack.exporting.given_run` does the same in NumPy around the untouched files, so that parity holds one against the
other (docs/onnx.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from edgetrack.arrays import Array
from edgetrack.errors import CheckpointError, UsageError
from edgetrack.exporting.given import IMAGES, MASKS, GivenGraph, GivenInput, GivenOutput, Normalisation
from edgetrack.exporting.onnx_model import dims_of, dtype_of, open_session, opset_of, read_onnx, reads, sizes_of


class Sizes(NamedTuple):
    """Sides of the crops in pixels, and the normalisation that the configuration names."""

    search: int
    template: int
    compat: str = "none"

    def of(self, role: str) -> int:
        """The side of a role's image or mask."""
        return self.search if role.startswith("search") else self.template


def joined(graph: GivenGraph, paths: Mapping[str, Path]) -> Any:
    """The files of a graph as one ONNX model; names begin with the file's where there are several.

    Raises:
        CheckpointError: a file cannot be read, or the files cannot be joined.
        UsageError: a link names nothing.
    """
    import onnx
    from onnx import compose, version_converter

    models = [read_onnx(paths[file]) for file in graph.files]
    if len(models) == 1:
        return models[0]
    newest = max(opset_of(model) for model in models)
    whole: Any = None
    for file, model in zip(graph.files, models, strict=True):
        try:
            if opset_of(model) != newest:
                model = version_converter.convert_version(model, newest)
            model.ir_version = models[0].ir_version
            model = compose.add_prefix(model, f"{file}/")
            if whole is None:
                whole = model
                continue
            here = {name.name for name in model.graph.input}
            there = {name.name for name in whole.graph.output}
            links = [(source, target) for target, source in graph.links.items() if target in here]
            if lost := [source for source, _ in links if source not in there]:
                raise UsageError(f"links: {lost[0]!r} is no output; there are: {', '.join(sorted(there))}")
            if not links:
                raise UsageError(f"links: no input of {file!r} is fed; it has: {', '.join(sorted(here))}")
            whole = compose.merge_models(whole, model, links, outputs=[*there, *(o.name for o in model.graph.output)])
        except (ValueError, TypeError, RuntimeError, onnx.checker.ValidationError) as error:
            raise CheckpointError(f"{paths[file]}: cannot be joined with the others: {error}") from None
    return whole


def adapt(name: str, graph: GivenGraph, paths: Mapping[str, Path], sizes: Sizes, *, head: str) -> Any:
    """The ONNX model of a bundle's graph: roles as inputs and outputs, what lies between as given.

    Args:
        name: of the graph.
        graph: what it is made of.
        paths: file -> where it lies.
        sizes: of the crops.
        head: whose outputs they are, see `Procedure.head`.

    Raises:
        UsageError: the recipe and the files do not fit one another; the message says what to write.
        CheckpointError: a file cannot be read.
    """
    import onnx

    whole = joined(graph, paths)
    what = f"graph {name!r} of {', '.join(str(paths[file]) for file in graph.files)}"
    outputs = {role: _source_name(whole, output, role, what) for role, output in graph.outputs.items()}
    model = _cut(whole, [given.source for given in graph.inputs.values()], list(outputs.values()), graph, what)
    set_shapes(model, graph, sizes, what)
    _fill_constants(model, graph)
    open_inputs = [value for value in model.graph.input if value.name not in {g.source for g in graph.inputs.values()}]
    if open_inputs:
        name = open_inputs[0].name
        raise UsageError(
            f"{what} needs its input {name!r} {dims_of(open_inputs[0])}, which the recipe does not fill; write "
            f'[inputs.ROLE] source = "{name}", or a number under [constants]'
        )
    _Wrapper(model, graph, outputs, sizes, head, what).wrap()
    model.graph.name = name
    if model.ir_version < 8:
        model.ir_version = 8
    del model.graph.value_info[:]
    try:
        model = onnx.shape_inference.infer_shapes(model, check_type=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise CheckpointError(f"{what}: shapes do not fit: {error}") from None
    return model


def _source_name(model: Any, output: GivenOutput, role: str, what: str) -> str:
    names = [value.name for value in model.graph.output]
    if isinstance(output.source, int):
        if output.source >= len(names):
            raise UsageError(
                f"{what} has {len(names)} outputs, no number {output.source} for {role!r}: {', '.join(names)}"
            )
        return str(names[output.source])
    known = set(names) | {name for node in model.graph.node for name in node.output}
    if output.source not in known:
        raise UsageError(
            f"{what} has no tensor {output.source!r} for output {role!r}; its outputs are: {', '.join(names)}"
        )
    return output.source


def _cut(model: Any, inputs: Sequence[str], outputs: Sequence[str], graph: GivenGraph, what: str) -> Any:
    """The part of a model between some tensors."""
    import onnx

    own = {tensor.name for tensor in model.graph.initializer}
    given = [value for value in model.graph.input if value.name not in own]
    made = {name for node in model.graph.node for name in node.output}
    known = made | {value.name for value in given}
    if lost := [name for name in (*inputs, *graph.constants) if name not in known]:
        raise UsageError(
            f"{what} has no tensor {lost[0]!r} to feed; its inputs are: "
            f"{', '.join(f'{value.name} {dims_of(value)}' for value in given)}"
        )
    stop = set(inputs) | set(graph.constants)
    producers = {name: index for index, node in enumerate(model.graph.node) for name in node.output if name}
    wanted, seen = list(outputs), set[int]()
    reached: set[str] = set()
    while wanted:
        name = wanted.pop()
        reached.add(name)
        if name in stop or name not in producers or producers[name] in seen:
            continue
        seen.add(producers[name])
        wanted += reads(model.graph.node[producers[name]])
    if unused := [name for name in inputs if name not in reached]:
        raise UsageError(f"{what}: {unused[0]!r} does not reach the outputs {', '.join(outputs)}; leave it out")
    infos = {value.name: value for value in (*model.graph.value_info, *model.graph.input, *model.graph.output)}
    if any(name not in infos for name in (*inputs, *outputs)):
        inferred = onnx.shape_inference.infer_shapes(model)
        infos = {value.name: value for value in inferred.graph.value_info} | infos
    if unknown := [name for name in (*inputs, *outputs) if name not in infos]:
        raise UsageError(f"{what}: type and shape of tensor {unknown[0]!r} are not known, so it cannot be cut there")
    nodes = [model.graph.node[index] for index in sorted(seen)]
    for index, node in zip(sorted(seen), nodes, strict=True):
        # Unlike a number that a library gave, a name that stages may ask for on every target.
        node.name = f"given/{node.name or f'{node.op_type}_{index}'}"
    kept_inputs = [infos[name] for name in inputs] + [
        value for value in given if value.name in reached and value.name not in inputs
    ]
    # Shapes are found by running it: those of a file may be open, or of another size of crop.
    values = [
        onnx.helper.make_tensor_value_info(name, infos[name].type.tensor_type.elem_type, None) for name in outputs
    ]
    cut = onnx.helper.make_graph(
        nodes, model.graph.name or "graph", kept_inputs, values,
        [tensor for tensor in model.graph.initializer if tensor.name in reached],
    )  # fmt: skip
    result = onnx.helper.make_model(cut, opset_imports=model.opset_import, functions=model.functions)
    result.ir_version = model.ir_version
    return result


def set_shapes(model: Any, graph: GivenGraph, sizes: Sizes, what: str, *, others: bool = True) -> None:
    """Fix what is open; a fixed size of the file holds unless the recipe allows it to be changed.

    `others`: also of inputs that play no role; their open sizes become 1.
    """
    roles = {given.source: (role, given) for role, given in graph.inputs.items()}
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name not in roles:
            for dim in dims:
                if others and not dim.dim_value:
                    dim.dim_value = 1
            continue
        role, given = roles[value.name]
        found = dims_of(value)
        if role in IMAGES:
            if role == "templates" and len(found) == 5 and isinstance(found[1], int):
                given = msgspec.structs.replace(given, count=found[1])
            wanted = given.shape(sizes.of(role))
        elif role in MASKS:
            wanted = (*(1,) * max(0, len(found) - 2), sizes.of(role), sizes.of(role))
        else:
            wanted = tuple(size if isinstance(size, int) else 1 for size in found)
        dtype = dtype_of(value)
        if given.dtype is not msgspec.UNSET and given.dtype != dtype:
            raise UsageError(f'{what}: input {value.name!r} is {dtype}; write dtype = "{dtype}" for {role!r}')
        fixed = [size for size in zip(found, wanted, strict=False) if isinstance(size[0], int)]
        if len(found) != len(wanted) or (any(a != b for a, b in fixed) and not given.reshape):
            raise UsageError(
                f"{what}: input {value.name!r} has shape {found}, the recipe makes {role!r} {wanted} of it"
                f"{_layout_hint(found, sizes.of(role)) if role in IMAGES else ''}"
            )
        for dim, size in zip(dims, wanted, strict=True):
            dim.dim_value = size


def _layout_hint(found: tuple[int | str, ...], size: int) -> str:
    """What to write for a shape that does not fit."""
    guess = {4: {1: "nchw", 3: "nhwc"}, 3: {0: "chw", 2: "hwc"}, 5: {2: "ntchw"}}.get(len(found), {})
    layouts = [layout for axis, layout in guess.items() if found[axis] in (3, 6)]
    if not layouts:
        return "; expected 3 or 6 channels"
    side = found[layouts[0].index("h")]
    if side != size and isinstance(side, int):
        return f'; with layout = "{layouts[0]}" it is an image of {side} pixels: set the size in [procedure] to {side}'
    repeat = found[layouts[0].index("c")] == 6
    return f'; write layout = "{layouts[0]}"' + (" and repeat = 2" if repeat else "")


def _fill_constants(model: Any, graph: GivenGraph) -> None:
    """Turn inputs that have one value into constants."""
    import onnx

    for value in [v for v in model.graph.input if v.name in graph.constants]:
        array = np.full(sizes_of(value), graph.constants[value.name], dtype_of(value))
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
        model.graph.input.remove(value)


def canonical_shape(role: str, head: str, count: int) -> tuple[int, ...] | None:
    """The shape of an output of `count` elements in a family's bundle; None where it stays as it is given."""
    if head == "box":
        return {"box": (4,), "score": (1,)}.get(role)
    channels = {"center": {"score": 1, "size": 2, "offset": 2}, "distances": {"score": 1, "reg": 4}}
    if role not in channels.get(head, {}):
        return None
    of = channels[head][role]
    cells = math.isqrt(count // of)
    if of * cells * cells != count:
        raise UsageError(
            f"output {role!r} has {count} numbers, expected {of} map{'s' if of > 1 else ''} of n x n; are the "
            "outputs in another order? name each by its tensor, or by its index"
        )
    return 1, of, cells, cells


class _Wrapper:
    """Writes pre- and post-processing into a model, in place."""

    def __init__(
        self, model: Any, graph: GivenGraph, outputs: Mapping[str, str], sizes: Sizes, head: str, what: str
    ) -> None:
        import onnx

        self.onnx, self.model, self.given, self.outputs = onnx, model, graph, outputs
        self.sizes, self.head, self.what = sizes, head, what
        self.front: list[Any] = []
        self.back: list[Any] = []
        self.opset = opset_of(model)

    def wrap(self) -> None:
        """Do it: the model's inputs and outputs are the roles afterwards."""
        self._rename()
        shapes = self._output_shapes()
        for role, given in self.given.inputs.items():
            self._input(role, given)
        for role, output in self.given.outputs.items():
            self._output(role, output, shapes[role])
        nodes = [*self.front, *self.model.graph.node, *self.back]
        del self.model.graph.node[:]
        self.model.graph.node.extend(nodes)

    def _rename(self) -> None:
        """Give what is in the file a prefix, where a name of it is a role's."""
        taken = {*self.given.inputs, *self.given.outputs}
        graph = self.model.graph
        names = {value.name for value in graph.input} | {n for node in graph.node for n in (*node.input, *node.output)}
        self.new = {name: f"given/{name}" if name in taken else name for name in names}
        for node in graph.node:
            for side in (node.input, node.output):
                renamed = [self.new.get(name, name) for name in side]
                del side[:]
                side.extend(renamed)
        for value in (*graph.input, *graph.output, *graph.initializer):
            value.name = self.new.get(value.name, value.name)

    def _output_shapes(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype of every output, found by running the graph on zeros."""
        feed = {value.name: np.zeros(sizes_of(value), dtype_of(value)) for value in self.model.graph.input}
        wanted = [self.new.get(name, name) for name in self.outputs.values()]
        session = open_session(self.model, self.what)
        try:
            found = session.run(wanted, feed)
        except Exception as error:  # its classes are private
            raise CheckpointError(f"{self.what} does not run on crops of these sizes: {error}") from None
        return {role: (array.shape, str(array.dtype)) for role, array in zip(self.outputs, found, strict=True)}

    def _add(self, into: list[Any], op: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        into.append(self.onnx.helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def _constant(self, name: str, values: Any, dtype: str) -> str:
        self.model.graph.initializer.append(self.onnx.numpy_helper.from_array(np.array(values, dtype), name))
        return name

    def _cast(self, into: list[Any], source: str, dtype: str, name: str) -> str:
        to = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self._add(into, "Cast", [source], name, to=to)

    def _reshape(self, into: list[Any], source: str, shape: Sequence[int], name: str) -> str:
        return self._add(into, "Reshape", [source, self._constant(f"{name}/shape", shape, "int64")], name)

    def _input(self, role: str, given: GivenInput) -> None:
        (value,) = (v for v in self.model.graph.input if v.name == self.new[given.source])
        shape, dtype = sizes_of(value), dtype_of(value)
        prefix, front, size = f"{role}/given", self.front, self.sizes.of(role)
        helper, types = self.onnx.helper, self.onnx.TensorProto
        if role in IMAGES:
            count = shape[1] if role == "templates" else None
            own: tuple[int, ...] = (size, size, 3) if count is None else (count, size, size, 3)
            info = helper.make_tensor_value_info(role, types.UINT8, own)
            last = self._pixels(role, given.pixels(self.sizes.compat), dtype, prefix)
            axes = len(own)
            if "chw" in given.layout:
                order = [*range(axes - 3), axes - 1, axes - 3, axes - 2]
                last = self._add(front, "Transpose", [last], f"{prefix}/transpose", perm=order)
                channels = axes - 3
            else:
                channels = axes - 1
            if given.repeat == 2:
                last = self._add(front, "Concat", [last, last], f"{prefix}/repeat", axis=channels)
        elif role in MASKS:
            info = helper.make_tensor_value_info(role, types.UINT8, (size, size))
            last = role if dtype == "uint8" else self._cast(front, role, dtype, f"{prefix}/cast")
        else:
            info = helper.make_tensor_value_info(role, types.FLOAT, shape)
            last = role if dtype == "float32" else self._cast(front, role, dtype, f"{prefix}/cast")
        source = self.new[given.source]
        if tuple(d.dim_value for d in info.type.tensor_type.shape.dim) == shape and role not in IMAGES:
            self._add(front, "Identity", [last], source)
        else:
            self._reshape(front, last, shape, source)
        self.model.graph.input.remove(value)
        self.model.graph.input.append(info)

    def _pixels(self, role: str, pixels: Normalisation, dtype: str, prefix: str) -> str:
        front = self.front
        last = role
        if pixels.colour == "rgb":
            order = self._constant(f"{prefix}/order", [2, 1, 0], "int64")
            last = self._add(front, "Gather", [last, order], f"{prefix}/colour", axis=-1)
        if dtype == "uint8":
            return last
        last = self._cast(front, last, "float32", f"{prefix}/float")
        for op, name, values, neutral in (
            ("Mul", "scale", pixels.scale, 1.0),
            ("Sub", "mean", pixels.mean, (0.0, 0.0, 0.0)),
            ("Div", "std", pixels.std, (1.0, 1.0, 1.0)),
        ):
            if values != neutral:
                constant = self._constant(f"{prefix}/{name}/value", values, "float32")
                last = self._add(front, op, [last, constant], f"{prefix}/{name}")
        return last if dtype == "float32" else self._cast(front, last, dtype, f"{prefix}/cast")

    def _output(self, role: str, output: GivenOutput, found: tuple[tuple[int, ...], str]) -> None:
        shape, dtype = found
        prefix, back, last = f"{role}/given", self.back, self.new[self.outputs[role]]
        if dtype != "float32":
            last = self._cast(back, last, "float32", f"{prefix}/float")
        if output.activation == "softmax":
            if len(shape) < 2 or shape[-3 if len(shape) >= 3 else -1] != 2:
                raise UsageError(f"{self.what}: softmax of {role!r} {shape} needs two channels, background and target")
            axis = len(shape) - 3 if len(shape) >= 3 else len(shape) - 1
            last = self._add(back, "Softmax", [last], f"{prefix}/softmax", axis=axis)
            index = self._constant(f"{prefix}/target", [1], "int64")
            last = self._add(back, "Gather", [last, index], f"{prefix}/foreground", axis=axis)
            shape = (*shape[:axis], 1, *shape[axis + 1 :])
        elif output.activation != "none":
            last = self._add(back, output.activation.capitalize(), [last], f"{prefix}/{output.activation}")
        wanted = canonical_shape(role, self.head, math.prod(shape))
        if self.head == "box" and role == "box":
            last, wanted = self._box(last, output, shape, prefix), (4,)
        elif wanted is not None:
            if math.prod(wanted) != math.prod(shape):
                raise UsageError(f"{self.what}: output {role!r} has shape {shape}, expected {wanted}")
            last = self._reshape(back, last, wanted, f"{prefix}/shape")
        self._add(back, "Identity", [last], role)
        (value,) = (v for v in self.model.graph.output if v.name == self.new[self.outputs[role]])
        self.model.graph.output.remove(value)
        self.model.graph.output.append(
            self.onnx.helper.make_tensor_value_info(role, self.onnx.TensorProto.FLOAT, wanted or shape)
        )

    def _box(self, last: str, output: GivenOutput, shape: tuple[int, ...], prefix: str) -> str:
        """(k, 4) boxes to the mean one, centre and size in fractions of the crop."""
        if math.prod(shape) % 4:
            raise UsageError(f"{self.what}: output 'box' has shape {shape}, expected boxes of four numbers")
        count = math.prod(shape) // 4
        back = self.back
        last = self._reshape(back, last, (count, 4), f"{prefix}/rows")
        weights = self._constant(f"{prefix}/mean/weights", np.full((1, count), 1 / count), "float32")
        if count > 1:
            last = self._add(back, "MatMul", [weights, last], f"{prefix}/mean")
        if output.format != "cxcywh" or output.divisor != 1.0:
            matrix = self._constant(f"{prefix}/format/matrix", box_matrix(output), "float32")
            last = self._add(back, "MatMul", [last, matrix], f"{prefix}/format")
        return self._reshape(back, last, (4,), f"{prefix}/box")


def box_matrix(output: GivenOutput) -> Array:
    """What turns a row of four numbers into centre and size in fractions of the crop."""
    columns = {
        "cxcywh": np.eye(4),
        "xywh": [[1, 0, 0, 0], [0, 1, 0, 0], [0.5, 0, 1, 0], [0, 0.5, 0, 1]],
        "xyxy": [[0.5, 0, -1, 0], [0, 0.5, 0, -1], [0.5, 0, 1, 0], [0, 0.5, 0, 1]],
    }[output.format]
    return np.asarray(columns, np.float64) / output.divisor
