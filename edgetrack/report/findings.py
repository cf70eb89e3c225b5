"""What a report finds: what is fastest, what is most accurate, what is not worth it, and why.

Nothing is said beyond what intervals hold: a bundle is called faster where the 95 % interval of the paired ratio lies
above 1, more accurate where a paired comparison says so or the intervals lie apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from edgetrack.benchmark.record import BenchRecord, BenchResult
from edgetrack.bundle.manifest import Scalar
from edgetrack.errors import UsageError
from edgetrack.evaluation.comparison import CompareRecord
from edgetrack.evaluation.protocols.anchored import POINTS, Difference
from edgetrack.presentation.table import counted
from edgetrack.report.model import (
    Accuracy,
    Identity,
    Results,
    Sourced,
    Trial,
    by_speed,
    comparison_trial,
    is_reference,
    is_smoke,
    meaningful,
    side_identity,
    speed_identity,
)
from edgetrack.stats.bootstrap import FEW_SEQUENCES, ratio_of_medians

_SEED = 0
_RESAMPLES = 1000
FindingKind = Literal[
    "fastest",
    "most accurate",
    "highest AO",
    "worth it",
    "a trade",
    "not worth it",
    "undecided",
    "advice",
    "careful",
]


@dataclass(frozen=True)
class ReportFinding:
    """What kind of finding, what it is about in a few words, and the figures and the reason in sentences."""

    kind: FindingKind
    head: str
    text: str

    def line(self) -> str:
        """All of it."""
        return f"{self.kind}: {self.head}. {self.text}"


@dataclass(frozen=True)
class Faster:
    """The other's median track latency over this one's, above 1 is faster; `interval` is its 95 % one."""

    ratio: float
    interval: tuple[float, float] | None

    @property
    def shown(self) -> bool:
        """Whether it is shown to be faster."""
        return self.interval is not None and self.interval[0] > 1

    def describe(self) -> str:
        """Such as `2.05 (1.98-2.11)`."""
        return f"{self.ratio:.2f}" + _span(self.interval)

    def sentence(self) -> str:
        """Such as `It is 2.05 (1.98-2.11) times as fast`."""
        if self.interval is None:
            return f"It ran {self.ratio:.2f} times as fast, in too few rounds for an interval"
        if self.shown:
            return f"It is {self.describe()} times as fast"
        slower = "slower" if self.interval[1] < 1 else "not shown to be faster"
        return f"It is {slower}, {self.describe()} times the speed"


def findings(results: Results) -> list[ReportFinding]:
    """All findings, the most wanted first."""
    said = [
        *(one for bench in results.benchmarks for one in _fastest(bench, len(results.benchmarks) > 1)),
        *(_most_accurate(trial, known, results) for trial, known in meaningful(results).items() if len(known) > 1),
        *(_verdict(found.value, results) for found in results.comparisons if _sides_track(found.value)),
        *(one for bench in results.benchmarks for one in _not_worth_it(bench, results)),
        *(
            ReportFinding("advice", f"{one.value.precision} on {one.value.dataset}, stage by stage", one.value.advice)
            for one in results.sensitivities
        ),
        *_careful(results),
    ]
    order = get_args(FindingKind)
    return sorted(dict.fromkeys(said), key=lambda one: order.index(one.kind))


def faster(one: BenchResult, other: BenchResult) -> Faster | None:
    """How much faster `one` is than `other`, from their paired rounds; None where these do not pair, or a sample is 0.

    Rounds of one benchmark ran next to each other; those of two benchmarks must not be given.
    """
    pairs = list(zip(other.samples_ms.track, one.samples_ms.track, strict=False))
    try:
        found = ratio_of_medians(
            [a for a, _ in pairs], [b for _, b in pairs], rng=np.random.default_rng(_SEED), resamples=_RESAMPLES
        )
    except UsageError:
        return None
    return Faster(found.value, None if found.low is None or found.high is None else (found.low, found.high))


def level_with_first(ordered: Sequence[BenchResult]) -> list[BenchResult]:
    """Of one benchmark's results, fastest first: those that the first is not shown to be faster than."""
    return [one for one in ordered[1:] if not (ratio := faster(ordered[0], one)) or not ratio.shown]


