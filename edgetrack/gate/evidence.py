"""What is known of one side, and what it says of a rule."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from edgetrack.arrays import Floats
from edgetrack.gate.budget import Rule, Speed
from edgetrack.gate.record import Finding
from edgetrack.stats.quantile import QuantileBounds, independent_bounds, quantile_bounds, samples_to_decide
from edgetrack.stats.rank_test import paired_ratio_test, process_ratio_bounds, unpaired_ratio_test
from edgetrack.stats.verdict import Verdict

_SEED = 0


@dataclass(frozen=True)
class Evidence:
    """What was measured of a bundle.

    Attributes:
        turns: samples in milliseconds by speed, block and turn.
        processes: `load_ms` and `peak_rss_mb`, one figure per process.
        size_mb: of its files.
        single: it comes from a record, which knows one process.
    """

    turns: Mapping[Speed, Sequence[Sequence[Floats]]] = field(default_factory=dict)
    processes: Mapping[str, Sequence[float]] = field(default_factory=dict)
    size_mb: float = math.nan
    single: bool = False

    def flat(self, speed: Speed) -> list[Floats]:
        """All turns in their order."""
        return [turn for block in self.turns[speed] for turn in block]


def arrays(rounds: Sequence[Sequence[float]]) -> list[Floats]:
    """Rounds as arrays of float64."""
    return [np.array(turn, np.float64) for turn in rounds]


def judge(rule: Rule, candidate: Evidence, baseline: Evidence | None, alpha: float) -> Finding:
    """What the evidence says of a rule, with at most `alpha` chance to be wrong; not of differences of AO.

    A rule that needs a baseline is skipped where there is none.
    """
    if rule.kind == "latency":
        return _latency(rule, candidate, alpha)
    if rule.kind == "process":
        return _process(rule, candidate, alpha)
    if rule.kind == "size":
        return _exact(rule, candidate.size_mb, "the bundle's files")
    if baseline is None:
        return skipped(rule, "no --baseline was given")
    if rule.kind == "size ratio":
        return _exact(rule, candidate.size_mb / baseline.size_mb, "the bundles' files")
    if rule.kind == "process ratio":
        return _process_ratio(rule, candidate, baseline, alpha)
    return _ratio(rule, candidate, baseline, alpha)


def skipped(rule: Rule, why: str) -> Finding:
    """A rule that was not checked."""
    return Finding(rule=rule.name, limit=rule.limit, unit=rule.unit, verdict="skipped", detail=why)


def _latency(rule: Rule, candidate: Evidence, alpha: float) -> Finding:
    turns = candidate.flat(rule.speed)
    bounds = quantile_bounds(turns, rule.quantile, alpha)
    verdict = bounds.judge(rule.limit)
    return Finding(
        rule=rule.name,
        limit=rule.limit,
        unit=rule.unit,
        verdict=verdict,
        value=bounds.value,
        low=bounds.low,
        high=bounds.high,
        alpha=alpha,
        samples=bounds.count,
        detail=f"{bounds.count} frames, effective sample size {bounds.effective:.0f}",
        more=samples_to_decide(turns, rule.quantile, rule.limit, alpha) if verdict == "undecided" else None,
        more_of="frames" if verdict == "undecided" else None,
    )


def _process(rule: Rule, candidate: Evidence, alpha: float) -> Finding:
    figures = candidate.processes[rule.figure]
    if candidate.single:
        return _exact(rule, figures[0], "one process, compared as it is")
    bounds = independent_bounds(np.array(figures), 0.5, alpha)
    return _of_processes(rule, bounds, len(figures), processes_needed(alpha / 2), alpha)


def _process_ratio(rule: Rule, candidate: Evidence, baseline: Evidence, alpha: float) -> Finding:
    ours, theirs = candidate.processes[rule.figure], baseline.processes[rule.figure]
    if candidate.single or baseline.single:
        value = float(np.median(ours) / np.median(theirs))
        return _exact(rule, value, "a record knows one process; compared as it is")
    bounds = process_ratio_bounds(np.array(theirs), np.array(ours), alpha)
    return _of_processes(rule, bounds, len(ours), pairs_of_processes_needed(alpha / 2), alpha)


def _of_processes(rule: Rule, bounds: QuantileBounds, count: int, wanted: int, alpha: float) -> Finding:
    """`wanted`: how many processes have bounds at all at the next look, which may spend half as much."""
    verdict = bounds.judge(rule.limit)
    return Finding(
        rule=rule.name,
        limit=rule.limit,
        unit=rule.unit,
        verdict=verdict,
        value=bounds.value,
        low=bounds.low,
        high=bounds.high,
        alpha=alpha,
        samples=count,
        detail=f"{count} processes" + (" of each" if rule.needs_baseline else ""),
        more=max(1, wanted - count) if verdict == "undecided" else None,
        more_of="processes" if verdict == "undecided" else None,
    )


def processes_needed(alpha: float) -> int:
    """How many processes bound a median with `alpha` on each side: 2**-n <= alpha."""
    return math.ceil(-math.log2(alpha))


def pairs_of_processes_needed(alpha: float) -> int:
    """How many processes of each side bound a ratio with `alpha` on each side: of all orders, one is as extreme."""
    return next(n for n in itertools.count(1) if math.comb(2 * n, n) * alpha >= 1)


def _exact(rule: Rule, value: float, detail: str) -> Finding:
    verdict: Verdict = "pass" if value <= rule.limit else "fail"
    return Finding(
        rule=rule.name, limit=rule.limit, unit=rule.unit, verdict=verdict, value=value, samples=1, detail=detail
    )


def _ratio(rule: Rule, candidate: Evidence, baseline: Evidence, alpha: float) -> Finding:
    rng = np.random.default_rng(_SEED)
    unpaired = candidate.single or baseline.single
    ours, theirs = (_quantiles(side, rule, flat=unpaired) for side in (candidate, baseline))
    if unpaired:
        found = unpaired_ratio_test(theirs, ours, rule.limit, alpha, rng)
        detail = f"{len(ours)} turns against {len(theirs)} of another time"
    else:
        found = paired_ratio_test(theirs, ours, rule.limit, alpha, rng)
        detail = f"{len(ours)} blocks of paired turns"
    return Finding(
        rule=rule.name,
        limit=rule.limit,
        unit=rule.unit,
        verdict=found.verdict,
        value=found.value,
        low=found.low,
        high=found.high,
        alpha=alpha,
        samples=ours.size,
        detail=detail,
        p_above=found.p_above,
        p_below=found.p_below,
        more=found.more,
        more_of=("turns" if unpaired else "blocks") if found.verdict == "undecided" else None,
    )


def _quantiles(side: Evidence, rule: Rule, *, flat: bool) -> Floats:
    """The rule's quantile of every turn: float64 (turns,), or (blocks, turns)."""
    if flat:
        return np.array([np.quantile(turn, rule.quantile) for turn in side.flat(rule.speed)])
    return np.array([[np.quantile(turn, rule.quantile) for turn in block] for block in side.turns[rule.speed]])


def with_time(finding: Finding, seconds: Mapping[str, float]) -> Finding:
    """The finding, with how long what would decide takes: `seconds` per one of what `more_of` names."""
    each = seconds.get(finding.more_of or "")
    if finding.more is None or each is None:
        return finding
    return msgspec.structs.replace(finding, more_s=finding.more * each)
