"""The same report as GitHub's Markdown, for an issue or a job's summary: sentences and tables, no plots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgetrack.evaluation import comparison_report, present, sensitivity
from edgetrack.report import words
from edgetrack.report.model import Results, accuracies
from edgetrack.report.sentences import findings
from edgetrack.report.table import accuracy_table, plain, speed_table

_SPECIAL = {ord(c): f"\\{c}" for c in "\\`*_[]|#~"} | {ord("<"): "&lt;", ord(">"): "&gt;", ord("&"): "&amp;"}


def markdown(results: Results, title: str = "edgetrack report") -> str:
    """The report; every text of a result is escaped."""
    blocks = [
        f"# {escape(title)}",
        _items(f"**{one.kind}: {escape(one.head)}.** {escape(one.text)}" for one in findings(results)),
    ]
    if results.benchmarks:
        blocks += ["## Table", _table(plain(speed_table(results)))]
    for trial, known in accuracies(results).items():
        blocks += [f"## AO on {escape(trial.label)}", _table(plain(accuracy_table(trial, known)))]
    for record in results.evaluations:
        for result in record.value.results:
            blocks += [f"## {escape(f'{result.bundle} on {result.dataset}')}"]
            blocks += [_table([present.headings(result), *present.rows(result)])]
            blocks += [_items(map(escape, present.notes(result)))]
    for found in results.comparisons:
        a, b = found.value.a.bundle, found.value.b.bundle
        blocks += [f"## {escape(f'{a} (A) and {b} (B)')}"]
        blocks += [_table([list(comparison_report.HEADINGS), *comparison_report.rows(found.value)])]
        blocks += [_items(map(escape, comparison_report.notes(found.value)))]
    for one in results.sensitivities:
        blocks += [f"## Sensitivity: {escape(f'{one.value.precision} on {one.value.dataset}')}"]
        blocks += [_items(escape(line.strip()) for line in sensitivity.lines(one.value))]
    for bench in results.benchmarks:
        blocks += [f"## Machine of {escape(bench.source)}"]
        facts = words.machine_facts(bench.value.machine)
        blocks += [_items(f"{name}: {escape(value)}" for name, value in facts)]
        blocks += [escape(words.measured(bench.value.settings, bench.value.source)) + "."]
        blocks += [text for text in [_items(map(escape, words.scenario(bench.value)))] if text]
    notices = [
        f"**{escape(one.code)}**: {escape(f'{one.about}: {one.detail}')}"
        + (f"; {escape(one.advice)}" if one.advice else "")
        for one in words.notices(results)
    ]
    if notices:
        blocks += ["## Warnings", _items(notices)]
    return "\n\n".join(blocks) + "\n"


def escape(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return " ".join(text.translate(_SPECIAL).split())


def _items(lines: Iterator[str] | Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of plain text, the headings first."""
    titles, *others = rows
    lines = [list(map(escape, titles)), ["---", *("---:" for _ in titles[1:])], *(map(escape, row) for row in others)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
