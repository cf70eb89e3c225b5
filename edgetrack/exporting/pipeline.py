"""`export`: recipe, network, graphs, conversion, parity, bundle. Nothing is left on disk unless all of it worked."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec
import numpy as np

from edgetrack import __version__
from edgetrack.arrays import Array
from edgetrack.bundle import BundleWriter, write_npz
from edgetrack.bundle.golden import GOLDEN_FILE
from edgetrack.bundle.manifest import GraphInfo, LicenceInfo, Manifest, Scalar, WeightsInfo, bundle_name
from edgetrack.capabilities import (
    EXPORT_PACKAGES,
    Target,
    backend_of,
    find_target,
    full_target,
    proof_target,
    require_precision,
    targets,
)
from edgetrack.errors import BackendMissingError, BundleError, RecipeError, UsageError
from edgetrack.exporting.memory import require_memory
from edgetrack.exporting.recipe import DEFAULT, Recipe, Tolerance, find_recipe
from edgetrack.exporting.targets.base import Exporter, ExporterOptions, exporter_of
from edgetrack.io import encode_json
from edgetrack.media import open_source
from edgetrack.plugins import MODELS, plugin_names
from edgetrack.resources import require_extra, usable_cores
from edgetrack.runtime.backends.base import BackendOptions, CompiledGraph, allocate
from edgetrack.runtime.multi import MOST_TARGETS
from edgetrack.runtime.trackers.base import find_family, find_procedure, operators_of, read_settings
from edgetrack.runtime.verify import PARITY_FILE

if TYPE_CHECKING:
    from torch.nn import Module

    from edgetrack.exporting.parity import ParityReport
    from edgetrack.models.base import GraphModule

GOLDEN_SAMPLES = 3


@dataclass(frozen=True)
class ExportRequest:
    """What to export.

    Attributes:
        tracker: a recipe's name, or the path of a recipe file.
        target, precision: a row and a column of the capability table.
        weights: path of a checkpoint, `default` or `untrained`; None: the default ones where the tracker has some.
        onnx: files of graphs to start from, in place of a network and its weights.
        overrides: keys of the recipe's configuration and procedure to set otherwise, as `KEY=VALUE`.
        batch: targets of one more graph, `batch`, that runs `step` for several at once; 1: there is none.
        output: the bundle's folder; None: `out/<name of the bundle>`, see
            `edgetrack.bundle.manifest.bundle_name`.
        licence: the weights' terms, as who exports them states them; None: those of the recipe's default weights, else
            none are noted.
        opset: ONNX operator set, 17 or 18.
        atol, rtol: in place of the recipe's parity tolerance for `precision`.
        parity_sources: frames with a ground-truth box to prove parity on, beside the built-in scenes.
        tokenizer: a file of CLIP's merges for a tracker that reads text; None: an installed package's.
        options: what the target alone offers, None for its defaults.
    """

    tracker: str
    target: str
    precision: str = "fp32"
    weights: str | None = None
    onnx: tuple[Path, ...] = ()
    overrides: tuple[str, ...] = ()
    batch: int = 1
    output: Path | None = None
    overwrite: bool = False
    licence: LicenceInfo | None = None
    opset: int = 17
    atol: float | None = None
    rtol: float | None = None
    parity_sources: tuple[str, ...] = ()
    tokenizer: Path | None = None
    options: ExporterOptions | None = None


@dataclass(frozen=True)
class ExportPlan:
    """A request, resolved and checked; nothing was computed yet.

    `recipe` has the overrides in it, `overrides` those that differ from its own values; `tolerance` is that of FP32
    against PyTorch, `allowed` that of the precision asked for: against FP32, where it is a lower one. `weight_bytes`
    are the network's in FP32, 0 where ONNX brings them.
    """

    request: ExportRequest
    recipe: Recipe
    overrides: dict[str, Scalar]
    target: Target
    exporter: Exporter
    name: str
    output: Path
    tolerance: Tolerance
    allowed: Tolerance
    weight_bytes: int = 0


@dataclass(frozen=True)
class ExportReport:
    """A finished export: where the bundle is, what it says, and how it compares with its reference."""

    path: Path
    manifest: Manifest
    parity: ParityReport


def plan(request: ExportRequest) -> ExportPlan:
    """Resolve and check a request.

    Raises:
        UsageError, UnknownNameError, RecipeError: what was asked for does not exist or is not supported.
        BackendMissingError: a package is missing; the message says which extra installs it.
    """
    recipe, overrides = find_recipe(request.tracker).overridden(request.overrides)
    target = find_target(request.target)
    exporter_type = exporter_of(target)
    require_precision(target, request.precision)
    if request.onnx and request.weights is not None:
        raise UsageError(f"--onnx brings its own weights, given --weights {request.weights} too; leave one of them out")
    if request.onnx and not exporter_type.reads_onnx:
        raise UsageError(
            f"target {target.name!r} is converted from PyTorch and reads no ONNX; give --weights in place of --onnx"
        )
    if request.batch != 1:
        _check_batch(request, recipe, exporter_type)
    if recipe.given and not request.onnx and not _has_network(recipe.family_name):
        files = dict.fromkeys(file for graph in recipe.given.values() for file in graph.files)
        source = f" ({recipe.checkpoint.source})" if recipe.checkpoint.source else ""
        raise UsageError(
            f"recipe {recipe.name!r} starts from ONNX{source}; give "
            + " ".join(f"--onnx {file}.onnx" for file in files)
        )
    if request.opset not in (17, 18):
        raise UsageError(f"opset {request.opset} is not supported; expected 17 or 18")
    if request.options is not None and type(request.options) is not exporter_type.options_type:
        raise UsageError(
            f"{type(request.options).__name__} is for another target than {target.name!r}; leave its options out"
        )
    for name, value in (("--atol", request.atol), ("--rtol", request.rtol)):
        if value is not None and not 0 <= value < float("inf"):
            raise UsageError(f"{name} is {value}; expected a finite number of at least 0")
    given = {"atol": request.atol, "rtol": request.rtol}
    allowed = recipe.tolerance(request.precision)
    allowed = msgspec.structs.replace(allowed, **{name: v for name, v in given.items() if v is not None})
    tolerance = allowed if request.precision == "fp32" else recipe.tolerance("fp32")
    told = overrides if request.batch == 1 else {**overrides, "batch": request.batch}
    name = bundle_name(recipe.name, told, target.name, request.precision)
    output = request.output or Path("out") / name
    _require_packages(target)
    for source in request.parity_sources:
        with open_source(source):
            pass
    weight_bytes = _check_sections(recipe, request, overridden=bool(overrides))
    exporter = exporter_type(recipe, request.options)
    exporter.prepare()
    if not request.onnx:
        request = replace(request, weights=recipe.choose_weights(request.weights))
    if request.licence is not None and request.weights == DEFAULT:
        raise UsageError("--licence is for weights of yours; the default ones have terms of their own: leave it out")
    return ExportPlan(request, recipe, overrides, target, exporter, name, output, tolerance, allowed, weight_bytes)


def _check_batch(request: ExportRequest, recipe: Recipe, exporter: type[Exporter]) -> None:
    """Raise UsageError where no graph of several targets can be made."""
    if not 1 <= request.batch <= MOST_TARGETS:
        raise UsageError(f"batch {request.batch}: expected 1 to {MOST_TARGETS} targets")
    if not exporter.reads_onnx:
        raise UsageError(f"target {request.target!r} is converted from PyTorch, for one target; leave --batch out")
    if not find_family(recipe.family_name).batches():
        raise UsageError(
            f"tracker {recipe.name!r} chooses its graphs frame by frame, each target its own; leave --batch out"
        )


def _check_sections(recipe: Recipe, request: ExportRequest, *, overridden: bool) -> int:
    """Hold every section against the family, as the export will: nothing is computed, the network has no values.

    Its procedure judges [procedure], its network [configuration], and the procedure the graphs that come of it.

    Returns:
        The bytes of the network's tensors; 0 where ONNX brings them.

    Raises:
        RecipeError: two sections do not suit each other, or a value is not the family's.
        UsageError: the same of what `--set` gave.
    """
    family = find_family(recipe.family_name)
    roles, weight_bytes = dict(recipe.graphs), 0
    try:
        if family.settings_type is not None:
            read_settings(recipe.procedure, family.settings_type)
        if not request.onnx:
            graphs, weight_bytes = _declared(recipe)
            roles = {graph.name: graph.role for graph in graphs}
            manifest = Manifest(
                name=recipe.name,
                tracker=recipe.name,
                family=recipe.family,
                title=recipe.title,
                target=request.target,
                precision="fp32",
                weights=WeightsInfo(origin="untrained"),
                graphs=graphs,
                procedure=recipe.procedure,
            )
            family(manifest, {graph.name: cast("CompiledGraph", _Unopened(graph)) for graph in graphs})
            if request.tokenizer is not None:
                family.side_files(manifest, request.tokenizer)
    except BundleError as error:
        said = str(error).removesuffix("; export it again")
        if overridden:
            raise UsageError(f"--set gives tracker {recipe.name!r} a value that it does not take: {said}") from None
        raise RecipeError(f"the sections of recipe {recipe.name!r} do not suit each other: {said}") from None
    _check_names(recipe, roles)
    return weight_bytes


def _check_names(recipe: Recipe, roles: Mapping[str, str]) -> None:
    known = sorted({precision for target in targets() for precision in target.precisions})
    for section, names in (("parity", recipe.parity), ("keep", recipe.keep)):
        for name in names:
            if name not in known:
                raise RecipeError(
                    f"recipe {recipe.name!r}: [{section}] has {name!r}; expected one of {', '.join(known)}"
                )
    for stage, entries in recipe.stages.items():
        graphs = [entry.partition(":")[0] for entry in entries]
        # Some, or all, may be for graphs of another configuration, which [graphs] names.
        if not any(graph in roles or graph in recipe.graphs for graph in graphs):
            raise RecipeError(
                f"recipe {recipe.name!r}: [stages] {stage} names graph {', '.join(graphs) or 'none'}; "
                f"expected one of {', '.join(roles)}"
            )


def _declared(recipe: Recipe) -> tuple[tuple[GraphInfo, ...], int]:
    """The graphs that the network of a recipe becomes, by their inputs and outputs alone, and the bytes of its tensors.

    Raises:
        RecipeError: [training] names a backbone that the network has not.
    """
    import torch

    from edgetrack.models.base import find_model, make_network

    with torch.device("meta"):
        network = make_network(recipe.family_name, recipe.configuration)
        backbone = "" if recipe.training is None else recipe.training.backbone
        tensors = network.state_dict()
        if not any(name.startswith(backbone) for name in tensors):
            raise RecipeError(
                f"recipe {recipe.name!r}: [training] backbone {backbone!r} begins no name of a tensor of the network"
            )
        graphs = find_model(recipe.family_name).deploy(network)
    infos = tuple(
        GraphInfo(name=one.name, role=one.role, file=one.name, inputs=one.inputs, outputs=one.outputs) for one in graphs
    )
    return infos, sum(tensor.nbytes for tensor in tensors.values())


class _Unopened:
    """A graph as a procedure meets it when it is made: buffers, and nothing that runs."""

    def __init__(self, info: GraphInfo) -> None:
        self.info = info
        self.inputs, self.outputs = allocate(info.inputs), allocate(info.outputs)


def _has_network(family: str) -> bool:
    """Whether the family can start from weights."""
    return family in plugin_names(MODELS) or importlib.util.find_spec(f"edgetrack.models.{family}") is not None


def _require_packages(target: Target) -> None:
    require_extra("exporting", "export", *EXPORT_PACKAGES)
    if not target.installed:
        raise BackendMissingError(
            f"target {target.name!r} needs its package; install it with: {target.install_command}"
        )


def export(
    request: ExportRequest | ExportPlan,
    *,
    output: Path | None = None,
    progress: Callable[[str], None] = lambda stage: None,
) -> ExportReport:
    """Export a tracker in FP32, proven against PyTorch; `edgetrack.quantization.lower.export` takes every precision.

    Args:
        request: what to export, or what `plan` made of it.
        output: a new folder in place of the planned one, for what is to be lowered from there.
        progress: called with a line of text at the start of every stage.

    Raises:
        ParityError: the exported graphs differ from PyTorch by more than the tolerance; nothing is left on disk.
        EdgetrackError: see `plan`, `edgetrack.checkpoints` and `edgetrack.bundle`.
    """
    from edgetrack.exporting.parity import proof_of

    work = request if isinstance(request, ExportPlan) else plan(request)
    final = work.request.precision == "fp32"
    if not final and output is None:
        raise UsageError(f"this exports fp32, given {work.request.precision}; call edgetrack.quantization.lower.export")
    require_memory(work.weight_bytes, progress)
    shipped, published, weights, reference = _start(work, progress)
    if work.request.licence is not None:
        weights = msgspec.structs.replace(weights, licence=work.request.licence)
    if work.request.batch > 1:
        from edgetrack.exporting.batch import for_many

        (step,) = (graph for graph in shipped if graph.role == "step")
        shipped = (*shipped, for_many(step, work.request.batch))
    with BundleWriter(output or work.output, overwrite=output is None and work.request.overwrite) as writer:
        manifest = _manifest(work, weights, _convert(work, shipped, weights, writer.folder, progress))
        for file, content in find_procedure(manifest).side_files(manifest, work.request.tokenizer).items():
            (writer.folder / file).write_bytes(content)
        report, golden = _prove(work, manifest, shipped, published, writer.folder, progress)
        proven, not_run = proof_of(full_target(work.target))
        report = msgspec.structs.replace(report, reference=reference, proven=proven, not_run=not_run)
        report.require("--atol" if work.request.precision == "fp32" else "atol of [parity.fp32] in the recipe")
        if work.request.onnx:
            from edgetrack.exporting.from_onnx import check_ranges

            if doubt := check_ranges(work.recipe, golden[0]["step"]["out"]):
                progress(f"doubt: {doubt}")
        progress("writing the bundle")
        write_npz(writer.folder / GOLDEN_FILE, _golden_arrays(golden))
        (writer.folder / PARITY_FILE).write_bytes(encode_json(report, indent=1) + b"\n")
        if final:
            manifest = work.exporter.complete(writer.folder, manifest, progress)
        path = writer.commit(manifest)
    return ExportReport(path, manifest, report)


def filled_network(work: ExportPlan) -> tuple[Module, WeightsInfo]:
    """The network of a plan with its weights, and what the manifest says of them.

    Raises:
        CheckpointError: the file cannot be read, or holds other tensors.
        UsageError: the tracker has no such weights.
    """
    from edgetrack.exporting.weights import fill
    from edgetrack.models.base import make_network

    network = make_network(work.recipe.family_name, work.recipe.configuration)
    weights = fill(network, work.recipe, work.recipe.choose_weights(work.request.weights))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return network, msgspec.structs.replace(weights, parameters=parameters)


def _start(
    work: ExportPlan, progress: Callable[[str], None]
) -> tuple[Sequence[GraphModule], Sequence[GraphModule], WeightsInfo, str]:
    """The graphs to ship, those to compare them with, where the weights come from, and the reference's name."""
    if work.request.onnx:
        from edgetrack.exporting.from_onnx import REFERENCE, read_given

        progress(f"graphs: {', '.join(map(str, work.request.onnx))}")
        given = read_given(work.recipe, work.request.onnx, work.target.name)
        return given.shipped, given.published, given.weights, REFERENCE
    from edgetrack.models.base import find_model

    progress(f"weights: {work.recipe.choose_weights(work.request.weights)}")
    model = find_model(work.recipe.family_name)
    network, weights = filled_network(work)
    if weights.origin == "custom":
        progress(f"weights: {weights.note}")
    published = model.reference(network)
    deploy = getattr(model, "deploy_channels_last", model.deploy) if work.target.channels_last else model.deploy
    return published if work.target.reference else deploy(network), published, weights, "PyTorch"


