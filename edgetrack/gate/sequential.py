"""A group-sequential check: measure and analyse until every rule is decided, one is broken, or the time is up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from edgetrack.gate.budget import BudgetRule
from edgetrack.gate.evidence import PAIRS, Evidence, judge, pairs_of_processes_needed, processes_needed
from edgetrack.gate.report import RuleFinding
from edgetrack.gate.rounds import TURN_FRAMES, GateSide, TurnRunner
from edgetrack.stats.bootstrap import rounds_needed
from edgetrack.stats.rank_test import PROCESS_ALPHA
from edgetrack.stats.sequential import ANALYSES, spent, spent_on_processes
from edgetrack.system.clock import Clock

_LONGEST_RESTART = 1 / 16
"""Most of the time that fresh processes may take, unless a slowdown waits for them."""
_PAIR = 1 / 16
"""The share of the time after which fresh processes measure on, as far as starting them is worth it."""
_WORTH = 3
"""How many times as long as their start took processes measure at least; and so many blocks."""
_LONGEST_LOADING = 1 / 2
"""Most of the time that processes for load time and memory alone may take."""
_TURNS = 2
"""Turns of a side in a block."""


@dataclass(frozen=True)
class SequentialOutcome:
    """One finding per rule, in their order; how many blocks were measured and how often they were analysed.

    `seconds` is the time of the measurement, loading included.
    """

    findings: list[RuleFinding]
    blocks: int
    analyses: int
    seconds: float


def run(
    runner: TurnRunner,
    rules: Sequence[BudgetRule],
    recorded: Evidence | None,
    alpha: float,
    max_time_s: float,
    clock: Clock,
) -> SequentialOutcome:
    """Measure blocks, with interim analyses, until every rule is decided, one is broken, or the time is up.

    A rule that was decided at one analysis stays decided: each analysis had its own share of the error. At least one
    block is measured. After a sixteenth of the time fresh processes go on, unless starting them takes too much. An
    interim analysis is skipped where its time passed before there were new blocks; the final one never is. Where there
    are too few blocks for any verdict, rules about turns are left for the next analysis.

    Args:
        runner: whose first side is the candidate.
        rules: to decide; not those of AO.
        recorded: the baseline, where it comes from a record.
        alpha: what each rule may spend over all analyses.
        max_time_s: the first block may end later; no other begins that would, should it take as long as the last.
        clock: of the time limit.
    """
    start_ns = clock.now_ns()

    def elapsed() -> float:
        return (clock.now_ns() - start_ns) / 1e9

    if not any(rule.kind.split()[0] in ("latency", "process") for rule in rules):
        return SequentialOutcome(_judged(runner, rules, recorded, alpha, alpha), 0, 1, 0.0)
    # Before anything is known of how long it takes, no more than a verdict needs: fresh processes and a block.
    runner.restart()
    restarting = elapsed()
    runner.block()
    block_s = in_blocks = elapsed() - restarting
    loaded = 0
    for side in _to_load(runner, rules, alpha):
        if elapsed() + restarting / len(runner.sides) + restarting > _LONGEST_LOADING * max_time_s:
            break
        runner.load(side)
        loaded += 1
    if loaded:  # those are cold
        runner.restart()
    found: dict[str, RuleFinding] = {}
    started = elapsed() - block_s * (not loaded)
    analyses, blocks, restarts, before, analysis_s = 0, 1, 0, 0.0, 0.0
    for number, share in enumerate(ANALYSES):
        final = number == len(ANALYSES) - 1
        if number and not final and elapsed() >= share * max_time_s:
            continue
        begun, end = elapsed(), max_time_s - analysis_s if final else share * max_time_s
        waits = any(finding.more_of == PAIRS for finding in found.values()) or (final and not restarts)
        # An analysis between may come late by a block; the last may not.
        while begun + (block_s if final else 0.0) < end:
            spent_on = max(_PAIR * max_time_s, _WORTH * restarting, _WORTH * block_s)
            affordable = waits or restarting <= _LONGEST_RESTART * max_time_s
            if affordable and begun - started >= spent_on and begun + restarting + block_s < end:
                runner.restart()
                restarts += 1
                restarting, started = elapsed() - begun, elapsed()
                begun = started
            runner.block()
            blocks += 1
            block_s, begun = elapsed() - begun, elapsed()
            in_blocks += block_s
        analyses += 1
        spend = spent(number, before, alpha)
        enough = final or blocks >= rounds_needed(spend)
        open_rules = [rule for rule in rules if not _decided(rule, found) and (enough or not _of_turns(rule))]
        on_pairs = spent(number, before, PROCESS_ALPHA)
        judged = _judged(runner, open_rules, recorded, spend, spent_on_processes(number, alpha), on_pairs)
        found |= {finding.rule: finding for finding in judged}
        analysis_s = elapsed() - begun
        before = share if enough else before
        broken = any(finding.verdict == "fail" for finding in found.values())
        if broken or all(_decided(rule, found) for rule in rules):
            break
    unseen = [rule for rule in rules if rule.name not in found]
    found |= {finding.rule: finding for finding in _judged(runner, unseen, recorded, spend, alpha)}
    seconds = _seconds(runner, in_blocks / blocks, restarting + max(_PAIR * max_time_s, _WORTH * restarting))
    return SequentialOutcome([_with_time(found[rule.name], seconds) for rule in rules], blocks, analyses, elapsed())


def evidence_of(side: GateSide) -> Evidence:
    """What was measured of a side so far."""
    return Evidence(
        turns={"model": side.turns("model"), "track": side.turns("track")},
        process_of=side.process_of,
        processes={"load_ms": side.load_ms, "peak_rss_mb": side.peak_rss_mb},
        size_mb=side.bundle.size_mb,
    )


def _judged(
    runner: TurnRunner,
    rules: Sequence[BudgetRule],
    recorded: Evidence | None,
    on_turns: float,
    on_processes: float,
    on_pairs: float = PROCESS_ALPHA,
) -> list[RuleFinding]:
    """`on_turns`, `on_processes`, `on_pairs`: the error that rules about these may spend now."""
    candidate, *others = (evidence_of(side) for side in runner.sides)
    baseline = others[0] if others else recorded
    return [judge(rule, candidate, baseline, on_turns if _of_turns(rule) else on_processes, on_pairs) for rule in rules]


def _of_turns(rule: BudgetRule) -> bool:
    return rule.kind.startswith("latency")


def _decided(rule: BudgetRule, found: Mapping[str, RuleFinding]) -> bool:
    return rule.name in found and found[rule.name].verdict != "undecided"


def _to_load(runner: TurnRunner, rules: Sequence[BudgetRule], alpha: float) -> Iterator[GateSide]:
    """The sides in turns, each as often as it needs a process beyond those of two starts."""
    more = {side.role: _loads(rules, side, alpha) - 2 for side in runner.sides}
    for number in range(max(more.values())):
        yield from (side for side in runner.sides if number < more[side.role])


def _loads(rules: Sequence[BudgetRule], side: GateSide, alpha: float) -> int:
    """Processes that a side needs for a verdict at the first analysis."""
    first = spent_on_processes(0, alpha)
    kinds = {rule.kind for rule in rules}
    if "process ratio" in kinds:
        return pairs_of_processes_needed(first)
    return processes_needed(first) if "process" in kinds and side.role == "candidate" else 1


def _seconds(runner: TurnRunner, block_s: float, pair_s: float) -> Mapping[str, float]:
    """About how long one more of each takes."""
    candidate = runner.sides[0]
    frames = sum(map(len, candidate.turns("track")[-1])) if candidate.blocks else _TURNS * TURN_FRAMES
    return {PAIRS: pair_s, "blocks": block_s, "turns": block_s / _TURNS, "frames": block_s / max(1, frames)}


def _with_time(finding: RuleFinding, seconds: Mapping[str, float]) -> RuleFinding:
    """The finding, with about how long it takes to measure what would decide it."""
    each = seconds.get(finding.more_of or "")
    if finding.more is None or each is None:
        return finding
    return msgspec.structs.replace(finding, more_s=finding.more * each)
