"""A bundle on a data set: read, resume, track what is missing, score, and write it all down."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np

from edgetrack.bundle import open_bundle
from edgetrack.evaluation import store
from edgetrack.evaluation.anchors import AnchoredRun
from edgetrack.evaluation.book import Book, Progress, collect
from edgetrack.evaluation.metrics import Scored, Scores, score
from edgetrack.evaluation.ope import Run
from edgetrack.evaluation.options import Options
from edgetrack.evaluation.overall import intervals, overall
from edgetrack.evaluation.record import AnchoredResult, Failure, Record, Result, SequenceResult, StreamingResult
from edgetrack.evaluation.sequence import Sequence
from edgetrack.evaluation.streaming import StreamedRun
from edgetrack.evaluation.tasks import Anchored, OnePass, Streamed
from edgetrack.runtime.mixtures import merged
from edgetrack.runtime.mixtures import summarize as summarize_shares
from edgetrack.stats.bootstrap import mean_of_means, two_level_interval

SUMMARY = "results.json"


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
        UsageError: an option outside its range, no such bundle, or no such scheduler.
        BundleError, BackendMissingError, DeviceUnavailableError: the bundle cannot be opened or run here.
    """
    options.check()
    with open_bundle(options.bundle) as bundle:
        book = collect(bundle, options, progress)
    result = summarize(book)
    store.save(Record(results=[result]), book.folder / SUMMARY)
    return Evaluation(result, book.of(OnePass), book.folder)


def summarize(book: Book) -> Result:
    """The figures of what a book holds."""
    options, manifest, protocol = book.options, book.manifest, book.options.dataset.protocol
    runs = book.of(OnePass)
    scored = [score_run(sequence, run) for sequence, run in runs]
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
        fps=_fps([ms for _, run in runs for ms in run.ms[1:]]),
        jobs=options.jobs,
        threads=options.threads_each,
        interval=intervals(scored, protocol),
        sequences=_sequences(book, runs, scored),
        failures=[Failure(name=name, error=error) for name, error in book.errors.items()],
        anchored=_anchored(book),
        streaming=_streaming(book),
        scheduler=options.scheduler,
        diagnostics=summarize_shares(merged([run.shares for _, run in runs])) or None,
    )


def score_run(sequence: Sequence, run: Run | StreamedRun) -> Scored:
    """The figures of one run; of the first frame alone where nothing else is annotated."""
    count = len(run.boxes) if sequence.scored else 1
    found = np.array(run.boxes[:count], np.float64)
    return score(found, sequence.truth[:count], sequence.visible[:count], sequence.protocol, run.size)


def _sequences(book: Book, runs: list[tuple[Sequence, Run]], scored: list[Scored]) -> list[SequenceResult]:
    anchored: dict[str, AnchoredRun] = {s.name: run for s, run in book.of(Anchored)}
    streamed: dict[str, StreamedRun] = {s.name: run for s, run in book.of(Streamed)}

    def one(sequence: Sequence, run: Run, figures: Scored) -> SequenceResult:
        short, under_clock = anchored.get(sequence.name), streamed.get(sequence.name)
        return SequenceResult(
            **_figures(figures.scores),
            name=sequence.name,
            frames=len(run.boxes),
            lost=sum(run.lost),
            fps=_fps(run.ms[1:]),
            anchored_ao=None if short is None else short.ao,
            anchor_runs=None if short is None else len(short.runs),
            streaming_ao=None if under_clock is None else score_run(sequence, under_clock).scores.ao,
            diagnostics=summarize_shares(run.shares) or None,
        )

    return [one(sequence, run, figures) for (sequence, run), figures in zip(runs, scored, strict=True)]


def _anchored(book: Book) -> AnchoredResult | None:
    plan = book.options.anchors
    if plan is None:
        return None
    groups = [run.values for _, run in book.of(Anchored) if run.runs]
    count = sum(map(len, groups))
    return AnchoredResult(
        spacing=plan.spacing,
        length=plan.length,
        runs=count,
        ao=mean_of_means(groups) if groups else None,
        interval=two_level_interval(groups) if count > 1 else None,
    )


def _streaming(book: Book) -> StreamingResult | None:
    task = book.options.streaming
    if task is None:
        return None
    runs = book.of(Streamed)
    frames = sum(len(run.boxes) - 1 for _, run in runs)
    spent = [ms for _, run in runs for ms in run.ms]
    ages = [(run.staleness or 0.0) * (len(run.boxes) - 1) for _, run in runs]
    return StreamingResult(
        **_figures(overall([score_run(s, run) for s, run in runs], book.options.dataset.protocol)),
        rate=task.fps,
        latencies="measured" if task.recorded is None else task.recorded.label,
        median_ms=median(spent) if spent else None,
        processed=sum(len(run.ms) - 1 for _, run in runs) / frames if frames else None,
        staleness=sum(ages) / frames if frames else None,
    )


def _figures(scores: Scores) -> dict[str, Any]:
    return msgspec.structs.asdict(scores)


def _fps(updates: list[float]) -> float | None:
    middle = median(updates) if updates else 0.0
    return 1000 / middle if middle > 0 else None
