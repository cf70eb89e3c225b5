"""A report for people and CI systems: a table, JUnit's XML, GitHub's annotations and summary."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree as Xml

from edgetrack.errors import EdgetrackError, UsageError
from edgetrack.gate.report import GateReport, RuleFinding, SideNote
from edgetrack.presentation.sanitize import markdown_text
from edgetrack.presentation.table import Column, Table, counted

_COLUMNS = (
    Column("rule", align="left"),
    Column("verdict", align="left"),
    Column("limit"),
    Column("measured"),
    Column("bounds", drop=1),
    Column("based on", align="left", drop=2),
)
_DIGITS = {"ms": 2, "MB": 1, "points": 2, "x": 3}
_DIGEST = 12
_SUMMARY = "GITHUB_STEP_SUMMARY"
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold (section 2.2)."""


def table(report: GateReport) -> Table:
    """The rules and what goes with them."""
    return Table(_COLUMNS, [_row(finding) for finding in report.findings], list(_notes(report)))


def headline(report: GateReport) -> str:
    """The verdict in one line."""
    baseline = f" against {report.baseline.bundle}" if report.baseline else ""
    said = f"{report.verdict.upper()}: {report.candidate.bundle}{baseline}, budget {report.budget}"
    left = [finding.rule for finding in report.findings if finding.verdict == "skipped"]
    if not left:
        return said
    advice = "; add --baseline, or --allow-skipped to pass without" if report.verdict == "skipped" else ""
    return f"{said}; {counted(len(left), 'rule')} of {len(report.findings)} not judged ({', '.join(left)}){advice}"


def markdown(report: GateReport) -> str:
    """The headline, the table and its notes as GitHub's Markdown."""
    return f"**{markdown_text(headline(report))}**\n\n{table(report).markdown()}"


def junit(report: GateReport) -> bytes:
    """UTF-8 XML, one test case per rule. What is open is an error where it costs the pass, else skipped."""
    cases = [_case(finding, report) for finding in report.findings]
    counts = {kind: sum(case.find(kind) is not None for case in cases) for kind in ("failure", "error", "skipped")}
    suite = Xml.Element(
        "testsuite",
        name=_xml(f"edgetrack check {report.budget}"),
        tests=str(len(cases)),
        failures=str(counts["failure"]),
        errors=str(counts["error"]),
        skipped=str(counts["skipped"]),
        time=f"{report.seconds:.3f}",
    )
    suite.extend(cases)
    Xml.SubElement(suite, "system-out").text = _xml("\n".join([headline(report), *_notes(report)]))
    root = Xml.Element("testsuites")
    root.append(suite)
    Xml.indent(root)
    found: bytes = Xml.tostring(root, encoding="utf-8", xml_declaration=True)
    return found + b"\n"


def github_summary_file(environ: Mapping[str, str]) -> Path:
    """The file that collects the summary of a GitHub workflow's step.

    Raises:
        UsageError: this is no step of a GitHub workflow.
    """
    if not environ.get(_SUMMARY):
        raise UsageError(f"--github is for steps of GitHub workflows, where {_SUMMARY} is set; use --markdown here")
    return Path(environ[_SUMMARY])


def append_github_summary(report: GateReport, file: Path) -> None:
    """Append the report to what earlier steps wrote there.

    Raises:
        EdgetrackError: the file cannot be written.
    """
    try:
        with file.open("a", encoding="utf-8") as opened:
            opened.write(markdown(report) + "\n\n")
    except OSError as error:
        raise EdgetrackError(f"{_SUMMARY} {file} cannot be written: {error.strerror}; leave --github out") from None


def github_commands(report: GateReport) -> Iterator[str]:
    """Workflow commands, one line each: an error per broken rule, a warning or error per open one, or a notice."""
    levels = {"fail": "error", "undecided": "error" if report.exit_code else "warning"}
    if report.verdict == "skipped":
        levels["skipped"] = "error"
    for finding in report.findings:
        if finding.verdict in levels:
            yield _command(levels[finding.verdict], f"edgetrack check: {finding.rule}", sentence(finding))
    if report.verdict == "pass":
        yield _command("notice", "edgetrack check", headline(report))


