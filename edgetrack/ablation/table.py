"""The table of an ablation: a row for each configuration, and notes that say what its figures are worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from edgetrack.exporting.recipe import UNTRAINED
from edgetrack.presentation.table import Cell, Column, Table, span
from edgetrack.runtime.diagnostics import MOST_SENTENCES, DiagnosticSummary


class AblationRow(msgspec.Struct, frozen=True, kw_only=True):
    """One configuration; None is what was not measured.

    Attributes:
        configuration: its values of the keys that differ between rows, as `KEY=VALUE`; one by one, what was changed.
        published: whether they are the recipe's own.
        weights: where they come from; `note` says why they are not those that were asked for.
        ao, interval, sr50, auc: on the data set; the interval of AO holds 95 %, over sequences.
        track_ms: median of `track()`; `rounds_ms`: lowest and highest median of a round.
        versus: the published row's time over this one's, above 1 is faster, with its 95 % interval over rounds.
        peak_mib: most resident memory of the process that tracked.
        paper_fps, paper_gb: what the paper states of it.
        diagnostics: what it reported of its gates on the data set, where it has some; see `EvalResult`.
        problem: why it was not evaluated or measured to the end.
    """

    configuration: list[str]
    published: bool
    bundle: str
    weights: str
    note: str = ""
    ao: float | None = None
    interval: tuple[float, float] | None = None
    sr50: float | None = None
    auc: float | None = None
    track_ms: float | None = None
    rounds_ms: tuple[float, float] | None = None
    versus: float | None = None
    versus_interval: tuple[float, float] | None = None
    peak_mib: float | None = None
    size_mib: float = 0.0
    paper_fps: float | None = None
    paper_gb: float | None = None
    diagnostics: dict[str, DiagnosticSummary] | None = None
    problem: str = ""


class AblationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`ablation.json`: the rows, in the order in which the values were given."""

    schema: int = 1
    tracker: str
    target: str
    precision: str
    dataset: str | None
    limit: int | None
    threads: int | None
    rows: list[AblationRow]

    @property
    def ok(self) -> bool:
        """Whether every configuration was evaluated and measured."""
        return not any(row.problem for row in self.rows)


def ablation_table(record: AblationRecord) -> Table:
    """A row for each configuration; notes name the data set, what is untrained, and the share that is saved."""
    rows, columns = record.rows, [Column("configuration", align="left"), Column("weights", align="left", drop=9)]
    cells: list[list[Cell]] = [[_name(row) + (" (published)" if row.published else ""), row.weights] for row in rows]

    def add(title: str, digits: int | None, values: Sequence[Cell], drop: int = 0) -> None:
        if any(value is not None for value in values):
            columns.append(Column(title, digits, drop=drop))
            for line, value in zip(cells, values, strict=True):
                line.append(value)

    add("AO", 3, [row.ao for row in rows])
    add("95 %", None, [row.interval and span(row.interval, 3) for row in rows])
    add("SR0.5", 3, [row.sr50 for row in rows], 6)
    add("AUC", 3, [row.auc for row in rows], 7)
    for gate, part in _reported(rows):
        add(f"{gate} {part}", 3, [_mean(row, gate, part) for row in rows], 1)
    add("entropy", 2, [_entropy(row) for row in rows], 1)
    add("track ms", 2, [row.track_ms for row in rows])
    add("of rounds", None, [row.rounds_ms and span(row.rounds_ms, 1) for row in rows], 4)
    add("fps", 1, [row.track_ms and 1000 / row.track_ms for row in rows])
    add("x published", None, [_versus(row) for row in rows], 3)
    add("peak MiB", 0, [row.peak_mib for row in rows])
    add("size MiB", 1, [row.size_mib for row in rows], 8)
    add("paper fps", None, [row.paper_fps for row in rows], 2)
    add("paper GB", None, [row.paper_gb for row in rows], 2)
    return Table(columns, cells, list(_notes(record)))


def _name(row: AblationRow) -> str:
    return " ".join(row.configuration) or "no key changed"


def _reported(rows: Sequence[AblationRow]) -> list[tuple[str, str]]:
    """Gate and part of every mean weight that has a column; none where a tracker has many gates."""
    found = {(gate, part): None for row in rows for gate, one in (row.diagnostics or {}).items() for part in one.mean}
    return list(found) if len({gate for gate, _ in found}) <= MOST_SENTENCES else []


def _mean(row: AblationRow, gate: str, part: str) -> float | None:
    summary = (row.diagnostics or {}).get(gate)
    return None if summary is None else summary.mean.get(part)


def _entropy(row: AblationRow) -> float | None:
    """Mean over gates: 0 where one part has all, 1 where all have the same."""
    found = [one.entropy for one in (row.diagnostics or {}).values() if len(one.mean) > 1]
    return sum(found) / len(found) if found else None


def _versus(row: AblationRow) -> str | None:
    if row.versus is None:
        return None
    return f"{row.versus:.3f}" + ("" if row.versus_interval is None else f" ({span(row.versus_interval, 3)})")


def _notes(record: AblationRecord) -> Iterator[str]:
    evaluated = "" if record.dataset is None else f" on {record.dataset}"
    cut = "" if record.limit is None else f", at most {record.limit} frames of each sequence"
    threads = "" if record.threads is None else f"; speed in one interleaved run with {record.threads} threads"
    yield f"{record.tracker} for {record.target} at {record.precision}{evaluated}{cut}{threads}"
    if any(row.weights == UNTRAINED for row in record.rows):
        yield "untrained weights track nothing: their AO says that the configuration runs, and no more"
    for row in record.rows:
        if row.note:
            yield f"{_name(row)}: untrained, since {row.note}"
        if row.problem:
            yield f"{_name(row)}: FAILED: {row.problem}"
    yield from savings(record.rows)


def savings(rows: Sequence[AblationRow]) -> Iterator[str]:
    """What is saved against the row that is slowest by the paper, here and there, for rows that the paper states."""
    stated = [row for row in rows if row.paper_fps]
    slowest = min(stated, key=lambda row: row.paper_fps or 0, default=None)
    for row in stated:
        if slowest is None or row.paper_fps == slowest.paper_fps:
            continue
        here = [
            _saved("time", row.track_ms, slowest.track_ms),
            _saved("peak memory", row.peak_mib, slowest.peak_mib),
        ]
        paper = [
            _saved("time", 1 / (row.paper_fps or 1), 1 / (slowest.paper_fps or 1)),
            _saved("memory", row.paper_gb, slowest.paper_gb),
        ]
        texts = [", ".join(filter(None, side)) or "not measured" for side in (here, paper)]
        yield f"{_name(row)} against {_name(slowest)}: {texts[0]}; the paper: {texts[1]}"


def _saved(what: str, value: float | None, of: float | None) -> str:
    if not value or not of:
        return ""
    share = 1 - value / of
    return f"{abs(share):.1%} {'less' if share >= 0 else 'more'} {what}"
