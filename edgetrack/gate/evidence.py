"""What is known about each side, and what it says about a rule of the budget.

A side is a bundle that is measured (`smat-openvino-fp32@bf16`) or a result that `edgetrack bench -o` wrote
(`bench.json`, `bench.json:NAME`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgetrack.arrays import Floats
from edgetrack.benchmark.config import SourceNote
from edgetrack.benchmark.record import BenchRecord, BenchResult
from edgetrack.bundle.reader import BundleRef
from edgetrack.capabilities import open_ref
from edgetrack.errors import UnknownNameError, UsageError
from edgetrack.gate.budget import BudgetRule, Speed
from edgetrack.gate.report import RuleFinding, SideNote, TurnsMs, finding_of
from edgetrack.io import read_bytes
from edgetrack.presentation.table import counted
from edgetrack.stats.quantile import QuantileBounds, independent_bounds, quantile_bounds, samples_to_decide
from edgetrack.stats.rank_test import (
    PROCESS_ALPHA,
    paired_ratio_test,
    process_ratio_bounds,
    processes_agree,
    unpaired_ratio_test,
)
from edgetrack.stats.verdict import judge_limit
from edgetrack.system.machine import MachineRecord
from edgetrack.system.opencv import OPENCV

_SEED = 0
PAIRS = "pairs of processes"
"""What a slowdown waits for that blocks show and too few processes share."""
_SUFFIX = ".json"
_MACHINE = (
    "cpu_model", "architecture", "device_model", "physical_cores", "logical_cores", "usable_cores", "cpu_quota",
    "cpu_flags", "governor", "max_mhz", "gpus", "nvidia_driver", "l4t", "os", "kernel", "container", "python",
)  # fmt: skip
"""Fields of a machine's record that decide its speed; not those that change from minute to minute."""
_PACKAGES = ("numpy", *OPENCV)
"""What crops and decodes, beside the backend's own packages. Not edgetrack: that may be what is compared."""

Conditions = Mapping[str, str]
"""What two measurements must share to be compared, by name, as text."""


@dataclass(frozen=True)
class Evidence:
    """What was measured of a bundle.

    Attributes:
        turns: samples in milliseconds by speed, block and turn.
        process_of: for each block a number that only blocks of one pair of processes share.
        processes: `load_ms` and `peak_rss_mb`, one figure per process.
        size_mb: of its files.
        single: it comes from a record, which knows one process.
    """

    turns: Mapping[Speed, Sequence[Sequence[Floats]]] = field(default_factory=dict)
    process_of: Sequence[int] = ()
    processes: Mapping[str, Sequence[float]] = field(default_factory=dict)
    size_mb: float = math.nan
    single: bool = False

    def flat(self, speed: Speed) -> list[Floats]:
        """All turns in their order."""
        return [turn for block in self.turns[speed] for turn in block]


@dataclass(frozen=True)
class RecordedSide:
    """One result of a record that `edgetrack bench -o` wrote."""

    path: Path
    record: BenchRecord
    result: BenchResult

    @property
    def evidence(self) -> Evidence:
        """Its samples; rounds count as turns, and it knows one process only."""
        result, samples = self.result, self.result.samples_ms
        return Evidence(
            turns={"model": [list(map(np.array, samples.model))], "track": [list(map(np.array, samples.track))]},
            processes={"load_ms": [result.load_ms], "peak_rss_mb": [result.memory_mb.peak_rss]},
            size_mb=result.size_mb,
            single=True,
        )

    @property
    def turns_ms(self) -> TurnsMs:
        """Its samples, as the report holds them."""
        return TurnsMs(model=self.result.samples_ms.model, track=self.result.samples_ms.track)

    @property
    def note(self) -> SideNote:
        """Its description in the report."""
        result = self.result
        return SideNote(
            bundle=result.label,
            tracker=result.tracker,
            target=result.target,
            precision=result.precision,
            weights=result.weights,
            size_mb=result.size_mb,
            versions=result.versions,
            load_ms=[result.load_ms],
            peak_rss_mb=[result.memory_mb.peak_rss],
            recorded=True,
            code=None,
        )


def is_record(text: str) -> bool:
    """Whether a side was given as a record, and not as a bundle."""
    return text.endswith(_SUFFIX) or bool(text.partition(f"{_SUFFIX}:")[2])


def split_record(text: str) -> tuple[str, str]:
    """The file of `FILE.json[:NAME]`, and the name, empty where there is none."""
    if text.endswith(_SUFFIX):
        return text, ""
    path, _, wanted = text.partition(f"{_SUFFIX}:")
    return path + _SUFFIX, wanted


