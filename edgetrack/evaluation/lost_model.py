"""Calibrating when a target counts as lost: the features that earn their place, their logistic, and the threshold.

Beside the score, a feature is kept only where it raises the AUROC of sequences that the logistic was not fitted on
(leave one sequence out) by `LEAST_GAIN`. The threshold is the middle of those at which no more frames than the stated
share are false alarms, hysteresis included, and hardly a loss is missed that the highest of them finds. Where the score
does not separate, nothing is calibrated, and the reason is said.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from edgetrack.arrays import Array, Floats
from edgetrack.bundle.manifest import LostData, LostFeature, LostModel
from edgetrack.bundle.reader import BundleRef
from edgetrack.errors import CalibrationError, NotSeparableError, SequenceError, UsageError
from edgetrack.evaluation.config import EvalConfig
from edgetrack.evaluation.datasets import Dataset
from edgetrack.evaluation.datasets.clip import Clip, Flags
from edgetrack.evaluation.execution import collect
from edgetrack.evaluation.lost import OFF_TARGET, off_target
from edgetrack.evaluation.protocols.evidence import EvidenceRun, EvidenceTask
from edgetrack.io import readable
from edgetrack.presentation.progress import Progress, no_progress
from edgetrack.runtime.lost import FEATURES
from edgetrack.stats.detection import (
    Counts,
    ScoredFrames,
    auroc,
    auroc_interval,
    choose_threshold,
    ratio_interval,
    threshold_interval,
)
from edgetrack.stats.logistic import fit_logistic

LEAST_AUROC = 0.9
"""Below it no threshold catches half of the losses at a rate of false alarms that anyone would accept."""
LEAST_RECALL = 0.9
"""On sequences that were not calibrated on: with less, a flag that does not come up says little."""
LEAST_GAIN = 0.01
"""Of AUROC: what a feature has to bring."""
LEAST_OFF_TARGET = 30
"""Frames off target, in two sequences or more."""
_THRESHOLDS = 512
"""Confidences that are tried, spread over those that occur."""


class LostSequence(NamedTuple):
    """The frames of a sequence after the first, those that are annotated: features (frames,) and what was so."""

    features: dict[LostFeature, Floats]
    off: Flags

    def rows(self, names: Sequence[LostFeature]) -> Floats:
        """(frames, features)."""
        return np.stack([self.features[name] for name in names], axis=1)


class FeatureSet(msgspec.Struct, frozen=True):
    """A set of features and its AUROC on sequences that it was not fitted on."""

    features: tuple[LostFeature, ...]
    auroc: float


class HalfResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a threshold that was found on one half of the sequences does on the frames of the other."""

    threshold: float
    frames: int
    off_target: int
    recall: float
    false_alarms: float


class LostCalibration(msgspec.Struct, frozen=True, kw_only=True):
    """What was found: what `edgetrack calibrate lost --json` prints.

    Attributes:
        model: for the manifest.
        trials: every set of features that was tried, in order; the model's is the last one that was kept.
        auroc, recall, false_alarms: 95 % intervals over sequences; None where there are too few.
        halves: what a calibration on every other sequence does on the rest, both ways; empty where a half has frames of
            one kind only.
        off_target, frames: how many frames are off target, and how many there are.
    """

    schema: int = 1
    model: LostModel
    trials: tuple[FeatureSet, ...]
    auroc: tuple[float, float] | None
    recall: tuple[float, float] | None
    false_alarms: tuple[float, float] | None
    halves: tuple[HalfResult, ...]
    off_target: int
    frames: int

    @property
    def warning(self) -> str | None:
        """What speaks against trusting the threshold elsewhere; None where the halves bear it out."""
        if not self.halves:
            return "the threshold was not tried on sequences that it was not found on: add some, on and off target"
        worst = min(self.halves, key=lambda half: half.recall)
        if worst.recall >= LEAST_RECALL:
            return None
        return (
            f"the threshold misses losses: recall {worst.recall:.3f} on sequences that it was not found on, expected "
            f"{LEAST_RECALL} or more; a target that is not flagged may be lost all the same: allow more false alarms, "
            "or calibrate on more sequences, like those to track"
        )


def calibrate_lost(
    ref: BundleRef,
    datasets: Sequence[Dataset],
    *,
    rate: float,
    hysteresis: int,
    config: Callable[[Dataset], EvalConfig],
    progress: Progress = no_progress,
) -> LostCalibration:
    """Track annotated sequences and find when their target counts as lost.

    Args:
        ref: the bundle.
        datasets: annotated, together with frames on and off target.
        rate: share of frames on target that may be flagged, above 0 and below 1.
        hysteresis: frames in a row that change the state.
        config: how a data set is tracked.
        progress: is told of every run.

    Raises:
        NotSeparableError: the score does not tell frames on and off target apart.
        CalibrationError: there are too few frames to say.
        SequenceError: a sequence failed.
        EdgetrackError: the bundle cannot be run.
    """
    sequences: list[LostSequence] = []
    data: list[LostData] = []
    for dataset in datasets:
        ledger = collect(ref, config(dataset), progress, lambda name: [EvidenceTask()])
        if ledger.errors:
            name, error = next(iter(ledger.errors.items()))
            raise SequenceError(f"{name}: {error}; leave it out with --sequences, or repair it")
        runs = ledger.of(EvidenceTask)
        sequences += [sequence_of(clip, run) for clip, run in runs]
        digest = hashlib.sha256("".join(clip.digest for clip, _ in runs).encode()).hexdigest()
        where = readable(dataset.where if dataset.layout == "synthetic" else dataset.name)
        data.append(LostData(dataset=where, sequences=tuple(clip.name for clip, _ in runs), sha256=digest))
    found = fit(sequences, rate=rate, hysteresis=hysteresis)
    model = msgspec.structs.replace(
        found.model, bundle=ref.manifest.name, weights_sha256=ref.manifest.weights.sha256, data=tuple(data)
    )
    return msgspec.structs.replace(found, model=model)


