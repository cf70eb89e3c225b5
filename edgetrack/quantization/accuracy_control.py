"""Accuracy control: which stages may be lowered for a given cost in AO, measured by running the tracker.

One stage after the other is kept in FP32 while all others are lowered, and what that gains in AO (paired short runs)
and costs in milliseconds is noted: the sensitivity map. The stages that gain most are then kept, one at a time, until
the cost is met.
"""

from __future__ import annotations

import importlib.util
import io
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec
import numpy as np

from edgetrack.bundle import open_bundle
from edgetrack.bundle.golden import read_golden
from edgetrack.bundle.reader import BundleRef
from edgetrack.capabilities import find_target
from edgetrack.errors import AccuracyError, DeviceUnavailableError, EdgetrackError, SequenceError, UsageError
from edgetrack.evaluation.config import EvalConfig
from edgetrack.evaluation.datasets import Dataset
from edgetrack.evaluation.execution import anchored_runs
from edgetrack.evaluation.protocols.anchored import POINTS, Anchored, AnchoredRuns, Difference, paired_difference
from edgetrack.io import ScratchFolder
from edgetrack.runtime.backends.base import CompiledGraph
from edgetrack.runtime.session import load

REPORT_FILE, PLOT_FILE = "sensitivity.json", "sensitivity.png"
FASTER = 0.97
"""A precision is called faster when its frames take at most this share of the time: less is within the noise."""
WARM_UP, ROUNDS, RUNS = 5, 8, 6


class StageFinding(msgspec.Struct, frozen=True, kw_only=True):
    """A stage, kept in FP32 while all others are lowered.

    Attributes:
        stage: its name in the recipe.
        gained: AO of keeping it, against lowering all: above 0 the stage suffers from the lower precision.
        ms: milliseconds a frame that keeping it costs; what lowering it saves.
    """

    stage: str
    gained: Difference
    ms: float


class Sensitivity(msgspec.Struct, frozen=True, kw_only=True):
    """The record of an accuracy control, in a bundle as `sensitivity.json`.

    Attributes:
        precision, dataset: what was lowered to, and measured on.
        max_drop: the AO that it may cost, 0..1.
        spacing, length: of the anchored runs.
        first: the lowered bundle against FP32, before any stage was reverted; `last`: as it ships.
        stages: by what keeping each one gains, largest first; empty where nothing had to be found out.
        kept: stages that stay in FP32.
        fp32_ms, first_ms, last_ms: milliseconds of the graphs a frame, medians of one interleaved run.
        hints_ms: the same of FP32 graphs under a run-time hint, such as `bf16`, where the processor has it.
        met: whether `last` costs at most `max_drop`.
        advice: the precision to use, and why.
    """

    schema: int = 1
    precision: str
    dataset: str
    max_drop: float
    spacing: int
    length: int
    first: Difference
    last: Difference
    stages: list[StageFinding]
    kept: list[str]
    fp32_ms: float
    first_ms: float
    last_ms: float
    hints_ms: dict[str, float]
    met: bool
    advice: str


def lines(found: Sensitivity) -> list[str]:
    """The findings as lines of text."""
    said = [
        f"{found.precision} against fp32 on {found.dataset}, runs of {found.length} frames from every "
        f"{found.spacing}th: {found.first.describe()}; {found.first_ms:.2f} against {found.fp32_ms:.2f} ms a frame"
    ]
    if found.stages:
        said.append("stage kept in fp32      AO gained (points)         costs ms")
        for each in found.stages:
            value, low, high = (POINTS * v for v in (each.gained.value, each.gained.low, each.gained.high))
            said.append(f"  {each.stage:<20}{value:+7.2f} ({low:+.2f} to {high:+.2f}){each.ms:12.2f}")
    if found.kept:
        said.append(
            f"kept in fp32: {', '.join(found.kept)}; then {found.last.describe()}; {found.last_ms:.2f} ms a frame"
        )
    return [*said, found.advice]


def markdown(found: Sensitivity) -> str:
    """The same as a Markdown table."""
    head = ["| stage kept in fp32 | AO gained (points) | 95 % interval | costs ms |", "|---|---|---|---|"]
    rows = [
        f"| {each.stage} | {POINTS * each.gained.value:+.2f} | {POINTS * each.gained.low:+.2f} to "
        f"{POINTS * each.gained.high:+.2f} | {each.ms:.2f} |"
        for each in found.stages
    ]
    return "\n".join([*head, *rows])


