"""A bundle on a data set: make the runs that are missing, score them, and keep the summary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np

from edgetrack.bundle.reader import BundleRef
from edgetrack.evaluation.annotations import correlations, course, frame_annotations
from edgetrack.evaluation.config import EvalConfig
from edgetrack.evaluation.datasets.clip import Clip
from edgetrack.evaluation.execution import collect
from edgetrack.evaluation.execution.ledger import RunLedger, key_of, save
from edgetrack.evaluation.lost import FlaggedRun, flag_scores, flagged_run
from edgetrack.evaluation.metrics import (
    LongTermScores,
    PairScores,
    Scored,
    Scores,
    confident_run,
    intervals,
    long_term,
    overall,
    overall_pair,
    score,
    score_pair,
)
from edgetrack.evaluation.protocols.anchored import Anchored
from edgetrack.evaluation.protocols.one_pass import OnePass, OnePassRun
from edgetrack.evaluation.protocols.streaming import Streaming, StreamingRun
from edgetrack.evaluation.results import (
    AnchoredResult,
    AttributeResult,
    EvalRecord,
    EvalResult,
    SequenceFailure,
    SequenceResult,
    StreamingResult,
)
from edgetrack.io import BAD_JSON, encode_json, read_bytes, write_whole
from edgetrack.presentation.progress import Progress, no_progress
from edgetrack.runtime.diagnostics import merged
from edgetrack.runtime.diagnostics import summarize as summarize_shares
from edgetrack.stats.bootstrap import mean_of_means, two_level_interval

SUMMARY = "results.json"
_ASKED = ("bundle", "dataset", "layout", "device", "profile", "precision_hint", "limit", "text_noise", "recover")
"""Fields of a result that say what was asked for, beside its sequences, anchors and clock."""


@dataclass
class Evaluation:
    """The result of `evaluate`.

    Attributes:
        result: the figures.
        runs: every sequence that was tracked, with its run, in the data set's order.
        folder: where the runs and the summary are kept.
    """

    result: EvalResult
    runs: list[tuple[Clip, OnePassRun]]
    folder: Path


def evaluate(ref: BundleRef, config: EvalConfig, progress: Progress = no_progress) -> Evaluation:
    """Evaluate a bundle; runs that are on disk already are taken from there.

    A sequence that cannot be read or tracked is a failure of the result, and the others go on. After an interruption
    the same call resumes.

    Raises:
        UsageError: no such scheduler.
        BundleError, BackendMissingError, DeviceUnavailableError: the bundle cannot be opened or run here.
    """
    ledger = collect(ref, config, progress)
    result = summarize(ledger)
    save_summary(result, ledger.folder)
    return Evaluation(result, ledger.of(OnePass), ledger.folder)


def save_summary(result: EvalResult, folder: Path) -> None:
    """Write the summary of a folder; one of other settings that is there is kept as `results-HASH.json`.

    Raises:
        EdgetrackError: it cannot be written.
    """
    summary = folder / SUMMARY
    try:
        (earlier,) = msgspec.json.decode(data := read_bytes(summary), type=EvalRecord).results
    except (OSError, ValueError, *BAD_JSON):
        pass  # none, or what nothing can be made of
    else:
        if (asked := _asked(earlier)) != _asked(result):
            write_whole(folder / f"{summary.stem}-{key_of(asked)[:8]}{summary.suffix}", data)
    save(EvalRecord(results=[result]), summary)


def _asked(result: EvalResult) -> str:
    """What was asked for, as JSON."""
    anchors, clock = result.anchored, result.streaming
    asked = {name: getattr(result, name) for name in _ASKED}
    asked["sequences"] = sorted([one.name for one in result.sequences] + [one.name for one in result.failures])
    asked["anchors"] = anchors and (anchors.spacing, anchors.length)
    asked["clock"] = clock and (clock.rate, clock.latencies)
    return encode_json(asked, order="deterministic").decode()


def summarize(ledger: RunLedger) -> EvalResult:
    """The figures of the runs in a ledger."""
    config, manifest, rules = ledger.config, ledger.ref.manifest, ledger.config.dataset.rules
    runs = ledger.of(OnePass)
    scored = [score_run(clip, run) for clip, run in runs]
    pairs = {clip.name: pair for clip, run in runs if (pair := _pair(clip, run)) is not None}
    flagged = {clip.name: flagged_run(clip, run.boxes, run.scores, run.lost) for clip, run in runs if clip.scored}
    pair, ends = overall_pair([(pairs[c.name], len(r.boxes)) for c, r in runs if c.name in pairs], rules)
    return EvalResult(
        **_figures(overall(scored, rules)),
        bundle=manifest.name,
        weights=manifest.weights.origin,
        parameters=manifest.weights.parameters,
        dataset=config.dataset.name,
        layout=config.dataset.layout,
        averaging="frames" if rules.over_frames else "sequences",
        device=ledger.device,
        profile=config.profile,
        precision_hint=ledger.ref.hint,
        frames=sum(len(run.boxes) for _, run in runs),
        limit=config.frames,
        fps=_fps([ms for clip, run in runs if clip.name not in ledger.other_speed for ms in run.ms[1:]]),
        other_speed=ledger.other_speed or None,
        jobs=config.jobs,
        threads=config.threads_each,
        interval=intervals(scored, rules) | (ends if pairs else {}),
        pair=pair if pairs else None,
        long_term=_long_term(runs) if rules.long_term else None,
        sequences=_sequences(ledger, runs, scored, pairs, flagged),
        failures=[SequenceFailure(name=name, error=error) for name, error in ledger.errors.items()],
        anchored=_anchored(ledger),
        streaming=_streaming(ledger),
        scheduler=config.scheduler,
        text_noise=config.text_noise,
        recover=config.recover,
        diagnostics=summarize_shares(merged([run.shares for _, run in runs]), one_run=len(runs) == 1) or None,
        attributes=_attributes(ledger, runs, scored) or None,
        flag=flag_scores(list(flagged.values()), whole=True),
    )


def _attributes(ledger: RunLedger, runs: list[tuple[Clip, OnePassRun]], scored: list[Scored]) -> list[AttributeResult]:
    dataset, found = ledger.config.dataset, []
    for name in dict.fromkeys(n for entry in dataset.entries if entry.attributes for n in entry.attributes.names):
        marked = [one for (clip, _), one in zip(runs, scored, strict=True) if name in (clip.attributes or ())]
        if marked:
            figures = _figures(overall(marked, dataset.rules))
            found.append(AttributeResult(**figures, attribute=name, sequences=len(marked)))
    return found


def score_run(clip: Clip, run: OnePassRun | StreamingRun) -> Scored:
    """The figures of one run; of the first frame alone where nothing else is annotated."""
    count = len(run.boxes) if clip.scored else 1
    annotated = slice(0, count, clip.every)
    found = np.array(run.boxes, np.float64)[annotated]
    return score(found, clip.truth[annotated], clip.visible[annotated], clip.rules, run.size)


def _pair(clip: Clip, run: OnePassRun) -> PairScores | None:
    """The figures of one run where the target has a box of its own in the second images."""
    if clip.second is None or clip.second.truth is None or not clip.scored:
        return None
    annotated = slice(0, len(run.boxes), clip.every)
    found = np.array(run.boxes, np.float64)[annotated]
    return score_pair(found, clip.truth[annotated], clip.second.truth[annotated], clip.visible[annotated], clip.rules)


def _long_term(runs: list[tuple[Clip, OnePassRun]]) -> LongTermScores | None:
    return long_term(
        [
            confident_run(np.array(run.boxes, np.float64), run.scores, clip.truth[: len(run.boxes)], run.size)
            for clip, run in runs
            if clip.scored and len(run.boxes) > 1
        ]
    )


def _sequences(
    ledger: RunLedger,
    runs: list[tuple[Clip, OnePassRun]],
    scored: list[Scored],
    pairs: Mapping[str, PairScores],
    flagged: Mapping[str, FlaggedRun],
) -> list[SequenceResult]:
    anchored = {clip.name: run for clip, run in ledger.of(Anchored)}
    streamed = {clip.name: run for clip, run in ledger.of(Streaming)}

    def one(clip: Clip, run: OnePassRun, figures: Scored) -> SequenceResult:
        short, under_clock = anchored.get(clip.name), streamed.get(clip.name)
        return SequenceResult(
            **_figures(figures.scores),
            name=clip.name,
            frames=len(run.boxes),
            lost=sum(run.lost),
            pair=pairs.get(clip.name),
            flag=flag_scores([flagged[clip.name]]) if clip.name in flagged else None,
            fps=None if clip.name in ledger.other_speed else _fps(run.ms[1:]),
            anchored_ao=None if short is None else short.ao,
            anchor_runs=None if short is None else len(short.runs),
            streaming_ao=None if under_clock is None else score_run(clip, under_clock).scores.ao,
            diagnostics=summarize_shares(run.shares, course=True) or None,
            correlations=correlations(clip, run) or None,
            annotations=course(frame_annotations(clip, len(run.boxes))) or None if run.shares else None,
            attributes=None if clip.attributes is None else list(clip.attributes),
        )

    return [one(clip, run, figures) for (clip, run), figures in zip(runs, scored, strict=True)]


def _anchored(ledger: RunLedger) -> AnchoredResult | None:
    task = ledger.config.anchors
    if task is None:
        return None
    groups = [run.values for _, run in ledger.of(Anchored) if run.runs]
    count = sum(map(len, groups))
    return AnchoredResult(
        spacing=task.spacing,
        length=task.length,
        runs=count,
        ao=mean_of_means(groups) if groups else None,
        interval=two_level_interval(groups) if count > 1 else None,
    )


def _streaming(ledger: RunLedger) -> StreamingResult | None:
    task = ledger.config.streaming
    if task is None:
        return None
    runs = ledger.of(Streaming)
    frames = sum(len(run.boxes) - 1 for _, run in runs)
    spent = [ms for _, run in runs for ms in run.ms]
    ages = [(run.staleness or 0.0) * (len(run.boxes) - 1) for _, run in runs]
    return StreamingResult(
        **_figures(overall([score_run(s, run) for s, run in runs], ledger.config.dataset.rules)),
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
