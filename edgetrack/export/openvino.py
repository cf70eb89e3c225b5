"""ONNX to OpenVINO IR; weights keep their precision."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from edgetrack.errors import BackendMissingError
from edgetrack.export.onnx import to_onnx
from edgetrack.models.base import GraphModule

_NUMBERED = re.compile(r"[A-Za-z]+_\d+")


def convert(graph: GraphModule, folder: Path, *, opset: int, metadata: Mapping[str, str]) -> str:
    """Write `<graph>.xml` and `<graph>.bin` into `folder`, return the former's name.

    Raises:
        BackendMissingError: OpenVINO is missing.
    """
    try:
        import openvino
    except ImportError as error:
        raise BackendMissingError(
            f"OpenVINO is not installed ({error}); install it with: pip install 'edgetrack[openvino]'"
        ) from error
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / f"{graph.name}.onnx"
        to_onnx(graph, source, opset=opset, metadata=metadata)
        # `convert_model` folds constants and fuses normalisations, which quantization patterns need; reading the file
        # directly leaves both to the device, and INT8 a third slower (measured: depthwise layers stay in float).
        model = openvino.convert_model(source)
        # OpenVINO numbers what has no name by a counter of the process: the same graph shall give the same bytes.
        for index, node in enumerate(model.get_ordered_ops()):
            if _NUMBERED.fullmatch(node.get_friendly_name()):
                node.set_friendly_name(f"{node.get_type_name()}_{index}")
        for key, value in metadata.items():
            model.set_rt_info(value, ["edgetrack", key])
        openvino.save_model(model, folder / f"{graph.name}.xml", compress_to_fp16=False)
    return f"{graph.name}.xml"
