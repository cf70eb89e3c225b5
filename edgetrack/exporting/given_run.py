"""Given ONNX files as they are, pre- and post-processing in NumPy around them: what adapted graphs are held against."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np

from edgetrack.arrays import Array
from edgetrack.exporting.adapt import Sizes, box_matrix, canonical_shape, joined, set_shapes
from edgetrack.exporting.given import IMAGES, GivenGraph, GivenInput, GivenOutput
from edgetrack.exporting.onnx_model import dtype_of, open_session, read_onnx


class GivenRun:
    """The untouched files in ONNX Runtime, pre- and post-processing in NumPy: what an adapted graph is held against.

    Only the open sizes of the files are fixed. Tensors inside a file cannot be fed or read here.
    """

    def __init__(self, graph: GivenGraph, paths: Mapping[str, Path], sizes: Sizes, head: str) -> None:
        self.graph, self.sizes, self.head = graph, sizes, head
        self.many = len(graph.files) > 1
        self.sessions = []
        self.raw: set[str] = set()
        for file in graph.files:
            model = read_onnx(paths[file])
            prefix = f"{file}/" if self.many else ""
            roles = {role: given for role, given in graph.inputs.items() if given.source.startswith(prefix)}
            own = GivenGraph(
                inputs={r: msgspec.structs.replace(g, source=g.source.removeprefix(prefix)) for r, g in roles.items()},
                outputs={},
            )
            set_shapes(model, own, sizes, str(paths[file]), others=False)
            self.raw |= {prefix + value.name for value in model.graph.input if dtype_of(value) == "uint8"}
            for value in model.graph.output:
                value.type.tensor_type.ClearField("shape")
            del model.graph.value_info[:]
            self.sessions.append((prefix, open_session(model, str(paths[file]))))

    @staticmethod
    def possible(graph: GivenGraph, paths: Mapping[str, Path]) -> bool:
        """Whether every source is an input or output of a file."""
        whole = joined(graph, paths)
        names = {value.name for value in (*whole.graph.input, *whole.graph.output)}
        sources = (*(given.source for given in graph.inputs.values()), *(o.source for o in graph.outputs.values()))
        return all(isinstance(source, int) or source in names for source in sources)

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by role."""
        known: dict[str, Array] = {}
        for role, given in self.graph.inputs.items():
            known[given.source] = self._prepared(role, given, inputs[role])
        last: list[str] = []
        for prefix, session in self.sessions:
            feed = {}
            for value in session.get_inputs():
                name = prefix + value.name
                name = self.graph.links.get(name, name)
                if name in self.graph.constants:
                    shape = [size if isinstance(size, int) else 1 for size in value.shape]
                    known[name] = np.full(shape, self.graph.constants[name])
                dtype = {"tensor(float16)": "float16", "tensor(bool)": "bool", "tensor(uint8)": "uint8"}
                feed[value.name] = np.ascontiguousarray(known[name]).astype(dtype.get(value.type, "float32"))
                if all(isinstance(size, int) for size in value.shape):
                    feed[value.name] = feed[value.name].reshape(value.shape)
            last = [prefix + value.name for value in session.get_outputs()]
            known |= dict(zip(last, session.run(None, feed), strict=True))
        found = {}
        for role, output in self.graph.outputs.items():
            source = last[output.source] if isinstance(output.source, int) else output.source
            found[role] = self._finished(role, output, known[source])
        return found

    def _prepared(self, role: str, given: GivenInput, value: Array) -> Array:
        if role not in IMAGES:
            return value
        pixels = given.pixels(self.sizes.compat)
        image = value[..., ::-1] if pixels.colour == "rgb" else value
        if given.source not in self.raw:
            image = (image * np.float32(pixels.scale) - np.array(pixels.mean, np.float32)) / np.array(
                pixels.std, np.float32
            )
        if "chw" in given.layout:
            image = np.moveaxis(image, -1, -3)
        return np.concatenate([image] * given.repeat, axis=-3 if "chw" in given.layout else -1)

    def _finished(self, role: str, output: GivenOutput, value: Array) -> Array:
        value = value.astype(np.float32)
        if output.activation == "softmax":
            axis = -3 if value.ndim >= 3 else -1
            raised = np.exp(value - value.max(axis=axis, keepdims=True))
            value = np.take(raised / raised.sum(axis=axis, keepdims=True), [1], axis=axis)
        elif output.activation == "sigmoid":
            value = (1 / (1 + np.exp(-value))).astype(np.float32)
        elif output.activation in ("exp", "log"):
            value = np.exp(value) if output.activation == "exp" else np.log(value)
        if self.head == "box" and role == "box":
            return np.asarray(value.reshape(-1, 4).mean(axis=0) @ box_matrix(output), np.float32)
        shape = canonical_shape(role, self.head, value.size)
        return value if shape is None else value.reshape(shape)
