"""Accuracy control: which stages may be lowered for a given cost in AO, measured by running the tracker.

One stage after the other is kept in FP32 while all others are lowered, and what that gains in AO (paired short runs)
and costs in milliseconds is noted. The stages that gain most are then kept, one at a time, until the cost is met.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from edgetrack.bundle import open_bundle
from edgetrack.bundle.ref import BundleRef
from edgetrack.capabilities import find_target
from edgetrack.errors import AccuracyError, DeviceUnavailableError, EdgetrackError, SequenceError, UsageError
from edgetrack.evaluation.config import EvalConfig
from edgetrack.evaluation.datasets import Dataset
from edgetrack.evaluation.execution import anchored_runs
from edgetrack.evaluation.protocols.anchored import POINTS, Anchored, AnchoredRuns, Difference, paired_difference
from edgetrack.quantization.sensitivity import REPORT_FILE, Sensitivity, StageFinding
from edgetrack.quantization.sensitivity_plot import PLOT_FILE, draw
from edgetrack.quantization.stage_timing import Timed, interleaved_ms

FASTER = 0.97
"""A precision is called faster when its frames take at most this share of the time: less is within the noise."""


Build = Callable[[Sequence[str], Path, bool], Path]
"""Writes a candidate that keeps these stages into a new folder, calibrated on a part of the crops where it says so."""
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Choice:
    """The stages that stay in FP32, and what the bundle is to hold as evidence: file name -> content."""

    kept: tuple[str, ...]
    reports: Mapping[str, bytes]


@dataclass
class AccuracyControl:
    """Decides what stays in FP32.

    Attributes:
        dataset: that the tracker is run on; not the one that results are reported on.
        max_drop: AO that the lower precision may cost, 0..1.
        plan: of the short runs.
        frames: of each sequence, at most.
        jobs, threads: as `edgetrack eval` takes them.
        revert: keep stages in FP32 until the cost is met; else the first excess is an error.
        map_always: find out about every stage even where the cost is met at once.
        found: the record, once decided; also where an AccuracyError was raised.
    """

    dataset: Dataset
    max_drop: float
    plan: Anchored
    frames: int | None = None
    jobs: int = 1
    threads: int | None = None
    revert: bool = True
    map_always: bool = False
    found: Sensitivity | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.max_drop <= 1:
            raise UsageError(f"--max-drop {POINTS * self.max_drop:g}: expected 0..100 points of AO, such as 0.5")

    def __call__(self, full: Path, build: Build, stages: Sequence[str], kept: Sequence[str], progress: Tell) -> Choice:
        """Decide; see the module.

        Raises:
            AccuracyError: the cost is not met; the message names the stage that suffers most.
        """
        with tempfile.TemporaryDirectory(prefix="edgetrack-control-") as scratch:
            trial = _Trial(self, full, build, Path(scratch), progress)
            first = trial.candidate(tuple(kept))
            enough = first.drop <= self.max_drop
            findings: list[StageFinding] = []
            if self.map_always or not enough:
                findings = trial.map([name for name in stages if name not in kept], tuple(kept))
            last = first
            if not enough and self.revert:
                last = trial.revert(first, findings, self.max_drop)
            self.found = trial.record(first, last, findings)
        if not self.found.met:
            raise AccuracyError(self._complaint(self.found))
        reports = {REPORT_FILE: msgspec.json.format(msgspec.json.encode(self.found), indent=1) + b"\n"}
        picture = draw(self.found)
        if picture is not None:
            reports[PLOT_FILE] = picture
        return Choice(tuple(last.kept), reports)

    def _complaint(self, found: Sensitivity) -> str:
        worst = found.stages[0] if found.stages else None
        named = (
            ""
            if worst is None
            else (
                f"; the stage that suffers most is {worst.stage!r}: keeping it in fp32 gains "
                f"{POINTS * worst.gained.value:.2f} points"
            )
        )
        return (
            f"{found.precision} costs {-POINTS * found.last.value:.2f} points of AO on {found.dataset} where "
            f"{POINTS * self.max_drop:g} are allowed ({found.last.describe()}){named}. "
            f"Nothing was written. {found.advice}"
        )


@dataclass(frozen=True)
class _Candidate:
    kept: tuple[str, ...]
    folder: Path
    runs: list[AnchoredRuns]
    against: Difference

    @property
    def drop(self) -> float:
        return -self.against.value


@dataclass
class _Trial:
    control: AccuracyControl
    full: Path
    build: Build
    scratch: Path
    progress: Tell

    def __post_init__(self) -> None:
        self.progress("accuracy control: fp32 on the validation sequences")
        with open_bundle(self.full) as bundle:
            self.target = find_target(bundle.manifest.target)
        self.base = self._runs(self.full)
        self.findings_ms: Mapping[str, float] = {}

    def candidate(self, kept: tuple[str, ...], *, quick: bool = False) -> _Candidate:
        label = f"keeping {', '.join(kept)} in fp32" if kept else "all stages lowered"
        self.progress(f"accuracy control: {label}")
        folder = self.build(kept, self.scratch / f"candidate-{len(list(self.scratch.iterdir()))}", quick)
        runs = self._runs(folder)
        return _Candidate(kept, folder, runs, paired_difference(self.base, runs, self.control.max_drop))

    def map(self, stages: Sequence[str], kept: tuple[str, ...]) -> list[StageFinding]:
        """Each stage kept, against none kept; both calibrated alike."""
        rest = self.candidate(kept, quick=True)
        tried = [(stage, self.candidate((*kept, stage), quick=True)) for stage in stages]
        times = interleaved_ms([Timed(rest.folder), *(Timed(each.folder) for _, each in tried)], self._threads)
        found = [
            StageFinding(
                stage=stage,
                gained=paired_difference(rest.runs, each.runs, self.control.max_drop),
                ms=ms - times[0],
            )
            for (stage, each), ms in zip(tried, times[1:], strict=True)
        ]
        return sorted(found, key=lambda finding: (-finding.gained.value, finding.ms))

    def revert(self, first: _Candidate, findings: Sequence[StageFinding], max_drop: float) -> _Candidate:
        """Keep the worst stages, one more at a time, until the drop is met or all are kept.

        Those that gain nothing alone come last, the cheapest first: one may hide behind another that costs as much.
        """
        best = first
        for finding in findings:
            best = self.candidate((*best.kept, finding.stage))
            if best.drop <= max_drop:
                break
        return best

    def record(self, first: _Candidate, last: _Candidate, findings: list[StageFinding]) -> Sensitivity:
        timed = [Timed(self.full), Timed(first.folder), Timed(last.folder)]
        fp32_ms, first_ms, last_ms = interleaved_ms(timed, self._threads)
        hints = {hint: ms for hint in self.target.hints if (ms := self._hinted_ms(hint)) is not None}
        control = self.control
        met = last.drop <= control.max_drop
        with open_bundle(last.folder) as bundle:
            precision = bundle.manifest.precision
        return Sensitivity(
            precision=precision,
            dataset=control.dataset.name,
            max_drop=control.max_drop,
            spacing=control.plan.spacing,
            length=control.plan.length,
            first=first.against,
            last=last.against,
            stages=findings,
            kept=list(last.kept),
            fp32_ms=fp32_ms,
            first_ms=first_ms,
            last_ms=last_ms,
            hints_ms=hints,
            met=met,
            advice=advise(precision, met, fp32_ms, last_ms, hints),
        )

    def _hinted_ms(self, hint: str) -> float | None:
        try:
            return interleaved_ms([Timed(self.full, hint)], self._threads)[0]
        except DeviceUnavailableError:
            return None

    @property
    def _threads(self) -> int | None:
        return self.control.threads

    def _runs(self, folder: Path) -> list[AnchoredRuns]:
        control = self.control
        config = EvalConfig(
            dataset=control.dataset,
            jobs=control.jobs,
            threads=control.threads,
            frames=control.frames,
            output=self.scratch / f"runs-{folder.name}",
            anchors=control.plan,
        )
        with open_bundle(folder) as bundle:
            ref = BundleRef(folder, bundle.manifest)
        try:
            return anchored_runs(ref, config)
        except SequenceError as error:
            raise EdgetrackError(f"accuracy control needs every validation sequence; {error}") from error


def advise(precision: str, met: bool, fp32_ms: float, lowered_ms: float, hints_ms: Mapping[str, float]) -> str:
    """Which precision to use here: the fastest that keeps the accuracy, and FP32 where none is faster.

    A run-time hint is mentioned where it is faster; what it costs in AO was not measured here.
    """
    hint = min(hints_ms, key=lambda name: hints_ms[name], default=None)
    hinted = (
        ""
        if hint is None
        else f" The hint {hint} takes {hints_ms[hint]:.2f} ms; `edgetrack compare` says what it costs."
    )
    if not met:
        return f"Use fp32 here ({fp32_ms:.2f} ms a frame), or allow more with --max-drop.{hinted}"
    if lowered_ms > FASTER * fp32_ms:
        return (
            f"{precision} is not faster here ({lowered_ms:.2f} against {fp32_ms:.2f} ms a frame): use fp32, unless the "
            f"size of the files matters.{hinted}"
        )
    if hint is not None and hints_ms[hint] < FASTER * lowered_ms:
        return (
            f"{precision} is faster than fp32 here ({lowered_ms:.2f} against {fp32_ms:.2f} ms a frame), but the "
            f"hint {hint} is faster still ({hints_ms[hint]:.2f} ms): consider it instead."
        )
    return f"Use {precision} here: {lowered_ms:.2f} against {fp32_ms:.2f} ms a frame.{hinted}"
