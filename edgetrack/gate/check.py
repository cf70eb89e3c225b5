"""`edgetrack check`: a bundle, or a benchmark's result of one, compared with a budget and a baseline.

A bundle is measured, alone or beside a baseline bundle, in blocks with interim analyses (`sequential`); its baseline
may be a record, too. Of two records nothing is measured: they are analysed once.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgetrack.benchmark import warnings
from edgetrack.benchmark.candidates import Candidate
from edgetrack.benchmark.config import DEFAULT_SOURCE
from edgetrack.benchmark.frames import BenchFrames, memory_for_frames, prepare_frames
from edgetrack.benchmark.run import Environment
from edgetrack.bundle.reader import BundleRef
from edgetrack.capabilities import place_of, require_device
from edgetrack.errors import UsageError
from edgetrack.evaluation.config import EvalConfig
from edgetrack.evaluation.datasets import Dataset
from edgetrack.evaluation.execution import anchored_runs
from edgetrack.evaluation.protocols.anchored import POINTS, AnchoredRuns, Difference, paired_difference
from edgetrack.gate.budget import BudgetRule, GateConfig
from edgetrack.gate.environment import code_of, own_code, own_starter, starter
from edgetrack.gate.evidence import (
    RecordedSide,
    conditions_of,
    conditions_of_result,
    differences,
    judge,
    open_side,
    require_comparable,
    speeds,
)
from edgetrack.gate.report import CodeNote, GateReport, GateSamples, RuleFinding, finding_of, make_report
from edgetrack.gate.rounds import KEEP_FRAMES, GateSide, TurnRunner, turn_config
from edgetrack.gate.sequential import run
from edgetrack.io import ScratchFolder
from edgetrack.presentation.progress import Progress
from edgetrack.presentation.table import counted
from edgetrack.resources import require_extra, usable_cores
from edgetrack.stats.bootstrap import resamples_for
from edgetrack.stats.verdict import judge_limit, runs_to_settle
from edgetrack.system.machine import MachineRecord


def delta_ao(
    rule: BudgetRule,
    candidate: BundleRef,
    baseline: BundleRef,
    dataset: Dataset,
    *,
    device: str,
    threads: int,
    alpha: float,
    progress: Progress,
) -> RuleFinding:
    """Run both from the same anchors. Runs are not kept: the code may differ from that of earlier ones.

    Raises:
        EdgetrackError: a bundle cannot be run, or a sequence failed.
        UsageError: fewer than two runs to pair.
    """
    with ScratchFolder() as scratch:
        theirs, ours = (
            _runs(side, scratch / role, dataset, side.device or device, threads, progress)
            for role, side in (("baseline", baseline), ("candidate", candidate))
        )
    margin = -rule.limit / POINTS
    found = paired_difference(theirs, ours, margin, confidence=1 - 2 * alpha, resamples=resamples_for(alpha))
    return judge_ao(rule, found, alpha)


def judge_ao(rule: BudgetRule, found: Difference, alpha: float) -> RuleFinding:
    """`pass` where it is shown that no more is lost than the limit, `fail` where more is."""
    verdict = judge_limit(-POINTS * found.high, -POINTS * found.low, -rule.limit)  # of what is lost
    away = found.value - rule.limit / POINTS
    more = runs_to_settle(away, (found.high - found.low) / 2, 0.0, found.runs) if verdict == "undecided" else None
    return finding_of(
        rule,
        verdict,
        f"{counted(found.runs, 'paired run')} of {counted(found.sequences, 'sequence')}",
        value=POINTS * found.value,
        low=POINTS * found.low,
        high=POINTS * found.high,
        alpha=alpha,
        samples=found.runs,
        more=more,
        more_of="runs of further sequences",
    )


def _runs(
    side: BundleRef, folder: Path, dataset: Dataset, device: str, threads: int, progress: Progress
) -> list[AnchoredRuns]:
    config = EvalConfig(dataset=dataset, threads=threads, device=device, output=folder)
    return anchored_runs(side, config, lambda what, done, total: progress(f"{side.label}: {what}", done, total))


_OTHER_TIME = (
    "baseline and candidate ran at different times: a change of the machine between them counts as the bundle's; give "
    "a bundle as --baseline to have both measured beside each other"
)
_SAME = "baseline and candidate are the same bundle run by the same code: only the gate itself is tested"
_NEVER_IDLE = "a process did not settle: it kept computing while the other was measured"


def check(config: GateConfig, environment: Environment) -> GateReport:
    """Check a bundle, or a record of one, against a budget.

    Raises:
        UsageError: options that cannot be followed, or records that were measured under other conditions.
        BackendMissingError: the extra `check` is not installed.
        EdgetrackError: a bundle, record or source that cannot be opened, or a process that failed.
    """
    require_extra("edgetrack check", "check", "scipy")
    config.check()
    candidate = _placed(config, open_side(config.bundle, ""))
    label = candidate.note.bundle if isinstance(candidate, RecordedSide) else candidate.label
    baseline = None if config.baseline is None else _placed(config, open_side(config.baseline, "--baseline", label))
    _check_sides(config, candidate, baseline)
    if isinstance(candidate, RecordedSide):
        return _read(config, candidate, baseline if isinstance(baseline, RecordedSide) else None)
    return _measure(config, environment, candidate, baseline)


def _placed(config: GateConfig, side: BundleRef | RecordedSide) -> BundleRef | RecordedSide:
    """A bundle with the place that the device's profile gives it."""
    if not isinstance(side, BundleRef) or side.device is not None or not config.places:
        return side
    return replace(side, device=place_of(side.manifest, config.places, config.profile or "that was chosen"))


