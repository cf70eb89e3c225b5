"""The layers of a graph on OpenVINO's CPU plugin, from the counters of its execution graph; each alone is cut out."""

from __future__ import annotations

import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgetrack.runtime.backends.base import BackendOptions
from edgetrack.runtime.backends.layers import LayerTime, LayerTimer, Role, TimedLayer
from edgetrack.runtime.backends.openvino.backend import import_openvino, read_ir, shared_core
from edgetrack.runtime.backends.openvino.devices import configuration

_COMPUTE = frozenset({
    "Convolution", "Deconvolution", "FullyConnected", "MatMul", "MVN", "Softmax", "Pooling", "NormalizeL2",
    "ScaledDotProductAttention", "RoPE", "RNNSeq", "RNNCell", "RMS", "MHA",
})  # fmt: skip
"""Types of layers whose time is not that of their traffic."""
_NOTHING = frozenset({"Const", "Input", "Output", "Reshape", "Result", "Parameter", "ShapeOf"})
_FUSED = frozenset({"Add", "Multiply", "FakeQuantize", "ReLU", "Clamp", "Sigmoid", "Gelu", "Swish"})
"""Operators that the plugin may name alone where it computes what comes before them as well."""
_LONGEST_CHAIN = 6
"""Operators of the file from the one that computes to the last that the plugin fuses with it."""
_QUANTIZED = {"u8": (0.0, 255.0), "i8": (-128.0, 127.0)}
_VERBOSE = "ONEDNN_VERBOSE"
_RUNS, _FEWEST_READINGS = 4, 6
_ROUNDED_OFF_S = 0.5e-6
"""What a counter leaves out on average."""


