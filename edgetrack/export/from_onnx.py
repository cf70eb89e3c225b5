"""Exports that start from ONNX graphs in place of a network: read, checked, run in ONNX Runtime as the reference."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from edgetrack.bundle.manifest import DType, GraphInfo, Manifest, TensorInfo, WeightsInfo
from edgetrack.bundle.onnx_file import check_onnx
from edgetrack.errors import BackendMissingError, BundleError, CheckpointError, UsageError
from edgetrack.export.parity import ModuleGraph
from edgetrack.export.recipe import Recipe
from edgetrack.io import open_regular
from edgetrack.models.base import GraphModule
from edgetrack.resources import usable_cores
from edgetrack.runtime.trackers.base import find_family, find_procedure

REFERENCE = "the given ONNX"


class GivenModule(nn.Module):
    """An ONNX file as a torch module; ONNX Runtime computes it on the CPU."""

    def __init__(self, path: Path, outputs: Sequence[str], inputs: Sequence[str]) -> None:
        super().__init__()
        self.path, self.inputs, self.outputs = path, list(inputs), list(outputs)
        _, runtime = _packages()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = usable_cores()
        options.log_severity_level = 3
        try:
            self.session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its classes are private
            raise CheckpointError(f"{path}: ONNX Runtime cannot open it: {error}") from None

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Inputs and outputs in the order of their names."""
        feed = {name: tensor.numpy() for name, tensor in zip(self.inputs, inputs, strict=True)}
        return tuple(torch.from_numpy(array) for array in self.session.run(self.outputs, feed))

    def model(self) -> Any:
        """The file as an ONNX model."""
        onnx, _ = _packages()
        return onnx.load(str(self.path))


def read_given(recipe: Recipe, paths: Sequence[Path], target: str) -> tuple[tuple[GraphModule, ...], WeightsInfo]:
    """Read a tracker's graphs and compare them with what its recipe and its procedure expect.

    A file's name, without `.onnx`, is the graph's.

    Args:
        recipe: names the graphs and their order; its procedure reads and writes them.
        paths: one ONNX file for each graph.
        target: what they are exported to.

    Returns:
        The graphs in order, and what the bundle says of their origin.

    Raises:
        UsageError: a graph is missing or twice; inputs or outputs are not what is expected: all that differs is listed.
        CheckpointError: a file cannot be read, or is not a sound ONNX model.
        BackendMissingError: onnx or onnxruntime is missing.
    """
    by_name = {path.stem: path for path in paths}
    if len(by_name) != len(paths) or set(by_name) != set(recipe.graphs):
        raise UsageError(
            f"tracker {recipe.name!r} has the graphs {', '.join(recipe.graphs)}, given {', '.join(map(str, paths))}; "
            "give " + " ".join(f"--onnx {name}.onnx" for name in recipe.graphs)
        )
    # What lies beside a file is looked for where the file is, not where a link to it is.
    by_name = {name: path.resolve() for name, path in by_name.items()}
    operators = find_family(recipe.family_name).operators
    problems: list[str] = []
    graphs = []
    for name, role in recipe.graphs.items():
        inputs, outputs = _signature(by_name[name], operators, problems)
        graphs.append((name, role, inputs, outputs))
    known: dict[str, TensorInfo] = {}
    for name, _, inputs, outputs in graphs:
        problems += _misfits(f"{name}.onnx", inputs, outputs, known)
        known |= {info.name: info for info in outputs}
    if problems:
        raise UsageError(
            f"the given graphs are not graphs of tracker {recipe.name!r}:\n" + "\n".join(f"  {p}" for p in problems)
        )
    modules = tuple(
        GraphModule(
            name, role, GivenModule(by_name[name], [t.name for t in outputs], [t.name for t in inputs]).eval(),
            inputs, outputs,
        )
        for name, role, inputs, outputs in graphs
    )  # fmt: skip
    weights = _origin([by_name[name] for name in recipe.graphs], operators)
    _check_procedure(recipe, modules, weights, target)
    return modules, weights


