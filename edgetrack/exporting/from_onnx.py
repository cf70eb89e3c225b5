"""Exports that start from ONNX graphs in place of a network: read, checked, run in ONNX Runtime as the reference."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from edgetrack.arrays import Array
from edgetrack.bundle.manifest import DType, GraphInfo, GraphRole, Manifest, TensorInfo, WeightsInfo
from edgetrack.bundle.onnx_file import check_onnx
from edgetrack.errors import BundleError, UsageError
from edgetrack.exporting.adapt import Sizes, adapt
from edgetrack.exporting.given_run import GivenRun
from edgetrack.exporting.onnx_model import count_onnx_flops, open_session, packages, read_onnx
from edgetrack.exporting.parity import ModuleGraph
from edgetrack.exporting.recipe import Recipe
from edgetrack.io import ScratchFolder, open_regular
from edgetrack.models.base import GraphModule
from edgetrack.runtime.trackers.base import find_family, find_procedure

REFERENCE = "the given ONNX"


class GivenModule(nn.Module):
    """An ONNX file as a torch module; ONNX Runtime computes it on the CPU."""

    def __init__(self, path: Path, outputs: Sequence[str], inputs: Sequence[str], keep: object = None) -> None:
        """Open the file; `keep` is kept as long as the module (the folder that the file lies in)."""
        super().__init__()
        self.path, self.inputs, self.outputs, self.keep = path, list(inputs), list(outputs), keep
        self.session = open_session(path, str(path))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Inputs and outputs in the order of their names."""
        feed = {name: tensor.numpy() for name, tensor in zip(self.inputs, inputs, strict=True)}
        return tuple(torch.from_numpy(array) for array in self.session.run(self.outputs, feed))

    def flops(self) -> int:
        """Of one run; see `count_onnx_flops`."""
        return count_onnx_flops(self.model())

    def model(self) -> Any:
        """The file as an ONNX model."""
        onnx, _ = packages()
        return onnx.load(str(self.path))