def _check_sides(
    config: GateConfig, candidate: BundleRef | RecordedSide, baseline: BundleRef | RecordedSide | None
) -> None:
    if isinstance(candidate, RecordedSide) and isinstance(baseline, BundleRef):
        raise UsageError(
            f"{config.bundle} is a record and {config.baseline} is a bundle; give the bundle first and the record as "
            "--baseline, or two records, or two bundles"
        )
    if isinstance(baseline, RecordedSide) and config.baseline_python is not None:
        raise UsageError("--baseline-python runs the baseline, but a record is not run; give a bundle as --baseline")
    wanted = next((rule for rule in config.budget.rules if rule.kind == "ao"), None)
    if wanted is None:
        if config.dataset is not None:
            raise UsageError(
                f"budget {config.budget.name} does not ask for AO; leave --dataset out, or put delta_ao_points under "
                "its [limits]"
            )
    elif not isinstance(candidate, BundleRef) or not isinstance(baseline, BundleRef) or config.dataset is None:
        raise UsageError(
            f"budget {config.budget.name} limits {wanted.name}, for which two bundles run on annotated sequences; "
            "type: edgetrack check --budget ... BUNDLE --baseline BUNDLE --dataset DATASET"
        )
    if baseline is None and all(rule.needs_baseline for rule in config.budget.rules):
        raise UsageError(
            f"every rule of budget {config.budget.name} compares with a baseline, and none was given; add --baseline, "
            "a bundle or a result of `bench -o`"
        )


def _read(config: GateConfig, candidate: RecordedSide, baseline: RecordedSide | None) -> GateReport:
    """Nothing is measured: one analysis of one record, or of two under the same conditions."""
    given = {"device": config.device, "threads": config.threads, "source": config.source, "box": config.box}
    for name in (name for name, value in given.items() if value is not None):
        raise UsageError(f"--{name} is for what is measured, but {config.bundle} is a record; leave it out")
    differing: list[str] = []
    if baseline is not None:
        differing = differences(
            *(
                {**conditions_of_result(one.record, one.result), "speeds": speeds(one.result)}
                for one in (baseline, candidate)
            )
        )
        require_comparable(differing, force=config.force)
    other = None if baseline is None else baseline.evidence
    record = candidate.record
    return make_report(
        config,
        findings=[judge(rule, candidate.evidence, other, config.budget.alpha) for rule in config.budget.rules],
        design="recorded",
        candidate=candidate.note,
        baseline=None if baseline is None else baseline.note,
        machine=record.machine,
        device=candidate.result.device,
        threads=candidate.result.threads,
        source=record.source.spec,
        looks=1,
        differences=differing,
        notes=[_OTHER_TIME] if baseline is not None else [],
        samples_ms=GateSamples(candidate=candidate.turns_ms, baseline=None if baseline is None else baseline.turns_ms),
    )


