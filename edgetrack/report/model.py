"""The results that a report is made from: read, checked, and matched, so that an accuracy goes with its speed.

A file is recognised by what is in it, and nothing in it is trusted: text loses control and direction characters and is
cut to what a page can show, numbers are finite and within what can be drawn, records are no larger than a page.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from edgetrack.benchmark.record import BenchRecord, BenchResult
from edgetrack.bundle.reader import bundle_label
from edgetrack.capabilities import reference_target
from edgetrack.decoding import converted
from edgetrack.errors import EdgetrackError, UsageError
from edgetrack.evaluation.comparison import CompareRecord, CompareSide
from edgetrack.evaluation.protocols.anchored import Difference
from edgetrack.evaluation.results import EvalRecord
from edgetrack.io import BAD_JSON, read_bytes
from edgetrack.presentation.sanitize import printable
from edgetrack.quantization.accuracy_control import Sensitivity
from edgetrack.system.timeline import Timeline
from edgetrack.tuning.record import TuneRecord

_T = TypeVar("_T")
UNTRAINED = "untrained"
LARGEST_NUMBER = 1e12
LONGEST_TEXT = 2000
DEEPEST_FOLDER = 5
DEEPEST_VALUE = 40
FEWEST_FRAMES = 10
"""Runs of fewer only show that something runs: nothing is drawn or concluded from them."""
MOST_FILES = 20_000
MOST_RESULTS = 200
MOST_SEQUENCES = 5000
MOST_ATTRIBUTES = 100
MOST_SAMPLES = 2_000_000
MOST_WINDOWS = 5000
_MARKS: tuple[tuple[type[Any], frozenset[str]], ...] = (
    (BenchRecord, frozenset({"machine", "settings", "source", "results"})),
    (CompareRecord, frozenset({"a", "b", "dataset", "sequences"})),
    (Sensitivity, frozenset({"stages", "first", "last", "max_drop"})),
    (TuneRecord, frozenset({"entries", "wishes", "rounds_ms"})),
    (EvalRecord, frozenset({"results"})),
)
_EXPECTED = (
    "expected what `edgetrack bench`, `eval`, `compare` or `tune` wrote with --output, or a bundle's sensitivity.json"
)


@dataclass(frozen=True)
class Sourced(Generic[_T]):
    """A record, and the file that it was read from, as it was named."""

    source: str
    value: _T


@dataclass(frozen=True)
class Skipped:
    """A file that looked like a result and is left out, and why."""

    source: str
    reason: str


@dataclass(frozen=True)
class Results:
    """All that was read, each kind in the order given."""

    benchmarks: tuple[Sourced[BenchRecord], ...] = ()
    evaluations: tuple[Sourced[EvalRecord], ...] = ()
    comparisons: tuple[Sourced[CompareRecord], ...] = ()
    sensitivities: tuple[Sourced[Sensitivity], ...] = ()
    tunings: tuple[Sourced[TuneRecord], ...] = ()
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
    """What was tracked: figures of two trials are never compared."""

    dataset: str
    sequences: int
    limit: int | None

    @property
    def label(self) -> str:
        """Human-readable, such as `eval (10 sequences)`."""
        cut = "" if self.limit is None else f" of up to {self.limit} frames"
        return f"{self.dataset} ({self.sequences} sequence{'' if self.sequences == 1 else 's'}{cut})"


@dataclass(frozen=True)
class Accuracy:
    """AO of one pass, 0..1.

    Attributes:
        who: the bundle.
        ao: mean over the trial; `interval`: 95 % over its sequences, None where it is not known.
        streaming: AO by frames per second of the camera, where that was evaluated.
        frames: that were tracked.
        auc: of the success curve, 0..1, and `auc_interval`: None where only a comparison knows the bundle.
        parameters: of its network; None where that is not known.
        own: the figures that the data set's papers report instead, by name, see `EvalResult.own_figures`.
    """

    who: Identity
    ao: float
    interval: tuple[float, float] | None
    streaming: tuple[tuple[float, float], ...]
    frames: int
    auc: float | None = None
    auc_interval: tuple[float, float] | None = None
    parameters: int | None = None
    own: tuple[tuple[str, float | None], ...] = ()


def compared_frames(found: CompareRecord) -> int:
    """The frames of a comparison's sequences."""
    return sum(one.frames for one in found.sequences)


def is_smoke(result: BenchResult) -> bool:
    """Whether so few frames were measured that a figure of them says nothing."""
    return result.latency_ms.track.count < FEWEST_FRAMES


def by_speed(results: Sequence[BenchResult]) -> list[BenchResult]:
    """Fastest first."""
    return sorted(results, key=lambda result: (result.latency_ms.track.p50, result.label))


