"""Making the runs of an evaluation: those that are not on disk yet, in processes of this machine or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from edgetrack.bundle import open_bundle
from edgetrack.bundle.reader import BundleRef
from edgetrack.capabilities import require_device
from edgetrack.errors import SequenceError, UsageError
from edgetrack.evaluation.config import EvalConfig
from edgetrack.evaluation.execution.dask import run_on_cluster
from edgetrack.evaluation.execution.ledger import RunLedger, Setup
from edgetrack.evaluation.execution.local import run_in_processes
from edgetrack.evaluation.protocols import Task
from edgetrack.evaluation.protocols.anchored import Anchored, AnchoredRuns
from edgetrack.presentation.progress import Progress, no_progress
from edgetrack.runtime.recovery import uncalibrated
from edgetrack.runtime.trackers.base import find_procedure


def collect(
    ref: BundleRef,
    config: EvalConfig,
    progress: Progress = no_progress,
    tasks: Callable[[str], Iterable[Task[Any]]] | None = None,
) -> RunLedger:
    """Run every task on every sequence; runs that are on disk already are taken from there.

    A sequence that cannot be read or tracked goes into the ledger's `errors`, and the others go on. After an
    interruption the same call resumes.

    Args:
        ref: the bundle that tracks, with its precision hint.
        config: how.
        progress: is told of every run.
        tasks: for the sequence of a name, where they are not those of the config.

    Raises:
        BundleError, BackendMissingError, DeviceUnavailableError: the bundle cannot be opened or run there.
        UsageError: the scheduler does not answer or has no workers, or the tracker takes two images a frame and
            the data set has one.
    """
    if find_procedure(ref.manifest).modalities > config.dataset.images:
        raise UsageError(
            f"{ref.manifest.name} takes two images a frame, {config.dataset.name} ({config.dataset.layout}) has one; "
            "give a data set of pairs (docs/eval.md lists their layouts), or synthetic: with its thermal images"
        )
    if config.recover is not None and ref.manifest.lost is msgspec.UNSET:
        raise uncalibrated(ref.manifest, "--recover")
    ledger = RunLedger(ref, config, progress, tasks or (lambda name: config.tasks))
    if config.scheduler is None:
        require_device(ref.manifest.target, ledger.device)
    ledger.read()
    works = ledger.missing()
    if not works:
        return ledger
    with open_bundle(ref.path) as bundle:
        setup = Setup(
            # The files of an opened zip are in a folder that only this machine has.
            bundle=(bundle.folder if config.scheduler is None else bundle.source).resolve(),
            device=ledger.device,
            threads=config.threads_each,
            precision_hint=ref.hint,
            manifest=ref.manifest.digest,
            recover=config.recover,
        )
        if config.scheduler is not None:
            run_on_cluster(works, setup, config.scheduler, ledger.note)
        else:
            run_in_processes(works, setup, config.jobs, ledger.note)
    return ledger


def anchored_runs(ref: BundleRef, config: EvalConfig, progress: Progress = no_progress) -> list[AnchoredRuns]:
    """The anchored runs of every sequence (`config.anchors`, or the defaults), and nothing else.

    Raises:
        SequenceError: a sequence failed.
        EdgetrackError: the bundle cannot be run.
    """
    ledger = collect(ref, config, progress, lambda name: [config.anchors or Anchored()])
    if ledger.errors:
        name, error = next(iter(ledger.errors.items()))
        raise SequenceError(
            f"{name}: {error}; {ref.label} failed on {len(ledger.errors)} of {len(config.dataset.entries)} sequences: "
            "give a data set that it can track"
        )
    return [runs for _, runs in ledger.of(Anchored)]
