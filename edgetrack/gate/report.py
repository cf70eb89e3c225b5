"""The report of a check, as JSON. Times are in milliseconds, memory and sizes in units of 2**20 bytes, AO in points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from edgetrack.benchmark.latency import Rounds
from edgetrack.gate.budget import BudgetRule, GateConfig
from edgetrack.io import encode_json
from edgetrack.stats.sequential import ALPHA
from edgetrack.stats.verdict import Verdict, overall_verdict
from edgetrack.system.machine import MachineRecord


class RuleFinding(msgspec.Struct, frozen=True, kw_only=True):
    """One rule of the budget.

    Attributes:
        rule: its name, such as `track_p95_ms`.
        limit, unit: the highest value allowed (`delta_ao_points`: the lowest).
        value: the figure; null where it was not measured.
        low, high: its bounds, each wrong with probability `alpha` at most; null where there are too few samples.
        alpha: the error that this rule's last analysis could spend; null where nothing was estimated.
        samples: how many measurements it comes from: frames, processes, turns or runs.
        detail: what the verdict rests on, human-readable.
        p_above, p_below: Mann-Whitney's p-values, of latency ratios; see `edgetrack.stats.rank_test`.
        more: for `undecided`, how many more of `more_of` would probably decide; null where none would.
        more_s: about how many seconds these take here.
    """

    rule: str
    limit: float
    unit: str
    verdict: Verdict
    value: float | None = None
    low: float | None = None
    high: float | None = None
    alpha: float | None = None
    samples: int = 0
    detail: str = ""
    p_above: float | None = None
    p_below: float | None = None
    more: int | None = None
    more_of: str | None = None
    more_s: float | None = None


def finding_of(
    rule: BudgetRule,
    verdict: Verdict,
    detail: str,
    *,
    more: int | None = None,
    more_of: str | None = None,
    **figures: Any,
) -> RuleFinding:
    """The finding of a rule; what would decide it is kept where it is undecided."""
    undecided = verdict == "undecided"
    return RuleFinding(
        rule=rule.name,
        limit=rule.limit,
        unit=rule.unit,
        verdict=verdict,
        detail=detail,
        more=more if undecided else None,
        more_of=more_of if undecided else None,
        **figures,
    )


class CodeNote(msgspec.Struct, frozen=True, kw_only=True):
    """The edgetrack that ran: its version and the SHA-256 of its modules."""

    version: str
    digest: str


class SideNote(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two bundles and its processes' figures. `recorded`: it comes from a benchmark's record."""

    bundle: str
    tracker: str
    target: str
    precision: str
    weights: str
    size_mb: float
    versions: dict[str, str]
    load_ms: list[float]
    peak_rss_mb: list[float]
    recorded: bool
    code: CodeNote | None


class TurnsMs(msgspec.Struct, frozen=True, kw_only=True):
    """Every sample, one list per turn in the order in which they ran; two turns of each make a block."""

    model: Rounds
    track: Rounds


class GateSamples(msgspec.Struct, frozen=True, kw_only=True):
    """The samples of both sides; null: there is no baseline."""

    candidate: TurnsMs
    baseline: TurnsMs | None


class GateReport(msgspec.Struct, frozen=True, kw_only=True):
    """A check.

    Attributes:
        verdict: of all rules.
        exit_code: of the command.
        design: `paired` (interleaved turns), `alone` (no baseline), `recorded` (one side from a record or both).
        alpha: see `edgetrack.stats.sequential.ALPHA`.
        blocks, looks: number of blocks measured, and of analyses made of them.
        seconds: duration of the measurement.
        differences: how a record's conditions differ from the other side's, where `--force` accepted that.
        notes: what to know before trusting the verdict.
    """

    schema: int = 1
    verdict: Verdict
    exit_code: int
    budget: str
    budget_note: str
    design: Literal["paired", "alone", "recorded"]
    candidate: SideNote
    baseline: SideNote | None
    machine: MachineRecord
    device: str
    threads: int
    source: str
    alpha: float
    blocks: int
    looks: int
    seconds: float
    findings: list[RuleFinding]
    differences: list[str]
    notes: list[str]
    samples_ms: GateSamples

    def to_json(self) -> bytes:
        """The report as one line of UTF-8 JSON."""
        return encode_json(self) + b"\n"


def make_report(config: GateConfig, *, findings: Sequence[RuleFinding], **fields: Any) -> GateReport:
    """The report of these findings, with the report's other `fields`."""
    verdict = overall_verdict((finding.verdict for finding in findings), may_skip=config.allow_skipped)
    return GateReport(
        verdict=verdict,
        exit_code=config.exit_code(verdict),
        budget=config.budget.name,
        budget_note=config.budget.note,
        alpha=ALPHA,
        findings=list(findings),
        **{"blocks": 0, "seconds": 0.0, **fields},
    )
