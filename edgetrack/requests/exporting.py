"""What to export, how it is lowered, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from edgetrack.bundle.manifest import LicenceInfo
from edgetrack.capabilities import best_target, find_target
from edgetrack.errors import UnknownNameError, UsageError
from edgetrack.evaluation.datasets import open_dataset
from edgetrack.evaluation.protocols.anchored import POINTS, Anchored
from edgetrack.exporting.isolated import Exported, Worst
from edgetrack.exporting.lowering import Correction, Method, Ranges
from edgetrack.exporting.pipeline import ExportPlan, ExportReport, ExportRequest, plan
from edgetrack.exporting.targets.base import read_options
from edgetrack.quantization.accuracy_control import AccuracyControl
from edgetrack.quantization.calibration import DEFAULT, CalibrationSources, CropSampling
from edgetrack.quantization.lower import LoweringRequest
from edgetrack.requests import at_least


def export_work(
    tracker: str,
    *,
    target: str | None,
    precision: str,
    weights: str | None,
    onnx: Sequence[Path],
    settings: Sequence[str],
    batch: int,
    output: Path | None,
    overwrite: bool,
    licence: str | None,
    redistribute: bool,
    opset: int,
    atol: float | None,
    rtol: float | None,
    parity_source: Sequence[str],
    tokenizer: Path | None,
    options: Mapping[str, Any],
    calib: Sequence[str],
    calib_size: int,
    calib_method: str,
    bias_correction: str,
    per_tensor: bool,
    smooth_quant: float | None,
    weight_bits: int,
    keep: Sequence[str] | None,
    seed: int,
    control: AccuracyControl | None,
) -> tuple[ExportPlan, LoweringRequest]:
    """What to export and how it is lowered, checked; see `edgetrack.api.export`."""
    at_least(1, calib_size=calib_size)
    at_least(0, seed=seed)
    method = Method(
        cast(Ranges, calib_method),
        cast(Correction, bias_correction),
        not per_tensor,
        smooth_quant,
        weight_bits=weight_bits,
    )
    lowering = LoweringRequest(
        calibration=CalibrationSources(tuple(calib or (DEFAULT,)), None, CropSampling(calib_size, seed)),
        method=method,
        keep=None if keep is None else tuple(name for name in keep if name != "none"),
        control=control,
    )
    chosen = best_target().name if target is None else target
    request = ExportRequest(
        tracker=tracker,
        target=chosen,
        precision=precision,
        weights=weights,
        onnx=tuple(onnx),
        overrides=tuple(settings),
        batch=batch,
        output=output,
        overwrite=overwrite,
        licence=_licence(licence, redistribute),
        opset=opset,
        atol=atol,
        rtol=rtol,
        parity_sources=tuple(parity_source),
        tokenizer=tokenizer,
        options=read_options(find_target(chosen), options),
    )
    return plan(request), lowering


def _licence(name: str | None, redistribute: bool) -> LicenceInfo | None:
    if name is None:
        if redistribute:
            raise UsageError("--redistribute is said of a licence; give --licence with its name, too")
        return None
    if not 1 <= len(name) <= 512 or not name.isprintable():
        raise UsageError("--licence: expected an SPDX identifier or a name of 1 to 512 printable characters")
    return LicenceInfo(name=name, redistribution=redistribute)


def accuracy_control(
    precision: str,
    *,
    max_drop: float | None,
    val: str | None,
    val_frames: int | None,
    anchors: int,
    anchor_length: int,
    on_drop: str,
    sensitivity: bool,
    jobs: int,
) -> AccuracyControl | None:
    """What decides which stages are lowered; None where nothing of it was asked for.

    Raises:
        UsageError: options that do not go together, or a number outside its range.
    """
    if max_drop is None and val is None and not sensitivity:
        return None
    if precision == "fp32":
        raise UsageError("--max-drop, --val and --sensitivity are for precisions below fp32; give --precision")
    if max_drop is None or val is None:
        raise UsageError("accuracy control needs both --max-drop POINTS and --val SEQUENCES")
    if on_drop not in ("revert", "fail"):
        raise UnknownNameError.of("--on-drop", on_drop, ("revert", "fail"))
    at_least(2, val_frames=val_frames)
    at_least(1, jobs=jobs)
    dataset, revert = open_dataset(val), on_drop == "revert"
    kept = Anchored(anchors, anchor_length)
    return AccuracyControl(dataset, max_drop / POINTS, kept, val_frames, jobs, revert=revert, map_always=sensitivity)


def exported(report: ExportReport) -> Exported:
    """What an export found, as `edgetrack export --json` prints it."""
    worst = report.parity.worst
    return Exported(
        bundle=str(report.path),
        target=report.manifest.target,
        weights=report.manifest.weights.origin,
        overrides=report.manifest.overrides,
        comparisons=len(report.parity.comparisons),
        reference=report.parity.reference,
        not_run=report.parity.not_run,
        worst=Worst(worst.name, worst.max_abs, worst.atol, worst.rtol),
    )
