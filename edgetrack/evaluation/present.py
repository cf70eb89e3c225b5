"""An evaluation for people: one table of words, drawn by rich or as Markdown, and what goes with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgetrack.evaluation.metrics import Scores
from edgetrack.evaluation.results import AnchoredResult, EvalResult, StreamingResult
from edgetrack.runtime.diagnostics import sentence
from edgetrack.stats.bootstrap import FEW_SEQUENCES

if TYPE_CHECKING:
    from rich.table import Table

_COLUMNS = {
    "AO": "ao",
    "SR0.5": "sr50",
    "SR0.75": "sr75",
    "AUC": "auc",
    "P": "precision",
    "P_norm": "p_norm",
    "OP50": "op50",
    "OP75": "op75",
}
_NONE = "-"


def headings(result: EvalResult) -> list[str]:
    """The columns; the first is text, the others are numbers."""
    anchored = [] if result.anchored is None else ["anchored AO"]
    streaming = [] if result.streaming is None else [f"AO at {result.streaming.rate:g} fps"]
    return ["sequence", "frames", *_COLUMNS, "track fps", *anchored, *streaming]


def rows(result: EvalResult) -> Iterator[list[str]]:
    """A row per sequence, one for all of them, and one for their 95 % intervals."""
    anchored, streaming = result.anchored, result.streaming
    for one in result.sequences:
        further = [_number(one.anchored_ao, 3)] if anchored else []
        further += [_number(one.streaming_ao, 3)] if streaming else []
        yield [one.name, str(one.frames), *_figures(one), _number(one.fps, 1), *further]
    further = [_number(anchored.ao, 3)] if anchored else []
    further += [_number(streaming.ao, 3)] if streaming else []
    yield ["all", str(result.frames), *_figures(result), _number(result.fps, 1), *further]
    further = [_span(anchored.interval)] if anchored else []
    further += [""] if streaming else []
    yield ["95 %", "", *(_span(result.interval[field]) for field in _COLUMNS.values()), "", *further]


def notes(result: EvalResult) -> Iterator[str]:
    """What goes with the table, one line each: what ran, how it was averaged and timed, and what failed."""
    cut = "" if result.limit is None else f", at most {result.limit} of each sequence"
    yield (
        f"{result.bundle} ({result.weights} weights) on {result.dataset} ({result.layout}): "
        f"{len(result.sequences)} sequences, {result.frames} frames{cut}"
    )
    if result.ao is None:
        yield "no frame after the first is annotated: nothing can be scored; --results writes files for the servers"
    elif result.averaging == "frames":
        yield "all: AO and SR over all frames, as GOT-10k's toolkit; the others over sequences"
    few = 0 < len(result.sequences) < FEW_SEQUENCES
    yield "95 %: bootstrap over sequences" + (
        f"; too narrow with fewer than {FEW_SEQUENCES} sequences, none with one" if few else ""
    )
    share = f"; {result.jobs} jobs shared the machine, so this is no benchmark" if result.jobs > 1 else ""
    if result.scheduler is not None:
        share = f"; on the workers of {result.scheduler}, so this is no benchmark"
    yield f"track fps: 1 / median of crop + graphs + decode, {result.threads} threads{share}; see edgetrack bench"
    if result.anchored is not None:
        yield _anchored_note(result.anchored)
    if result.streaming is not None:
        yield _streaming_note(result.streaming, result.ao)
    for name, mixture in (result.diagnostics or {}).items():
        yield sentence(name, mixture)
    for failure in result.failures:
        yield f"FAILED: {failure.name}: {failure.error}"


def markdown(result: EvalResult) -> str:
    """The table and its notes as GitHub's Markdown."""
    titles = headings(result)
    lines = [titles, ["---", *("---:" for _ in titles[1:])], *rows(result)]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", *(f"- {note}" for note in notes(result))])


def table(result: EvalResult) -> Table:
    """The table for a terminal."""
    from rich.table import Table

    drawn = Table(box=None, pad_edge=False)
    for index, title in enumerate(headings(result)):
        drawn.add_column(title, justify="right" if index else "left", no_wrap=True)
    for line in rows(result):
        drawn.add_row(*line)
    return drawn


def _anchored_note(found: AnchoredResult) -> str:
    return (
        f"anchored AO: {found.runs} runs of up to {found.length} frames, forwards and backwards from every "
        f"{found.spacing}th frame; 95 %: bootstrap over sequences and runs"
    )


def _streaming_note(found: StreamingResult, offline: float | None) -> str:
    return (
        f"at {found.rate:g} fps: AO {_number(found.ao, 3)} (offline {_number(offline, 3)}), SR0.5 "
        f"{_number(found.sr50, 3)}, SR0.75 {_number(found.sr75, 3)}; {_share(found.processed)} of frames processed, "
        f"boxes {_number(found.staleness, 2)} frames old on average; latencies: {found.latencies}, median "
        f"{_number(found.median_ms, 1)} ms"
    )


def _share(value: float | None) -> str:
    return _NONE if value is None else f"{100 * value:.0f} %"


def _figures(scores: Scores) -> list[str]:
    return [_number(getattr(scores, field), 3) for field in _COLUMNS.values()]


def _span(interval: tuple[float, float] | None) -> str:
    return _NONE if interval is None else f"{interval[0]:.2f}-{interval[1]:.2f}"


def _number(value: float | None, digits: int) -> str:
    return _NONE if value is None else f"{value:.{digits}f}"
