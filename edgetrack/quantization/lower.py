"""An export in any precision: the FP32 bundle, calibration, what stays in FP32, the lowered bundle and its proof."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec

from edgetrack.arrays import Array
from edgetrack.bundle import Bundle, BundleWriter, Manifest, check_destination, open_bundle, write_npz
from edgetrack.bundle.golden import GOLDEN_FILE, read_golden
from edgetrack.bundle.manifest import CalibrationInfo, GraphInfo, Precision, split_precision
from edgetrack.capabilities import backend_of, proof_target
from edgetrack.errors import UsageError
from edgetrack.exporting.lowering import Inputs, Method
from edgetrack.exporting.pipeline import ExportPlan, ExportReport, ExportRequest, plan
from edgetrack.exporting.pipeline import export as export_fp32
from edgetrack.exporting.recipe import Recipe, Tolerance
from edgetrack.exporting.stages import patterns_of, require_stages
from edgetrack.exporting.targets.base import Lowering
from edgetrack.io import ScratchFolder, encode_json
from edgetrack.quantization.accuracy_control import AccuracyControl
from edgetrack.quantization.calibration import CalibrationSet, CalibrationSources, to_toml
from edgetrack.quantization.replay import replay
from edgetrack.resources import usable_cores
from edgetrack.runtime.backends.base import BackendOptions
from edgetrack.runtime.session import hint_for, load
from edgetrack.runtime.trackers.base import operators_of
from edgetrack.runtime.verify import (
    PARITY_FILE,
    Comparison,
    arithmetic_of,
    compare,
    compare_boxes,
    decoded_box,
    run_graph,
)

if TYPE_CHECKING:
    from edgetrack.exporting.parity import ParityReport

CALIBRATION_FILE = "calibration.toml"
QUICK = 64
"""Crops of a quick candidate: enough to rank stages, in a quarter of the time."""


@dataclass(frozen=True)
class LoweringRequest:
    """How a precision below FP32 is reached.

    Attributes:
        calibration: where crops come from; needed by `int8` and `fp16`.
        method: of quantization.
        keep: stages that stay in FP32; None takes the recipe's.
        control: finds out what may be lowered for a given cost in AO; None lowers all that is not kept.
    """

    calibration: CalibrationSources | None = None
    method: Method = field(default_factory=Method)
    keep: tuple[str, ...] | None = None
    control: AccuracyControl | None = None

    def kept(self, recipe: Recipe, precision: str) -> tuple[str, ...]:
        """The stages that stay in FP32 before any accuracy control."""
        usual = recipe.keep.get(precision, recipe.keep.get(split_precision(precision)[0], ()))
        return usual if self.keep is None else self.keep

    def check(self, work: ExportPlan) -> None:
        """Check, before anything is computed, that a plan can be carried out so.

        Raises:
            UnknownNameError: the recipe has no such stage.
            RecipeError: accuracy control of a tracker whose recipe states no stages.
            UsageError: the target cannot be quantized so, or accuracy cannot be measured on this machine.
            CalibrationError, DatasetError: the clips to calibrate on are not there, or none are given.
            BackendMissingError: what quantizes is not installed.
            DeviceUnavailableError: this processor, which has to prove the bundle, cannot compute in its precision.
        """
        stored, rest = split_precision(work.request.precision)
        if rest in work.target.hinted:
            backend_of(work.target.name).require_hint(rest)
        if stored == "int8":
            work.target.quantizer_version()
        patterns_of(work.recipe.stages, self.kept(work.recipe, work.request.precision), "")
        work.exporter.check_method(self.method, work.request.precision)
        if self.keep and not work.exporter.kept_in(work.request.precision):
            raise UsageError(
                f"target {work.target.name!r} computes all of a graph in {work.request.precision}; leave --keep out"
            )
        if self.control is not None:
            if work.target.device_needed:
                raise UsageError(
                    f"accuracy control runs the bundle, which needs {work.target.device_needed}; find the stages with "
                    "another target and give them as --keep"
                )
            require_stages(work.recipe.stages, work.recipe.name)
        if work.request.precision in work.exporter.calibrated:
            if self.calibration is None:
                raise UsageError("this precision needs calibration crops; give --calib")
            self.calibration.check()


class LoweredProof(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`parity.json` of a lowered bundle: its graphs against the FP32 ones on the same inputs; FP32's own proof.

    `proven`, `not_run` as in the FP32 report; `allowed` is what `verify` grants another machine. `arithmetic` computed
    the recorded outputs; `boxes` says for each sample whether this precision left its decoded box where FP32 has it.
    """

    schema: int = 1
    proven: str
    not_run: str
    allowed: Tolerance
    comparisons: tuple[Comparison, ...]
    fp32: msgspec.Raw
    arithmetic: str = ""
    boxes: dict[str, bool] = {}


