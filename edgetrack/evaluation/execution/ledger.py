"""The ledger of an evaluation: the runs to make, what each loads and tracks, and the file in which each is kept.

A run's file is named by a hash of all that decides its result: the bundle's manifest, the device, the precision hint,
the data set, the sequence with its boxes, the number of frames and the task. An interrupted evaluation so resumes where
it stopped, and a run with other settings is another file. Pixels are not hashed: after changing images under the same
names, give `--restart`.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import msgspec

from edgetrack.bundle.reader import BundleRef
from edgetrack.errors import BundleError, SequenceError
from edgetrack.evaluation.config import EvalConfig
from edgetrack.evaluation.datasets.clip import Clip, ClipFiles
from edgetrack.evaluation.protocols import Task
from edgetrack.evaluation.protocols.one_pass import OnePass
from edgetrack.io import BAD_JSON, encode_json, read_bytes, readable, write_whole
from edgetrack.presentation.progress import Progress
from edgetrack.runtime.recovery import Recover
from edgetrack.runtime.session import Tracker, load

_Found = TypeVar("_Found")
Done = Callable[["Work", "str | None"], None]
"""Called with each finished run, and its error."""
KEPT = "kept from an earlier run"
"""What is told of a run that need not be made."""


class SavedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the ledger: the run of a task, what it is of, and which threads and jobs its speed depends on."""

    schema: int = 1
    key: str
    bundle: str
    weights: str
    dataset: str
    sequence: str
    run: msgspec.Raw
    measured_with: str | None = None


def key_of(*parts: str | float | None) -> str:
    """A hash of what decides a result."""
    return hashlib.sha256(encode_json(parts)).hexdigest()


def plain_name(text: str) -> str:
    """Text as the name of a file or folder: letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).lstrip(".") or "_"


def file_for(folder: Path, sequence: str, key: str, profile: str | None = None) -> Path:
    """Where the run with this key is kept; a device's has its profile in its name, so that it never takes another's."""
    on = "" if profile is None else f"@{profile}"
    return folder / f"{plain_name(sequence)}{on}-{key[:16]}.json"


def files_of(profile: str) -> re.Pattern[str]:
    """The names of the files that `file_for` gives to the runs of a device."""
    return re.compile(rf"[A-Za-z0-9._-]+@{re.escape(profile)}-[0-9a-f]{{16}}\.json")


def folder_for(ref: BundleRef, config: EvalConfig) -> Path:
    """Where the runs of a bundle are kept: `config.output`, or `out/eval/BUNDLE/DATASET`."""
    return config.output or Path("out") / "eval" / ref.manifest.name / plain_name(config.dataset.name)


def encoded(run: msgspec.Struct) -> msgspec.Raw:
    """A run as `SavedRun` holds it."""
    return msgspec.Raw(msgspec.json.encode(run))


def read_run(path: Path, key: str, kind: type[_Found]) -> tuple[_Found, str | None] | None:
    """The run that was kept there under this key, and what its speed was measured with; None where there is none."""
    try:
        saved = msgspec.json.decode(read_bytes(path), type=SavedRun)
        if saved.key != key or saved.schema != 1:
            return None
        return msgspec.json.decode(saved.run, type=kind), saved.measured_with
    except (OSError, *BAD_JSON):
        return None


def save(value: msgspec.Struct, path: Path) -> None:
    """Write as JSON so that a reader sees the old file or the new one, never a part.

    Raises:
        EdgetrackError: it cannot be written; what was there is kept.
    """
    write_whole(path, encode_json(value), b"\n")


@dataclass(frozen=True)
class Setup:
    """How every process loads the bundle.

    Attributes:
        bundle: its folder or zip, as the process that loads it sees it.
        device, threads, precision_hint, recover: as `edgetrack.load` takes them.
        manifest: digest of the manifest that it must have; not checked where it is None.
    """

    bundle: Path
    device: str
    threads: int
    precision_hint: str | None
    manifest: str | None = None
    recover: Recover | None = None


@dataclass(frozen=True)
class Work:
    """A run to make, of a sequence's first `limit` frames where that is not None, and the file that keeps it."""

    clip: Clip
    limit: int | None
    file: Path
    saved_as: tuple[str, str, str, str]
    """Key, bundle, weights and data set of `SavedRun`."""
    task: Task[Any] = field(default_factory=OnePass)
    measured_with: str | None = None

    @property
    def label(self) -> str:
        """The sequence, and the task where it is not the one pass."""
        return f"{self.clip.name} ({self.task.name})" if self.task.name else self.clip.name

    def keep(self, found: Any) -> None:
        """Save the result.

        Raises:
            EdgetrackError: it cannot be written.
        """
        key, bundle, weights, dataset = self.saved_as
        saved = SavedRun(
            key=key,
            bundle=bundle,
            weights=weights,
            dataset=dataset,
            sequence=self.clip.name,
            run=encoded(found),
            measured_with=self.measured_with,
        )
        save(saved, self.file)


class WorkResult(NamedTuple):
    """A run, or why there is none: exactly one of them is not None."""

    found: Any
    error: str | None


class _Loaded(threading.local):
    """A tracker for each thread, since none is thread-safe and a Dask worker may have many."""

    setup: Setup | None = None
    tracker: Tracker | None = None


_loaded = _Loaded()