class OpenVinoLayers(LayerTimer):
    """The plugin's counters are means over all inferences, in whole microseconds.

    The difference of two readings is the mean of the inferences between them; the least of these is taken, so that what
    other programs disturb does not count, see `least_time`.
    """

    engine = "openvino"

    def __init__(self, path: Path, options: BackendOptions) -> None:
        # oneDNN reads it once, when its first primitive is made; it then names what it chooses.
        self._made_it_talk = os.environ.setdefault(_VERBOSE, "profile_create") == "profile_create"
        self._ov = import_openvino()
        self._core = shared_core()
        self._config = {**configuration(self._core, "CPU", options), "PERF_COUNT": True}
        self._model = read_ir(self._core, path, options.operators)
        self._ops = {op.get_friendly_name(): op for op in self._model.get_ops()}
        self._sources: dict[str, tuple[str, ...]] = {}
        self._constant: dict[Any, bool] = {}

    def layers(self, seconds: float) -> list[TimedLayer]:
        compiled, said = self._compile(self._model)
        if self._made_it_talk:  # what this process starts shall not
            os.environ.pop(_VERBOSE, None)
        self.instructions = next((line.partition("isa:")[2] for line in said if ",isa:" in line), "")
        times = _least_times(self._ov, compiled, seconds)
        return [
            self._layer(node, times.get(node.get_friendly_name(), 0.0))
            for node in compiled.get_runtime_model().get_ordered_ops()
            if _info(node, "layerType") not in _NOTHING
        ]

    def alone(self, layer: TimedLayer, seconds: float) -> LayerTime | None:
        with self._cut(layer) as model:
            if model is None:
                return None
            try:
                compiled, said = self._compile(model)
            except RuntimeError:  # what is fused with it does not stand alone
                return None
        same = [
            node for node in compiled.get_runtime_model().get_ordered_ops() if _info(node, "layerType") == layer.kind
        ]
        if len(same) != 1 or _info(same[0], "runtimePrecision") != _precision_of(layer):
            return None
        least = _least_times(self._ov, compiled, seconds).get(same[0].get_friendly_name())
        if least is None:
            return None
        return LayerTime(least, _implementation(said) or _info(same[0], "primitiveType"))

    def move(self, moved: int, seconds: float) -> float:
        op = self._ov.opset13
        image = op.parameter([max(moved // 8, 1)], np.float32)
        compiled, _ = self._compile(self._ov.Model([op.relu(image)], [image], "move"))
        return max(_least_times(self._ov, compiled, seconds).values(), default=_ROUNDED_OFF_S)

    def _compile(self, model: Any) -> tuple[Any, list[str]]:
        """A compiled model, and what oneDNN said meanwhile."""
        with _said() as lines:
            compiled = self._core.compile_model(model, "CPU", self._config)
            compiled.create_infer_request().infer()
        return compiled, lines

    def _layer(self, node: Any, seconds: float) -> TimedLayer:
        kind, original = _info(node, "layerType"), _info(node, "originalLayersNames")
        sources = [port.get_source_output() for port in node.inputs()]
        inputs = [one for one in sources if _info(one.get_node(), "layerType") != "Const"]
        tensors = [_tensor(one) for one in (*sources, *node.outputs())]
        names = tuple(original.split(",")) if original else ()
        ops = [self._ops[name] for name in names if name in self._ops]
        role: Role = "own" if not names else "compute" if kind in _COMPUTE else "move"
        settings = [f"{op.get_type_name()}{_settings(op)}" for op in ops] if role == "compute" else []
        precision, name = _info(node, "runtimePrecision"), node.get_friendly_name()
        self._sources[name] = names
        return TimedLayer(
            name=name,
            kind=kind,
            shape=" ".join([kind, precision, *tensors, *settings]),
            primitive=_info(node, "primitiveType"),
            role=role,
            seconds=seconds,
            moved=sum(map(_bytes, inputs)) + sum(map(_bytes, node.outputs())),
        )

    @contextmanager
    def _cut(self, layer: TimedLayer) -> Iterator[Any]:
        """The layer as a model: what the plugin fuses into it, with new inputs in place of what comes before.

        Where it reads integers, their quantizer comes along, or one is put there. The model that it is cut from is as
        it was afterwards.
        """
        named = [self._ops[name] for name in self._sources[layer.name] if name in self._ops]
        if not named:
            yield None
            return
        inside = self._inside(named)
        limits = _QUANTIZED.get(_precision_of(layer))
        parameters: list[Any] = []
        cuts: list[tuple[Any, Any]] = []
        stand_ins: dict[Any, Any] = {}
        op = self._ov.opset13

        def replace(port: Any, source: Any, quantize: bool) -> None:
            key = (source.get_node().get_friendly_name(), source.get_index())
            if key not in stand_ins:
                stand_in = op.parameter(list(source.get_shape()), source.get_element_type())
                parameters.append(stand_in)
                floating = source.get_element_type().is_real()
                if quantize and limits is not None and floating:
                    stand_in = op.fake_quantize(stand_in, *map(np.float32, (*limits, *limits)), 256)
                stand_ins[key] = stand_in.output(0)
            cuts.append((port, source))
            port.replace_source_output(stand_ins[key])

        try:
            for one in inside:
                for port in one.inputs():
                    source = port.get_source_output()
                    before = source.get_node()
                    if before.get_friendly_name() in {op.get_friendly_name() for op in inside}:
                        continue
                    if self._is_constant(before):
                        continue
                    if before.get_type_name() == "FakeQuantize":
                        first = before.input(0)
                        if before.get_friendly_name() not in {cut.get_node().get_friendly_name() for cut, _ in cuts}:
                            replace(first, first.get_source_output(), False)
                        continue
                    replace(port, source, True)
            yield self._ov.Model([inside[-1].output(0)], parameters, "layer")
        finally:
            for port, source in reversed(cuts):
                port.replace_source_output(source)

    def _inside(self, named: list[Any]) -> list[Any]:
        """The operators from the one that computes to the last of those named: the plugin leaves out some names."""
        root = named[0]
        while root.get_type_name() in _FUSED:
            before = [one.get_node() for one in root.input_values() if not self._is_constant(one.get_node())]
            if len(before) != 1:
                break
            root = before[0]
        found = [root]

        def reach(op: Any, depth: int) -> bool:
            if op.get_friendly_name() == root.get_friendly_name():
                return True
            if depth == 0 or self._is_constant(op):
                return False
            reached = False
            for value in op.input_values():  # all of them: each may lead there
                reached |= reach(value.get_node(), depth - 1)
            if reached and op.get_friendly_name() not in {one.get_friendly_name() for one in found}:
                found.append(op)
            return reached

        for op in named:
            reach(op, _LONGEST_CHAIN)
        return found

    def _is_constant(self, op: Any) -> bool:
        name = op.get_friendly_name()
        if name not in self._constant:
            values = op.input_values()
            self._constant[name] = op.get_type_name() == "Constant" or (
                bool(values) and all(self._is_constant(value.get_node()) for value in values)
            )
        return self._constant[name]


def _least_times(ov: Any, compiled: Any, seconds: float) -> dict[str, float]:
    """Seconds of each layer, by name; the first runs, in which weights are packed, do not count."""
    request, rng = compiled.create_infer_request(), np.random.default_rng(0)
    for port in compiled.inputs:
        kind, shape = port.element_type.to_dtype(), tuple(port.shape)
        integers = np.issubdtype(kind, np.integer)
        values = rng.integers(0, 127, shape) if integers else rng.standard_normal(shape)
        request.set_tensor(port, ov.Tensor(np.ascontiguousarray(values.astype(kind))))
    readings: list[dict[str, float]] = []
    end = time.monotonic() + seconds
    while len(readings) < _FEWEST_READINGS or time.monotonic() < end:
        for _ in range(_RUNS):
            request.infer()
        runs = _RUNS * (len(readings) + 1)
        readings.append(
            {one.node_name: (one.real_time.total_seconds() + _ROUNDED_OFF_S) * runs for one in request.profiling_info}
        )
    busy = [name for name, total in readings[-1].items() if total > _ROUNDED_OFF_S * _RUNS * len(readings)]
    return {name: least_time([one[name] for one in readings]) for name in busy}


def least_time(totals: Sequence[float]) -> float:
    """Least seconds of one run, from the total after every `_RUNS` runs.

    The totals come of means in whole microseconds: the n-th is off by up to n times `_RUNS` microseconds, so that a
    short window says nothing of a short layer, and a long one holds what other programs disturb. Of windows of every
    length the one is taken whose least time and twice its error are the smallest sum; where nothing disturbs, what
    comes is then within 6 microseconds.
    """
    found = []
    span = 1
    while span < len(totals):
        ends = range(0, len(totals) - span, span)
        least = min(totals[one + span] - totals[one] for one in ends) / (span * _RUNS)
        found.append((max(least, _ROUNDED_OFF_S) + 2e-6 * len(totals) / span, max(least, _ROUNDED_OFF_S)))
        span *= 2
    return min(found)[1]


@contextmanager
def _said() -> Iterator[list[str]]:
    """The lines that native code prints meanwhile; they come when it is over."""
    lines: list[str] = []
    sys.stdout.flush()
    kept = os.dup(1)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 1)
        try:
            yield lines
        finally:
            os.dup2(kept, 1)
            os.close(kept)
            file.seek(0)
            lines.extend(file.read().decode(errors="replace").splitlines())


def _implementation(lines: list[str]) -> str:
    """What oneDNN chose for the one primitive that is no change of layout; empty where it made none, or several."""
    fields = [line.split(",") for line in lines if ",primitive,create" in line]
    found = {one[6] for one in fields if len(one) > 6 and one[5] != "reorder"}
    return found.pop() if len(found) == 1 else ""


def _info(node: Any, key: str) -> str:
    info = node.get_rt_info()
    return str(info[key].astype(str)) if key in info else ""


def _precision_of(layer: TimedLayer) -> str:
    return layer.shape.split(" ")[1]


def _bytes(output: Any) -> int:
    return math.prod(map(int, output.get_shape())) * int(output.get_element_type().size)


def _tensor(output: Any) -> str:
    return f"{output.get_element_type().get_type_name()}[{','.join(map(str, output.get_shape()))}]"


def _settings(op: Any) -> str:
    """Strides and the like; large ones are values and not settings."""
    return str({key: value for key, value in sorted(op.get_attributes().items()) if len(str(value)) < 80})