def open_side(text: str, option: str, default: str | None = None) -> BundleRef | RecordedSide:
    """A bundle, or one result of a record.

    Args:
        text: see the module.
        option: how it was given, for messages.
        default: which of several results of a record is taken where none is named: the other side's label.

    Raises:
        UsageError: no such file, no record, or one whose samples are unusable.
        UnknownNameError: the record does not hold that bundle.
        EdgetrackError: the bundle cannot be opened.
    """
    if not is_record(text):
        return open_ref(text)
    path, wanted = split_record(text)
    file = Path(path)
    record = BenchRecord.from_json(_read(file, option), source=str(file))
    results = {result.label: result for result in record.results}
    name = wanted or (next(iter(results)) if len(results) == 1 else default or "")
    if name not in results:
        more = f"give one of them as {option} {file}:NAME".replace("  ", " ")
        if not name:
            raise UnknownNameError(f"{file} holds {', '.join(results) or 'no results'}; {more}")
        raise UnknownNameError.of(f"in {file} the bundle", name, results, more)
    _check_samples(file, results[name])
    return RecordedSide(file, record, results[name])


def conditions_of(
    machine: MachineRecord,
    *,
    tracker: str,
    device: str,
    threads: int,
    scenario: str,
    source: SourceNote,
    versions: Mapping[str, str],
) -> Conditions:
    """The conditions of a measurement."""
    found = {f"machine: {name}": _text(getattr(machine, name)) for name in _MACHINE}
    found |= {f"version: {name}": version for name, version in versions.items()}
    found |= {f"version: {name}": machine.packages[name] for name in _PACKAGES if name in machine.packages}
    return {
        **found,
        "tracker": tracker,
        "device": device,
        "threads": str(threads),
        "scenario": scenario,
        "frames": f"{source.spec} ({'x'.join(map(str, source.size))})",
        "box": ", ".join(f"{number:g}" for number in source.box),
    }


def conditions_of_result(record: BenchRecord, result: BenchResult) -> Conditions:
    """Those of a result in a benchmark's record."""
    return conditions_of(
        record.machine,
        tracker=result.tracker,
        device=result.device,
        threads=result.threads,
        scenario=record.settings.scenario,
        source=record.source,
        versions=result.versions,
    )


def speeds(result: BenchResult) -> str:
    """Which speeds a result has samples of."""
    samples = result.samples_ms
    return ", ".join(name for name in ("model", "track", "camera") if getattr(samples, name))


def differences(baseline: Conditions, candidate: Conditions) -> list[str]:
    """One line for each difference, the baseline's value first."""
    names = dict.fromkeys((*baseline, *candidate))
    return [
        f"{name}: {baseline.get(name, 'none')} against {candidate.get(name, 'none')}"
        for name in names
        if baseline.get(name) != candidate.get(name)
    ]


def require_comparable(differences: Sequence[str], *, force: bool) -> None:
    """Refuse measurements whose conditions differ.

    Raises:
        UsageError: there are differences, and `force` is not set; it lists them.
    """
    if differences and not force:
        raise UsageError(
            "the two were measured under different conditions, so their ratio says nothing about the bundles:\n  "
            + "\n  ".join(differences)
            + "\ngive a bundle as --baseline, which is measured beside the other one, or --force"
        )


def judge(
    rule: BudgetRule,
    candidate: Evidence,
    baseline: Evidence | None,
    alpha: float,
    process_alpha: float = PROCESS_ALPHA,
) -> RuleFinding:
    """The verdict of a rule other than of AO, wrong with a chance of at most `alpha`.

    Of latencies that is of the processes that were measured; `process_alpha` is the chance that a slowdown is theirs.

    A rule that needs a baseline is skipped where there is none.
    """
    if rule.kind == "latency":
        return _latency(rule, candidate, alpha)
    if rule.kind == "process":
        return _process(rule, candidate, alpha)
    if rule.kind == "size":
        return _exact(rule, candidate.size_mb, "the bundle's files")
    if baseline is None:
        return finding_of(rule, "skipped", "no --baseline was given")
    if rule.kind == "size ratio":
        return _exact(rule, candidate.size_mb / baseline.size_mb, "the bundles' files")
    if rule.kind == "process ratio":
        return _process_ratio(rule, candidate, baseline, alpha)
    return _ratio(rule, candidate, baseline, alpha, process_alpha)


def _latency(rule: BudgetRule, candidate: Evidence, alpha: float) -> RuleFinding:
    turns = candidate.flat(rule.speed)
    bounds = quantile_bounds(turns, rule.quantile, alpha)
    detail = f"{counted(bounds.count, 'frame')}, effective sample size {bounds.effective:.0f}"
    return _of_bounds(
        rule, bounds, alpha, detail, "frames", lambda: samples_to_decide(turns, rule.quantile, rule.limit, alpha)
    )