def _convert(
    work: ExportPlan,
    shipped: Sequence[GraphModule],
    weights: WeightsInfo,
    folder: Path,
    progress: Callable[[str], None],
) -> tuple[GraphInfo, ...]:
    from edgetrack.exporting.parity import count_flops

    infos = []
    for graph in shipped:
        progress(f"converting graph {graph.name} for {work.target.name}")
        metadata = {
            "edgetrack": __version__,
            "tracker": work.recipe.name,
            "family": work.recipe.family_name,
            "graph": graph.name,
            "weights": weights.origin,
            "weights_sha256": weights.sha256 or "",
        }
        if work.recipe.configuration:
            metadata["configuration"] = json.dumps(work.recipe.configuration)
        file = work.exporter.convert(graph, folder, opset=work.request.opset, metadata=metadata)
        infos.append(
            GraphInfo(
                name=graph.name,
                role=graph.role,
                file=file,
                inputs=graph.inputs,
                outputs=graph.outputs,
                flops=count_flops(graph),
            )
        )
    return tuple(infos)


def _manifest(work: ExportPlan, weights: WeightsInfo, graphs: tuple[GraphInfo, ...]) -> Manifest:
    return Manifest(
        name=work.name,
        tracker=work.recipe.name,
        family=work.recipe.family,
        title=work.recipe.title,
        target=full_target(work.target).name,
        precision="fp32",
        weights=weights,
        graphs=graphs,
        procedure=work.recipe.procedure,
        overrides=work.overrides,
        paper=work.recipe.paper_of(work.overrides),
        tools={"edgetrack": __version__, **_versions(_reference_tools(work)), **work.target.versions()},
        lost=work.recipe.lost_of(weights.sha256, work.overrides),
    )