def parse_rate(text: str) -> float:
    """A share such as `0.5%` or `0.005`, above 0 and below 1.

    Raises:
        UsageError: it is none.
    """
    number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        rate = float(number) / (100 if percent else 1)
    except ValueError:
        rate = math.nan
    if not 0 < rate < 1:
        raise UsageError(f"--false-alarms {text}: expected a share above 0 and below 1, such as 0.5% or 0.005")
    return rate


def sequence_of(clip: Clip, run: EvidenceRun) -> LostSequence:
    """The frames of a run that count."""
    counted = slice(clip.every, len(run.boxes), clip.every)
    off = off_target(np.array(run.boxes, np.float64)[counted], clip.truth[counted], ~clip.visible[counted])
    features = {name: np.array([0.0, *values], np.float64)[counted] for name, values in run.features.items()}
    return LostSequence(features, off)


def fit(sequences: Sequence[LostSequence], *, rate: float, hysteresis: int) -> LostCalibration:
    """The model of these sequences, without its origin; arguments and errors as of `calibrate_lost`."""
    _require_frames(sequences, rate)
    trials = _select(sequences)
    best = max(trials, key=lambda trial: trial.auroc)
    kept = _kept(trials)
    if kept.auroc < LEAST_AUROC:
        raise NotSeparableError(
            f"the score does not separate: AUROC {kept.auroc:.3f} by {', '.join(kept.features)} (best of all that was "
            f"tried: {best.auroc:.3f} by {', '.join(best.features)}), expected {LEAST_AUROC} or more, where 0.5 is a "
            "coin's; no threshold of it can be trusted: use weights that track better, or another tracker"
        )
    weights, bias = _weights(sequences, kept.features)
    values = [_confidences(one, weights, bias) for one in sequences]
    thresholds = _thresholds(values)
    counts = _counts(sequences, values, thresholds, hysteresis)
    threshold = choose_threshold(thresholds, counts, rate)
    groups = [ScoredFrames(value, one.off) for value, one in zip(values, sequences, strict=True)]
    at = _counts(sequences, values, np.array([threshold]), hysteresis)
    model = LostModel(
        weights=weights,
        bias=bias,
        threshold=threshold,
        frames=hysteresis,
        interval=threshold_interval(thresholds, counts, rate),
        rate=rate,
        recall=float(at.hits.sum() / at.events.sum()),
        false_alarms=float(at.alarms.sum() / at.others.sum()),
        auroc=auroc(groups) or 0.0,
        bundle="",
        data=(),
    )
    halves = sequences[::2], sequences[1::2]
    return LostCalibration(
        model=model,
        trials=tuple(trials),
        auroc=auroc_interval(groups),
        recall=ratio_interval(at.hits[0], at.events),
        false_alarms=ratio_interval(at.alarms[0], at.others),
        halves=tuple(
            _other_half(one, other, kept.features, rate, hysteresis)
            for one, other in (halves, halves[::-1])
            if all(_has_both(half) for half in halves)
        ),
        off_target=int(at.events.sum()),
        frames=int(at.events.sum() + at.others.sum()),
    )


def _has_both(sequences: Sequence[LostSequence]) -> bool:
    return any(one.off.any() for one in sequences) and any((~one.off).any() for one in sequences)


def _other_half(
    one: Sequence[LostSequence],
    other: Sequence[LostSequence],
    names: tuple[LostFeature, ...],
    rate: float,
    hysteresis: int,
) -> HalfResult:
    """Calibrated on one half of the sequences, measured on the other."""
    weights, bias = _weights(one, names)
    values = [_confidences(sequence, weights, bias) for sequence in one]
    thresholds = _thresholds(values)
    threshold = choose_threshold(thresholds, _counts(one, values, thresholds, hysteresis), rate)
    values = [_confidences(sequence, weights, bias) for sequence in other]
    at = _counts(other, values, np.array([threshold]), hysteresis)
    return HalfResult(
        threshold=threshold,
        frames=int(at.others.sum() + at.events.sum()),
        off_target=int(at.events.sum()),
        recall=float(at.hits.sum() / at.events.sum()),
        false_alarms=float(at.alarms.sum() / at.others.sum()),
    )


