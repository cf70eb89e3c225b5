"""A report as JUnit's XML, one test case per rule, as CI systems read it."""

from __future__ import annotations

import re
from xml.etree import ElementTree as Xml

from edgetrack.gate.present import headline, notes, sentence
from edgetrack.gate.record import Finding, Report

_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 has no way to write (section 2.2)."""


def junit(report: Report) -> bytes:
    """UTF-8 XML. Undecided is an error where the command's exit code says so, else it counts as skipped."""
    cases = [_case(finding, report) for finding in report.findings]
    counts = {kind: sum(case.find(kind) is not None for case in cases) for kind in ("failure", "error", "skipped")}
    suite = Xml.Element(
        "testsuite",
        name=_text(f"edgetrack check {report.budget}"),
        tests=str(len(cases)),
        failures=str(counts["failure"]),
        errors=str(counts["error"]),
        skipped=str(counts["skipped"]),
        time=f"{report.seconds:.3f}",
    )
    suite.extend(cases)
    Xml.SubElement(suite, "system-out").text = _text("\n".join([headline(report), *notes(report)]))
    root = Xml.Element("testsuites")
    root.append(suite)
    Xml.indent(root)
    found: bytes = Xml.tostring(root, encoding="utf-8", xml_declaration=True)
    return found + b"\n"


def _case(finding: Finding, report: Report) -> Xml.Element:
    case = Xml.Element("testcase", name=_text(finding.rule), classname=_text(report.candidate.bundle))
    kind = {"fail": "failure", "skipped": "skipped", "undecided": "error" if report.exit_code else "skipped"}
    if finding.verdict in kind:
        Xml.SubElement(case, kind[finding.verdict], message=_text(sentence(finding)), type=finding.verdict)
    else:
        Xml.SubElement(case, "system-out").text = _text(sentence(finding))
    return case


def _text(value: str) -> str:
    return _ILLEGAL.sub("?", value)
