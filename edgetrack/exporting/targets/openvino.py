"""ONNX to OpenVINO IR, and the IR to lower precisions."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetrack.bundle.manifest import split_precision
from edgetrack.errors import EdgetrackError
from edgetrack.exporting.lowering import Ignored, quantize
from edgetrack.exporting.scales import even_ranges, join_ranges, unit_steps
from edgetrack.exporting.targets.base import Exporter, Lowering
from edgetrack.exporting.targets.onnx import to_onnx
from edgetrack.io import ScratchFolder
from edgetrack.runtime.backends.openvino.backend import import_openvino, read_ir, shared_core

if TYPE_CHECKING:
    from edgetrack.models.base import GraphModule

_NUMBERED = re.compile(r"[A-Za-z]+_\d+")
LONG, TALL = 1024, 16
"""Summands and rows from which on a product is kept from the processor plugin's slow library (decision 0014)."""
_ACTIVATIONS = {"Gelu", "Relu", "PRelu", "Swish", "HSwish", "Sigmoid", "Tanh", "Clamp"}


class OpenVinoExporter(Exporter):
    """Writes OpenVINO IR, and lowers it."""

    weight_bits = (7, 8)

    def convert(self, graph: GraphModule, folder: Path, *, opset: int, metadata: Mapping[str, str]) -> str:
        """Write `<graph>.xml` and `<graph>.bin`; see `Exporter`."""
        openvino = import_openvino()
        from openvino._offline_transformations import apply_moc_transformations

        with ScratchFolder() as scratch:
            source = scratch / f"{graph.name}.onnx"
            to_onnx(graph, source, opset=opset, metadata=metadata)
            model = shared_core().read_model(source)
            # What `openvino.convert_model` does, without its usage reports: constants folded, normalisations fused.
            # Left to the device, quantization finds no patterns: depthwise layers stay in float, INT8 is a third slower
            # (measured).
            apply_moc_transformations(model, cf=True)
            mark_long_products(model)
            for key, value in metadata.items():
                model.set_rt_info(value, ["edgetrack", key])
            _save(openvino, model, folder / f"{graph.name}.xml", half=False)
        return f"{graph.name}.xml"

    def files(self, path: Path) -> tuple[Path, ...]:
        """An IR has its weights in a second file."""
        return path, path.with_suffix(".bin")

    def lower(self, path: Path, lowering: Lowering) -> tuple[str, ...]:
        """See `Exporter`; no node stays in FP32 for what was observed.

        `fp16` stores weights in half precision, which the device computes with as it can; `bf16` is asked for when the
        graph is opened and changes nothing here; `int8` quantizes, and so does `int8-bf16`, whose rest is asked for in
        bfloat16.
        """
        openvino = import_openvino()
        if lowering.precision == "bf16":
            return ()
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            model = read_ir(shared_core(), path, lowering.operators)
            if split_precision(lowering.precision)[0] == "int8":
                model = quantize(model, lowering.inputs, lowering.method, Ignored(patterns=lowering.kept))
                join_ranges(model)
                even_ranges(model)
                unit_steps(model)
            _save(openvino, model, Path(scratch) / path.name, half=lowering.precision == "fp16")
            del model  # it maps the weights' file that is replaced now
            for file in Path(scratch).iterdir():
                file.replace(path.parent / file.name)
        return ()


def mark_long_products(model: Any) -> int:
    """Put an activation that changes nothing behind each long product with constant weights that has none.

    In FP32 the plugin computes a product without an activation by another library, 1.2 to 1.5 times as slowly where
    `LONG` or more numbers are summed (decision 0014). A parametric ReLU of slope 1 is x, bit for bit, NaN included.

    Args:
        model: an OpenVINO model of static shapes; changed in place.

    Returns:
        How many were marked.
    """
    import numpy as np
    from openvino import opset13

    marked = 0
    for product in model.get_ordered_ops():
        if not _is_long(product):
            continue
        last = product
        users = list(last.output(0).get_target_inputs())
        if len(users) == 1 and _adds_constant(users[0].get_node()):
            last = users[0].get_node()
            users = list(last.output(0).get_target_inputs())
        # An output of the graph keeps its place, for its name hangs on it.
        if any(user.get_node().get_type_name() in {"Result", *_ACTIVATIONS} for user in users):
            continue
        same = opset13.prelu(last, opset13.constant(np.ones(1, np.float32)), name=f"{last.get_friendly_name()}/same")
        for user in users:
            user.replace_source_output(same.output(0))
        marked += 1
    return marked


def _is_long(node: Any) -> bool:
    if node.get_type_name() != "MatMul" or node.input_value(1).get_node().get_type_name() != "Constant":
        return False
    *_, rows, columns = node.input_value(1).get_shape()
    summands = columns if node.get_attributes()["transpose_b"] else rows
    return int(summands) >= LONG and math.prod(node.get_output_shape(0)[:-1]) >= TALL


def _adds_constant(node: Any) -> bool:
    inputs = (node.input_value(side).get_node().get_type_name() for side in range(node.get_input_size()))
    return node.get_type_name() == "Add" and "Constant" in inputs


def _save(openvino: Any, model: Any, path: Path, *, half: bool) -> None:
    # OpenVINO numbers what has no name by a counter of the process: the same graph shall give the same bytes.
    for index, node in enumerate(model.get_ordered_ops()):
        if _NUMBERED.fullmatch(node.get_friendly_name()):
            node.set_friendly_name(f"{node.get_type_name()}_{index}")
    try:
        openvino.save_model(model, path, compress_to_fp16=half)
    except RuntimeError as error:  # of C++'s streams, which give no reason
        raise EdgetrackError(
            f"{path.name} cannot be written to {path.parent}: the disk is probably full, or files have a size limit "
            f"({str(error).strip().splitlines()[-1]})"
        ) from error
