"""What may be the fastest here: bundles x hints x places x threads; what cannot run is left out with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgetrack.benchmark.candidates import Candidate, opened
from edgetrack.bundle.manifest import split_precision
from edgetrack.bundle.reader import find_bundles
from edgetrack.capabilities import Target, find_target, open_ref, targets
from edgetrack.errors import EdgetrackError, UsageError
from edgetrack.exporting.isolated import export_each
from edgetrack.exporting.recipe import recipe_names
from edgetrack.presentation.progress import Progress
from edgetrack.presentation.table import counted
from edgetrack.resources import usable_cores
from edgetrack.runtime.found import FoundHere
from edgetrack.runtime.threads import thread_counts
from edgetrack.tuning.record import LeftOut

_RANKS = ("fp32", "bf16", "fp16", "int8-bf16", "int8-fp16", "int8")
"""Precisions, the highest first."""
ExportAt = Callable[[str, str, str], Path]
"""Exports a tracker to a target at a precision, and proves it."""


@dataclass(frozen=True)
class TuneCandidate:
    """A bundle with its hint and place, and a number of threads."""

    bundle: Candidate
    threads: int

    @property
    def variant(self) -> str:
        """What decides its boxes: the bundle, its hint and its place, whatever the threads."""
        device = self.bundle.device or "cpu"
        return self.bundle.label if device == "cpu" else f"{self.bundle.label}@{device}"

    @property
    def label(self) -> str:
        """Such as `smat-openvino-int8 on 2 threads`."""
        return f"{self.variant} on {counted(self.threads, 'thread')}"

    @property
    def precision(self) -> str:
        """That of its bundle, or its hint."""
        return self.bundle.hint or self.bundle.manifest.precision

    @property
    def precision_rank(self) -> int:
        """0 for FP32, more for lower ones."""
        return _RANKS.index(self.precision) if self.precision in _RANKS else len(_RANKS)


@dataclass(frozen=True)
class Machine:
    """Where the candidates run.

    Attributes:
        found: what the packages of the installed targets find here.
        nvidia: whether NVIDIA's driver is here.
        places: where each target runs; None: wherever its package finds a device.
        cores: that inference may use.
    """

    found: Mapping[str, FoundHere]
    nvidia: bool
    places: Mapping[str, str] | None = None
    cores: int = 0

    def threads(self, device: str) -> tuple[int, ...]:
        """Numbers of threads to try: 1, 2, 4 ... up to all cores; all of them where another device computes."""
        cores = self.cores or usable_cores()
        return thread_counts(cores) if device == "cpu" else (cores,)

    def devices(self, target: Target) -> tuple[str, ...]:
        """Where a target's bundles run here.

        Raises:
            UsageError: nowhere; the message says why.
        """
        if self.places is not None:
            if target.name not in self.places:
                raise UsageError("the device does not run it")
            return (self.places[target.name],)
        found = self.found.get(target.name)
        if found is None:
            raise UsageError(f"not installed; type: {target.install_command}")
        if found.problem is not None:
            raise UsageError(found.problem)
        plain = () if target.device_needed else tuple(name for name in target.devices if ":" not in name)
        gpu = ("cuda:0",) if self.nvidia and target.runs_on("cuda:0") else ()
        devices = tuple(one for one in found.devices if target.runs_on(one)) or (*plain, *gpu)
        if not devices:
            raise UsageError(f"it needs {target.device_needed or 'a device that is not here'}")
        return devices

    def refused(self, target: Target, hint: str) -> str | None:
        """Why this machine cannot compute in a hint's arithmetic; None where it can, or another device may."""
        found = self.found.get(target.name)
        return None if found is None else found.refused.get(hint)


