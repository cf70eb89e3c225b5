"""One sequence's work, wherever it is done: what is asked for, with which bundle, and the function that does it."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from edgetrack.bundle import Manifest
from edgetrack.errors import BundleError
from edgetrack.evaluation import store
from edgetrack.evaluation.sequence import Sequence
from edgetrack.evaluation.tasks import OnePass, Task
from edgetrack.runtime.session import Tracker, load

_USUAL = OnePass()


@dataclass(frozen=True)
class Setup:
    """How every process loads the bundle.

    Attributes:
        bundle: its folder or zip, as the process that loads it sees it.
        device, threads, precision_hint: as `edgetrack.load` takes them.
        manifest: `digest_of` the manifest that it must have; not checked where it is None.
    """

    bundle: Path
    device: str
    threads: int
    precision_hint: str | None
    manifest: str | None = None


@dataclass(frozen=True)
class Work:
    """What is done with a sequence (its first `limit` frames where that is not None), and where the outcome is kept."""

    sequence: Sequence
    limit: int | None
    file: Path
    saved_as: tuple[str, str, str, str]
    task: Task[Any] = _USUAL

    @property
    def label(self) -> str:
        """The sequence, and the task where it is not the usual one."""
        return f"{self.sequence.name} ({self.task.name})" if self.task.name else self.sequence.name

    def keep(self, found: Any) -> None:
        """Save what came of it.

        Raises:
            EdgetrackError: it cannot be written.
        """
        key, bundle, weights, dataset = self.saved_as
        saved = store.Saved(
            key=key,
            bundle=bundle,
            weights=weights,
            dataset=dataset,
            sequence=self.sequence.name,
            run=store.encoded(found),
        )
        store.save(saved, self.file)


class Outcome(NamedTuple):
    """What came of a work, or what went wrong: exactly one of them is not None."""

    found: Any
    error: str | None


def digest_of(manifest: Manifest) -> str:
    """SHA-256 of a manifest, which itself holds that of every file: equal for equal bundles alone."""
    return hashlib.sha256(manifest.to_json()).hexdigest()


class _Loaded(threading.local):
    """A tracker for each thread, since none is thread-safe and a Dask worker may have many."""

    setup: Setup | None = None
    tracker: Tracker | None = None


_loaded = _Loaded()


def perform(setup: Setup, work: Work) -> Outcome:
    """Do the work with the bundle, which is loaded once and stays loaded until another is asked for.

    Raises:
        EdgetrackError: the bundle cannot be loaded, or is not the one that is meant.
    """
    tracker = _tracker(setup)
    try:
        if tracker.attributes:
            tracker.describe(work.sequence.text)
        return Outcome(work.task.run(tracker, work.sequence, work.limit), None)
    except Exception as error:
        return Outcome(None, f"{type(error).__name__}: {error}")


def _tracker(setup: Setup) -> Tracker:
    if _loaded.tracker is not None and _loaded.setup == setup:
        return _loaded.tracker
    if _loaded.tracker is not None:
        _loaded.tracker.close()
        _loaded.tracker = None
    import cv2

    cv2.setNumThreads(setup.threads)
    tracker = load(setup.bundle, device=setup.device, threads=setup.threads, precision_hint=setup.precision_hint)
    if setup.manifest not in (None, digest_of(tracker.manifest)):
        tracker.close()
        raise BundleError(f"the bundle at {setup.bundle} is another one of that name; copy the one that is meant there")
    _loaded.setup, _loaded.tracker = setup, tracker
    return tracker