def draw(found: Sensitivity) -> bytes | None:
    """A PNG; None where nothing was mapped or matplotlib (extra `plot`) is not installed.

    Bars are points of AO with their 95 % intervals, labels milliseconds a frame; kept stages are darker.
    """
    if not found.stages or importlib.util.find_spec("matplotlib") is None:
        return None
    from matplotlib.figure import Figure

    stages = found.stages[::-1]
    gained = [POINTS * each.gained.value for each in stages]
    low = [POINTS * (each.gained.value - each.gained.low) for each in stages]
    high = [POINTS * (each.gained.high - each.gained.value) for each in stages]
    figure = Figure(figsize=(8, 1.4 + 0.35 * len(stages)), dpi=100, layout="constrained")
    axis = figure.subplots()
    colours = ["tab:blue" if each.stage in found.kept else "lightsteelblue" for each in stages]
    bars = axis.barh([each.stage for each in stages], gained, xerr=[low, high], color=colours, ecolor="grey")
    axis.bar_label(bars, [f"{each.ms:+.2f} ms" for each in stages], padding=6, fontsize=8)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.margins(x=0.15)
    axis.set_xlabel(f"points of AO gained on {found.dataset} by keeping the stage in fp32")
    axis.set_title(f"{found.precision}: {found.first_ms:.2f} against {found.fp32_ms:.2f} ms a frame", fontsize=10)
    data = io.BytesIO()
    # No software version inside: the same map gives the same bytes.
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()


class Timed(NamedTuple):
    """A bundle's folder, and the run-time hint it is loaded with."""

    folder: Path
    hint: str | None = None


def interleaved_ms(
    timed: Sequence[Timed], threads: int | None, *, clock: Callable[[], int] = time.perf_counter_ns
) -> list[float]:
    """Median milliseconds of each bundle's per-frame graphs, on the inputs of its own record.

    Raises:
        BundleError: a bundle has no record. DeviceUnavailableError: the processor lacks a hint.
    """
    with ExitStack() as stack:
        runners = [_fed(stack, each, threads) for each in timed]
        samples: list[list[int]] = [[] for _ in runners]
        for graphs in runners:
            for _ in range(WARM_UP):
                _once(graphs)
        for _ in range(ROUNDS):
            for graphs, spent in zip(runners, samples, strict=True):
                for _ in range(RUNS):
                    start = clock()
                    _once(graphs)
                    spent.append(clock() - start)
    return [median(spent) / 1e6 for spent in samples]


def _fed(stack: ExitStack, timed: Timed, threads: int | None) -> list[CompiledGraph]:
    with open_bundle(timed.folder) as bundle:
        golden = read_golden(bundle)
    tracker = stack.enter_context(load(timed.folder, threads=threads, precision_hint=timed.hint))
    graphs = [graph for graph in tracker.graphs.values() if graph.info.role == "step"]
    sample = min(key.split("/")[0] for key in golden)
    for graph in graphs:
        for name, buffer in graph.inputs.items():
            np.copyto(buffer, golden[f"{sample}/{graph.info.name}/in/{name}"])
    return graphs


def _once(graphs: Sequence[CompiledGraph]) -> None:
    for graph in graphs:
        graph.run()


Build = Callable[[Sequence[str], Path, bool], Path]
"""Writes a candidate that keeps these stages into a new folder, calibrated on a part of the crops where it says so."""


@dataclass(frozen=True)
class KeptStages:
    """The stages that stay in FP32, and the bundle's evidence for that: file name -> content."""

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

    def __call__(
        self, full: Path, build: Build, stages: Sequence[str], kept: Sequence[str], progress: Callable[[str], None]
    ) -> KeptStages:
        """Decide; see the module.

        Raises:
            AccuracyError: the cost is not met; the message names the stage that suffers most.
        """
        with ScratchFolder() as scratch:
            trial = _Trial(self, full, build, scratch, progress)
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
        return KeptStages(tuple(last.kept), reports)

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
    progress: Callable[[str], None]

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