def _counts(sequences: Sequence[LostSequence], values: Sequence[Floats], thresholds: Floats, hysteresis: int) -> Counts:
    """Frames that are flagged at each threshold."""
    flags = [flagged(value, thresholds, hysteresis) for value in values]
    alarms, hits = (
        np.array([flag[one.off == kind].sum(axis=0) for flag, one in zip(flags, sequences, strict=True)], np.float64)
        for kind in (False, True)
    )
    on, off = (np.array([(one.off == kind).sum() for one in sequences], np.float64) for kind in (False, True))
    return Counts(alarms.T, hits.T, on, off)


def flagged(confidence: Floats, thresholds: Floats, hysteresis: int) -> Flags:
    """bool (frames, thresholds): whether a `LostJudge` of each threshold holds the target lost; it starts found."""
    lost = np.zeros(len(thresholds), np.bool_)
    against = np.zeros(len(thresholds), np.int64)
    found = np.zeros((len(confidence), len(thresholds)), np.bool_)
    for frame, value in enumerate(confidence):
        low = value < thresholds
        against = np.where(low != lost, against + 1, 0)
        turned = against >= hysteresis
        lost = np.where(turned, low, lost)
        against[turned] = 0
        found[frame] = lost
    return found


def _require_frames(sequences: Sequence[LostSequence], rate: float) -> None:
    off = sum(int(one.off.sum()) for one in sequences)
    having = sum(bool(one.off.any()) for one in sequences)
    on = sum(int((~one.off).sum()) for one in sequences)
    if off < LEAST_OFF_TARGET or having < 2:
        raise CalibrationError(
            f"{off} frames of {having} sequences are off target (absent, or IoU below {OFF_TARGET}), expected "
            f"{LEAST_OFF_TARGET} or more of two or more: add sequences in which the target leaves or is hidden, "
            'such as "synthetic:exit?seed=1" "synthetic:occlusion?seed=1"'
        )
    # With no alarm in 3 / rate frames the rate is below `rate` at 95 % (the rule of three).
    if on < (least := math.ceil(3 / rate)):
        raise CalibrationError(
            f"{on} frames are on target; a rate of {rate:.2%} can be told from {least} on: add sequences, or allow "
            "more false alarms"
        )


def _select(sequences: Sequence[LostSequence]) -> list[FeatureSet]:
    """Add features to the score one at a time, the best of each turn, as long as it brings enough."""
    offered = [name for name in FEATURES if all(name in one.features for one in sequences)]
    kept: tuple[LostFeature, ...] = ("score",)
    trials = [FeatureSet(kept, _held_out(sequences, kept))]
    reached = trials[0].auroc
    while left := [name for name in offered if name not in kept]:
        turn = [FeatureSet((*kept, name), _held_out(sequences, (*kept, name))) for name in left]
        trials += turn
        best = max(turn, key=lambda trial: trial.auroc)
        if best.auroc < reached + LEAST_GAIN:
            break
        kept, reached = best.features, best.auroc
    return trials


def _kept(trials: Sequence[FeatureSet]) -> FeatureSet:
    """The last set of features that earned its place."""
    kept = trials[0]
    for size in sorted({len(trial.features) for trial in trials}):
        best = max((t for t in trials if len(t.features) == size), key=lambda trial: trial.auroc)
        if best.auroc >= kept.auroc + LEAST_GAIN:
            kept = best
    return kept


def _held_out(sequences: Sequence[LostSequence], names: tuple[LostFeature, ...]) -> float:
    """AUROC of every sequence by the logistic of all others; the score alone needs none."""
    values = []
    for index, one in enumerate(sequences):
        others = [other for place, other in enumerate(sequences) if place != index]
        weights, bias = _weights(others, names)
        values.append(ScoredFrames(_log_odds(one, weights, bias), one.off))
    return auroc(values) or 0.0


def _weights(
    sequences: Sequence[LostSequence], names: tuple[LostFeature, ...]
) -> tuple[dict[LostFeature, float], float]:
    if names == ("score",):
        return {"score": 1.0}, 0.0
    off = np.concatenate([one.off for one in sequences])
    found = fit_logistic(np.concatenate([one.rows(names) for one in sequences]), ~off)
    return dict(zip(names, map(float, found.weights), strict=True)), found.bias


def _log_odds(one: LostSequence, weights: dict[LostFeature, float], bias: float) -> Floats:
    odds: Floats = one.rows(tuple(weights)) @ np.array(list(weights.values())) + bias
    return odds


def _confidences(one: LostSequence, weights: dict[LostFeature, float], bias: float) -> Floats:
    confidences: Floats = 1 / (1 + np.exp(-np.clip(_log_odds(one, weights, bias), -700, 700)))
    return confidences


def _thresholds(values: Sequence[Floats]) -> Floats:
    """0, at which nothing is flagged, confidences that occur, and the next number after each: gaps have two ends."""
    occurring = np.unique(np.concatenate(values))
    spread: Array = np.unique(np.linspace(0, len(occurring) - 1, _THRESHOLDS).round().astype(int))
    chosen = occurring[spread]
    return np.unique(np.concatenate([[0.0], chosen, np.nextafter(chosen, 1.0)]))
