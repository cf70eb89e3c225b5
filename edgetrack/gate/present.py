"""A report for people: one table of words, drawn by rich or as Markdown."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgetrack.gate.record import Finding, Report, SideNote

if TYPE_CHECKING:
    from rich.table import Table

HEADINGS = ("rule", "verdict", "limit", "measured", "bounds", "rests on")
_DIGITS = {"ms": 2, "MB": 1, "points": 2, "x": 3}
_DIGEST = 12


def cells(finding: Finding) -> tuple[str, ...]:
    """One row of the table."""
    bound = "at least" if finding.unit == "points" else "at most"
    return (
        finding.rule,
        finding.verdict,
        f"{bound} {finding.limit:g} {finding.unit}",
        _number(finding.value, finding.unit),
        _bounds(finding),
        finding.detail,
    )


def headline(report: Report) -> str:
    """The verdict in one line."""
    who = report.candidate.bundle
    against = f" against {report.baseline.bundle}" if report.baseline else ""
    return f"{report.verdict.upper()}: {who}{against}, budget {report.budget}"


def sentence(finding: Finding) -> str:
    """A finding in one line."""
    rule, verdict, limit, value, bounds, detail = cells(finding)
    measured = f"{value} ({bounds})" if bounds else value
    said = f"{rule} {verdict}: {measured}, {limit}; {detail}" if value else f"{rule} {verdict}: {limit}; {detail}"
    return said + (f"; {more(finding)}" if finding.verdict == "undecided" else "")


def more(finding: Finding) -> str:
    """What would decide a rule that is open."""
    if finding.more is None:
        return "so near the limit that no number of samples would decide"
    seconds = "" if finding.more_s is None else f", about {finding.more_s:.0f} s"
    return f"about {finding.more} more {finding.more_of}{seconds} would probably decide"


def notes(report: Report) -> Iterator[str]:
    """What goes with the table, one line each."""
    for finding in report.findings:
        if finding.verdict == "undecided":
            yield f"{finding.rule}: {more(finding)}"
    machine = report.machine
    yield (
        f"{machine.cpu_model or machine.architecture}, {machine.usable_cores} usable cores; device {report.device}, "
        f"{report.threads} threads, {report.source}"
    )
    yield f"candidate: {_side(report.candidate)}"
    if report.baseline is not None:
        yield f"baseline: {_side(report.baseline)}"
    if report.design != "recorded" or report.blocks:
        turns = "A B B A" if report.design == "paired" else "two turns"
        yield f"{report.blocks} blocks ({turns}) in {report.seconds:.0f} s, looked at {report.looks} times"
    yield (
        f"bounds: each wrong with the probability that its rule's share of {report.alpha:.0%} leaves for that look; "
        "see docs/check.md"
    )
    if report.budget_note:
        yield f"budget {report.budget}: {report.budget_note}"
    for difference in report.differences:
        yield f"not alike, --force was given: {difference}"
    yield from report.notes


def markdown(report: Report) -> str:
    """The headline, the table and its notes as GitHub's Markdown; nothing in it is taken for markup."""
    lines = [HEADINGS, ("---",) * len(HEADINGS), *(tuple(map(plain, cells(f))) for f in report.findings)]
    table = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join(
        [f"**{plain(headline(report))}**", "", *table, "", *(f"- {plain(note)}" for note in notes(report))]
    )


def plain(text: str) -> str:
    """Text whose characters Markdown and HTML leave alone, on one line."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{character}" if character in "\\|`*_[]~@#" else character for character in escaped)


def table(report: Report) -> Table:
    """The table for a terminal."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False)
    for title in HEADINGS:
        drawn.add_column(title, justify="right" if title in ("limit", "measured") else "left", no_wrap=True)
    for finding in report.findings:
        drawn.add_row(*(Text(cell) for cell in cells(finding)))
    return drawn


def _bounds(finding: Finding) -> str:
    if finding.low is None and finding.high is None:
        return ""
    low, high = (_number(bound, finding.unit) or "?" for bound in (finding.low, finding.high))
    return f"{low} to {high}"


def _number(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.{_DIGITS[unit]}f}"


def _side(side: SideNote) -> str:
    where = "from a record" if side.recorded else "measured now"
    ran = f", edgetrack {side.code.version} ({side.code.digest[:_DIGEST]})" if side.code else ""
    versions = ", ".join(f"{name} {version}" for name, version in side.versions.items())
    return f"{side.bundle}, {side.size_mb:.1f} MB, {where}{ran}" + (f", {versions}" if versions else "")
