"""A bundle of lower precision from an FP32 one: graphs lowered, held against FP32, and their own outputs recorded."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import msgspec

from edgetrack.arrays import Array
from edgetrack.bundle import Bundle, BundleWriter, Manifest, open_bundle, read_npz, write_npz
from edgetrack.bundle.manifest import CalibrationInfo, GraphInfo, Precision
from edgetrack.capabilities import TRACE, backend_of, find_target, proof_target
from edgetrack.export.lowering import Inputs, Method
from edgetrack.export.recipe import Tolerance
from edgetrack.export.stages import Stages, patterns_of
from edgetrack.export.targets.base import Exporter, Lowering
from edgetrack.quantization.calibration import CalibrationSet, to_toml
from edgetrack.resources import usable_cores
from edgetrack.runtime.backends.base import BackendOptions, CompiledGraph
from edgetrack.runtime.session import hint_for
from edgetrack.runtime.verify import GOLDEN_FILE, PARITY_FILE, Comparison, compare, run_graph

CALIBRATION_FILE = "calibration.toml"


@dataclass(frozen=True)
class Recording:
    """What the tracker fed its graphs on a calibration set."""

    chosen: CalibrationSet
    fed: Mapping[str, Sequence[Inputs]]

    def thinned(self, count: int) -> Recording:
        """The same with about `count` evenly spread entries for each graph at most."""
        return replace(self, fed={name: each[:: max(1, len(each) // count)] for name, each in self.fed.items()})


@dataclass(frozen=True)
class LoweredGraph:
    """A graph that was lowered once: its files' contents by name, and the nodes that stayed in FP32."""

    files: Mapping[str, bytes]
    wide: tuple[str, ...]


@dataclass(frozen=True)
class Wanted:
    """A lower precision.

    Attributes:
        exporter: lowers the graphs.
        precision: one of the target's.
        method: of quantization.
        recording: needed by `int8` and `fp16`; None for what needs no calibration.
        stages: the recipe's, and `kept`, the names of those that stay in FP32.
        tolerance: of graph outputs against FP32; `verify` grants the same to another machine.
        reports: further files of the bundle, such as a sensitivity map: name -> content.
        lowered: graphs that were lowered before by (graph, patterns of what is kept), which is added to: of many
            candidates most share a graph. None lowers each anew.
    """

    exporter: Exporter
    precision: str
    tolerance: Tolerance
    method: Method = field(default_factory=Method)
    recording: Recording | None = None
    stages: Stages = field(default_factory=dict)
    kept: tuple[str, ...] = ()
    reports: Mapping[str, bytes] = field(default_factory=dict)
    lowered: MutableMapping[tuple[str, tuple[str, ...]], LoweredGraph] | None = None