def _measure(
    config: GateConfig, environment: Environment, candidate: BundleRef, baseline: BundleRef | RecordedSide | None
) -> GateReport:
    """The candidate alone, beside a baseline, or under the conditions of a record."""
    start_ns = environment.clock.now_ns()
    recording = baseline if isinstance(baseline, RecordedSide) else None
    code = own_code()
    other_code = None if config.baseline_python is None else code_of(config.baseline_python)
    sides = _sides(config, environment, candidate, baseline, code if other_code else None)
    device, threads, source = _settings(config, recording)
    for side in sides:
        require_device(side.bundle.manifest.target, side.bundle.device or device)
    machine = environment.look()

    def progress(what: str, step: int, total: int) -> None:
        environment.progress(f"{what} (takes {config.max_time_s:.0f} s at most)", step, total)

    with ScratchFolder() as scene:
        box = config.box or (recording.record.source.box if recording else None)
        keep_mb = memory_for_frames(machine.memory_available_mib, len(sides))
        frames = prepare_frames(source, box, scene, keep_frames=KEEP_FRAMES, keep_mb=keep_mb)
        with TurnRunner(sides, frames, turn_config(device, threads), config.timeout_s, progress) as runner:
            differing = _differences(config, runner, recording, machine, frames, device) if recording else []
            prepared_s = (environment.clock.now_ns() - start_ns) / 1e9
            outcome = run(
                runner,
                [rule for rule in config.budget.rules if rule.kind != "ao"],
                recording.evidence if recording else None,
                config.budget.alpha,
                config.max_time_s - prepared_s,
                environment.clock,
            )
    findings = {finding.rule: finding for finding in outcome.findings}
    findings |= _accuracy(config, environment, candidate, baseline, device, threads)
    other = sides[1] if len(sides) > 1 else None
    notes = [f"warning ({w.code}): {w.detail}; {w.advice}" for w in warnings.of_machine(machine, threads)]
    same = other and (sides[0].bundle.manifest, sides[0].bundle.hint) == (other.bundle.manifest, other.bundle.hint)
    notes += [_SAME] * bool(same and not other_code) + [_OTHER_TIME] * bool(recording)
    notes += [_NEVER_IDLE] * runner.never_idle
    return make_report(
        config,
        findings=[findings[rule.name] for rule in config.budget.rules],
        design="recorded" if recording else "paired" if other else "alone",
        candidate=sides[0].note(code),
        baseline=recording.note if recording else other.note(other_code or code) if other else None,
        machine=machine,
        device=" and ".join(sorted({side.bundle.device or device for side in sides})),
        threads=threads,
        source=source,
        blocks=outcome.blocks,
        looks=outcome.analyses,
        seconds=outcome.seconds,
        differences=differing,
        notes=notes,
        samples_ms=GateSamples(
            candidate=sides[0].turns_ms,
            baseline=other.turns_ms if other else recording.turns_ms if recording else None,
        ),
    )


def _sides(
    config: GateConfig,
    environment: Environment,
    candidate: BundleRef,
    baseline: BundleRef | RecordedSide | None,
    isolated: CodeNote | None,
) -> list[GateSide]:
    """The candidate, and the baseline where it is measured; with `isolated`, each by its own installation."""
    ours = theirs = environment.start
    if isolated is not None and config.baseline_python is not None:
        ours, theirs = own_starter(isolated), starter(config.baseline_python)
    sides = [GateSide("candidate", Candidate.of(candidate), ours)]
    if isinstance(baseline, BundleRef):
        sides.append(GateSide("baseline", Candidate.of(baseline), theirs))
    return sides


def _settings(config: GateConfig, recording: RecordedSide | None) -> tuple[str, int, str]:
    """Device, threads and source: the options', else the record's, else the budget's, else the benchmark's own."""
    if recording is not None:
        return (
            config.device or recording.result.device,
            config.threads or recording.result.threads,
            config.source or recording.record.source.spec,
        )
    budget = config.budget.measure
    return (
        config.device or budget.device or "cpu",
        config.threads or budget.threads or usable_cores(),
        config.source or budget.source or DEFAULT_SOURCE,
    )


def _differences(
    config: GateConfig,
    runner: TurnRunner,
    recording: RecordedSide,
    machine: MachineRecord,
    frames: BenchFrames,
    device: str,
) -> list[str]:
    """Differences from the record's conditions; the first process says which versions it runs."""
    (side,) = runner.sides
    runner.load(side)
    loaded = side.loaded
    found = differences(
        conditions_of_result(recording.record, recording.result),
        conditions_of(
            machine,
            tracker=side.bundle.manifest.tracker,
            device=side.bundle.device or device,
            threads=loaded.threads if loaded else 0,
            scenario="stream",
            source=frames.note,
            versions=loaded.versions if loaded else {},
        ),
    )
    require_comparable(found, force=config.force)
    return found


def _accuracy(
    config: GateConfig,
    environment: Environment,
    candidate: BundleRef,
    baseline: BundleRef | RecordedSide | None,
    device: str,
    threads: int,
) -> dict[str, RuleFinding]:
    return {
        rule.name: delta_ao(
            rule,
            candidate,
            baseline,
            config.dataset,
            device=device,
            threads=threads,
            alpha=config.budget.alpha,
            progress=environment.progress,
        )
        for rule in config.budget.rules
        if rule.kind == "ao" and isinstance(baseline, BundleRef) and config.dataset is not None
    }