def _fastest(bench: Sourced[BenchRecord], many: bool) -> Iterator[ReportFinding]:
    ordered = by_speed([result for result in bench.value.results if not is_smoke(result)])
    if not ordered:
        return
    best, others, level = ordered[0], ordered[1:], level_with_first(ordered)
    here = f" in {bench.source}" if many else ""
    if not others:
        yield ReportFinding(
            "fastest", f"{_pace(best)}{here}", f"Nothing else was measured beside it. {_against(best)}".strip()
        )
    elif level:
        names = _joined([best.label, *(other.label for other in level)])
        text = f"No difference between them is shown. First is {_pace(best)}. {_against(best)}".strip()
        yield ReportFinding("fastest", f"{names}{here}", text)
    else:
        ratio = faster(best, others[0])
        margin = f"{ratio.describe()} times as fast as {others[0].label}, the next. " if ratio else ""
        yield ReportFinding("fastest", f"{_pace(best)}{here}", f"{margin}{_against(best)}".strip())


def _pace(result: BenchResult) -> str:
    return f"{result.label}, {result.fps.track or 0.0:.1f} fps ({result.latency_ms.track.p50:.2f} ms per frame)"


def _against(result: BenchResult) -> str:
    """Against PyTorch on the same machine, and the paper's machine."""
    said = []
    ratio, interval = result.vs_pytorch.track, result.vs_pytorch_interval.track
    if ratio is not None:
        said.append(f"It is {ratio:.2f}{_span(interval)} times as fast as PyTorch on this machine.")
    if result.vs_paper.fps is not None and result.vs_paper.ratio is not None:
        cpu = f" on {result.vs_paper.cpu}" if result.vs_paper.cpu else ""
        said.append(
            f"The paper states {result.vs_paper.fps:g} fps{cpu}: this is {result.vs_paper.ratio:.2f} times that."
        )
    return " ".join(said)


def level_with_best(trial: Trial, known: Mapping[Identity, Accuracy], results: Results) -> list[tuple[Accuracy, str]]:
    """Those of a trial that the one with the highest AO is not shown to be more accurate than, and why."""
    best, *others = sorted(known.values(), key=lambda one: (-one.ao, one.who.label))
    return [(one, reason) for one in others if (reason := _not_shown(trial, best, one, results)) is not None]


def _most_accurate(trial: Trial, known: dict[Identity, Accuracy], results: Results) -> ReportFinding:
    best, *others = sorted(known.values(), key=lambda one: (-one.ao, one.who.label))
    open_ = level_with_best(trial, known, results)
    few = (
        ""
        if trial.sequences >= FEW_SEQUENCES
        else f" {counted(trial.sequences, 'sequence')} {'is' if trial.sequences == 1 else 'are'} few for an interval."
    )
    head = f"{best.who.label}, AO {best.ao:.3f} on {trial.label}"
    if not open_:
        beaten = _joined([f"{other.who.label} ({other.ao:.3f})" for other in others[:4]])
        return ReportFinding("most accurate", head, f"Shown to be more accurate than {beaten}.{few}")
    reasons = "; ".join(f"{other.who.label} at {other.ao:.3f} ({reason})" for other, reason in open_[:4])
    more = f"; and {len(open_) - 4} more" if len(open_) > 4 else ""
    return ReportFinding("highest AO", head, f"Not shown to be more accurate than {reasons}{more}.{few}")