class LoweredProof(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`parity.json` of a lowered bundle: its graphs against the FP32 ones on the same inputs; FP32's own proof.

    `proven`, `not_run` as in the FP32 report; `allowed` is what `verify` grants another machine.
    """

    schema: int = 1
    proven: str
    not_run: str
    allowed: Tolerance
    comparisons: tuple[Comparison, ...]
    fp32: msgspec.Raw


def lower_bundle(
    full: Path,
    output: Path,
    name: str,
    wanted: Wanted,
    *,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Manifest:
    """Write a bundle of lower precision.

    Args:
        full: the FP32 bundle's folder.
        output: the new bundle's folder.
        name: of the new bundle.
        progress: takes a line of text; where there is one, the exporter completes the bundle (engines, layers).

    Raises:
        ParityError: a graph differs from FP32 by more than the tolerance; nothing is left on disk.
        BackendMissingError, BundleError: see `edgetrack.export.lowering` and `edgetrack.bundle`.
    """
    with open_bundle(full) as source, BundleWriter(output, overwrite=overwrite) as writer:
        manifest = source.manifest
        writer.copy_from(source, leave_out=(GOLDEN_FILE, PARITY_FILE))
        exceptions = _lower_graphs(manifest, writer.folder, wanted)
        lowered = msgspec.structs.replace(
            manifest,
            name=name,
            precision=cast(Precision, wanted.precision),
            precision_exceptions=exceptions,
            calibration=_calibration(manifest.target, wanted),
            tools={**manifest.tools, **_tools(manifest.target, wanted.precision)},
            files={},
        )
        golden, comparisons = _hold_against(source, lowered, writer.folder, wanted)
        _require(comparisons)
        proof = _proof(manifest.target, comparisons, wanted.tolerance, source.path(PARITY_FILE).read_bytes())
        write_npz(writer.folder / GOLDEN_FILE, golden)
        (writer.folder / PARITY_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(proof), indent=1) + b"\n")
        if wanted.recording is not None:
            (writer.folder / CALIBRATION_FILE).write_text(to_toml(wanted.recording.chosen), "utf-8")
        for file, content in wanted.reports.items():
            (writer.folder / file).write_bytes(content)
        if progress is not None:
            lowered = wanted.exporter.complete(writer.folder, lowered, progress)
        writer.commit(lowered)
    return lowered


def _proof(target: str, comparisons: tuple[Comparison, ...], allowed: Tolerance, fp32: bytes) -> LoweredProof:
    from edgetrack.export.parity import proof_fields

    said = proof_fields(find_target(target))
    return LoweredProof(
        proven=said["proven"],
        not_run=said["not_run"],
        comparisons=comparisons,
        allowed=allowed,
        fp32=msgspec.Raw(fp32),
    )


def _lower_graphs(manifest: Manifest, folder: Path, wanted: Wanted) -> dict[str, str]:
    exceptions = dict.fromkeys((f"stage {name}" for name in wanted.kept), "fp32")
    exceptions.update(wanted.exporter.exceptions.get(wanted.precision, {}))
    for info in manifest.graphs:
        wish = Lowering(
            precision=wanted.precision,
            inputs=() if wanted.recording is None else wanted.recording.fed[info.name],
            method=wanted.method,
            kept=patterns_of(wanted.stages, wanted.kept, info.name),
        )
        wide = _lower_graph(wanted.exporter, folder / info.file, wish, info.name, wanted.lowered)
        exceptions.update(dict.fromkeys((f"{info.name}:{node}" for node in wide), "fp32"))
    return exceptions


def _lower_graph(
    exporter: Exporter,
    path: Path,
    wish: Lowering,
    name: str,
    known: MutableMapping[tuple[str, tuple[str, ...]], LoweredGraph] | None,
) -> tuple[str, ...]:
    if known is None:
        return exporter.lower(path, wish)
    key = (name, wish.kept)
    if key not in known:
        wide = exporter.lower(path, wish)
        known[key] = LoweredGraph({file.name: file.read_bytes() for file in exporter.files(path)}, wide)
    for file, content in known[key].files.items():
        (path.parent / file).write_bytes(content)
    return known[key].wide


def _calibration(target: str, wanted: Wanted) -> CalibrationInfo | None:
    if wanted.recording is None:
        return None
    chosen = wanted.recording.chosen
    method = wanted.method.describe(find_target(target).quantizer) if wanted.precision == "int8" else "observed ranges"
    return CalibrationInfo(method=method, list_sha256=chosen.sha256, size=chosen.size)


def _tools(target: str, precision: str) -> dict[str, str]:
    package = find_target(target).quantizer
    return {package: importlib.metadata.version(package)} if precision == "int8" else {}


def _hold_against(
    source: Bundle, lowered: Manifest, folder: Path, wanted: Wanted
) -> tuple[dict[str, Array], tuple[Comparison, ...]]:
    """The FP32 record's inputs through the lowered graphs: their outputs as the new record, and how far they moved."""
    golden = read_npz(source.path(GOLDEN_FILE))
    if find_target(lowered.target).proof == TRACE:
        # Nothing runs the files here: FP32's outputs stay the record, the weights are what is compared.
        each = (wanted.exporter.compare_weights(folder, info, lowered.precision) for info in lowered.graphs)
        return golden, tuple(comparison for found in each for comparison in found)
    comparisons = []
    for info in lowered.graphs:
        graph = _open(lowered, info, folder)
        try:
            samples = sorted({key.split("/")[0] for key in golden if key.split("/")[1] == info.name})
            for sample in samples:
                prefix = f"{sample}/{info.name}"
                found = run_graph(graph, {t.name: golden[f"{prefix}/in/{t.name}"] for t in info.inputs})
                for name, value in found.items():
                    comparisons.append(
                        compare(
                            f"{lowered.precision} {info.name}/{name} #{sample}",
                            value,
                            golden[f"{prefix}/out/{name}"],
                            **msgspec.structs.asdict(wanted.tolerance),
                        )
                    )
                    golden[f"{prefix}/out/{name}"] = value
        finally:
            graph.close()
    return golden, tuple(comparisons)


def _open(manifest: Manifest, info: GraphInfo, folder: Path) -> CompiledGraph:
    options = BackendOptions(threads=usable_cores(), precision_hint=hint_for(manifest, None))
    return backend_of(proof_target(manifest.target).name)(info, folder / info.file, options)


def _require(comparisons: tuple[Comparison, ...]) -> None:
    from edgetrack.export.parity import ParityReport

    ParityReport(comparisons=comparisons, reference="FP32").require()