def find_candidates(
    given: Sequence[str],
    machine: Machine,
    *,
    export: ExportAt,
    folder: Path,
    left_out: list[LeftOut],
    time_left: Callable[[], bool],
) -> list[TuneCandidate]:
    """All candidates of one tracker with one checkpoint.

    Args:
        given: recipes, each for all of its bundles, and bundles, each with an optional `@HINT` and `@DEVICE`.
        machine: where they run.
        export: makes a bundle that `folder` lacks.
        folder: where bundles are looked for.
        left_out: is told what does not take part.
        time_left: whether another export may begin.

    Raises:
        UsageError: nothing is given, nothing runs here, or not all are of one tracker and checkpoint.
        EdgetrackError: a bundle cannot be opened.
    """
    if not given:
        raise UsageError("give a tracker, such as smat, or bundles")
    bundles: list[Candidate] = []
    for text in given:
        if text in recipe_names() or text.endswith(".toml"):
            bundles += _of_tracker(text, machine, export, folder, left_out, time_left)
        else:
            bundles.append(Candidate.of(open_ref(text)))
    require_one_system(bundles)
    found = [one for bundle in bundles for one in _variants(bundle, machine, left_out)]
    candidates = list({one.label: one for one in found}.values())
    if not candidates:
        why = "; ".join(f"{one.what}: {one.reason}" for one in left_out)
        raise UsageError(f"nothing of {', '.join(given)} runs here: {why}")
    return candidates


def require_one_system(bundles: Sequence[Candidate]) -> None:
    """Check that all are of one tracker and checkpoint: a faster one of another tells nothing.

    Raises:
        UsageError: they are not.
    """
    for one in bundles:
        for what, own, first in (
            ("tracker", one.manifest.system, bundles[0].manifest.system),
            ("checkpoint", weights_of(one), weights_of(bundles[0])),
        ):
            if own != first:
                raise UsageError(
                    f"{one.name} is of another {what} than {bundles[0].name} ({own[:24]}, {first[:24]}); give bundles "
                    "of one tracker and checkpoint, by name where ./out has others"
                )


def weights_of(bundle: Candidate) -> str:
    """The checkpoint's SHA-256, or its origin."""
    return bundle.manifest.weights.sha256 or bundle.manifest.weights.origin


def _of_tracker(
    tracker: str,
    machine: Machine,
    export: ExportAt,
    folder: Path,
    left_out: list[LeftOut],
    time_left: Callable[[], bool],
) -> Iterator[Candidate]:
    """A bundle of each target and precision that can run here: of the folder, or exported now."""
    at_hand: dict[tuple[str, str, str], Path] = {
        (one.manifest.tracker, one.manifest.target, one.manifest.precision): one.path
        for one in find_bundles(folder)
        if one.manifest is not None and not one.manifest.overrides and one.manifest.batch is None
    }
    for target in targets():
        if target.exporter is None or target.reference:
            continue
        try:
            machine.devices(target)
        except UsageError as error:
            left_out.append(LeftOut(target.name, str(error)))
            continue
        for precision in target.precisions:
            what = f"{target.name} {precision}"
            _, hint = split_precision(precision)
            reason = machine.refused(target, hint) if hint in target.hinted else None
            path = at_hand.get((tracker, target.name, precision))
            if reason is None and path is None and not time_left():
                reason = "half of the time was gone before it could be exported; the same command goes on"
            if reason is None:
                try:
                    yield opened(path or export(tracker, target.name, precision))
                    continue
                except EdgetrackError as error:
                    reason = str(error)
            left_out.append(LeftOut(what, reason))


def _variants(bundle: Candidate, machine: Machine, left_out: list[LeftOut]) -> Iterator[TuneCandidate]:
    """A bundle under each hint that has no bundle of its own, on each device, on each number of threads."""
    target = find_target(bundle.manifest.target)
    try:
        devices = (bundle.device,) if bundle.device else machine.devices(target)
    except UsageError as error:
        left_out.append(LeftOut(bundle.label, str(error)))
        return
    hints: list[str | None] = [bundle.hint]
    if bundle.hint is None and bundle.manifest.precision == "fp32":
        hints += [hint for hint in target.hints if hint not in target.hinted]
    for device in devices:
        for hint in hints:
            placed = replace(bundle, device=device, hint=hint)
            reason = machine.refused(target, hint) if hint is not None and device == "cpu" else None
            if reason is not None:
                left_out.append(LeftOut(placed.label, reason))
            else:
                yield from (TuneCandidate(placed, threads) for threads in machine.threads(device))


def exporter(progress: Progress) -> ExportAt:
    """Exports as `edgetrack export` does, each in a process of its own."""

    def export(tracker: str, target: str, precision: str) -> Path:
        what = f"exporting {tracker} to {target} in {precision}"
        progress(what, 0, 0)
        arguments = [tracker, "--target", target, "--precision", precision, "--json"]
        made = export_each({target: arguments}, progress=lambda line: None)
        for failure in made.failures:
            raise EdgetrackError(f"cannot be exported: {failure.message}")
        return Path(made.results[0].bundle)

    return export