def is_reference(result: BenchResult) -> bool:
    """Whether this is the published computation, which the others are compared with."""
    return result.target == reference_target().name


def speed_identity(result: BenchResult) -> Identity:
    """Of a benchmark's candidate."""
    return Identity(result.bundle, result.hint, result.weights)


def side_identity(side: CompareSide) -> Identity:
    """Of a side of a comparison."""
    return Identity(side.bundle, side.hint, side.weights)


def comparison_trial(found: CompareRecord) -> Trial:
    """What a comparison tracked."""
    return Trial(found.dataset, len(found.sequences), found.limit)


def accuracies(results: Results) -> dict[Trial, dict[Identity, Accuracy]]:
    """AO by trial and bundle; an evaluation's figure goes before a comparison's of the same."""
    found: dict[Trial, dict[Identity, Accuracy]] = {}
    for trial, accuracy in (*_evaluated(results), *_compared(results)):
        known = found.setdefault(trial, {})
        earlier = known.get(accuracy.who)
        if earlier is None or (accuracy.streaming and not earlier.streaming):
            known[accuracy.who] = accuracy
    return found


def meaningful(results: Results) -> dict[Trial, dict[Identity, Accuracy]]:
    """The same without bundles whose weights are random, without smoke runs, and without trials of such alone."""
    kept = {
        trial: {who: one for who, one in known.items() if who.tracks and one.frames >= FEWEST_FRAMES}
        for trial, known in accuracies(results).items()
    }
    return {trial: known for trial, known in kept.items() if known}


def read_results(paths: Sequence[Path]) -> Results:
    """Read files, and whatever results lie in folders; a folder's other files are passed over.

    Raises:
        UsageError: a path that does not exist, or nothing was found.
        EdgetrackError: a file that was named cannot be read or is no result.
    """
    found: list[Sourced[Any]] = []
    skipped: list[Skipped] = []
    seen: set[Path] = set()
    for path in paths:
        if path.is_dir():
            _read_folder(path, found, skipped, seen)
        elif path.is_file():
            record = read_file(path)
            if record is None:
                raise EdgetrackError(f"{path} is no result that is known; {_EXPECTED}")
            found += [] if path.resolve() in seen else [Sourced(str(path), record)]
            seen.add(path.resolve())
        else:
            raise UsageError(f"{path} does not exist; {_EXPECTED}, or a folder of such files")
    if not found:
        raise UsageError(
            f"no results in {', '.join(map(str, paths))}; make some first, such as: "
            "edgetrack bench BUNDLE --output out/bench.json"
            + "".join(f"\n  left out: {one.source}: {one.reason}" for one in skipped)
        )

    def of_kind(kind: type[_T]) -> tuple[Sourced[_T], ...]:
        return tuple(one for one in found if isinstance(one.value, kind))

    kinds = of_kind(BenchRecord), of_kind(EvalRecord), of_kind(CompareRecord), of_kind(Sensitivity)
    return Results(*kinds, tunings=of_kind(TuneRecord), skipped=tuple(skipped))


def read_file(path: Path) -> Any:
    """The record in a file; None where it is none of ours.

    Raises:
        EdgetrackError: it cannot be read, or looks like one of ours and is not.
    """
    try:
        plain = msgspec.json.decode(read_bytes(path))
    except OSError as error:
        raise EdgetrackError(f"{path} cannot be read: {error.strerror or error}; {_EXPECTED}") from error
    except BAD_JSON:
        return None
    keys = plain.keys() if isinstance(plain, Mapping) else set()
    kind = next((kind for kind, marks in _MARKS if marks <= keys), None)
    if kind is None:
        return None

    def refused(words: str) -> EdgetrackError:
        return EdgetrackError(f"{path} looks like a result of edgetrack, but: {words}; {_EXPECTED}")

    try:
        cleaned = clean(plain)
    except ValueError as error:
        raise refused(str(error)) from None
    record = converted(cleaned, kind, refused)
    if record.schema != 1:
        raise EdgetrackError(f"{path} is a result of schema {record.schema}; this version reads schema 1")
    _CHECKS[kind](record, str(path))
    return record