@dataclass(frozen=True)
class Recording:
    """What the tracker fed its graphs on a calibration set."""

    chosen: CalibrationSet
    fed: Mapping[str, Sequence[Inputs]]

    def inputs(self, info: GraphInfo) -> Sequence[Inputs]:
        """What a graph was fed; one of several targets, as many entries of `step` at a time."""
        if info.role != "batch":
            return self.fed[info.name]
        from edgetrack.exporting.parity import stacked

        fed, count = self.fed["step"], info.inputs[0].shape[0]
        return [
            stacked([fed[(start + row) % len(fed)] for row in range(count)], info.inputs)
            for start in range(0, len(fed), count)
        ]

    def thinned(self, count: int) -> Recording:
        """The same with about `count` evenly spread entries for each graph at most."""
        return replace(self, fed={name: each[:: max(1, len(each) // count)] for name, each in self.fed.items()})


def export(
    request: ExportRequest | ExportPlan,
    lowering: LoweringRequest | None = None,
    *,
    progress: Callable[[str], None] = lambda stage: None,
) -> ExportReport:
    """Export a tracker in any precision.

    Args:
        request: what to export, or what `edgetrack.exporting.pipeline.plan` made of it.
        lowering: how a precision below FP32 is reached; None for the defaults, which have no calibration.
        progress: called with a line of text at the start of every stage.

    Raises:
        ParityError: the graphs differ from their reference by more than the tolerance; nothing is left on disk.
        AccuracyError: the precision costs more than accuracy control allows.
        EdgetrackError: see `plan`, `LoweringRequest.check`, `edgetrack.checkpoints` and `edgetrack.bundle`.
    """
    work = request if isinstance(request, ExportPlan) else plan(request)
    lowering = LoweringRequest() if lowering is None else lowering
    lowering.check(work)
    if work.request.precision == "fp32":
        return export_fp32(work, progress=progress)
    check_destination(work.output, overwrite=work.request.overwrite)
    with ScratchFolder() as scratch:
        full = export_fp32(work, output=scratch / "fp32", progress=progress)
        return lower(full.path, work, lowering, progress)


def lower(full: Path, work: ExportPlan, request: LoweringRequest, progress: Callable[[str], None]) -> ExportReport:
    """Make the planned bundle of lower precision from the FP32 bundle in folder `full`; raises as `export`."""
    precision = work.request.precision
    recording = None
    if precision in work.exporter.calibrated:
        recording = _record(full, request.calibration or CalibrationSources(), progress)
    kept = request.kept(work.recipe, precision) if work.exporter.kept_in(precision) else ()
    reports: Mapping[str, bytes] = {}
    lowering = _BundleLowering(full, work, request.method, recording)
    if request.control is not None:
        choice = request.control(full, lowering.candidate, tuple(work.recipe.stages), kept, progress)
        kept, reports = choice.kept, choice.reports
    progress(f"lowering to {precision}" + (f", not {', '.join(kept)}" if kept else ""))
    return lowering.write(work.output, kept, reports, progress)


def _record(full: Path, calibration: CalibrationSources, progress: Callable[[str], None]) -> Recording:
    bundle = open_bundle(full)
    # The target that proves the bundle runs its files here; its own device need not be at hand.
    runnable = msgspec.structs.replace(bundle.manifest, target=proof_target(bundle.manifest.target).name)
    with load(replace(bundle, manifest=runnable)) as tracker:
        chosen = calibration.choose(tracker.procedure, progress)
        return Recording(chosen, replay(chosen, calibration.clips, tracker.procedure, tracker.graphs, progress))


@dataclass
class _BundleLowering:
    """Makes bundles of one lower precision from one FP32 bundle.

    `lowered` keeps graphs of quick candidates by name and patterns of what is kept, as most candidates share a graph:
    the contents of its files by name, and the nodes that stayed in FP32.
    """

    full: Path
    work: ExportPlan
    method: Method
    recording: Recording | None
    lowered: dict[tuple[str, tuple[str, ...]], tuple[dict[str, bytes], tuple[str, ...]]] = field(default_factory=dict)

    def candidate(self, kept: Sequence[str], folder: Path, quick: bool) -> Path:
        """A bundle for a trial; a quick one is calibrated on a part of the crops."""
        with open_bundle(self.full) as source, BundleWriter(folder) as writer:
            return writer.commit(self._make(source, writer, kept, quick)[0])

    def write(
        self, output: Path, kept: Sequence[str], reports: Mapping[str, bytes], progress: Callable[[str], None]
    ) -> ExportReport:
        """The bundle that was asked for, with its evidence (file name -> content) and what its target adds."""
        with open_bundle(self.full) as source, BundleWriter(output, overwrite=self.work.request.overwrite) as writer:
            manifest, report = self._make(source, writer, kept, False)
            for file, content in reports.items():
                (writer.folder / file).write_bytes(content)
            manifest = self.work.exporter.complete(writer.folder, manifest, progress)
            return ExportReport(writer.commit(manifest), manifest, report)

    def _make(
        self, source: Bundle, writer: BundleWriter, kept: Sequence[str], quick: bool
    ) -> tuple[Manifest, ParityReport]:
        """The bundle's files, lowered and proven, in the writer's folder."""
        precision, target = self.work.request.precision, self.work.target
        recording = self.recording.thinned(QUICK) if quick and self.recording is not None else self.recording
        # Trials follow one target: what a precision costs, several targets do not change.
        graphs = tuple(info for info in source.manifest.graphs if not (quick and info.role == "batch"))
        spared = {info.file for info in source.manifest.graphs} - {info.file for info in graphs}
        writer.copy_from(source, leave_out=(GOLDEN_FILE, PARITY_FILE, *spared))
        stored, rest = split_precision(precision)
        wide = rest if rest in target.hints else self.work.exporter.kept_in(precision)
        exceptions = dict.fromkeys((f"stage {name}" for name in kept), wide)
        exceptions.update(self.work.exporter.exceptions.get(precision, {}))
        golden = read_golden(source)
        for info in graphs:
            inputs = recorded(golden, info) if recording is None else recording.inputs(info)
            patterns = patterns_of(self.work.recipe.stages, kept, "step" if info.role == "batch" else info.name)
            lowering = Lowering(precision, inputs, self.method, patterns, operators_of(source.manifest))
            nodes = self._lower(writer.folder / info.file, lowering, quick)
            exceptions.update(dict.fromkeys((f"{info.name}:{node}" for node in nodes), wide))
        calibration, tools = None, dict(source.manifest.tools)
        if stored == "int8":
            tools[target.quantizer] = target.quantizer_version()
        if recording is not None:
            method = (
                self.work.exporter.describe_method(self.method, target.quantizer)
                if stored == "int8"
                else "observed ranges"
            )
            calibration = CalibrationInfo(
                method=method, list_sha256=recording.chosen.sha256, size=recording.chosen.size
            )
            (writer.folder / CALIBRATION_FILE).write_text(to_toml(recording.chosen), "utf-8")
        manifest = msgspec.structs.replace(
            source.manifest,
            name=self.work.name,
            target=target.name,
            graphs=graphs,
            precision=cast(Precision, precision),
            precision_exceptions=exceptions,
            calibration=calibration,
            tools=tools,
            files={},
        )
        return manifest, self._prove(source, manifest, writer.folder)

    def _lower(self, path: Path, lowering: Lowering, quick: bool) -> tuple[str, ...]:
        exporter, key = self.work.exporter, (path.name, lowering.kept)
        if not quick:
            return exporter.lower(path, lowering)
        if key not in self.lowered:
            wide = exporter.lower(path, lowering)
            self.lowered[key] = ({file.name: file.read_bytes() for file in exporter.files(path)}, wide)
        files, wide = self.lowered[key]
        for name, content in files.items():
            (path.parent / name).write_bytes(content)
        return wide

    def _prove(self, source: Bundle, manifest: Manifest, folder: Path) -> ParityReport:
        """Compare with FP32 on the inputs of its record; the lowered graphs' own outputs are the new record.

        Raises:
            ParityError: a graph differs from FP32 by more than the tolerance.
        """
        from edgetrack.exporting.parity import ParityReport, proof_of

        golden = read_golden(source)
        fp32 = dict(golden)
        comparisons: list[Comparison] = []
        for info in manifest.graphs:
            comparisons += self._compare(manifest, info, folder, golden)
            comparisons += self.work.exporter.compare_weights(folder, info, manifest.precision)
        arithmetic = arithmetic_of(proof_target(manifest.target).name)
        boxes = {sample: _same_box(manifest, sample, golden, fp32, folder) for sample in _samples_of(golden, "step")}
        proven, not_run = proof_of(self.work.target)
        report = ParityReport(reference="FP32", proven=proven, not_run=not_run, comparisons=tuple(comparisons))
        report.require()
        proof = LoweredProof(
            allowed=self.work.allowed,
            comparisons=report.comparisons,
            fp32=msgspec.Raw(source.path(PARITY_FILE).read_bytes()),
            proven=proven,
            not_run=not_run,
            arithmetic=arithmetic,
            boxes=boxes,
        )
        write_npz(folder / GOLDEN_FILE, golden)
        (folder / PARITY_FILE).write_bytes(encode_json(proof, indent=1) + b"\n")
        return report

    def _compare(self, manifest: Manifest, info: GraphInfo, folder: Path, golden: dict[str, Array]) -> list[Comparison]:
        """Run a lowered graph on the record's inputs; its outputs take the place of FP32's in `golden`."""
        limits = msgspec.structs.asdict(self.work.allowed)
        options = BackendOptions(
            threads=usable_cores(), precision_hint=hint_for(manifest, None), operators=operators_of(manifest)
        )
        graph = backend_of(proof_target(manifest.target).name)(info, folder / info.file, options)
        comparisons = []
        try:
            for sample, given in zip(_samples_of(golden, info.name), recorded(golden, info), strict=True):
                prefix = f"{sample}/{info.name}"
                found = run_graph(graph, given)
                for name, value in found.items():
                    title = f"{manifest.precision} {info.name}/{name} #{sample}"
                    comparisons.append(compare(title, value, golden[f"{prefix}/out/{name}"], **limits))
                    golden[f"{prefix}/out/{name}"] = value
        finally:
            graph.close()
        return comparisons


def recorded(golden: Mapping[str, Array], info: GraphInfo) -> list[Inputs]:
    """What a golden record has a graph fed with, a sample each."""
    return [
        {t.name: golden[f"{sample}/{info.name}/in/{t.name}"] for t in info.inputs}
        for sample in _samples_of(golden, info.name)
    ]


def _samples_of(golden: Mapping[str, Array], graph: str) -> list[str]:
    """The samples that a golden record has of a graph."""
    return sorted({key.split("/")[0] for key in golden if key.split("/")[1] == graph})


def _same_box(
    manifest: Manifest, sample: str, lowered: Mapping[str, Array], fp32: Mapping[str, Array], folder: Path
) -> bool:
    """Whether a sample's outputs stand for the same box in both records."""
    start = f"{sample}/step/out/"
    ours, theirs = (
        decoded_box(
            manifest, {key.removeprefix(start): value for key, value in one.items() if key.startswith(start)}, folder
        )
        for one in (lowered, fp32)
    )
    return ours is not None and theirs is not None and compare_boxes("", ours, theirs).ok
