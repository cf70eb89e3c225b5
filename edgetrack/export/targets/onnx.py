"""Torch module to ONNX, the artifact: static shapes, named inputs and outputs, checked and shape-inferred."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetrack.bundle.onnx_file import check_onnx
from edgetrack.errors import BackendMissingError, EdgetrackError
from edgetrack.export.lowering import Ignored, fold_weights, quantize, signed, to_half
from edgetrack.export.targets.base import Exporter, Lowering

if TYPE_CHECKING:
    from edgetrack.models.base import GraphModule

OPSETS = (17, 18)
"""Operator sets that `export` offers; the first is the default."""
FLOAT_TYPES = ("ReduceMean", "Sub", "Div", "Sqrt", "Softmax", "Sigmoid", "Exp", "Pow")
"""Operators that are not quantized: statistics of normalisations and what follows from exponentials."""


def _import() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise BackendMissingError(
            f"the onnx package is not installed ({error}); install it with: pip install 'edgetrack[export]'"
        ) from error
    return onnx


def to_onnx(graph: GraphModule, path: Path, *, opset: int, metadata: Mapping[str, str]) -> None:
    """Write one graph as ONNX; one that was given as ONNX keeps its nodes and its operator set.

    The TorchScript exporter is used on purpose: it names every node by its module (`/head/score/score.0/Conv`), which
    sensitivity maps and precision lists need, and asks for no further package.

    Raises:
        BackendMissingError: the onnx package is missing.
        EdgetrackError: the result does not pass ONNX's checker or is not static.
    """
    from edgetrack.export.from_onnx import GivenModule

    onnx = _import()
    if isinstance(graph.module, GivenModule):
        model = graph.module.model()
    else:
        _trace(graph, path, opset)
        model = onnx.load(str(path))
    model.graph.name = graph.name
    onnx.helper.set_model_props(model, dict(metadata))
    try:
        model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise EdgetrackError(f"the ONNX of graph {graph.name!r} is not valid: {error}") from error
    _check_static(model, graph)
    onnx.save(model, str(path))


def _trace(graph: GraphModule, path: Path, opset: int) -> None:
    import torch

    with warnings.catch_warnings(), torch.inference_mode():
        # The exporter warns of its own deprecation and of every shape that is a constant here.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.module,
            graph.example(),
            str(path),
            dynamo=False,
            opset_version=opset,
            input_names=[t.name for t in graph.inputs],
            output_names=[t.name for t in graph.outputs],
        )


def _check_static(model: Any, graph: GraphModule) -> None:
    for declared, expected in zip(
        (*model.graph.input, *model.graph.output), (*graph.inputs, *graph.outputs), strict=True
    ):
        shape = tuple(d.dim_value for d in declared.type.tensor_type.shape.dim)
        if declared.name != expected.name or shape != expected.shape:
            raise EdgetrackError(
                f"the ONNX of graph {graph.name!r} has {declared.name!r} {shape}, "
                f"expected {expected.name!r} {expected.shape}"
            )


class OnnxExporter(Exporter):
    """Writes ONNX files, and lowers them."""

    def convert(self, graph: GraphModule, folder: Path, *, opset: int, metadata: Mapping[str, str]) -> str:
        """See `Exporter`."""
        file = f"{graph.name}.onnx"
        to_onnx(graph, folder / file, opset=opset, metadata=metadata)
        return file

    def ignored(self, model: Any) -> Ignored:
        """The nodes of a model that are not quantized, beside those that are kept."""
        return Ignored(_squares(model), FLOAT_TYPES)

    def lower(self, path: Path, lowering: Lowering) -> tuple[str, ...]:
        """See `Exporter`.

        `fp16` is typed: casts stand where precisions meet. `int8` has signed, symmetric quantize/dequantize pairs and
        weights stored as INT8, which ONNX Runtime and TensorRT read alike.
        """
        onnx = _import()
        check_onnx(path, lowering.operators)
        model = onnx.load(str(path))
        wide: tuple[str, ...] = ()
        if lowering.precision == "fp16":
            model, wide = to_half(model, lowering.inputs, lowering.kept)
        else:
            ignored = self.ignored(model)
            ignored = Ignored((*lowering.kept, *ignored.patterns), ignored.types)
            model = quantize(model, lowering.inputs, lowering.method, ignored)
            signed(model)
            fold_weights(model)
        # Serialised with sorted maps: the same graph gives the same bytes.
        data = model.SerializeToString(deterministic=True)
        onnx.checker.check_model(data, full_check=True)
        path.write_bytes(data)
        return wide


def _squares(model: Any) -> tuple[str, ...]:
    """Patterns of nodes that take one tensor twice: variances, on whose inputs NNCF also fails (3.4: "no end node")."""
    return tuple(re.escape(node.name) for node in model.graph.node if len(set(node.input)) < len(node.input))