def perform(setup: Setup, work: Work) -> WorkResult:
    """Make the run with the bundle, which is loaded once and stays loaded until another is asked for.

    Raises:
        EdgetrackError: the bundle cannot be loaded, or is another one than that of the setup.
    """
    tracker = _tracker(setup)
    try:
        if tracker.attributes:
            tracker.set_text(work.clip.text)
        return WorkResult(work.task.run(tracker, work.clip, work.limit), None)
    except Exception as error:
        return WorkResult(None, f"{type(error).__name__}: {error}")


def _tracker(setup: Setup) -> Tracker:
    if _loaded.tracker is not None and _loaded.setup == setup:
        return _loaded.tracker
    if _loaded.tracker is not None:
        _loaded.tracker.close()
        _loaded.tracker = None
    import cv2

    cv2.setNumThreads(setup.threads)
    tracker = load(
        setup.bundle,
        device=setup.device,
        threads=setup.threads,
        precision_hint=setup.precision_hint,
        recover=setup.recover,
    )
    if setup.manifest not in (None, tracker.manifest.digest):
        tracker.close()
        raise BundleError(f"the bundle at {setup.bundle} is another one of that name; copy the right one there")
    _loaded.setup, _loaded.tracker = setup, tracker
    return tracker


def run_quarantined(
    works: Iterable[Work], attempt: Callable[[deque[Work]], list[tuple[Work, str]]], done: Done
) -> None:
    """Make every run, and find those that kill their worker.

    Args:
        works: the runs to make.
        attempt: makes runs, taking them off the queue; returns those that were in a worker that died, with an error for
            each. Each of these is tried again alone, and one that dies alone has failed.
        done: hears of each run that failed so; `attempt` tells of the others.
    """
    waiting = deque(works)
    while waiting:
        suspects = attempt(waiting)
        for work, error in suspects:
            if len(suspects) == 1 or attempt(deque([work])):
                done(work, error)


@dataclass
class RunLedger:
    """The runs of one bundle on one data set.

    Attributes:
        ref, config: what is evaluated, and how.
        progress: is told of every run.
        tasks: for the sequence of a name.
        clips: that could be read, in the data set's order.
        other_speed: sequences whose one pass an earlier call made with other threads or jobs, and which.
        errors: what failed, by the label of the run (the sequence's name where it could not be read).
    """

    ref: BundleRef
    config: EvalConfig
    progress: Progress
    tasks: Callable[[str], Iterable[Task[Any]]]
    clips: list[Clip] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)
    other_speed: dict[str, str] = field(default_factory=dict)
    _found: dict[tuple[str, str], Any] = field(default_factory=dict)
    _total: int = 0

    @property
    def folder(self) -> Path:
        """Where runs are kept."""
        return folder_for(self.ref, self.config)

    @property
    def device(self) -> str:
        """Where the bundle runs."""
        return self.ref.device or self.config.device

    def of(self, task: type[Task[_Found]]) -> list[tuple[Clip, _Found]]:
        """The results of a task, with their sequences in the data set's order."""
        name = cast("str", task.name)
        return [(clip, self._found[name, clip.name]) for clip in self.clips if (name, clip.name) in self._found]

    def read(self) -> None:
        """Read the annotation of every sequence."""
        dataset = self.config.dataset
        self._total = len(dataset.entries)
        for entry in dataset.entries:
            self._read(entry)

    def _read(self, entry: ClipFiles) -> None:
        try:
            self.clips.append(self.config.dataset.read(entry))
        except SequenceError as error:
            self._fail(entry.name, f"SequenceError: {error}")

    def missing(self) -> list[Work]:
        """The runs that are still to be made; those on disk are read."""
        works = [
            self._work(clip, task)
            for clip in self.clips
            for task in self.tasks(clip.name)
            if clip.scored or not task.needs_truth
        ]
        self._total = len(works) + len(self.errors)
        if self.config.restart:
            for work in works:
                work.file.unlink(missing_ok=True)
        return [work for work in works if not self._take(work, KEPT)]

    def note(self, work: Work, error: str | None) -> None:
        """Hear of a run that is done and kept, or failed."""
        if error is not None:
            self._fail(work.label, error)
        elif not self._take(work, "done"):
            self._fail(work.label, f"SequenceError: {work.file} was removed or changed while it was needed")

    def _take(self, work: Work, what: str) -> bool:
        found = read_run(work.file, work.saved_as[0], work.task.result)
        if found is None:
            return False
        self._found[work.task.name, work.clip.name] = found[0]
        if found[1] != work.measured_with and not work.task.name:
            self.other_speed[work.clip.name] = found[1] or "an unknown setting"
        self._tell(f"{work.label}: {what}")
        return True

    def _fail(self, label: str, error: str) -> None:
        self.errors[label] = error
        self._tell(f"{label}: FAILED: {error}")

    def _tell(self, what: str) -> None:
        self.progress(what, len(self._found) + len(self.errors), self._total)

    def _work(self, clip: Clip, task: Task[Any]) -> Work:
        config, manifest = self.config, self.ref.manifest
        where = readable(config.dataset.where)
        key = key_of(
            manifest.digest,
            self.device,
            self.ref.hint,
            where,
            clip.name,
            clip.digest,
            config.frames,
            *([f"recover {config.recover}"] if config.recover else []),
            *task.key,
            *([] if config.profile is None else [config.profile]),
        )
        saved_as = (key, manifest.name, manifest.weights.origin, where)
        file = file_for(self.folder, clip.name, key, config.profile)
        return Work(clip, config.frames, file, saved_as, task, config.measured_with)
