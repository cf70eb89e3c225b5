"""ONNX models as objects: read and checked, opened in ONNX Runtime, what they hold."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

from edgetrack.bundle.onnx_file import check_onnx
from edgetrack.errors import BackendMissingError, CheckpointError
from edgetrack.resources import usable_cores


def packages() -> tuple[Any, Any]:
    """onnx and onnxruntime."""
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise BackendMissingError(
            f"starting from ONNX needs onnx and onnxruntime ({error}); install them with: "
            "pip install 'edgetrack[export]'"
        ) from error
    return onnx, onnxruntime


def read_onnx(path: Path, operators: frozenset[str] = frozenset()) -> Any:
    """An ONNX file that passes the checker, and holds no operators but ONNX's and those of `operators`.

    Raises:
        CheckpointError: it is none.
    """
    onnx, _ = packages()
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file")
    if zipfile.is_zipfile(path):
        raise CheckpointError(
            f"{path} is a zip, as files of PyTorch and TorchScript are, and no ONNX; write it with torch.onnx.export "
            "(opset 13 or later) and give that file"
        )
    try:
        check_onnx(path, operators)
        model = onnx.load(str(path))
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # protobuf's and the checker's classes differ between versions
        raise CheckpointError(f"{path}: not a sound ONNX model: {error}") from None
    return model


def open_session(model: Any, what: str) -> Any:
    """A model or the path of one in ONNX Runtime, on the CPU.

    Raises:
        CheckpointError: it cannot be opened; `what` names it.
    """
    _, runtime = packages()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = usable_cores()
    options.log_severity_level = 4  # its errors come as exceptions; printed, names from the file would steer terminals
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    try:
        return runtime.InferenceSession(source, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:  # its classes are private
        raise CheckpointError(f"{what}: ONNX Runtime cannot open it: {error}") from None


def opset_of(model: Any) -> int:
    """Version of the standard operators that a model uses."""
    return next((int(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)


def reads(node: Any) -> list[str]:
    """Tensors that a node reads, those of its branches with them."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        for inner in [attribute.g] if attribute.HasField("g") else list(attribute.graphs):
            names += [name for child in inner.node for name in reads(child)]
    return names


def dims_of(value: Any) -> tuple[int | str, ...]:
    """Sizes of an input or output; a name or `?` where one is open."""
    return tuple(d.dim_value or d.dim_param or "?" for d in value.type.tensor_type.shape.dim)


def sizes_of(value: Any) -> tuple[int, ...]:
    """Of an input whose sizes are fixed."""
    return tuple(int(d.dim_value) for d in value.type.tensor_type.shape.dim)


def dtype_of(value: Any) -> str:
    """NumPy's name of the type of an input or output."""
    import onnx

    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
    except (KeyError, ValueError):
        return f"type {value.type.tensor_type.elem_type}"


def count_onnx_flops(model: Any) -> int:
    """2 per multiply-accumulate of convolutions and matrix products; shapes must be fixed."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {v.name: sizes_of(v) for v in (*graph.value_info, *graph.input, *graph.output)}
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    total = 0
    for node in graph.node:
        if node.op_type not in ("Conv", "ConvTranspose", "MatMul", "Gemm"):
            continue
        sides = [shapes.get(name) for name in (*node.input[:2], node.output[0])]
        if not all(sides):
            continue
        first, second, made = (tuple(side or ()) for side in sides)
        if node.op_type == "Conv":
            total += 2 * math.prod(made) * math.prod(second[1:])
        elif node.op_type == "ConvTranspose":
            total += 2 * math.prod(first) * math.prod(second[1:])
        else:
            across = next((a.i for a in node.attribute if a.name == "transA"), 0)
            total += 2 * math.prod(made) * first[0 if across else -1]
    return total