def _not_shown(trial: Trial, best: Accuracy, other: Accuracy, results: Results) -> str | None:
    """Why the best is not shown to be better than the other; None where it is."""
    for found in results.comparisons:
        delta, pair = found.value.delta_ao, (side_identity(found.value.a), side_identity(found.value.b))
        if delta is None or comparison_trial(found.value) != trial or set(pair) != {best.who, other.who}:
            continue
        if delta.verdict == ("better" if pair[1] == best.who else "worse"):
            return None
        return f"paired runs: {_points(delta)} for {pair[1].label}, {delta.verdict}"
    if best.interval is not None and other.interval is not None:
        return (
            None if best.interval[0] > other.interval[1] else "their intervals overlap; `edgetrack compare` pairs them"
        )
    return "never paired; `edgetrack compare` does"


def _verdict(found: CompareRecord, results: Results) -> ReportFinding:
    """What B is worth against A: AO by paired runs, speed where one benchmark has both."""
    a, b, delta = side_identity(found.a), side_identity(found.b), found.delta_ao
    head = f"{b.label} in place of {a.label}"
    where = f"on {comparison_trial(found).label}"
    apart = ""
    if found.agreement is not None:
        diverged, count = found.agreement.diverged, found.agreement.sequences
        apart = f" Fed their own boxes they diverge in {diverged} of {counted(count, 'sequence')}."
    ratio = _ratio_of(b, a, results)
    pace = "The two were not measured in one benchmark" if ratio is None else ratio.sentence()
    if delta is None:
        return ReportFinding("undecided", head, f"Too few paired runs {where} to tell its cost. {pace}.{apart}")
    cost = f"{_points(delta)} of AO by {counted(delta.runs, 'paired run')} {where}: {_said(delta)}"
    return ReportFinding(_kind(delta, ratio), head, f"{pace}. {cost}.{apart}")


def _sides_track(found: CompareRecord) -> bool:
    return side_identity(found.a).tracks and side_identity(found.b).tracks


def _kind(delta: Difference, ratio: Faster | None) -> FindingKind:
    quick = ratio is not None and ratio.shown
    known = ratio is not None and ratio.interval is not None
    if delta.verdict == "better":
        return "worth it" if quick else "a trade" if known else "undecided"
    if known and not quick:
        return "not worth it"
    if delta.verdict == "worse":
        return "a trade" if quick else "undecided"
    return "worth it" if quick and delta.not_worse else "undecided"


def _said(delta: Difference) -> str:
    if delta.verdict == "equal":
        return f"equal within {POINTS * delta.margin:g}"
    if delta.verdict == "undecided":
        return (
            "undecided" if delta.more_runs is None else f"undecided, about {delta.more_runs} more runs would settle it"
        )
    return delta.verdict


def _points(delta: Difference) -> str:
    value, low, high = (POINTS * number for number in (delta.value, delta.low, delta.high))
    return f"{value:+.2f} points ({low:+.2f} to {high:+.2f})"


def _ratio_of(b: Identity, a: Identity, results: Results) -> Faster | None:
    """How much faster B is than A, from the first benchmark that has both."""
    for bench in results.benchmarks:
        by_name = {speed_identity(result): result for result in bench.value.results}
        if a in by_name and b in by_name:
            return faster(by_name[b], by_name[a])
    return None


def _not_worth_it(bench: Sourced[BenchRecord], results: Results) -> Iterator[ReportFinding]:
    """Candidates that are slower than one that computes at least as exactly."""
    judged = [found.value for found in results.comparisons if _sides_track(found.value)]
    compared = {(side_identity(found.a), side_identity(found.b)) for found in judged}
    here = f" in {bench.source}" if len(results.benchmarks) > 1 else ""
    for result in bench.value.results:
        if is_reference(result):
            continue
        interval = result.vs_pytorch_interval.track
        if interval is not None and interval[1] < 1:
            yield ReportFinding(
                "not worth it",
                f"{result.label}{here}",
                f"It is slower than PyTorch here: {result.vs_pytorch.track or 0.0:.2f}{_span(interval)} times as fast.",
            )
        plain = _plain(result, bench.value.results)
        if plain is not None and (speed_identity(plain), speed_identity(result)) not in compared:
            yield _lowered(result, plain, here)
        rival = _rival(result, bench.value.results)
        if rival is not None:
            ratio = faster(rival, result)
            if ratio is not None and ratio.shown:
                yield ReportFinding(
                    "not worth it",
                    f"{result.label}{here}",
                    f"{rival.label} computes the same and is {ratio.describe()} times as fast here: useful only where "
                    "that one cannot run.",
                )


