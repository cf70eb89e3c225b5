"""`edgetrack check` from options to a report: who is held against whom, measured or read, judged, stopped in time."""

from __future__ import annotations

import importlib.util

from edgetrack.bundle.ref import BundleRef
from edgetrack.errors import BackendMissingError, UsageError
from edgetrack.gate import like
from edgetrack.gate.evidence import judge
from edgetrack.gate.measured import OTHER_TIME, measured
from edgetrack.gate.options import Options, Surroundings
from edgetrack.gate.record import Report, SamplesMs
from edgetrack.gate.recorded import Recording, open_given
from edgetrack.gate.reporting import report


def check(options: Options, around: Surroundings) -> Report:
    """Hold a bundle, or a record of one, against a budget.

    Raises:
        UsageError: options that cannot be followed, or records that were not measured alike.
        BackendMissingError: the extra `check` is not installed.
        EdgetrackError: a bundle, record or source that cannot be opened, or a process that failed.
    """
    if importlib.util.find_spec("scipy") is None:
        raise BackendMissingError("the gate's statistics need scipy; install it: pip install 'edgetrack[check]'")
    options.check()
    candidate = open_given(options.bundle, "")
    label = candidate.note.bundle if isinstance(candidate, Recording) else candidate.label
    baseline = None if options.baseline is None else open_given(options.baseline, "--baseline", label)
    _check_sides(options, candidate, baseline)
    if isinstance(candidate, Recording):
        return _read(options, candidate, baseline if isinstance(baseline, Recording) else None)
    return measured(options, around, candidate, baseline)


def _check_sides(options: Options, candidate: BundleRef | Recording, baseline: BundleRef | Recording | None) -> None:
    if isinstance(candidate, Recording) and isinstance(baseline, BundleRef):
        raise UsageError(
            f"{options.bundle} is a record and {options.baseline} is a bundle; give the bundle first and the record as "
            "--baseline, or two records, or two bundles"
        )
    if isinstance(baseline, Recording) and options.baseline_python is not None:
        raise UsageError("--baseline-python runs the baseline, but a record is not run; give a bundle as --baseline")
    wanted = next((rule for rule in options.budget.rules if rule.kind == "ao"), None)
    if wanted is None:
        if options.dataset is not None:
            raise UsageError(
                f"budget {options.budget.name} does not ask for AO; leave --dataset out, or put delta_ao_points under "
                "its [limits]"
            )
    elif not isinstance(candidate, BundleRef) or not isinstance(baseline, BundleRef) or options.dataset is None:
        raise UsageError(
            f"budget {options.budget.name} limits {wanted.name}, for which two bundles run on annotated sequences; "
            "type: edgetrack check --budget ... BUNDLE --baseline BUNDLE --dataset DATASET"
        )


def _read(options: Options, candidate: Recording, baseline: Recording | None) -> Report:
    """Nothing is measured: one look at one record, or at two that must be alike."""
    given = {"device": options.device, "threads": options.threads, "source": options.source, "box": options.box}
    for name in (name for name, value in given.items() if value is not None):
        raise UsageError(f"--{name} is for what is measured, but {options.bundle} is a record; leave it out")
    unlike: list[str] = []
    if baseline is not None:
        unlike = like.differences(
            {**like.traits_of(baseline.record, baseline.result), "speeds": like.speeds(baseline.result)},
            {**like.traits_of(candidate.record, candidate.result), "speeds": like.speeds(candidate.result)},
        )
        like.insist(unlike, force=options.force)
    other = None if baseline is None else baseline.evidence
    alpha = options.budget.alpha
    record = candidate.record
    return report(
        options,
        findings=[judge(rule, candidate.evidence, other, alpha) for rule in options.budget.rules],
        design="recorded",
        candidate=candidate.note,
        baseline=None if baseline is None else baseline.note,
        machine=record.machine,
        device=record.settings.device,
        threads=candidate.result.threads,
        source=record.source.spec,
        looks=1,
        differences=unlike,
        notes=[OTHER_TIME] if baseline is not None else [],
        samples_ms=SamplesMs(candidate=candidate.turns_ms, baseline=None if baseline is None else baseline.turns_ms),
    )
