"""Torch module to ONNX, the artifact: static shapes, named inputs and outputs, checked and shape-inferred."""

from __future__ import annotations

import glob
import re
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetrack.bundle.onnx_file import check_onnx
from edgetrack.errors import BackendMissingError, EdgetrackError, UsageError
from edgetrack.exporting.lowering import Ignored, fold_weights, quantize, signed, to_half, unshare_weights
from edgetrack.exporting.scales import per_tensor_activations
from edgetrack.exporting.targets.base import Exporter, Lowering
from edgetrack.io import ScratchFolder

if TYPE_CHECKING:
    from edgetrack.models.base import GraphModule

OPSETS = (17, 18)
"""Operator sets that `export` offers; the first is the default."""
LARGEST = 2**30
"""Bytes of weights in one file. Protobuf ends at twice as much, and whoever reads or checks it holds copies of all."""
SMALLEST_OUTSIDE = 1024
"""Bytes of a weight that leaves a large model; what is smaller, shapes among it, stays in it."""
PAGE = 4096
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
    from edgetrack.exporting.batch import ManyTargets, batched
    from edgetrack.exporting.from_onnx import GivenModule

    onnx = _import()
    with ScratchFolder() as scratch:
        if isinstance(graph.module, GivenModule):
            model = graph.module.model()
        elif isinstance(graph.module, ManyTargets):
            to_onnx(graph.module.step, scratch / "one.onnx", opset=opset, metadata={})
            one = onnx.load(str(scratch / "one.onnx"), load_external_data=False)
            if _is_large(one):
                raise UsageError(f"graph {graph.module.step.name!r} is too large for --batch: at most {LARGEST} bytes")
            model = batched(one, graph.module.count)
        else:
            _trace(graph, scratch / "traced.onnx", opset)
            # Weights of 2 GiB and more the exporter wrote beside it, a file each; they are moved, not read.
            model = onnx.load(str(scratch / "traced.onnx"), load_external_data=False)
        model.graph.name = graph.name
        onnx.helper.set_model_props(model, dict(metadata))
        try:
            if _is_large(model):
                save_onnx(model, path, scratch)
                onnx.shape_inference.infer_shapes_path(str(path), "", True, True, True)
            else:
                save_onnx(onnx.shape_inference.infer_shapes(model, True, True, True), path)
            onnx.checker.check_model(str(path), full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise EdgetrackError(f"the ONNX of graph {graph.name!r} is not valid: {error}") from error
    _check_static(model, graph)


def _is_large(model: Any) -> bool:
    """Whether weights lie in files of their own, or should."""
    weights = model.graph.initializer
    outside = any(tensor.data_location == tensor.EXTERNAL for tensor in weights)
    return outside or sum(len(tensor.raw_data) for tensor in weights) > LARGEST


def save_onnx(model: Any, path: Path, source: Path | None = None) -> None:
    """Write a model, deterministically: in one file, or, where that would be too large, its weights beside it.

    Weights go to `<name>.data`, `<name>.1.data` and so on, each file as large as `LARGEST` at most, or one weight.

    Args:
        model: of which weights may lie in files already; those of a large model are emptied on the way.
        path: of the model.
        source: the folder of those files.
    """
    if not _is_large(model):
        path.write_bytes(model.SerializeToString(deterministic=True))
        return
    with ExitStack() as stack:
        file, shards = None, 0
        for tensor in model.graph.initializer:
            data = _weights(tensor, source)
            if len(data) < SMALLEST_OUTSIDE:
                continue
            # Where systems map files, a weight begins with a page.
            offset = 0 if file is None else -(-file.tell() // PAGE) * PAGE
            if file is None or offset + len(data) > LARGEST:
                name = f"{path.name}.{shards}.data" if shards else f"{path.name}.data"
                file, offset, shards = stack.enter_context((path.parent / name).open("wb")), 0, shards + 1
            file.write(bytes(offset - file.tell()))
            file.write(data)
            where = {"location": Path(file.name).name, "offset": offset, "length": len(data)}
            tensor.ClearField("raw_data")
            del tensor.external_data[:]
            tensor.data_location = tensor.EXTERNAL
            for key, value in where.items():
                tensor.external_data.add(key=key, value=str(value))
    path.write_bytes(model.SerializeToString(deterministic=True))


def _weights(tensor: Any, source: Path | None) -> bytes:
    """A tensor's bytes, from the model or from its file."""
    if tensor.data_location != tensor.EXTERNAL:
        return bytes(tensor.raw_data)
    where = {entry.key: entry.value for entry in tensor.external_data}
    if source is None:
        raise EdgetrackError(f"the weights of {tensor.name!r} lie in a file of their own, {where['location']!r}")
    with (source / Path(where["location"]).name).open("rb") as file:
        file.seek(int(where.get("offset", 0)))
        return file.read(int(where["length"])) if "length" in where else file.read()


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
        weights stored as INT8, which ONNX Runtime and TensorRT read alike, and one scale for each activation.
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
            per_tensor_activations(model)
            unshare_weights(model)
        for file in self.files(path):
            file.unlink()
        save_onnx(model, path)
        onnx.checker.check_model(str(path), full_check=True)
        return wide

    def files(self, path: Path) -> tuple[Path, ...]:
        """A large graph has its weights in further files."""
        return path, *sorted(path.parent.glob(f"{glob.escape(path.name)}*.data"))


def _squares(model: Any) -> tuple[str, ...]:
    """Patterns of nodes that take one tensor twice: variances, on whose inputs NNCF also fails (3.4: "no end node")."""
    return tuple(re.escape(node.name) for node in model.graph.node if len(set(node.input)) < len(node.input))
