"""What a report is made from, and which accuracy belongs to which speed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from edgetrack.benchmark.record import BenchRecord as Benchmark
from edgetrack.benchmark.record import BenchResult as Speed
from edgetrack.bundle.ref import bundle_label
from edgetrack.evaluation.comparison_record import Comparison, Side
from edgetrack.evaluation.record import Record as Evaluation
from edgetrack.evaluation.record import Result as Evaluated
from edgetrack.evaluation.sensitivity import Sensitivity

Value = TypeVar("Value")
UNTRAINED = "untrained"


@dataclass(frozen=True)
class Sourced(Generic[Value]):
    """A record, and the file that it was read from, as it was named."""

    source: str
    value: Value


@dataclass(frozen=True)
class Skipped:
    """A file that looked like a result and is left out, and why."""

    source: str
    reason: str


@dataclass(frozen=True)
class Results:
    """All that was read, each kind in the order given."""

    benchmarks: tuple[Sourced[Benchmark], ...] = ()
    evaluations: tuple[Sourced[Evaluation], ...] = ()
    comparisons: tuple[Sourced[Comparison], ...] = ()
    sensitivities: tuple[Sourced[Sensitivity], ...] = ()
    skipped: tuple[Skipped, ...] = ()


class Identity(NamedTuple):
    """What ties a speed to an accuracy: the same bundle under the same hint with weights of the same origin."""

    bundle: str
    hint: str | None
    weights: str

    @property
    def label(self) -> str:
        """The bundle's name, with its hint where it has one."""
        return bundle_label(self.bundle, self.hint)

    @property
    def tracks(self) -> bool:
        """Whether its boxes mean something: random weights track nothing, whatever their AO."""
        return self.weights != UNTRAINED


class Trial(NamedTuple):
    """What was tracked: figures of two trials are never set beside each other."""

    dataset: str
    sequences: int
    limit: int | None

    @property
    def label(self) -> str:
        """For people, such as `eval (10 sequences)`."""
        cut = "" if self.limit is None else f" of up to {self.limit} frames"
        return f"{self.dataset} ({self.sequences} sequence{'' if self.sequences == 1 else 's'}{cut})"


@dataclass(frozen=True)
class Accuracy:
    """AO of one pass, 0..1.

    Attributes:
        who: the bundle.
        ao: mean over the trial; `interval`: 95 % over its sequences, None where it is not known.
        streaming: AO by frames per second of the camera, where that was evaluated.
    """

    who: Identity
    ao: float
    interval: tuple[float, float] | None
    streaming: tuple[tuple[float, float], ...]


def speed_identity(result: Speed) -> Identity:
    """Of a benchmark's contestant."""
    return Identity(result.bundle, result.hint, result.weights)


def side_identity(side: Side) -> Identity:
    """Of a side of a comparison."""
    return Identity(side.bundle, side.hint, side.weights)


def accuracies(results: Results) -> dict[Trial, dict[Identity, Accuracy]]:
    """AO by trial and bundle; what an evaluation says goes before what a comparison says of the same."""
    found: dict[Trial, dict[Identity, Accuracy]] = {}
    for trial, accuracy in (*_evaluated(results), *_compared(results)):
        known = found.setdefault(trial, {})
        earlier = known.get(accuracy.who)
        if earlier is None or (accuracy.streaming and not earlier.streaming):
            known[accuracy.who] = accuracy
    return found


def meaningful(results: Results) -> dict[Trial, dict[Identity, Accuracy]]:
    """The same without bundles whose weights are random, and without trials of such alone."""
    kept = {
        trial: {who: one for who, one in known.items() if who.tracks} for trial, known in accuracies(results).items()
    }
    return {trial: known for trial, known in kept.items() if known}


def comparison_trial(found: Comparison) -> Trial:
    """What a comparison tracked."""
    return Trial(found.dataset, len(found.sequences), found.limit)


def _evaluated(results: Results) -> Iterator[tuple[Trial, Accuracy]]:
    for record in results.evaluations:
        for result in record.value.results:
            if result.ao is not None:
                yield Trial(result.dataset, len(result.sequences), result.limit), _accuracy(result, result.ao)


def _accuracy(result: Evaluated, ao: float) -> Accuracy:
    streaming = result.streaming
    return Accuracy(
        who=Identity(result.bundle, result.precision_hint, result.weights),
        ao=ao,
        interval=result.interval.get("ao"),
        streaming=() if streaming is None or streaming.ao is None else ((streaming.rate, streaming.ao),),
    )


def _compared(results: Results) -> Iterator[tuple[Trial, Accuracy]]:
    for record in results.comparisons:
        for side in (record.value.a, record.value.b):
            if side.ao is not None:
                yield comparison_trial(record.value), Accuracy(side_identity(side), side.ao, None, ())