def clean(value: Any, depth: int = 0) -> Any:
    """The same data with printable text.

    Raises:
        ValueError: a number that is not finite or far too large, or data nested deeper than any record.
    """
    if depth > DEEPEST_VALUE:
        raise ValueError(f"it is nested deeper than {DEEPEST_VALUE} levels")
    if isinstance(value, str):
        return printable(value, LONGEST_TEXT)
    if isinstance(value, (int, float)):
        if not math.isfinite(value) or abs(value) > LARGEST_NUMBER:
            raise ValueError(f"a number is {str(value)[:30]}; expected a finite one up to {LARGEST_NUMBER:g}")
        return value
    if isinstance(value, list):
        return [clean(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {printable(key, LONGEST_TEXT): clean(item, depth + 1) for key, item in value.items()}
    return value


def _evaluated(results: Results) -> Iterator[tuple[Trial, Accuracy]]:
    for record in results.evaluations:
        for result in record.value.results:
            if result.ao is None:
                continue
            streaming = result.streaming
            yield (
                Trial(result.dataset, len(result.sequences), result.limit),
                Accuracy(
                    who=Identity(result.bundle, result.precision_hint, result.weights),
                    ao=result.ao,
                    interval=result.interval.get("ao"),
                    streaming=() if streaming is None or streaming.ao is None else ((streaming.rate, streaming.ao),),
                    frames=result.frames,
                    auc=result.auc,
                    auc_interval=result.interval.get("auc"),
                    parameters=result.parameters,
                    own=tuple(result.own_figures.items()),
                ),
            )


def _compared(results: Results) -> Iterator[tuple[Trial, Accuracy]]:
    for record in results.comparisons:
        for side in (record.value.a, record.value.b):
            if side.ao is not None:
                one = Accuracy(side_identity(side), side.ao, None, (), compared_frames(record.value))
                yield comparison_trial(record.value), one


def _read_folder(folder: Path, found: list[Sourced[Any]], skipped: list[Skipped], seen: set[Path]) -> None:
    for count, path in enumerate(_files_in(folder)):
        if count == MOST_FILES:
            raise UsageError(f"{folder} holds more than {MOST_FILES} JSON files; give the results themselves")
        if path.resolve() in seen:
            continue
        seen.add(path.resolve())
        source = printable(str(path), LONGEST_TEXT)
        try:
            record = read_file(path)
        except EdgetrackError as error:
            skipped.append(Skipped(source, printable(str(error), LONGEST_TEXT)))
            continue
        if record is not None:
            found.append(Sourced(source, record))


def _files_in(folder: Path) -> Iterator[Path]:
    """JSON files in a fixed order; links to folders are not followed."""
    for here, folders, names in os.walk(folder):
        depth = len(Path(here).relative_to(folder).parts)
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if depth < DEEPEST_FOLDER else []
        for name in sorted(names):
            path = Path(here, name)
            if path.suffix == ".json" and path.is_file():
                yield path


def _check_benchmark(record: BenchRecord, source: str) -> None:
    _few(record.results, MOST_RESULTS, "results", source)
    _few(record.failures, MOST_RESULTS, "failures", source)
    if record.telemetry is not None:
        _check_timeline(record.telemetry, source)
    for result in record.results:
        _check_result(result, f"{source}: {result.label}")


def _check_result(result: BenchResult, where: str) -> None:
    samples: dict[str, list[list[float]]] = msgspec.structs.asdict(result.samples_ms)
    if sum(len(each) for rounds in samples.values() for each in rounds) > MOST_SAMPLES:
        raise EdgetrackError(f"{where} has more than {MOST_SAMPLES} samples; that is more than a page can show")
    for name, rounds in samples.items():
        for each in rounds:
            _within(each, 0, None, f"a sample of {name}", where)
    if not any(samples["track"]) or not all(samples["track"]):
        raise EdgetrackError(f"{where} has no samples of track in some round; measure it again with `edgetrack bench`")
    latency = result.latency_ms
    for speed in (latency.model, latency.track, latency.camera, latency.camera_ahead):
        if speed is not None:
            figures = (speed.p50, speed.p90, speed.p95, speed.p99, speed.min, speed.max, *(speed.interval or ()))
            _within(figures, 0, None, "a latency", where)
    _within(msgspec.structs.astuple(result.fps), 0, None, "a frame rate", where)
    _within(msgspec.structs.astuple(result.waterfall_ms), 0, None, "a stage's time", where)
    figures = (result.size_mb, result.load_ms, result.first_ms, result.cores_busy, result.threads)
    _within((*figures, result.memory_mb.peak_rss), 0, None, "a size or time", where)
    if latency.track.p50 <= 0:
        raise EdgetrackError(f"{where} has a median track latency of 0 ms; expected more: measure it again")
    for energy in result.energy.values():
        _within((energy.mj_per_frame, energy.mean_w), 0, None, "an energy", where)
    if result.arrived is not None:
        _within((result.arrived.miss_rate, result.arrived.miss_rate_upper), 0, 1, "a share of late frames", where)
        _within((result.arrived.fps,), 0, None, "a frame rate", where)
    if result.together is not None:
        _few(result.together.latency_ms, MOST_RESULTS, "counts of targets", where)
        _within((one.p50 for one in result.together.latency_ms), 0, None, "a latency", where)
    if result.burst is not None:
        _within((result.burst.fps, result.burst.gain), 0, None, "a throughput", where)
    if result.soak is not None:
        _few(result.soak.windows, MOST_WINDOWS, "windows", where)
        for one in result.soak.windows:
            _within((one.p50, one.p99, one.rss_mb, one.start_s), 0, None, "a window's figure", where)


def _check_timeline(found: Timeline, source: str) -> None:
    _few(found.series, MOST_RESULTS, "sensors", source)
    _few(found.windows, MOST_WINDOWS, "windows", source)
    if len(found.t_s) * max(1, len(found.series)) > MOST_SAMPLES:
        raise EdgetrackError(f"{source} holds more than {MOST_SAMPLES} readings; that is more than a page can show")
    if any(len(series.values) != len(found.t_s) for series in found.series):
        raise EdgetrackError(f"{source}: a sensor has not as many readings as there are instants; it was damaged")
    if any(after < before for before, after in pairwise(found.t_s)):
        raise EdgetrackError(f"{source}: the instants of its readings are not in order; it was damaged")
    _within((*found.t_s[:1], found.interval_s), 0, None, "an instant", source)
    for window in found.windows:
        _within((window.start_s, window.busy_s), 0, window.end_s, "the part of a window", source)


def _check_evaluation(record: EvalRecord, source: str) -> None:
    _few(record.results, MOST_RESULTS, "results", source)
    for result in record.results:
        _few(result.sequences, MOST_SEQUENCES, "sequences", source)
        _few(result.failures, MOST_SEQUENCES, "failures", source)
        _few(result.attributes or (), MOST_ATTRIBUTES, "attributes", source)
        interval = result.interval.get("ao") or ()
        streaming = () if result.streaming is None else (result.streaming.ao,)
        _within((result.ao, *interval, *streaming), 0, 1, "an AO", source)
        _within((result.auc, *(result.interval.get("auc") or ())), 0, 1, "an AUC", source)
        _within((result.parameters,), 0, None, "a number of parameters", source)


def _check_comparison(record: CompareRecord, source: str) -> None:
    _few(record.sequences, MOST_SEQUENCES, "sequences", source)
    _few(record.failures, MOST_SEQUENCES, "failures", source)
    if sum(len(one.iou) for one in record.sequences) > MOST_SAMPLES:
        raise EdgetrackError(f"{source} holds more than {MOST_SAMPLES} frames; that is more than a page can show")
    _within((record.a.ao, record.b.ao), 0, 1, "an AO", source)
    _check_difference(record.delta_ao, source)
    for one in record.sequences:
        where = f"{source}: sequence {one.name}"
        _within((*one.iou, one.mean_iou, one.ao_a, one.ao_b), 0, 1, "an overlap", where)
        _within((one.first_divergence, one.recovery), 0, max(0, len(one.iou) - 1), "a frame number", where)


def _check_sensitivity(record: Sensitivity, source: str) -> None:
    _few(record.stages, MOST_RESULTS, "stages", source)
    for difference in (record.first, record.last, *(stage.gained for stage in record.stages)):
        _check_difference(difference, source)
    _within((record.fp32_ms, record.first_ms, record.last_ms, *record.hints_ms.values()), 0, None, "a time", source)


def _check_tuning(record: TuneRecord, source: str) -> None:
    _few((*record.entries, *record.left_out, *record.advice, *record.undecided), MOST_RESULTS, "lines", source)
    _within((record.seconds, record.race_seconds), 0, None, "a time", source)
    for one in record.entries:
        _within((one.track_ms, one.peak_rss_mb, one.load_ms, one.size_mb), 0, None, "a size or time", source)
        _check_difference(one.ao, source)


def _check_difference(found: Difference | None, source: str) -> None:
    if found is not None:
        _within((found.value, found.low, found.high), -1, 1, "a difference of AO", source)
        _within((found.margin,), 0, 1, "a margin", source)


_CHECKS: dict[type[Any], Any] = {
    BenchRecord: _check_benchmark,
    EvalRecord: _check_evaluation,
    CompareRecord: _check_comparison,
    Sensitivity: _check_sensitivity,
    TuneRecord: _check_tuning,
}
"""What a record must hold to be drawn, beyond its types: ranges, counts, rounds that fit each other."""


def _few(items: Sequence[object], most: int, what: str, source: str) -> None:
    if len(items) > most:
        raise EdgetrackError(f"{source} holds {len(items)} {what}; a page shows up to {most}")


def _within(values: Iterable[float | None], low: float, high: float | None, what: str, where: str) -> None:
    for value in values:
        if value is not None and (value < low or (high is not None and value > high)):
            span = f"at least {low:g}" if high is None else f"{low:g} to {high:g}"
            raise EdgetrackError(f"{where}: {what} is {value:g}; expected {span}")
