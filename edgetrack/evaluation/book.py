"""The book on an evaluation: which sequences there are, what of them is done and kept, and what failed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from edgetrack.bundle import Bundle, Manifest
from edgetrack.errors import SequenceError, UsageError
from edgetrack.evaluation import store
from edgetrack.evaluation.cluster import run_on_cluster
from edgetrack.evaluation.datasets import Dataset
from edgetrack.evaluation.options import Options
from edgetrack.evaluation.reading import Entry
from edgetrack.evaluation.sequence import Sequence
from edgetrack.evaluation.tasks import Task
from edgetrack.evaluation.work import Setup, Work, digest_of
from edgetrack.evaluation.workers import run_all
from edgetrack.runtime.trackers.base import find_procedure

Found = TypeVar("Found")
Progress = Callable[[str, int, int], None]
"""Called with what just happened, how many works are done, and how many there are."""


def collect(
    bundle: Bundle, options: Options, progress: Progress, make: Callable[[str], Iterable[Task[Any]]] | None = None
) -> Book:
    """Do with every sequence what the options say; what is on disk already is taken from there.

    A sequence that cannot be read or tracked goes into the book's `errors`, and the others go on. After an interruption
    the same call goes on where it was.

    Args:
        bundle: that tracks.
        options: checked.
        progress: is told of every work.
        make: the tasks for the sequence of a name, where they are not those of the options.

    Raises:
        BundleError, BackendMissingError, DeviceUnavailableError: the bundle cannot be run there.
        UsageError: the scheduler does not answer or has no workers, or the tracker takes two images a frame.
    """
    if find_procedure(bundle.manifest).modalities > 1:
        raise UsageError(
            f"{bundle.manifest.name} takes two images a frame, data sets are read with one; run it on a clip and its "
            "second images with: edgetrack track BUNDLE SOURCE --aux PATH"
        )
    book = Book(options, bundle.manifest, progress, make or (lambda name: options.tasks))
    book.read()
    works = book.missing()
    if not works:
        return book
    cluster = options.scheduler is not None
    setup = Setup(
        # The files of an opened zip are in a folder that only this machine has.
        bundle=(bundle.source if cluster else bundle.folder).resolve(),
        device=options.device,
        threads=options.threads_each,
        precision_hint=options.precision_hint,
        manifest=digest_of(bundle.manifest),
    )
    if options.scheduler is not None:
        run_on_cluster(works, setup, options.scheduler, book.note)
    else:
        run_all(works, setup, options.jobs, book.note)
    return book


def default_folder(manifest: Manifest, dataset: Dataset) -> Path:
    """Where the runs of a bundle on a data set are kept when nothing else is said."""
    return Path("out") / "eval" / manifest.name / store.plain_name(dataset.name)


@dataclass
class Book:
    """See above.

    Attributes:
        sequences: that could be read, in the data set's order.
        errors: what failed, by the label of the work (the sequence's name where it could not be read).
    """

    options: Options
    manifest: Manifest
    progress: Progress
    make: Callable[[str], Iterable[Task[Any]]]
    sequences: list[Sequence] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)
    _found: dict[tuple[str, str], Any] = field(default_factory=dict)
    _total: int = 0

    @property
    def folder(self) -> Path:
        """Where runs are kept."""
        return self.options.output or default_folder(self.manifest, self.options.dataset)

    def of(self, task: type[Task[Found]]) -> list[tuple[Sequence, Found]]:
        """The sequences that this was done with, and what came of it, in the data set's order."""
        name = cast("str", task.name)
        return [(s, self._found[name, s.name]) for s in self.sequences if (name, s.name) in self._found]

    def read(self) -> None:
        """Read the annotation of every sequence."""
        self._total = len(self.options.dataset.entries)
        for entry in self.options.dataset.entries:
            self._read(entry)

    def _read(self, entry: Entry) -> None:
        try:
            self.sequences.append(self.options.dataset.read(entry))
        except SequenceError as error:
            self._fail(entry.name, f"SequenceError: {error}")

    def missing(self) -> list[Work]:
        """What is still to be done."""
        works = [
            self._work(sequence, task)
            for sequence in self.sequences
            for task in self.make(sequence.name)
            if sequence.scored or not task.needs_truth
        ]
        self._total = len(works) + len(self.errors)
        if self.options.restart:
            for work in works:
                work.file.unlink(missing_ok=True)
        return [work for work in works if not self._take(work, "kept from an earlier run")]

    def note(self, work: Work, error: str | None) -> None:
        """Hear of a work that is done and kept, or failed."""
        if error is not None:
            self._fail(work.label, error)
        elif not self._take(work, "done"):
            self._fail(work.label, f"SequenceError: {work.file} was removed or changed while it was needed")

    def _take(self, work: Work, what: str) -> bool:
        found = store.load(work.file, work.saved_as[0], work.task.found)
        if found is None:
            return False
        self._found[work.task.name, work.sequence.name] = found
        self._tell(f"{work.label}: {what}")
        return True

    def _fail(self, label: str, error: str) -> None:
        self.errors[label] = error
        self._tell(f"{label}: FAILED: {error}")

    def _tell(self, what: str) -> None:
        self.progress(what, len(self._found) + len(self.errors), self._total)

    def _work(self, sequence: Sequence, task: Task[Any]) -> Work:
        options, manifest = self.options, self.manifest
        key = store.key_of(
            digest_of(manifest),
            options.device,
            options.precision_hint,
            options.dataset.where,
            sequence.name,
            sequence.digest,
            options.frames,
            *task.key,
        )
        saved_as = (key, manifest.name, manifest.weights.origin, options.dataset.where)
        return Work(sequence, options.frames, store.file_for(self.folder, sequence.name, key), saved_as, task)
