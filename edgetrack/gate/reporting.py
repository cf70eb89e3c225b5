"""From findings to a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgetrack.gate.options import Options
from edgetrack.gate.record import Finding, Report
from edgetrack.stats.sequential import ALPHA
from edgetrack.stats.verdict import overall_verdict


def report(options: Options, *, findings: Sequence[Finding], **known: Any) -> Report:
    """The report of these findings; `known` are its other fields."""
    verdict = overall_verdict(finding.verdict for finding in findings)
    return Report(
        verdict=verdict,
        exit_code=options.exit_code(verdict),
        budget=options.budget.name,
        budget_note=options.budget.note,
        alpha=ALPHA,
        findings=list(findings),
        **{"blocks": 0, "seconds": 0.0, **known},
    )