def _packages() -> tuple[Any, Any]:
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise BackendMissingError(
            f"starting from ONNX needs onnx and onnxruntime ({error}); install them with: "
            "pip install 'edgetrack[export]'"
        ) from error
    return onnx, onnxruntime


def _signature(
    path: Path, operators: frozenset[str], problems: list[str]
) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    """Inputs and outputs of a file that passes ONNX's checker; what is not static or of no known type is a problem."""
    onnx, _ = _packages()
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file")
    try:
        check_onnx(path, operators)
        model = onnx.load(str(path))
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # protobuf's and the checker's classes differ between versions
        raise CheckpointError(f"{path}: not a sound ONNX model: {error}") from None
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    sides = (("input", inputs), ("output", model.graph.output))
    first, second = (tuple(_tensor(path, side, v, problems) for v in values) for side, values in sides)
    return first, second


def _tensor(path: Path, side: str, value: Any, problems: list[str]) -> TensorInfo:
    onnx, _ = _packages()
    kind = value.type.tensor_type
    shape = tuple(d.dim_value if d.WhichOneof("value") == "dim_value" else 0 for d in kind.shape.dim)
    if not kind.HasField("shape") or min(shape, default=1) < 1:
        shown = tuple(size if size > 0 else "?" for size in shape)
        problems.append(
            f"{path.name}: {side} {value.name!r} has shape {shown}; every size must be a number of 1 or more"
        )
    try:
        dtype = str(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
    except (KeyError, ValueError):
        dtype = f"type {kind.elem_type}"
    return TensorInfo(name=value.name, dtype=cast(DType, dtype), shape=shape)


def _misfits(
    file: str, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo], known: Mapping[str, TensorInfo]
) -> list[str]:
    """What is wrong: an input is a uint8 (H, W, 3) image or an output of an earlier graph, outputs are float32."""
    problems = []
    for info in inputs:
        found = f"{file}: input {info.name!r} is {info.dtype} {info.shape}"
        if info.name in known:
            if info != known[info.name]:
                problems.append(
                    f"{found}, the earlier graph's output {known[info.name].dtype} {known[info.name].shape}"
                )
        elif info.dtype != "uint8" or len(info.shape) != 3 or info.shape[2] != 3:
            problems.append(f"{found}, expected a uint8 (H, W, 3) image, or an output of an earlier graph")
    return problems + [
        f"{file}: output {info.name!r} is {info.dtype}, expected float32" for info in outputs if info.dtype != "float32"
    ]


def _origin(graphs: Sequence[Path], operators: frozenset[str]) -> WeightsInfo:
    """Custom, with the hash of all files one after the other, and that of each in the note."""
    whole, each = hashlib.sha256(), []
    # Each graph with the files beside it that hold its tensors' data.
    paths = [file for path in graphs for file in (path, *check_onnx(path, operators))]
    for path in paths:
        one = hashlib.sha256()
        with open_regular(path) as file:
            while piece := file.read(1 << 20):
                whole.update(piece)
                one.update(piece)
        each.append(f"{path.name} sha256 {one.hexdigest()}")
    return WeightsInfo(
        origin="custom",
        sha256=whole.hexdigest(),
        file=", ".join(path.name for path in paths),
        note=f"graphs given as ONNX by the user, parity is with them in ONNX Runtime: {'; '.join(each)}; sha256 "
        "is of the files one after the other",
    )


def _check_procedure(recipe: Recipe, modules: Sequence[GraphModule], weights: WeightsInfo, target: str) -> None:
    """Let the tracker's procedure look at the graphs, as it will at run time."""
    infos = tuple(
        GraphInfo(name=m.name, role=m.role, file=f"{m.name}.onnx", inputs=m.inputs, outputs=m.outputs) for m in modules
    )
    manifest = Manifest(
        name=recipe.name,
        tracker=recipe.name,
        family=recipe.family,
        title=recipe.title,
        target=target,
        precision="fp32",
        weights=weights,
        graphs=infos,
        procedure=recipe.procedure,
    )
    try:
        find_procedure(manifest)(manifest, {module.name: ModuleGraph(module) for module in modules})
    except BundleError as error:
        raise UsageError(f"the given graphs are not graphs of tracker {recipe.name!r}: {error}") from None