def _reference_tools(work: ExportPlan) -> tuple[str, ...]:
    return ("torch", "onnx", "onnxruntime") if work.request.onnx else ("torch", "onnx")


def _versions(packages: Iterable[str]) -> dict[str, str]:
    return {package: importlib.metadata.version(package) for package in dict.fromkeys(packages)}


def _prove(
    work: ExportPlan,
    manifest: Manifest,
    shipped: Sequence[GraphModule],
    published: Sequence[GraphModule],
    folder: Path,
    progress: Callable[[str], None],
) -> tuple[ParityReport, list[dict[str, dict[str, dict[str, Array]]]]]:
    from edgetrack.exporting.parity import (
        DEFAULT_SOURCES,
        Sample,
        exported_runner,
        noise_sample,
        prove,
        real_samples,
    )

    full = full_target(work.target)
    # The reference is PyTorch itself, read back from its file: what one scene does not find, no second one does.
    built_in = DEFAULT_SOURCES[:1] if work.target.reference else DEFAULT_SOURCES
    samples: list[Sample] = []
    single = [module for module in shipped if module.role != "batch"]
    for source in (*built_in, *work.request.parity_sources):
        progress(f"parity: tracking {source}")
        samples.extend(real_samples(manifest, single, source, folder))
    samples.append(noise_sample(single, samples[-1]))
    progress(f"parity: {len(samples)} samples on {full.proof or full.name}")
    options = BackendOptions(threads=usable_cores(), operators=operators_of(manifest))
    with ExitStack() as stack:
        graphs: dict[str, CompiledGraph] = {}
        for info in manifest.graphs:
            graphs[info.name] = backend_of(proof_target(full.name).name)(info, folder / info.file, options)
            stack.callback(graphs[info.name].close)
        return prove(shipped, published, exported_runner(graphs), samples, work.tolerance)


def _golden_arrays(golden: Sequence[Mapping[str, Mapping[str, Mapping[str, Array]]]]) -> dict[str, Array]:
    """Spread over the samples: array names `<sample>/<graph>/<in|out>/<tensor>`."""
    chosen = sorted({round(i) for i in np.linspace(0, len(golden) - 1, GOLDEN_SAMPLES)})
    return {
        f"{index}/{graph}/{side}/{name}": array
        for index in chosen
        for graph, sides in golden[index].items()
        for side, tensors in sides.items()
        for name, array in tensors.items()
    }
