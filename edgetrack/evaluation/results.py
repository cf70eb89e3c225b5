"""What an evaluation found, as JSON and as a table.

Figures are 0..1, times in milliseconds; null means: there is nothing to score.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from edgetrack.evaluation.lost import FlagScores, flag_table
from edgetrack.evaluation.metrics import LongTermScores, PairScores, Scores
from edgetrack.evaluation.text_noise import NoiseReport
from edgetrack.presentation.table import NONE, Cell, Column, Table, counted, number, span
from edgetrack.runtime.diagnostics import DiagnosticSummary, sentences
from edgetrack.stats.bootstrap import FEW_SEQUENCES

_COLUMNS = {
    "AO": "ao",
    "SR0.5": "sr50",
    "SR0.75": "sr75",
    "AUC": "auc",
    "P": "precision",
    "P_norm@0.2": "p_norm20",
    "OP50": "op50",
    "OP75": "op75",
}
_DROPPED = {"OP75": 7, "OP50": 6, "P_norm@0.2": 5, "P": 4, "SR0.75": 3}
"""What a narrow terminal leaves out, the highest first."""


class SequenceResult(Scores, frozen=True, kw_only=True):
    """One sequence.

    Attributes:
        name: of the sequence.
        frames: that were tracked, the first included; `lost`: in which the tracker said that it is lost.
        fps: 1000 over the median milliseconds of an update, None for a single frame.
        anchored_ao: mean over its runs from anchors; `anchor_runs`: how many; None where none were asked for.
        streaming_ao: AO under the clock; None where none was asked for.
        diagnostics: summaries by name; None where the tracker has none.
        correlations: of diagnostics with annotations, see `edgetrack.evaluation.annotations`; None where there are
            none.
        annotations: their means over equal stretches of the frames after the first; None where the tracker has no
            diagnostics, or nothing is annotated.
        attributes: the data set's attributes that it has; None where it does not say.
        pair: None where both modalities have one ground truth.
        flag: how well `lost` says what is so; None where nothing is annotated.
    """

    name: str
    frames: int
    lost: int
    fps: float | None
    anchored_ao: float | None = None
    anchor_runs: int | None = None
    streaming_ao: float | None = None
    diagnostics: dict[str, DiagnosticSummary] | None = None
    correlations: dict[str, dict[str, dict[str, float]]] | None = None
    annotations: dict[str, list[float | None]] | None = None
    attributes: list[str] | None = None
    pair: PairScores | None = None
    flag: FlagScores | None = None


class AnchoredResult(msgspec.Struct, frozen=True, kw_only=True):
    """Short runs from anchors, forwards and backwards.

    Attributes:
        spacing, length: frames between anchors and frames of a run.
        runs: how many there were.
        ao: mean over sequences of the mean over their runs; `interval`: 95 %, bootstrapped over sequences and runs,
            None with fewer than two runs.
    """

    spacing: int
    length: int
    runs: int
    ao: float | None
    interval: tuple[float, float] | None


class StreamingResult(Scores, frozen=True, kw_only=True):
    """The same figures for the boxes that were known when each frame came.

    Attributes:
        rate: frames per second.
        latencies: `measured`, or the bundle whose recorded ones were replayed.
        median_ms: of the latencies that counted, init included.
        processed: share of frames after the first that the tracker took, of all sequences together.
        staleness: mean age of the known box in frames, over the same frames.
    """

    rate: float
    latencies: str
    median_ms: float | None
    processed: float | None
    staleness: float | None


class SequenceFailure(msgspec.Struct, frozen=True, kw_only=True):
    """A sequence that was not evaluated, and why."""

    name: str
    error: str


class AttributeResult(Scores, frozen=True, kw_only=True):
    """The sequences that have one of the data set's attributes, such as LaSOT's FM, averaged as all are."""

    attribute: str
    sequences: int


class EvalResult(Scores, frozen=True, kw_only=True):
    """A bundle on a data set.

    Attributes:
        bundle, weights: its name, and where its weights come from.
        dataset, layout: the data set's name and layout.
        averaging: `sequences`, or `frames` where AO and SR are means over all frames (GOT-10k).
        frames: that were tracked, of all sequences; `limit`: frames of each sequence that were asked for.
        other_speed: sequences whose runs an earlier call kept that had other threads or jobs, and which; their speed is
            in no figure here.
        fps: 1000 over the median milliseconds of an update over all frames, while `jobs` processes of `threads` threads
            each shared the machine.
        interval: 95 % bootstrap interval over sequences for each figure, those of `pair` included.
        pair: by the second modality's ground truth, and by the better of both; None where there is one truth.
        long_term: VOT's figures for long-term tracking; None where the data set is not scored by them.
        sequences, failures: what was evaluated, and what was not.
        anchored, streaming: None where they were not asked for.
        device, profile: where it ran; the device's profile, None where `--device` named none.
        scheduler: the Dask scheduler whose workers tracked; None for processes of this machine.
        diagnostics: summaries over all frames after the first, by name; None where the tracker has no diagnostics.
        text_noise: how the descriptions were changed; None where they were not.
        recover: what was done where the target was lost; None for the published procedure.
        parameters: of the bundle's network; None where it does not say.
        attributes: in the data set's order; None where it marks none of the sequences that were tracked.
        flag: how well `lost` says what is so, all frames together; None where nothing is annotated.
    """

    bundle: str
    weights: str
    dataset: str
    layout: str
    averaging: str
    device: str
    precision_hint: str | None
    frames: int
    limit: int | None
    fps: float | None
    jobs: int
    threads: int
    interval: dict[str, tuple[float, float] | None]
    sequences: list[SequenceResult]
    failures: list[SequenceFailure]
    anchored: AnchoredResult | None = None
    streaming: StreamingResult | None = None
    profile: str | None = None
    scheduler: str | None = None
    diagnostics: dict[str, DiagnosticSummary] | None = None
    other_speed: dict[str, str] | None = None
    text_noise: NoiseReport | None = None
    recover: str | None = None
    parameters: int | None = None
    attributes: list[AttributeResult] | None = None
    pair: PairScores | None = None
    long_term: LongTermScores | None = None
    flag: FlagScores | None = None

    @property
    def own_figures(self) -> dict[str, float | None]:
        """By name, what papers report of data sets that are not scored by AO: MPR and MSR; VOT's long-term figures."""
        pair, long = self.pair, self.long_term
        return {
            **({} if pair is None else {"MPR": pair.mpr, "MSR": pair.msr}),
            **({} if long is None else {"F-score": long.f_score, "precision": long.precision, "recall": long.recall}),
        }


class EvalRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What `edgetrack eval --json` prints."""

    schema: int = 1
    results: list[EvalResult]


def eval_tables(result: EvalResult) -> list[Table]:
    """The figures of the boxes, and, where a frame was off target or flagged, those of `lost`."""
    tables, flag = [eval_table(result)], result.flag
    if flag is not None and (flag.off_target or flag.flagged):
        tables.append(flag_table([(one.name, one.flag) for one in result.sequences if one.flag is not None], flag))
    return tables


def eval_table(result: EvalResult) -> Table:
    """A row per sequence, one for all of them, one for their 95 % intervals, one per attribute; notes say what ran."""
    anchored, streaming, paired = result.anchored, result.streaming, result.pair is not None
    columns = [
        Column("sequence", align="left"),
        Column("frames", drop=8),
        *(Column(title, 3, drop=_DROPPED.get(title, 0)) for title in _COLUMNS),
        *([Column("MPR", 3), Column("MSR", 3)] if paired else []),
        Column("track fps", 1, drop=2),
        *([Column("anchored AO", 3)] if anchored else []),
        *([Column(f"AO at {streaming.rate:g} fps", 3)] if streaming else []),
    ]

    def row(name: str, frames: int | str, figures: Iterable[Cell], fps: Cell, short: Cell, clocked: Cell) -> list[Cell]:
        further = [*([short] if anchored else []), *([clocked] if streaming else [])]
        return [name, frames, *figures, fps, *further]

    def figures(one: Scores) -> list[Cell]:
        pair = one.pair if isinstance(one, SequenceResult | EvalResult) else None
        mpr, msr = (None, None) if pair is None else (pair.mpr, pair.msr)
        return [*_figures(one), *([mpr, msr] if paired else [])]

    rows = [
        row(one.name, one.frames, figures(one), one.fps, one.anchored_ao, one.streaming_ao) for one in result.sequences
    ]
    short, clocked = (None if part is None else part.ao for part in (anchored, streaming))
    rows.append(row("all", result.frames, figures(result), result.fps, short, clocked))
    fields = [*_COLUMNS.values(), *(("mpr", "msr") if paired else ())]
    spans = (span(result.interval[field]) for field in fields)
    rows.append(row("95 %", "", spans, "", span(anchored.interval if anchored else None), ""))
    rows += [row(f"{one.attribute} ({one.sequences})", "", figures(one), "", "", "") for one in result.attributes or ()]
    return Table(columns, rows, list(_notes(result)))


def _notes(result: EvalResult) -> Iterator[str]:
    """What ran, how it was averaged and timed, and what failed."""
    cut = "" if result.limit is None else f", at most {result.limit} of each sequence"
    yield (
        f"{result.bundle} ({result.weights} weights) on {result.dataset} ({result.layout}): "
        f"{counted(len(result.sequences), 'sequence')}, {counted(result.frames, 'frame')}{cut}"
    )
    if result.ao is None and result.sequences:
        yield "no frame after the first is annotated: nothing can be scored; --results writes files for the servers"
    elif result.averaging == "frames":
        yield "all: AO and SR over all frames, as the data set's toolkit; the others over sequences"
    few = 0 < len(result.sequences) < FEW_SEQUENCES
    yield "95 %: bootstrap over sequences" + (
        f"; too narrow with fewer than {FEW_SEQUENCES} sequences, none with one" if few else ""
    )
    share = f"; {result.jobs} jobs shared the machine, so this is no benchmark" if result.jobs > 1 else ""
    if result.scheduler is not None:
        share = f"; on the workers of {result.scheduler}, so this is no benchmark"
    threads = counted(result.threads, "thread")
    yield f"track fps: 1 / median of crop + graphs + decode, {threads}{share}; see edgetrack bench"
    for setting in sorted(set((result.other_speed or {}).values())):
        names = [name for name, other in (result.other_speed or {}).items() if other == setting]
        yield (
            f"no track fps for {', '.join(names[:5])}{', ...' if names[5:] else ''}: kept from an earlier call, "
            f"measured with {setting}; --restart measures again"
        )
    if result.attributes:
        marks = f"{result.attributes[0].attribute} to {result.attributes[-1].attribute}"
        yield f"{marks}: the sequences that the data set marks so, how many in brackets; most have several marks"
    if result.pair is not None:
        yield (
            f"by the second modality's boxes: P {number(result.pair.precision_second, 3)}, AUC "
            f"{number(result.pair.auc_second, 3)}; MPR and MSR are P and AUC by the better of both in each frame"
        )
    if (lt := result.long_term) is not None:
        at = "all or no frames" if lt.threshold is None else f"frames of confidence {lt.threshold:.3f} and more"
        yield (
            f"VOT long-term: F-score {number(lt.f_score, 3)} = precision {number(lt.precision, 3)} and recall "
            f"{number(lt.recall, 3)}, taking {at}"
        )
    yield "P_norm@0.2: the normalised precision at 0.2, as LaSOT's toolkit and most papers print it"
    if result.recover is not None:
        yield f"recovery {result.recover}: lost targets are searched for, which the published procedure does not do"
    if (noise := result.text_noise) is not None:
        said = f"{noise.changed} of {counted(noise.described, 'description')}"
        yield f"text noise {noise.kind} (seed {noise.seed}): {said} changed; without --text-noise it is what they say"
    if result.anchored is not None:
        yield _anchored_note(result.anchored)
    if result.streaming is not None:
        yield _streaming_note(result.streaming, result.ao)
    yield from sentences(result.diagnostics or {})
    for failure in result.failures:
        yield f"FAILED: {failure.name}: {failure.error}"


def _anchored_note(found: AnchoredResult) -> str:
    return (
        f"anchored AO: {counted(found.runs, 'run')} of up to {found.length} frames, forwards and backwards from every "
        f"{found.spacing}th frame; 95 %: bootstrap over sequences and runs"
    )


def _streaming_note(found: StreamingResult, offline: float | None) -> str:
    processed = NONE if found.processed is None else f"{100 * found.processed:.0f} %"
    return (
        f"at {found.rate:g} fps: AO {number(found.ao, 3)} (offline {number(offline, 3)}), SR0.5 "
        f"{number(found.sr50, 3)}, SR0.75 {number(found.sr75, 3)}; {processed} of frames processed, "
        f"boxes {number(found.staleness, 2)} frames old on average; latencies: {found.latencies}, median "
        f"{number(found.median_ms, 1)} ms"
    )


def _figures(scores: Scores) -> list[Cell]:
    return [getattr(scores, field) for field in _COLUMNS.values()]