def _lowered(result: BenchResult, plain: BenchResult, here: str) -> ReportFinding:
    """A lower precision whose accuracy nobody compared."""
    head = f"{result.label} in place of {plain.label}{here}"
    ratio = faster(result, plain)
    smaller = (
        f" Its files take {result.size_mb:.1f} MiB against {plain.size_mb:.1f}."
        if result.size_mb < plain.size_mb
        else ""
    )
    if ratio is not None and ratio.shown:
        return ReportFinding(
            "undecided",
            head,
            f"{ratio.sentence()}. Its cost in AO is not known yet: edgetrack compare {plain.label} "
            f"{result.label} --dataset DATASET.{smaller}",
        )
    if ratio is None or ratio.interval is None:
        return ReportFinding("undecided", head, f"Too few rounds to say which is faster; raise --rounds.{smaller}")
    return ReportFinding("not worth it", head, f"{ratio.sentence()}, so it buys no speed here.{smaller}")


def _plain(result: BenchResult, results: Sequence[BenchResult]) -> BenchResult | None:
    """The same tracker and target in full precision, where this is a lower one."""
    if result.precision == "fp32" and result.hint is None:
        return None
    for other in results:
        same = _system(other) == _system(result) and other.target == result.target
        if same and other.precision == "fp32" and other.hint is None:
            return other
    return None


def _rival(result: BenchResult, results: Sequence[BenchResult]) -> BenchResult | None:
    """The fastest one that computes the same on another target."""
    key = (*_system(result), result.precision, result.hint)
    same = [other for other in by_speed(results) if (*_system(other), other.precision, other.hint) == key]
    return same[0] if same and same[0] is not result and not is_reference(same[0]) else None


def _system(result: BenchResult) -> tuple[str, dict[str, Scalar], str]:
    """What decides what a bundle computes, whatever runs it."""
    return result.tracker, result.overrides, result.weights


def _careful(results: Results) -> Iterator[ReportFinding]:
    """Reasons to read these figures with care."""
    untrained, partial, doubted = [], [], []
    for bench in results.benchmarks:
        ours = [result for result in bench.value.results if not is_reference(result)]
        names = [result.label for result in ours if not speed_identity(result).tracks]
        codes = sorted({w.code for result in bench.value.results for w in result.warnings} - {"untrained-weights"})
        untrained += [f"{_joined(names)} in {bench.source}"] if names else []
        partial += [] if bench.value.complete else [bench.source]
        doubted += [f"{_joined(codes)} in {bench.source}"] if codes else []
    if untrained:
        text = f"Untrained weights: {'; '.join(untrained)}."
        yield ReportFinding("careful", "BenchResult and size hold, boxes mean nothing", text)
    if partial:
        yield ReportFinding("careful", "Rounds are missing", f"Interrupted: {_joined(partial)}.")
    if doubted:
        text = f"See Warnings: {'; '.join(doubted)}."
        yield ReportFinding("careful", "The benchmark itself warns", text)
    broken = sum(
        len(one.failures)
        for group in (
            [bench.value for bench in results.benchmarks],
            [result for record in results.evaluations for result in record.value.results],
            [found.value for found in results.comparisons],
        )
        for one in group
    )
    if broken:
        yield ReportFinding("careful", f"{broken} failed", "What failed, and why, is listed under Warnings.")
    if len({bench.value.machine.to_json() for bench in results.benchmarks}) > 1:
        text = "The benchmarks are of different machines or moments."
        yield ReportFinding("careful", "Compare within a benchmark, not across", text)


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _span(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" ({interval[0]:.2f}-{interval[1]:.2f})"
