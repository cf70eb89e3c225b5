"""A bundle on a data set: read, resume, track what is missing, score, and write it all down."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np

from edgetrack.bundle import Bundle, Manifest, open_bundle
from edgetrack.errors import SequenceError, UsageError
from edgetrack.evaluation import store
from edgetrack.evaluation.datasets import Dataset
from edgetrack.evaluation.metrics import Scored, Scores, score
from edgetrack.evaluation.ope import Run
from edgetrack.evaluation.overall import intervals, overall
from edgetrack.evaluation.reading import Entry
from edgetrack.evaluation.record import Failure, Record, Result, SequenceResult
from edgetrack.evaluation.sequence import Sequence
from edgetrack.evaluation.workers import Setup, Work, run_all
from edgetrack.runtime.threads import usable_cores

SUMMARY = "results.json"
Progress = Callable[[str, int, int], None]
"""Called with what just happened, how many sequences are done, and how many there are."""


@dataclass(frozen=True)
class Options:
    """What to evaluate; see `edgetrack eval --help`. `threads` None shares the usable cores among the jobs."""

    bundle: str
    dataset: Dataset
    jobs: int = 1
    threads: int | None = None
    frames: int | None = None
    device: str = "cpu"
    precision_hint: str | None = None
    output: Path | None = None
    restart: bool = False

    @property
    def threads_each(self) -> int:
        """Threads of one inference."""
        return max(1, usable_cores() // self.jobs) if self.threads is None else self.threads


@dataclass
class Evaluation:
    """What came of it.

    Attributes:
        result: the figures.
        runs: every sequence that was tracked, with its run, in the data set's order.
        folder: where the runs and the summary are kept.
    """

    result: Result
    runs: list[tuple[Sequence, Run]]
    folder: Path


def evaluate(options: Options, progress: Progress = lambda what, done, total: None) -> Evaluation:
    """Evaluate; runs that are on disk already are taken from there.

    A sequence that cannot be read or tracked is a failure of the result, and the others go on. After an interruption
    the same call goes on where it was.

    Raises:
        UsageError: an option outside its range, or there is no such bundle.
        BundleError, BackendMissingError, DeviceUnavailableError: the bundle cannot be opened or run here.
    """
    for name, value in (("jobs", options.jobs), ("threads", options.threads), ("frames", options.frames)):
        if value is not None and value < 1:
            raise UsageError(f"--{name} {value}: expected 1 or more")
    with open_bundle(options.bundle) as bundle:
        book = _Book(options, bundle, progress)
        book.read()
        works = book.missing()
        if works:
            setup = Setup(bundle.folder.resolve(), options.device, options.threads_each, options.precision_hint)
            run_all(works, setup, options.jobs, book.note)
        return book.close()


def default_folder(manifest: Manifest, dataset: Dataset) -> Path:
    """Where the runs of a bundle on a data set are kept when nothing else is said."""
    return Path("out") / "eval" / manifest.name / store.plain_name(dataset.name)


@dataclass
class _Book:
    """Which sequences there are, which are done and which failed."""

    options: Options
    bundle: Bundle
    progress: Progress
    sequences: list[Sequence] = field(default_factory=list)
    runs: dict[str, Run] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.options.output or default_folder(self.bundle.manifest, self.options.dataset)

    def read(self) -> None:
        for entry in self.options.dataset.entries:
            self._read(entry)

    def _read(self, entry: Entry) -> None:
        try:
            self.sequences.append(self.options.dataset.read(entry))
        except SequenceError as error:
            self._fail(entry.name, f"SequenceError: {error}")

    def missing(self) -> list[Work]:
        works = [self._work(sequence) for sequence in self.sequences]
        if self.options.restart:
            for work in works:
                work.file.unlink(missing_ok=True)
        return [work for work in works if not self._take(work, "kept from an earlier run")]

    def note(self, work: Work, error: str | None) -> None:
        if error is not None:
            self._fail(work.sequence.name, error)
        elif not self._take(work, "done"):
            self._fail(work.sequence.name, f"SequenceError: {work.file} was removed or changed while it was needed")

    def close(self) -> Evaluation:
        runs = [(s, self.runs[s.name]) for s in self.sequences if s.name in self.runs]
        result = self._result(runs)
        store.save(Record(results=[result]), self.folder / SUMMARY)
        return Evaluation(result, runs, self.folder)

    def _take(self, work: Work, what: str) -> bool:
        saved = store.load(work.file, work.saved_as[0])
        if saved is None:
            return False
        self.runs[work.sequence.name] = saved.run
        self._tell(f"{work.sequence.name}: {what}")
        return True

    def _fail(self, name: str, error: str) -> None:
        self.errors[name] = error
        self._tell(f"{name}: FAILED: {error}")

    def _tell(self, what: str) -> None:
        self.progress(what, len(self.runs) + len(self.errors), len(self.options.dataset.entries))

    def _work(self, sequence: Sequence) -> Work:
        options, manifest = self.options, self.bundle.manifest
        key = store.key_of(
            hashlib.sha256(manifest.to_json()).hexdigest(),
            options.device,
            options.precision_hint,
            options.dataset.where,
            sequence.name,
            sequence.digest,
            options.frames,
        )
        saved_as = (key, manifest.name, manifest.weights.origin, options.dataset.where)
        return Work(sequence, options.frames, store.file_for(self.folder, sequence.name, key), saved_as)

    def _result(self, runs: list[tuple[Sequence, Run]]) -> Result:
        options, manifest, protocol = self.options, self.bundle.manifest, self.options.dataset.protocol
        scored = [_score(sequence, run) for sequence, run in runs]
        updates = [ms for _, run in runs for ms in run.ms[1:]]
        return Result(
            **_figures(overall(scored, protocol)),
            bundle=manifest.name,
            weights=manifest.weights.origin,
            dataset=options.dataset.name,
            layout=options.dataset.layout,
            averaging="frames" if protocol.over_frames else "sequences",
            device=options.device,
            precision_hint=options.precision_hint,
            frames=sum(len(run.boxes) for _, run in runs),
            limit=options.frames,
            fps=_fps(updates),
            jobs=options.jobs,
            threads=options.threads_each,
            interval=intervals(scored, protocol),
            sequences=[_sequence(s, run, one) for (s, run), one in zip(runs, scored, strict=True)],
            failures=[Failure(name=name, error=error) for name, error in self.errors.items()],
        )


def _score(sequence: Sequence, run: Run) -> Scored:
    count = len(run.boxes) if sequence.scored else 1
    found = np.array(run.boxes[:count], np.float64)
    return score(found, sequence.truth[:count], sequence.visible[:count], sequence.protocol, run.size)


def _sequence(sequence: Sequence, run: Run, scored: Scored) -> SequenceResult:
    return SequenceResult(
        **_figures(scored.scores),
        name=sequence.name,
        frames=len(run.boxes),
        lost=sum(run.lost),
        fps=_fps(run.ms[1:]),
    )


def _figures(scores: Scores) -> dict[str, Any]:
    return msgspec.structs.asdict(scores)


def _fps(updates: list[float]) -> float | None:
    middle = median(updates) if updates else 0.0
    return 1000 / middle if middle > 0 else None