class UntouchedModule(nn.Module):
    """The given files of a graph as they are, with pre- and post-processing in NumPy around them, as a torch module."""

    def __init__(self, run: GivenRun, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        super().__init__()
        self.given, self.inputs, self.outputs = run, list(inputs), list(outputs)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Inputs and outputs in the order of their roles."""
        found = self.given({name: tensor.numpy() for name, tensor in zip(self.inputs, inputs, strict=True)})
        return tuple(torch.from_numpy(np.ascontiguousarray(found[name])) for name in self.outputs)


class GivenGraphs(NamedTuple):
    """What an export from ONNX starts with: the graphs to ship, those to hold them against, and their origin."""

    shipped: tuple[GraphModule, ...]
    published: tuple[GraphModule, ...]
    weights: WeightsInfo


def read_given(recipe: Recipe, paths: Sequence[Path], target: str) -> GivenGraphs:
    """The graphs of a tracker from ONNX files: as they are, or adapted where the recipe maps them.

    Raises:
        UsageError, CheckpointError, BackendMissingError: see `_read_as_is` and `edgetrack.exporting.given`.
    """
    if not recipe.given:
        modules, weights = _read_as_is(recipe, paths)
        found = GivenGraphs(modules, modules, weights)
    else:
        found = _adapted(recipe, _by_file(recipe, paths))
    _check_procedure(recipe, found.shipped, found.weights, target)
    return found


def _by_file(recipe: Recipe, paths: Sequence[Path]) -> dict[str, Path]:
    """The recipe's names of files -> the given ones: by name where all fit, else in order."""
    files = list(dict.fromkeys(file for graph in recipe.given.values() for file in graph.files))
    if len(files) != len(paths):
        raise UsageError(
            f"recipe {recipe.name!r} is made of {len(files)} file{'s' if len(files) > 1 else ''} "
            f"({', '.join(files)}), given {len(paths)}: give " + " ".join(f"--onnx {file}.onnx" for file in files)
        )
    by_name = {path.stem: path for path in paths}
    return by_name if set(by_name) == set(files) else dict(zip(files, paths, strict=True))


def _adapted(recipe: Recipe, by_file: Mapping[str, Path]) -> GivenGraphs:
    """Write roles, pre- and post-processing into the graphs."""
    onnx, _ = packages()
    search, template = (recipe.procedure.get(f"{crop}_size", 0) for crop in ("search", "template"))
    if not (isinstance(search, int) and isinstance(template, int) and search > 0 and template > 0):
        raise UsageError(f"recipe {recipe.name!r} needs search_size and template_size in [procedure]")
    sizes = Sizes(search, template, str(recipe.configuration.get("compat", "none")))
    procedure = find_family(recipe.family_name)
    operators, head = procedure.operators, procedure.head
    # What lies beside a file is looked for where the file is, not where a link to it is.
    by_file = {file: path.resolve() for file, path in by_file.items()}
    shipped, published = [], []
    folder = ScratchFolder()
    for name, graph in recipe.given.items():
        model = adapt(name, graph, by_file, sizes, head=head)
        path = folder.path / f"{name}.onnx"
        onnx.save(model, str(path))
        problems: list[str] = []
        inputs, outputs = _signature(path, operators, problems)
        if problems:
            raise UsageError("\n".join(problems))
        role: GraphRole = "step" if name == "step" else "init"
        names = [t.name for t in inputs], [t.name for t in outputs]
        shipped.append(GraphModule(name, role, GivenModule(path, names[1], names[0], folder).eval(), inputs, outputs))
        if GivenRun.possible(graph, by_file):
            run = GivenRun(graph, by_file, sizes, head)
            published.append(GraphModule(name, role, UntouchedModule(run, *names).eval(), inputs, outputs))
        else:
            published.append(shipped[-1])
    weights = _origin(list(by_file.values()), operators, recipe.checkpoint.official_sha256)
    return GivenGraphs(tuple(shipped), tuple(published), weights)


def check_ranges(recipe: Recipe, outputs: Mapping[str, Array]) -> str:
    """Look at what the graph gave for a real crop: where a number cannot mean what its role says, say what to write.

    Returns:
        A doubt, or "" where there is none.

    Raises:
        UsageError: a score is no share, a size none of the crop.
    """
    if not find_family(recipe.family_name).head:
        return ""
    score, size = outputs.get("score"), outputs.get("size")
    if score is not None:
        low, high = float(score.min()), float(score.max())
        if low < 0 or high > 1:
            raise UsageError(
                f"output 'score' reaches {low:.3g} to {high:.3g}, expected 0..1; write activation = \"sigmoid\" (or "
                '"softmax") for it, or name another tensor'
            )
        if score.size > 1 and low >= 0.5 and high <= 0.732:
            return "every score lies within 0.5..0.73: is the sigmoid applied twice? then leave activation out"
    if size is not None and (float(size.min()) <= 0 or float(size.max()) > 8):
        raise UsageError(
            f"output 'size' reaches {float(size.min()):.3g} to {float(size.max()):.3g}, expected shares of the crop, "
            "above 0; are size and offset in another order, or does the sigmoid miss?"
        )
    return ""


def _read_as_is(recipe: Recipe, paths: Sequence[Path]) -> tuple[tuple[GraphModule, ...], WeightsInfo]:
    """Read a tracker's graphs and compare them with what its recipe and its procedure expect.

    A file's name, without `.onnx`, is the graph's.

    Args:
        recipe: names the graphs and their order; its procedure reads and writes them.
        paths: one ONNX file for each graph.

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
    return modules, _origin([by_name[name] for name in recipe.graphs], operators)


def _signature(
    path: Path, operators: frozenset[str], problems: list[str]
) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    """Inputs and outputs of a file that passes ONNX's checker; what is not static or of no known type is a problem."""
    model = read_onnx(path, operators)
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    sides = (("input", inputs), ("output", model.graph.output))
    first, second = (tuple(_tensor(path, side, v, problems) for v in values) for side, values in sides)
    return first, second


def _tensor(path: Path, side: str, value: Any, problems: list[str]) -> TensorInfo:
    onnx, _ = packages()
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


def _origin(
    graphs: Sequence[Path], operators: frozenset[str] = frozenset(), official: Collection[str] = ()
) -> WeightsInfo:
    """The hash of all files one after the other, and that of each in the note; official where the recipe knows all."""
    whole, each, known = hashlib.sha256(), [], True
    # Each graph with the files beside it that hold its tensors' data.
    paths = [file for path in graphs for file in (path, *check_onnx(path, operators))]
    for path in paths:
        one = hashlib.sha256()
        with open_regular(path) as file:
            while piece := file.read(1 << 20):
                whole.update(piece)
                one.update(piece)
        known = known and one.hexdigest() in official
        each.append(f"{path.name} sha256 {one.hexdigest()}")
    return WeightsInfo(
        origin="official" if known else "custom",
        sha256=whole.hexdigest(),
        file=", ".join(path.name for path in paths),
        note=f"{'official' if known else 'given'} ONNX, parity is with the files in ONNX Runtime: {'; '.join(each)}; "
        "sha256 is of the files one after the other",
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
