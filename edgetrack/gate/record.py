"""What a check found, as JSON. Times are in milliseconds, memory and sizes in MB of 2**20 bytes, AO in points."""

from __future__ import annotations

from typing import Literal

import msgspec

from edgetrack.benchmark.latency import Rounds
from edgetrack.benchmark.machine import MachineRecord
from edgetrack.stats.verdict import Verdict


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One rule of the budget.

    Attributes:
        rule: its name, such as `track_p95_ms`.
        limit, unit: the figure may be `limit` at most (`delta_ao_points`: at least).
        value: the figure; null where it was not measured.
        low, high: its bounds, each wrong with probability `alpha` at most; null where there is too little for them.
        alpha: what this rule's last look could spend; null where nothing was estimated.
        samples: how many figures it comes from: frames, processes, turns or runs.
        detail: what the verdict rests on, for people.
        p_above, p_below: Mann-Whitney's, of latency ratios; see `edgetrack.stats.rank_test`.
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


class CodeNote(msgspec.Struct, frozen=True, kw_only=True):
    """The edgetrack that ran: its version and the SHA-256 of its modules."""

    version: str
    digest: str


class SideNote(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two bundles, and what each process of it took. `recorded`: it comes from a benchmark's record."""

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


class SamplesMs(msgspec.Struct, frozen=True, kw_only=True):
    """The samples of both sides; null: there is none, or it was not measured here."""

    candidate: TurnsMs
    baseline: TurnsMs | None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A check.

    Attributes:
        verdict: of all rules together.
        exit_code: what the command ends with.
        design: `paired` (turns beside each other), `alone` (no baseline), `recorded` (one side from a record or both).
        alpha: see `edgetrack.stats.sequential.ALPHA`.
        blocks, looks: how many were taken.
        seconds: how long measuring took.
        differences: in what a record's conditions differ from the other side's; given where `--force` let that pass.
        notes: what to know before the verdict is trusted.
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
    findings: list[Finding]
    differences: list[str]
    notes: list[str]
    samples_ms: SamplesMs

    def to_json(self) -> bytes:
        """The report as one line of UTF-8 JSON."""
        return msgspec.json.encode(self) + b"\n"
