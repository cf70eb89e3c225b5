"""A report on GitHub: annotations on the run and a summary of the step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from edgetrack.errors import UsageError
from edgetrack.gate.present import headline, markdown, sentence
from edgetrack.gate.record import Report

_VARIABLE = "GITHUB_STEP_SUMMARY"


def summary_file(environ: Mapping[str, str]) -> Path:
    """Where the step's summary is collected.

    Raises:
        UsageError: this is no step of a GitHub workflow.
    """
    if not environ.get(_VARIABLE):
        raise UsageError(f"--github is for steps of GitHub workflows, where {_VARIABLE} is set; use --markdown here")
    return Path(environ[_VARIABLE])


def commands(report: Report) -> Iterator[str]:
    """Workflow commands, one line each: an error per broken rule, a warning or an error per open one, else a notice."""
    open_level = "error" if report.exit_code else "warning"
    levels = {"fail": "error", "undecided": open_level}
    for finding in report.findings:
        if finding.verdict in levels:
            yield _command(levels[finding.verdict], f"edgetrack check: {finding.rule}", sentence(finding))
    if report.verdict in ("pass", "skipped"):
        yield _command("notice", "edgetrack check", headline(report))


def append_summary(report: Report, file: Path) -> None:
    """Add the report behind what earlier steps wrote there.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        with file.open("a", encoding="utf-8") as opened:
            opened.write(markdown(report) + "\n\n")
    except OSError as error:
        raise UsageError(f"{_VARIABLE} {file} cannot be written: {error.strerror}; leave --github out") from None


def _command(level: str, title: str, message: str) -> str:
    """As the runner reads it: percent-encoded, in properties also the characters that end them."""
    return f"::{level} title={_escaped(title, ':,')}::{_escaped(message)}"


def _escaped(text: str, also: str = "") -> str:
    return "".join(f"%{ord(c):02X}" if c in "%\r\n" + also else c for c in text)
