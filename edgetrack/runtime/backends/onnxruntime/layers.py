"""The layers of a graph in ONNX Runtime on the CPU, as its optimizer leaves them, by its profile; each one alone."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from edgetrack.bundle.onnx_file import check_onnx
from edgetrack.errors import BackendMissingError, BundleIntegrityError
from edgetrack.runtime.backends.base import BackendOptions
from edgetrack.runtime.backends.layers import LayerTime, LayerTimer, Role, TimedLayer
from edgetrack.runtime.backends.onnxruntime.backend import import_onnxruntime

_COMPUTE = frozenset({
    "Conv", "FusedConv", "ConvTranspose", "ConvInteger", "QLinearConv", "MatMul", "FusedMatMul",
    "MatMulInteger", "QLinearMatMul", "QGemm", "Gemm", "FusedGemm", "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul", "Softmax", "LayerNormalization", "SkipLayerNormalization",
    "SimplifiedLayerNormalization", "Attention", "MultiHeadAttention", "MaxPool", "AveragePool",
    "GlobalAveragePool", "LSTM", "GRU",
})  # fmt: skip
_OWN = frozenset({"ReorderInput", "ReorderOutput"})
_NOTHING = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Identity", "Flatten", "Constant", "Shape"})
_EVENT = "_kernel_time"
_FEWEST_RUNS = 5
_ROUNDED_OFF_S = 0.5e-6
"""What a duration in whole microseconds leaves out on average."""
_TYPES = {
    "float": "FLOAT", "double": "DOUBLE", "float16": "FLOAT16", "uint8": "UINT8", "int8": "INT8", "int32": "INT32",
    "int64": "INT64", "bool": "BOOL",
}  # fmt: skip


class OnnxRuntimeLayers(LayerTimer):
    """The optimized graph is written to a folder of its own, taken apart with the package `onnx`, and deleted."""

    engine = "onnxruntime"

    def __init__(self, path: Path, options: BackendOptions) -> None:
        try:
            import onnx
        except ImportError as error:
            raise BackendMissingError(
                f"the package onnx takes ONNX Runtime's graphs apart ({error}); pip install 'edgetrack[export]'"
            ) from error
        check_onnx(path, options.operators)
        self._onnx, self._runtime = onnx, import_onnxruntime()
        self._path, self._threads = path, options.threads
        self._model: Any = None
        self._nodes: dict[str, Any] = {}
        self._constants: dict[str, Any] = {}
        self._events: dict[str, dict[str, Any]] = {}

    def layers(self, seconds: float) -> list[TimedLayer]:
        with tempfile.TemporaryDirectory() as folder:
            optimized = Path(folder) / "optimized.onnx"
            try:
                events = self._profile(str(self._path), seconds, folder, optimized)
            except Exception as error:  # its exceptions share no base class
                raise BundleIntegrityError(f"ONNX Runtime cannot profile {self._path.name}: {error}") from None
            self._model = self._onnx.load(str(optimized))
        self._nodes = {node.name: node for node in self._model.graph.node}
        self._constants = {one.name: one for one in self._model.graph.initializer}
        self._events = events
        return [
            self._layer(name, event)
            for name, event in events.items()
            if name in self._nodes and event["op_name"] not in _NOTHING
        ]

    def alone(self, layer: TimedLayer, seconds: float) -> LayerTime | None:
        model = self._single(layer.name)
        if model is None:
            return None
        with tempfile.TemporaryDirectory() as folder:
            try:
                events = self._profile(model.SerializeToString(), seconds, folder)
            except Exception:  # a node that cannot stand alone; its exceptions share no base class
                return None
        event = events.get(layer.name)
        return None if event is None else LayerTime(event["seconds"], layer.primitive)

    def move(self, moved: int, seconds: float) -> float:
        helper, kinds = self._onnx.helper, self._onnx.TensorProto
        ends = [helper.make_tensor_value_info(name, kinds.FLOAT, [max(moved // 8, 1)]) for name in ("x", "y")]
        graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], name="move")], "move", ends[:1], ends[1:])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        with tempfile.TemporaryDirectory() as folder:
            return float(self._profile(model.SerializeToString(), seconds, folder)["move"]["seconds"])

    def _layer(self, name: str, event: dict[str, Any]) -> TimedLayer:
        node, kind = self._nodes[name], event["op_name"]
        role: Role = "own" if kind in _OWN else "compute" if kind in _COMPUTE else "move"
        settings = sorted(f"{one.name}={self._onnx.helper.get_attribute_value(one)}" for one in node.attribute)
        tensors = [f"{kind}{shape}" for side in ("input", "output") for kind, shape in _tensors(event, side)]
        domain = node.domain.rpartition(".")[2]
        return TimedLayer(
            name=name,
            kind=kind,
            shape=" ".join([kind, *tensors, *settings]),
            primitive=f"{domain}.{kind}" if domain else kind,
            role=role,
            seconds=event["seconds"],
            moved=int(event["activation_size"]) + int(event["output_size"]),
        )

    def _single(self, name: str) -> Any:
        """A model of one node of the optimized graph; None where the profile leaves out what it reads."""
        helper, node, event = self._onnx.helper, self._nodes[name], self._events[name]

        def described(names: list[str], side: str) -> list[Any] | None:
            known, fed = _tensors(event, side), [one for one in names if one and one not in self._constants]
            # Weights that were packed ahead are in the profile no more.
            given = [one for one in names if one] if len(known) != len(fed) else fed
            if len(given) != len(known):
                return None
            return [
                helper.make_tensor_value_info(one, getattr(self._onnx.TensorProto, _TYPES[kind]), shape)
                for one, (kind, shape) in dict(zip(given, known, strict=True)).items()
                if one not in self._constants
            ]

        inputs = described(list(node.input), "input")
        outputs = described(list(node.output), "output")
        if inputs is None or outputs is None:
            return None
        weights = [self._constants[one] for one in dict.fromkeys(node.input) if one in self._constants]
        graph = helper.make_graph([node], "layer", inputs, outputs, weights)
        return helper.make_model(graph, opset_imports=self._model.opset_import, ir_version=self._model.ir_version)

    def _profile(
        self, model: str | bytes, seconds: float, folder: str, optimized: Path | None = None
    ) -> dict[str, dict[str, Any]]:
        """Each node's arguments in the profile, with the `seconds` of its fastest run.

        Args:
            model: a file or its bytes.
            seconds: how long it runs, at least five times.
            folder: for the profile.
            optimized: where the optimized graph is written; without it the model is run as it is.
        """
        level = self._runtime.GraphOptimizationLevel
        settings = self._runtime.SessionOptions()
        settings.add_session_config_entry("session.load_model_format", "ONNX")
        settings.intra_op_num_threads, settings.inter_op_num_threads = self._threads, 1
        settings.log_severity_level = 4
        settings.enable_profiling, settings.profile_file_prefix = True, str(Path(folder) / "profile")
        settings.graph_optimization_level = level.ORT_ENABLE_ALL if optimized else level.ORT_DISABLE_ALL
        if optimized is not None:
            settings.optimized_model_filepath = str(optimized)
        session = self._runtime.InferenceSession(model, settings, providers=["CPUExecutionProvider"], enable_fallback=0)
        rng = np.random.default_rng(0)
        feeds = {one.name: _values(rng, one.type, one.shape) for one in session.get_inputs()}
        runs, end = 0, time.monotonic() + seconds
        while runs < _FEWEST_RUNS or time.monotonic() < end:
            session.run(None, feeds)
            runs += 1
        found: dict[str, dict[str, Any]] = {}
        for event in json.loads(Path(session.end_profiling()).read_bytes()):
            name = str(event.get("name", ""))
            if event.get("cat") != "Node" or not name.endswith(_EVENT):
                continue
            took = event["dur"] / 1e6 + _ROUNDED_OFF_S
            known = found.setdefault(name.removesuffix(_EVENT), {**event["args"], "seconds": took})
            known["seconds"] = min(known["seconds"], took)
        return found


def _tensors(event: dict[str, Any], side: str) -> list[tuple[str, list[int]]]:
    """Type and shape of a node's inputs or outputs, those that are there."""
    return [(kind, shape) for one in event[f"{side}_type_shape"] for kind, shape in one.items()]


def _values(rng: np.random.Generator, kind: str, shape: list[int]) -> Any:
    names = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
    if kind in names:
        return rng.standard_normal(shape).astype(names[kind])
    return rng.integers(0, 2, shape).astype(kind.removeprefix("tensor(").removesuffix(")"))
