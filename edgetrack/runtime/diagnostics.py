"""What a tracker reports of its inside, frame by frame: weights of a gate, and their summary over many frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from edgetrack.arrays import Floats
from edgetrack.runtime.trackers.base import Diagnostics

FACTORS = (0.5, 0.7, 1.0, 1.3, 2.0)
MOST_SENTENCES = 6
MOST_STRETCHES = 120
MOST_KEPT = 2880
"""Stretches of all gates together."""
EVERY = 100
"""Frames between two values of a figure's course."""
DiagnosticLog = dict[str, dict[str, list[float]]]
"""Gate -> part -> its weight in each frame, 0..1."""


class AtTemperature(msgspec.Struct, frozen=True, kw_only=True):
    """The same logits at a temperature `factor` times the one of the tracker."""

    factor: float
    entropy: float
    mean: dict[str, float]


class DiagnosticSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A gate, or a figure of one part, over frames.

    Attributes:
        frames: how many frames count: those whose weights are finite.
        largest: share of frames in which a part had the largest weight; the first of equal ones counts.
        mean: mean weight of each part.
        entropy: mean over frames, 0 where one part has all, 1 where all have the same.
        every_100: a figure of one part after 100 frames, 200, and so on, of one run; empty for a gate, and of several.
        temperatures: the weights at other temperatures of the softmax; what the tracker would have done is not known.
        course: part -> its mean weight in equal stretches of the frames, one after another; None where it is not kept.
    """

    frames: int
    largest: dict[str, float]
    mean: dict[str, float]
    entropy: float
    temperatures: list[AtTemperature]
    course: dict[str, list[float]] | None = None
    every_100: list[float] = []


def add_frame(log: DiagnosticLog, diagnostics: Diagnostics) -> None:
    """Add a frame's weights; a gate with NaN or infinity in it is left out."""
    for name, parts in diagnostics.items():
        if np.isfinite(list(parts.values())).all():
            gate = log.setdefault(name, {part: [] for part in parts})
            for part, share in parts.items():
                gate[part].append(float(share))


def merged(runs: Sequence[DiagnosticLog]) -> DiagnosticLog:
    """The frames of several runs, one after another."""
    found: DiagnosticLog = {}
    for run in runs:
        for name, parts in run.items():
            gate = found.setdefault(name, {part: [] for part in parts})
            for part, values in parts.items():
                gate.setdefault(part, []).extend(values)
    return found


def summarize(log: DiagnosticLog, *, course: bool = False, one_run: bool = True) -> dict[str, DiagnosticSummary]:
    """Of each gate with a frame; with `course` also over the frames. Frames of several runs have no time in common."""
    # A tracker of hundreds of gates gets fewer stretches each.
    stretches = max(1, min(MOST_STRETCHES, MOST_KEPT // max(len(log), 1))) if course else 0
    return {name: _summary(parts, stretches, one_run) for name, parts in log.items() if any(parts.values())}


def entropy(shares: Floats) -> Floats:
    """Of each row (frames, parts): 0 where one part has all, 1 where all have the same."""
    parts = shares.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(shares > 0, shares * np.log(shares), 0.0)
    return np.asarray(-terms.sum(axis=1) / np.log(parts)) if parts > 1 else np.zeros(len(shares))


def tempered(shares: Floats, factor: float) -> Floats:
    """softmax(z / (factor tau)) from softmax(z / tau), rows (frames, parts).

    A share of 0 stays 0: how far below its logit was, it does not say.
    """
    # z / tau is log(share) up to a number for each row, which a softmax does not see.
    with np.errstate(divide="ignore"):
        logits = np.log(shares) / factor
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _summary(parts: Mapping[str, Sequence[float]], stretches: int, one_run: bool) -> DiagnosticSummary:
    figure = len(parts) == 1
    shares = np.array(list(parts.values()), np.float64).T
    counts = np.bincount(shares.argmax(axis=1), minlength=len(parts)) / len(shares)
    return DiagnosticSummary(
        frames=len(shares),
        largest=dict(zip(parts, map(float, counts), strict=True)),
        mean=_means(parts, shares),
        entropy=float(entropy(shares).mean()),
        temperatures=[] if figure else [_at(parts, shares, factor) for factor in FACTORS],
        course=_course(parts, shares, stretches) if stretches else None,
        every_100=list(map(float, shares[EVERY - 1 :: EVERY, 0])) if figure and one_run else [],
    )


def _course(parts: Mapping[str, Sequence[float]], shares: Floats, stretches: int) -> dict[str, list[float]]:
    pieces = np.array_split(shares, min(stretches, len(shares)))
    means = np.array([piece.mean(axis=0) for piece in pieces]).T
    return {part: [round(float(value), 4) for value in row] for part, row in zip(parts, means, strict=True)}


def _at(parts: Mapping[str, Sequence[float]], shares: Floats, factor: float) -> AtTemperature:
    other = tempered(shares, factor)
    return AtTemperature(factor=factor, entropy=float(entropy(other).mean()), mean=_means(parts, other))


def _means(parts: Mapping[str, Sequence[float]], shares: Floats) -> dict[str, float]:
    return dict(zip(parts, map(float, shares.mean(axis=0)), strict=True))


def sentences(found: Mapping[str, DiagnosticSummary]) -> list[str]:
    """A line of text for each gate; one for all of them where there are more than `MOST_SENTENCES`."""
    if len(found) <= MOST_SENTENCES:
        return [sentence(name, summary) for name, summary in found.items()]
    names, frames = list(found), max(summary.frames for summary in found.values())
    decided = sorted(found, key=lambda name: found[name].entropy)[:MOST_SENTENCES]
    most = []
    for name in decided:
        mean = found[name].mean
        part = max(mean, key=lambda part: mean[part])
        most.append(f"{name}: {part} {mean[part]:.2f}")
    entropies = [summary.entropy for summary in found.values()]
    return [
        f"{len(found)} gates over {frames} frames, {names[0]} to {names[-1]}: entropy {np.mean(entropies):.2f} of 1 on "
        f"average; the most decided {'; '.join(most)}"
    ]


def sentence(name: str, summary: DiagnosticSummary) -> str:
    """One line of text."""
    if len(summary.mean) == 1:
        ((part, mean),) = summary.mean.items()
        course = ", ".join(f"{value:.3f} after {EVERY * n}" for n, value in enumerate(summary.every_100, 1))
        return f"{name} over {summary.frames} frames: {part} {mean:.3f} in the mean" + (f"; {course}" if course else "")
    order = sorted(summary.mean, key=lambda part: -summary.largest[part])
    shares = ", ".join(f"{part} {summary.mean[part]:.2f} (largest in {summary.largest[part]:.0%})" for part in order)
    other = ", ".join(f"{at.entropy:.2f} at {at.factor:g} x" for at in summary.temperatures if at.factor != 1)
    line = f"{name} over {summary.frames} frames: {shares}; entropy {summary.entropy:.2f} of 1"
    return f"{line}, at other temperatures {other}"