def _row(finding: RuleFinding) -> tuple[str, ...]:
    bound = "at least" if finding.unit == "points" else "at most"
    unit = "MiB" if finding.unit == "MB" else finding.unit  # the JSON's name of 2**20 bytes stays
    bounds = ""
    if finding.low is not None or finding.high is not None:
        bounds = " to ".join(_number(end, finding.unit) or "?" for end in (finding.low, finding.high))
    return (
        finding.rule,
        finding.verdict,
        f"{bound} {finding.limit:g} {unit}",
        _number(finding.value, finding.unit),
        bounds,
        finding.detail,
    )


def sentence(finding: RuleFinding) -> str:
    """A finding in one line."""
    rule, verdict, limit, value, bounds, detail = _row(finding)
    measured = f"{value} ({bounds})" if bounds else value
    said = f"{rule} {verdict}: {measured}, {limit}; {detail}" if value else f"{rule} {verdict}: {limit}; {detail}"
    return said + (f"; {_more(finding)}" if finding.verdict == "undecided" else "")


def _more(finding: RuleFinding) -> str:
    """What would decide an undecided rule."""
    if finding.more is None:
        return "so near the limit that no number of samples would decide"
    seconds = "" if finding.more_s is None else f", about {finding.more_s:.0f} s"
    return f"about {finding.more} more {finding.more_of}{seconds} would probably decide"


def _notes(report: GateReport) -> Iterator[str]:
    for finding in report.findings:
        if finding.verdict == "undecided":
            yield f"{finding.rule}: {_more(finding)}"
    machine = report.machine
    yield (
        f"{machine.processor}, {counted(machine.usable_cores, 'usable core')}; "
        f"device {report.device}, threads {report.threads}, {report.source}"
    )
    yield f"candidate: {_side(report.candidate)}"
    if report.baseline is not None:
        yield f"baseline: {_side(report.baseline)}"
    if report.design != "recorded" or report.blocks:
        turns = "A B B A" if report.design == "paired" else "two turns"
        yield f"{counted(report.blocks, 'block')} ({turns}) in {report.seconds:.0f} s, analysed " + counted(
            report.looks, "time"
        )
    yield (
        f"bounds: each is wrong with a chance of at most its share of {report.alpha:.0%}, which the rules and their "
        "analyses divide; see docs/check.md"
    )
    if report.budget_note:
        yield f"budget {report.budget}: {report.budget_note}"
    for difference in report.differences:
        yield f"conditions differ, accepted by --force: {difference}"
    yield from report.notes


def _side(side: SideNote) -> str:
    where = "from a record" if side.recorded else "measured now"
    ran = f", edgetrack {side.code.version} ({side.code.digest[:_DIGEST]})" if side.code else ""
    versions = ", ".join(f"{name} {version}" for name, version in side.versions.items())
    return f"{side.bundle}, {side.size_mb:.1f} MiB, {where}{ran}" + (f", {versions}" if versions else "")


def _number(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.{_DIGITS[unit]}f}"


def _case(finding: RuleFinding, report: GateReport) -> Xml.Element:
    case = Xml.Element("testcase", name=_xml(finding.rule), classname=_xml(report.candidate.bundle))
    kind = {
        "fail": "failure",
        "skipped": "error" if report.verdict == "skipped" else "skipped",
        "undecided": "error" if report.exit_code else "skipped",
    }
    if finding.verdict in kind:
        Xml.SubElement(case, kind[finding.verdict], message=_xml(sentence(finding)), type=finding.verdict)
    else:
        Xml.SubElement(case, "system-out").text = _xml(sentence(finding))
    return case


def _xml(value: str) -> str:
    return _NOT_XML.sub("?", value)


def _command(level: str, title: str, message: str) -> str:
    """As the runner reads it: percent-encoded, in properties also the characters that end them."""
    return f"::{level} title={_encoded(title, ':,')}::{_encoded(message)}"


def _encoded(text: str, also: str = "") -> str:
    return "".join(f"%{ord(c):02X}" if c in "%\r\n" + also else c for c in text)
