"""Measuring until every rule is decided, one is broken, or the time is up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgetrack.gate.budget import Rule
from edgetrack.gate.evidence import Evidence, judge, pairs_of_processes_needed, processes_needed, with_time
from edgetrack.gate.options import Clock
from edgetrack.gate.record import Finding
from edgetrack.gate.rounds import TURN_FRAMES, Rounds, Side
from edgetrack.stats.bootstrap import rounds_needed
from edgetrack.stats.sequential import ANALYSES, spent, spent_on_processes

_RENEWING = 1 / 16
"""Most of the time that fresh processes for one stage may take."""
_TURNS = 2
"""Turns of a side in a block."""


@dataclass(frozen=True)
class Outcome:
    """What was found: one finding per rule, in their order; `seconds` of measuring, loading included."""

    findings: list[Finding]
    blocks: int
    looks: int
    seconds: float


def run(
    rounds: Rounds, rules: Sequence[Rule], recorded: Evidence | None, alpha: float, max_time_s: float, clock: Clock
) -> Outcome:
    """Take blocks and look at them now and then, until nothing is left to decide or the time is up.

    A rule that was decided at one look stays so: each look had its own share of the error. At least one block is taken.
    Every stage between two looks has fresh processes, unless starting them takes too much of the time. A look whose
    time went by before there was anything new to see is passed over, but for the last one; at one with too few blocks
    for any verdict, rules about turns are not looked at.

    Args:
        rounds: whose first side is the candidate.
        rules: what is asked; not of AO.
        recorded: the baseline, where it comes from a record.
        alpha: what each rule may spend over all looks.
        max_time_s: no block but the first begins later.
        clock: seconds.
    """
    start = clock()
    if not any(rule.kind.split()[0] in ("latency", "process") for rule in rules):
        return Outcome(_judged(rounds, rules, recorded, alpha, alpha), 0, 1, 0.0)
    for side in rounds.sides:
        for _ in range(_loads(rules, side, alpha) - 1):
            rounds.load(side)
    found: dict[str, Finding] = {}
    looks, blocks, in_blocks, renewing, taken = 0, 0, 0.0, 0.0, 0.0
    for look, share in enumerate(ANALYSES):
        last = look == len(ANALYSES) - 1
        if blocks and not last and clock() - start >= share * max_time_s:
            continue
        begun = clock()
        if not blocks or (renewing <= _RENEWING * max_time_s and begun - start < share * max_time_s):
            rounds.renew()
            renewing = clock() - begun
        begun = clock()
        while not blocks or clock() - start < share * max_time_s:
            rounds.block()
            blocks += 1
        in_blocks += clock() - begun
        looks += 1
        spend = spent(look, taken, alpha)
        enough = last or blocks >= rounds_needed(spend)
        left = [rule for rule in rules if not _decided(rule, found) and (enough or not _of_turns(rule))]
        judged = _judged(rounds, left, recorded, spend, spent_on_processes(look, alpha))
        found |= {finding.rule: finding for finding in judged}
        taken = share if enough else taken
        broken = any(finding.verdict == "fail" for finding in found.values())
        if broken or all(_decided(rule, found) for rule in rules):
            break
    unseen = [rule for rule in rules if rule.name not in found]
    found |= {finding.rule: finding for finding in _judged(rounds, unseen, recorded, spend, alpha)}
    seconds = _seconds(rounds, in_blocks / blocks)
    findings = [with_time(found[rule.name], seconds) for rule in rules]
    return Outcome(findings, blocks, looks, clock() - start)


def evidence_of(side: Side) -> Evidence:
    """What was measured of a side so far."""
    return Evidence(
        turns={"model": side.turns("model"), "track": side.turns("track")},
        processes={"load_ms": side.load_ms, "peak_rss_mb": side.peak_rss_mb},
        size_mb=side.bundle.size_mb,
    )


def _judged(
    rounds: Rounds, rules: Sequence[Rule], recorded: Evidence | None, on_turns: float, on_processes: float
) -> list[Finding]:
    """`on_turns`, `on_processes`: what rules about these may spend now."""
    candidate, *others = (evidence_of(side) for side in rounds.sides)
    baseline = others[0] if others else recorded
    return [judge(rule, candidate, baseline, on_turns if _of_turns(rule) else on_processes) for rule in rules]


def _of_turns(rule: Rule) -> bool:
    return rule.kind.startswith("latency")


def _decided(rule: Rule, found: Mapping[str, Finding]) -> bool:
    return rule.name in found and found[rule.name].verdict != "undecided"


def _loads(rules: Sequence[Rule], side: Side, alpha: float) -> int:
    """Processes that a side needs for a verdict at the first look."""
    first = spent_on_processes(0, alpha)
    kinds = {rule.kind for rule in rules}
    if "process ratio" in kinds:
        return pairs_of_processes_needed(first)
    return processes_needed(first) if "process" in kinds and side.role == "candidate" else 1


def _seconds(rounds: Rounds, block_s: float) -> Mapping[str, float]:
    """About how long one more of each takes."""
    frames = sum(map(len, rounds.sides[0].turns("track")[-1])) if rounds.sides[0].blocks else _TURNS * TURN_FRAMES
    return {"blocks": block_s, "turns": block_s / _TURNS, "frames": block_s / max(1, frames)}
