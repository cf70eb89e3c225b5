"""A check that measures: the candidate alone, beside a baseline, or against a record."""

from __future__ import annotations

import tempfile
from pathlib import Path

from edgetrack.benchmark import warnings
from edgetrack.benchmark.candidates import Candidate
from edgetrack.benchmark.config import DEFAULT_SOURCE
from edgetrack.benchmark.frames import BenchFrames, memory_for_frames, prepare_frames
from edgetrack.benchmark.machine import MachineRecord
from edgetrack.benchmark.process import start_worker
from edgetrack.bundle.ref import BundleRef
from edgetrack.gate import code, like
from edgetrack.gate.accuracy import delta_ao
from edgetrack.gate.options import Options, Surroundings
from edgetrack.gate.record import CodeNote, Finding, Report, SamplesMs, SideNote
from edgetrack.gate.recorded import Recording
from edgetrack.gate.reporting import report
from edgetrack.gate.rounds import KEEP_FRAMES, Rounds, Side, gate_config
from edgetrack.gate.sequential import Outcome, run
from edgetrack.runtime.threads import usable_cores

OTHER_TIME = (
    "baseline and candidate ran at different times: what the machine did meanwhile counts as the bundle's; give a "
    "bundle as --baseline to have both measured beside each other"
)
SAME = "baseline and candidate are the same bundle run by the same code: only the gate itself is tested"
RESTLESS = "a process kept computing while the other was measured"


def measured(
    options: Options, around: Surroundings, candidate: BundleRef, baseline: BundleRef | Recording | None
) -> Report:
    """See the module; a baseline's record must have been made alike.

    Raises:
        UsageError: it was not.
        EdgetrackError: a source cannot be opened, or a process failed.
    """
    recording = baseline if isinstance(baseline, Recording) else None
    own, theirs = _codes(options)
    sides = _sides(options, around, candidate, baseline, own if theirs else None)
    machine = around.look()
    device, threads, source = _conditions(options, recording)
    with tempfile.TemporaryDirectory(prefix="edgetrack-check-") as scene:
        box = options.box or (recording.record.source.box if recording else None)
        keep_mb = memory_for_frames(machine.memory_available_mib, len(sides))
        frames = prepare_frames(source, box, Path(scene), keep_frames=KEEP_FRAMES, keep_mb=keep_mb)
        config = gate_config(device, threads)
        with Rounds(sides, frames, config, options.timeout_s, around.progress) as rounds:
            unlike = _unlike(options, rounds, recording, machine, frames, device) if recording else []
            outcome = _run(options, around, rounds, recording)
            restless = rounds.never_rested
    other = sides[1] if len(sides) > 1 else None
    same = other is not None and not theirs and _who(sides[0].bundle) == _who(other.bundle)
    notes = [f"warning ({c.code}): {c.detail}; {c.advice}" for c in warnings.of_machine(machine, threads)]
    notes += [SAME] * same + [OTHER_TIME] * bool(recording) + [RESTLESS] * restless
    return report(
        options,
        findings=_with_accuracy(options, around, outcome, candidate, baseline, device, threads),
        design="recorded" if recording else "paired" if other else "alone",
        candidate=_note(sides[0], own),
        baseline=recording.note if recording else _note(other, theirs or own) if other else None,
        machine=machine,
        device=device,
        threads=threads,
        source=source,
        blocks=outcome.blocks,
        looks=outcome.looks,
        seconds=outcome.seconds,
        differences=unlike,
        notes=notes,
        samples_ms=SamplesMs(
            candidate=sides[0].turns_ms(),
            baseline=other.turns_ms() if other else recording.turns_ms if recording else None,
        ),
    )


def _codes(options: Options) -> tuple[CodeNote, CodeNote | None]:
    """The edgetrack of this process, and the baseline's where it is another's."""
    return code.own_code(), None if options.baseline_python is None else code.code_of(options.baseline_python)


def _conditions(options: Options, recording: Recording | None) -> tuple[str, int, str]:
    """Device, threads and source: the options', else the record's, else the budget's, else the benchmark's own."""
    known = options.budget.measure
    if recording is not None:
        settings = recording.record.settings
        return (
            options.device or settings.device,
            options.threads or recording.result.threads,
            options.source or recording.record.source.spec,
        )
    return (
        options.device or known.device,
        options.threads or known.threads or usable_cores(),
        options.source or known.source or DEFAULT_SOURCE,
    )


def _sides(
    options: Options,
    around: Surroundings,
    candidate: BundleRef,
    baseline: BundleRef | Recording | None,
    isolated: CodeNote | None,
) -> list[Side]:
    """The candidate, and the baseline where it is measured; with `isolated`, each by its own installation."""
    ours = theirs = around.start or start_worker
    if isolated is not None and options.baseline_python is not None:
        ours, theirs = code.own_starter(isolated), code.starter(options.baseline_python)
    sides = [Side("candidate", Candidate.of(candidate), ours)]
    if isinstance(baseline, BundleRef):
        sides.append(Side("baseline", Candidate.of(baseline), theirs))
    return sides


def _unlike(
    options: Options, rounds: Rounds, recording: Recording, machine: MachineRecord, frames: BenchFrames, device: str
) -> list[str]:
    """Differences from the record; the first process says which versions it runs."""
    (side,) = rounds.sides
    rounds.load(side)
    loaded = side.loaded
    candidate = like.traits(
        machine,
        tracker=side.bundle.manifest.tracker,
        device=device,
        threads=loaded.threads if loaded else 0,
        scenario="stream",
        source=frames.note.spec,
        size=frames.note.size,
        box=frames.note.box,
        versions=loaded.versions if loaded else {},
    )
    found = like.differences(like.traits_of(recording.record, recording.result), candidate)
    like.insist(found, force=options.force)
    return found


def _run(options: Options, around: Surroundings, rounds: Rounds, recording: Recording | None) -> Outcome:
    rules = options.budget.rules
    return run(
        rounds,
        [rule for rule in rules if rule.kind != "ao"],
        recording.evidence if recording else None,
        options.budget.alpha,
        options.max_time_s,
        around.clock,
    )


def _with_accuracy(
    options: Options,
    around: Surroundings,
    outcome: Outcome,
    candidate: BundleRef,
    baseline: BundleRef | Recording | None,
    device: str,
    threads: int,
) -> list[Finding]:
    """All findings in the budget's order."""
    found = {finding.rule: finding for finding in outcome.findings}
    for rule in options.budget.rules:
        if rule.kind == "ao" and isinstance(baseline, BundleRef) and options.dataset is not None:
            found[rule.name] = delta_ao(
                rule,
                candidate,
                baseline,
                options.dataset,
                device=device,
                threads=threads,
                alpha=options.budget.alpha,
                progress=around.evaluating,
            )
    return [found[rule.name] for rule in options.budget.rules]


def _who(bundle: Candidate) -> tuple[object, ...]:
    return bundle.manifest, bundle.hint


def _note(side: Side, ran: CodeNote) -> SideNote:
    bundle, manifest = side.bundle, side.bundle.manifest
    return SideNote(
        bundle=bundle.label,
        tracker=manifest.tracker,
        target=manifest.target,
        precision=manifest.precision,
        weights=manifest.weights.origin,
        size_mb=bundle.size_mb,
        versions=side.loaded.versions if side.loaded else {},
        load_ms=side.load_ms,
        peak_rss_mb=side.peak_rss_mb,
        recorded=False,
        code=ran,
    )
