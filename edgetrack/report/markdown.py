"""The same report as GitHub's Markdown, for an issue or a job's summary: sentences and tables, no plots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgetrack.evaluation import comparison_report, present, sensitivity
from edgetrack.presentation.sanitize import markdown_text
from edgetrack.report import words
from edgetrack.report.model import Results, accuracies
from edgetrack.report.sentences import findings
from edgetrack.report.table import accuracy_table, plain, speed_table


def markdown(results: Results, title: str = "edgetrack report") -> str:
    """The report; every text of a result is escaped."""
    blocks = [
        f"# {markdown_text(title)}",
        _items(f"**{one.kind}: {markdown_text(one.head)}.** {markdown_text(one.text)}" for one in findings(results)),
    ]
    if results.benchmarks:
        blocks += ["## Table", _table(plain(speed_table(results)))]
    for trial, known in accuracies(results).items():
        blocks += [f"## AO on {markdown_text(trial.label)}", _table(plain(accuracy_table(trial, known)))]
    for record in results.evaluations:
        for result in record.value.results:
            blocks += [f"## {markdown_text(f'{result.bundle} on {result.dataset}')}"]
            blocks += [_table([present.headings(result), *present.rows(result)])]
            blocks += [_items(map(markdown_text, present.notes(result)))]
    for found in results.comparisons:
        a, b = found.value.a.bundle, found.value.b.bundle
        blocks += [f"## {markdown_text(f'{a} (A) and {b} (B)')}"]
        blocks += [_table([list(comparison_report.HEADINGS), *comparison_report.rows(found.value)])]
        blocks += [_items(map(markdown_text, comparison_report.notes(found.value)))]
    for one in results.sensitivities:
        blocks += [f"## Sensitivity: {markdown_text(f'{one.value.precision} on {one.value.dataset}')}"]
        blocks += [_items(markdown_text(line.strip()) for line in sensitivity.lines(one.value))]
    for bench in results.benchmarks:
        blocks += [f"## Machine of {markdown_text(bench.source)}"]
        facts = words.machine_facts(bench.value.machine)
        blocks += [_items(f"{name}: {markdown_text(value)}" for name, value in facts)]
        blocks += [markdown_text(words.measured(bench.value.settings, bench.value.source)) + "."]
        blocks += [text for text in [_items(map(markdown_text, words.scenario(bench.value)))] if text]
    notices = [
        f"**{markdown_text(one.code)}**: {markdown_text(f'{one.about}: {one.detail}')}"
        + (f"; {markdown_text(one.advice)}" if one.advice else "")
        for one in words.notices(results)
    ]
    if notices:
        blocks += ["## Warnings", _items(notices)]
    return "\n\n".join(blocks) + "\n"


def _items(lines: Iterator[str] | Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of plain text, the headings first."""
    titles, *others = rows
    lines = [
        list(map(markdown_text, titles)),
        ["---", *("---:" for _ in titles[1:])],
        *(map(markdown_text, row) for row in others),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