def _process(rule: BudgetRule, candidate: Evidence, alpha: float) -> RuleFinding:
    figures = candidate.processes[rule.figure]
    if candidate.single:
        return _exact(rule, figures[0], "one process, compared as it is")
    count, bounds = len(figures), independent_bounds(figures, 0.5, alpha)
    # The next analysis may spend half as much: with fewer processes there are no bounds at all then.
    return _of_bounds(
        rule, bounds, alpha, f"{count} processes", "processes", lambda: max(1, processes_needed(alpha / 2) - count)
    )


def _process_ratio(rule: BudgetRule, candidate: Evidence, baseline: Evidence, alpha: float) -> RuleFinding:
    ours, theirs = candidate.processes[rule.figure], baseline.processes[rule.figure]
    if candidate.single or baseline.single:
        value = float(np.median(ours) / np.median(theirs))
        return _exact(rule, value, "a record knows one process; compared as it is")
    count, bounds = len(ours), process_ratio_bounds(np.array(theirs), np.array(ours), alpha)
    return _of_bounds(
        rule,
        bounds,
        alpha,
        f"{count} processes of each",
        "processes",
        lambda: max(1, pairs_of_processes_needed(alpha / 2) - count),
    )


def _ratio(
    rule: BudgetRule, candidate: Evidence, baseline: Evidence, alpha: float, process_alpha: float
) -> RuleFinding:
    rng = np.random.default_rng(_SEED)
    unpaired = candidate.single or baseline.single
    ours, theirs = (_quantiles(side, rule, flat=unpaired) for side in (candidate, baseline))
    test = (unpaired_ratio_test if unpaired else paired_ratio_test)(theirs, ours, rule.limit, alpha, rng)
    verdict, more, more_of = test.verdict, test.more, "turns" if unpaired else "blocks"
    pairs = len(set(candidate.process_of))
    shared = unpaired or processes_agree(theirs, ours, candidate.process_of, rule.limit, process_alpha)
    if verdict == "fail" and not shared:
        verdict, more, more_of = "undecided", 1, PAIRS
    return finding_of(
        rule,
        verdict,
        f"{len(ours)} turns against {len(theirs)} of another time"
        if unpaired
        else f"{counted(len(ours), 'block')} of paired turns, {counted(pairs, 'pair')} of processes",
        value=test.value,
        low=test.low,
        high=test.high,
        alpha=alpha,
        samples=ours.size,
        p_above=test.p_above,
        p_below=test.p_below,
        more=more,
        more_of=more_of,
    )


def _quantiles(side: Evidence, rule: BudgetRule, *, flat: bool) -> Floats:
    """The rule's quantile of every turn: float64 (turns,), or (blocks, turns)."""
    if flat:
        return np.array([np.quantile(turn, rule.quantile) for turn in side.flat(rule.speed)])
    return np.array([[np.quantile(turn, rule.quantile) for turn in block] for block in side.turns[rule.speed]])


def _of_bounds(
    rule: BudgetRule, bounds: QuantileBounds, alpha: float, detail: str, more_of: str, more: Callable[[], int | None]
) -> RuleFinding:
    """`more`: how many more of `more_of` would decide; only asked where that is open."""
    verdict = judge_limit(bounds.low, bounds.high, rule.limit)
    return finding_of(
        rule,
        verdict,
        detail,
        value=bounds.value,
        low=bounds.low,
        high=bounds.high,
        alpha=alpha,
        samples=bounds.count,
        more=more() if verdict == "undecided" else None,
        more_of=more_of,
    )


def _exact(rule: BudgetRule, value: float, detail: str) -> RuleFinding:
    return finding_of(rule, "pass" if value <= rule.limit else "fail", detail, value=value, samples=1)


def processes_needed(alpha: float) -> int:
    """How many processes bound a median with `alpha` on each side: 2**-n <= alpha."""
    return math.ceil(-math.log2(alpha))


def pairs_of_processes_needed(alpha: float) -> int:
    """How many processes of each side bound a ratio with `alpha` on each side: of all orders, one is as extreme."""
    return next(n for n in itertools.count(1) if math.comb(2 * n, n) * alpha >= 1)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return "unknown" if value is None else str(value)


def _read(file: Path, option: str) -> bytes:
    try:
        return read_bytes(file)
    except OSError as error:
        raise UsageError(
            f"{option} {file} cannot be read: {error.strerror}; give a bundle, or a bench.json".strip()
        ) from None


def _check_samples(file: Path, result: BenchResult) -> None:
    for rounds in (result.samples_ms.model, result.samples_ms.track):
        if not rounds or not all(turn and min(turn) > 0 and max(turn) < math.inf for turn in rounds):
            raise UsageError(
                f"{file} has a round of {result.label} without positive, finite samples; record it again: "
                f"edgetrack bench {result.label} -o {file} --overwrite"
            )
