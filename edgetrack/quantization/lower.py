"""From a proven FP32 bundle to the lower precision that was asked for: calibrate, choose what stays in FP32, write."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from edgetrack.bundle import Bundle, Manifest, check_destination, open_bundle
from edgetrack.capabilities import proof_target
from edgetrack.errors import UsageError
from edgetrack.export.lowering import Method
from edgetrack.export.pipeline import ExportReport, ExportRequest, Plan, plan
from edgetrack.export.pipeline import export as export_fp32
from edgetrack.export.recipe import Recipe
from edgetrack.export.stages import patterns_of, require_stages
from edgetrack.quantization.accuracy_control import AccuracyControl
from edgetrack.quantization.lower_bundle import LoweredGraph, Recording, Wanted, lower_bundle
from edgetrack.quantization.replay import replay
from edgetrack.quantization.sources import Sources
from edgetrack.runtime.session import load

Tell = Callable[[str], None]
QUICK = 64
"""Crops of a quick candidate: enough to rank stages, in a quarter of the time."""


@dataclass(frozen=True)
class LoweringRequest:
    """How a precision below FP32 is reached.

    Attributes:
        calibration: where crops come from; needed by `int8` and `fp16`.
        method: of quantization.
        keep: stages that stay in FP32; None takes the recipe's.
        control: finds out what may be lowered for a given cost in AO; None takes what comes.
    """

    calibration: Sources | None = None
    method: Method = field(default_factory=Method)
    keep: tuple[str, ...] | None = None
    control: AccuracyControl | None = None


def kept_at_first(recipe: Recipe, precision: str, request: LoweringRequest) -> tuple[str, ...]:
    """The stages that stay in FP32 before any accuracy control.

    Raises:
        UnknownNameError: the user named a stage that the recipe has not.
    """
    kept = recipe.keep.get(precision, ()) if request.keep is None else request.keep
    patterns_of(recipe.stages, kept, "")
    return kept


def check_lowering(work: Plan, request: LoweringRequest) -> None:
    """Check, before anything is computed, what was asked for.

    Raises:
        UnknownNameError: the recipe has no such stage.
        RecipeError: accuracy control of a tracker whose recipe states no stages.
        UsageError: the target cannot be quantized so, or accuracy cannot be measured on this machine.
    """
    kept_at_first(work.recipe, work.request.precision, request)
    work.exporter.check_method(request.method)
    if request.control is not None:
        require_stages(work.recipe.stages, work.recipe.name)
        if work.target.device_needed:
            raise UsageError(
                f"accuracy control runs the bundle, which needs {work.target.device_needed}; find the stages with "
                "another target and give them as --keep"
            )


def export(
    request: ExportRequest | Plan, lowering: LoweringRequest | None = None, *, progress: Tell = lambda stage: None
) -> ExportReport:
    """Export a tracker in any precision.

    Args:
        request: what to export, or what `edgetrack.export.pipeline.plan` made of it.
        lowering: how a precision below FP32 is reached; None for the defaults, which take no calibration.
        progress: called with a line of text at the start of every stage.

    Raises:
        ParityError: the graphs differ from their reference by more than the tolerance; nothing is left on disk.
        EdgetrackError: see `plan`, `check_lowering`, `edgetrack.checkpoints` and `edgetrack.bundle`.
    """
    work = request if isinstance(request, Plan) else plan(request)
    lowering = LoweringRequest() if lowering is None else lowering
    check_lowering(work, lowering)
    if work.request.precision == "fp32":
        return export_fp32(work, progress=progress)
    check_destination(work.output, overwrite=work.request.overwrite)
    with tempfile.TemporaryDirectory(prefix="edgetrack-") as scratch:
        full = export_fp32(work, output=Path(scratch) / "fp32", progress=progress)
        return replace(full, path=work.output, manifest=lower(full.path, work, lowering, progress))


def lower(full: Path, work: Plan, request: LoweringRequest, progress: Tell) -> Manifest:
    """Make the bundle of lower precision that is planned from the FP32 bundle in folder `full`.

    Raises: as `edgetrack.quantization.lower_bundle.lower_bundle`, and AccuracyError of the control.
    """
    recipe, precision = work.recipe, work.request.precision
    recording = None
    if precision in work.exporter.calibrated:
        recording = _record(full, request.calibration, progress)
    kept = kept_at_first(recipe, precision, request)
    reports: Mapping[str, bytes] = {}

    def wanted(stages: Sequence[str], files: Mapping[str, bytes]) -> Wanted:
        return Wanted(
            exporter=work.exporter,
            precision=precision,
            tolerance=recipe.tolerance(precision),
            method=request.method,
            recording=recording,
            stages=recipe.stages,
            kept=tuple(stages),
            reports=files,
        )

    if request.control is not None:
        cache: dict[tuple[str, tuple[str, ...]], LoweredGraph] = {}

        def build(kept: Sequence[str], folder: Path, quick: bool) -> Path:
            candidate = wanted(kept, {})
            if quick and recording is not None:
                candidate = replace(candidate, recording=recording.thinned(QUICK), lowered=cache)
            lower_bundle(full, folder, work.name, candidate)
            return folder

        choice = request.control(full, build, tuple(recipe.stages), kept, progress)
        kept, reports = choice.kept, choice.reports
    progress(f"lowering to {precision}" + (f", {', '.join(kept)} kept in fp32" if kept else ""))
    final = wanted(kept, reports)
    return lower_bundle(full, work.output, work.name, final, overwrite=work.request.overwrite, progress=progress)


def _runnable(full: Path) -> Bundle:
    """The FP32 bundle as one of the target that proves it: its files run there too."""
    bundle = open_bundle(full)
    target = proof_target(bundle.manifest.target).name
    return replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, target=target))


def _record(full: Path, calibration: Sources | None, progress: Tell) -> Recording:
    if calibration is None:
        raise UsageError("this precision needs calibration crops; give --calib")
    with load(_runnable(full)) as tracker:
        chosen = calibration.choose(tracker.procedure, progress)
        return Recording(chosen, replay(chosen, calibration.clips, tracker.procedure, tracker.graphs, progress))
