"""From a proven FP32 bundle to the lower precision that was asked for: calibrate, choose what stays in FP32, write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import msgspec

from edgetrack.bundle import Bundle, Manifest, open_bundle
from edgetrack.capabilities import find_target, proof_target
from edgetrack.errors import UsageError
from edgetrack.export.precision.calibration import CalibrationSet, Part
from edgetrack.export.precision.collect import Clip
from edgetrack.export.precision.lower_bundle import LoweredGraph, Recording, Wanted, lower_bundle
from edgetrack.export.precision.methods import Method
from edgetrack.export.precision.replay import replay
from edgetrack.export.precision.stages import patterns_of
from edgetrack.export.recipe import Recipe
from edgetrack.export.targets.base import Exporter, exporter_of
from edgetrack.runtime.session import load
from edgetrack.runtime.trackers.base import Procedure

Progress = Callable[[str], None]


class Calibration(Protocol):
    """Where calibration crops come from."""

    def choose(self, procedure: Procedure, progress: Progress) -> CalibrationSet:
        """The set: read, or collected by running the tracker."""

    def clips(self, part: Part) -> Mapping[str, Clip]:
        """The clips of a part, by name."""


@dataclass(frozen=True)
class Choice:
    """What stays in FP32, and what the bundle is to hold as evidence: file name -> content."""

    kept: tuple[str, ...]
    reports: Mapping[str, bytes]


class Build(Protocol):
    """Writes candidates."""

    def __call__(self, kept: Sequence[str], folder: Path, *, quick: bool = False) -> Path:
        """Write one that keeps these stages into a new folder, calibrated on a part of the crops where `quick`."""


QUICK = 64
"""Crops of a quick candidate: enough to rank stages, in a quarter of the time."""


class Chooser(Protocol):
    """Accuracy control: tries candidates and decides."""

    def __call__(
        self, full: Path, build: Build, stages: Sequence[str], kept: Sequence[str], progress: Progress
    ) -> Choice:
        """Decide which stages stay in FP32, beginning with `kept`.

        Raises:
            AccuracyError: no choice costs as little as was asked for.
        """


@dataclass(frozen=True)
class LowerWish:
    """What a user may say of a lower precision.

    Attributes:
        calibration: where crops come from; needed by `int8` and `fp16`.
        method: of quantization.
        keep: stages that stay in FP32; None takes the recipe's.
        chooser: accuracy control, or None to take what comes.
    """

    calibration: Calibration | None = None
    method: Method = field(default_factory=Method)
    keep: tuple[str, ...] | None = None
    chooser: Chooser | None = None


def kept_at_first(recipe: Recipe, precision: str, wish: LowerWish) -> tuple[str, ...]:
    """The stages that stay in FP32 before any accuracy control.

    Raises:
        UnknownNameError: the user named a stage that the recipe has not.
    """
    kept = recipe.keep.get(precision, ()) if wish.keep is None else wish.keep
    patterns_of(recipe.stages, kept, "")
    return kept


def lower(
    full: Path,
    output: Path,
    name: str,
    recipe: Recipe,
    precision: str,
    wish: LowerWish,
    overwrite: bool,
    progress: Progress,
    exporter: Exporter | None = None,
) -> Manifest:
    """Make a bundle of lower precision from the FP32 bundle in folder `full`.

    `exporter` is the one that made that bundle; None takes one with its target's default options.

    Raises: as `edgetrack.export.precision.lower_bundle.lower_bundle`, and what the chooser raises.
    """
    if exporter is None:
        with open_bundle(full) as bundle:
            exporter = exporter_of(find_target(bundle.manifest.target))(recipe)
    recording = None
    if precision in exporter.calibrated:
        recording = _record(full, wish.calibration, progress)
    kept = kept_at_first(recipe, precision, wish)
    reports: Mapping[str, bytes] = {}

    def wanted(stages: Sequence[str], files: Mapping[str, bytes]) -> Wanted:
        return Wanted(
            exporter=exporter,
            precision=precision,
            tolerance=recipe.tolerance(precision),
            method=wish.method,
            recording=recording,
            stages=recipe.stages,
            kept=tuple(stages),
            reports=files,
        )

    if wish.chooser is not None:
        cache: dict[tuple[str, tuple[str, ...]], LoweredGraph] = {}

        def build(kept: Sequence[str], folder: Path, *, quick: bool = False) -> Path:
            candidate = wanted(kept, {})
            if quick and recording is not None:
                candidate = replace(candidate, recording=recording.thinned(QUICK), lowered=cache)
            lower_bundle(full, folder, name, candidate)
            return folder

        choice = wish.chooser(full, build, tuple(recipe.stages), kept, progress)
        kept, reports = choice.kept, choice.reports
    progress(f"lowering to {precision}" + (f", {', '.join(kept)} kept in fp32" if kept else ""))
    return lower_bundle(full, output, name, wanted(kept, reports), overwrite=overwrite, progress=progress)


def _runnable(full: Path) -> Bundle:
    """The FP32 bundle as one of the target that proves it: its files run there too."""
    bundle = open_bundle(full)
    target = proof_target(bundle.manifest.target).name
    return replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, target=target))


def _record(full: Path, calibration: Calibration | None, progress: Progress) -> Recording:
    if calibration is None:
        raise UsageError("this precision needs calibration crops; give --calib")
    with load(_runnable(full)) as tracker:
        chosen = calibration.choose(tracker.procedure, progress)
        return Recording(chosen, replay(chosen, calibration.clips, tracker.procedure, tracker.graphs, progress))
