"""What the candidate loses in AO against the baseline: paired short runs from anchor frames."""

from __future__ import annotations

from pathlib import Path

from edgetrack.bundle.reader import BundleRef
from edgetrack.evaluation.config import EvalConfig
from edgetrack.evaluation.datasets import Dataset
from edgetrack.evaluation.execution import anchored_runs
from edgetrack.evaluation.protocols.anchored import POINTS, AnchoredRuns, Difference, paired_difference
from edgetrack.gate.budget import BudgetRule
from edgetrack.gate.report import RuleFinding, finding_of
from edgetrack.io import ScratchFolder
from edgetrack.presentation.progress import Progress
from edgetrack.presentation.table import counted
from edgetrack.stats.bootstrap import resamples_for
from edgetrack.stats.verdict import judge_limit, runs_to_settle


def delta_ao(
    rule: BudgetRule,
    candidate: BundleRef,
    baseline: BundleRef,
    dataset: Dataset,
    *,
    device: str,
    threads: int,
    alpha: float,
    progress: Progress,
) -> RuleFinding:
    """Run both from the same anchors. Runs are not kept: the code may differ from that of earlier ones.

    Raises:
        EdgetrackError: a bundle cannot be run, or a sequence failed.
        UsageError: fewer than two runs to pair.
    """
    with ScratchFolder() as scratch:
        theirs, ours = (
            _runs(side, scratch / role, dataset, device, threads, progress)
            for role, side in (("baseline", baseline), ("candidate", candidate))
        )
    margin = -rule.limit / POINTS
    found = paired_difference(theirs, ours, margin, confidence=1 - 2 * alpha, resamples=resamples_for(alpha))
    return judge_ao(rule, found, alpha)


def judge_ao(rule: BudgetRule, found: Difference, alpha: float) -> RuleFinding:
    """`pass` where it is shown that no more is lost than the limit, `fail` where more is."""
    verdict = judge_limit(-POINTS * found.high, -POINTS * found.low, -rule.limit)  # of what is lost
    away = found.value - rule.limit / POINTS
    more = runs_to_settle(away, (found.high - found.low) / 2, 0.0, found.runs) if verdict == "undecided" else None
    return finding_of(
        rule,
        verdict,
        f"{counted(found.runs, 'paired run')} of {counted(found.sequences, 'sequence')}",
        value=POINTS * found.value,
        low=POINTS * found.low,
        high=POINTS * found.high,
        alpha=alpha,
        samples=found.runs,
        more=more,
        more_of="runs of further sequences",
    )


def _runs(
    side: BundleRef, folder: Path, dataset: Dataset, device: str, threads: int, progress: Progress
) -> list[AnchoredRuns]:
    config = EvalConfig(dataset=dataset, threads=threads, device=device, output=folder)
    return anchored_runs(side, config, lambda what, done, total: progress(f"{side.label}: {what}", done, total))
