"""Many short runs of one sequence from anchor frames, forwards and backwards, and the difference of two trackers.

A full run is chaotic: one flipped decision changes all that follows, and ten full runs resolve no half point of AO.
Many short runs do. Anchors restart a tracker as in the VOT challenge since 2020 (Kristan et al., "The Eighth Visual
Object Tracking VOT2020 Challenge Results", ECCV workshops 2020); ours run a set number of frames, in both directions.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import msgspec
import numpy as np

from edgetrack.arrays import Boxes, Floats
from edgetrack.box import Box
from edgetrack.errors import UsageError
from edgetrack.evaluation import ANCHOR_LENGTH, ANCHOR_SPACING
from edgetrack.evaluation.datasets.clip import Clip, Flags
from edgetrack.evaluation.metrics import overlaps
from edgetrack.evaluation.protocols import TrackerLike, follow, frame_size, frames_to_track
from edgetrack.media import Frame
from edgetrack.presentation.table import counted
from edgetrack.stats.bootstrap import mean_of_means, two_level_interval
from edgetrack.stats.verdict import DifferenceVerdict, judge_difference, runs_to_settle

Direction = Literal["forward", "backward"]
POINTS = 100
"""Points in an AO of 1."""


class AnchorRun(msgspec.Struct, frozen=True, kw_only=True):
    """One short run.

    Attributes:
        frame: the anchor, where the tracker is given the true box; counted from 0.
        direction: `forward` in the order of the frames, or `backward`.
        ao: mean IoU over the frames after the first in which the target is visible, 0..1.
        frames: how many these are.
    """

    frame: int
    direction: Direction
    ao: float
    frames: int


class AnchoredRuns(msgspec.Struct, frozen=True, kw_only=True):
    """All short runs of a sequence, by frame, forwards first; none where nothing is annotated."""

    sequence: str
    runs: list[AnchorRun]

    @property
    def values(self) -> Floats:
        """float64 (runs,): mean IoU of each run, 0..1."""
        return np.array([run.ao for run in self.runs], np.float64)

    @property
    def ao(self) -> float | None:
        """The mean over the runs, 0..1; None where there are none."""
        return float(self.values.mean()) if self.runs else None


class Leg(NamedTuple):
    """A planned run: from `anchor`, `frames` further, in steps of 1 or -1."""

    anchor: int
    step: int
    frames: int

    @property
    def indices(self) -> range:
        """The frames in the order in which they are tracked, the anchor first."""
        return range(self.anchor, self.anchor + self.step * (self.frames + 1), self.step)

    @property
    def direction(self) -> Direction:
        return "forward" if self.step > 0 else "backward"


@dataclass(frozen=True)
class Anchored:
    """Short runs from anchors, forwards and backwards; where the annotation is withheld there are none.

    Every frame is read once. Which runs are made depends on the annotation alone, so that those of two trackers pair.

    Attributes:
        spacing: frames from one anchor to the next; the first is frame 0.
        length: frames of a run, the first not counted. While a sequence is read, `length` + 1 of its frames are in
            memory (1280x720: 2.8 MB each).

    Raises:
        UsageError: either is below 1.
    """

    name: ClassVar[str] = "anchors"
    needs_truth: ClassVar[bool] = True
    result: ClassVar[type[AnchoredRuns]] = AnchoredRuns
    spacing: int = ANCHOR_SPACING
    length: int = ANCHOR_LENGTH

    def __post_init__(self) -> None:
        for name, value in (("spacing", self.spacing), ("length", self.length)):
            if value < 1:
                raise UsageError(f"anchors' {name} {value}: expected 1 or more frames, such as 25 apart and 50 long")

    @property
    def key(self) -> tuple[str | float, ...]:
        return "anchors", self.spacing, self.length

    def run(self, tracker: TrackerLike, clip: Clip, limit: int | None = None) -> AnchoredRuns:
        """See `Task.run`; the tracker is restarted for each run."""
        if not clip.scored:
            return AnchoredRuns(sequence=clip.name, runs=[])
        total = frames_to_track(clip, limit)
        due: dict[int, list[Leg]] = defaultdict(list)
        for leg in legs(clip.truth[:total], clip.visible[:total], self):
            due[max(leg.indices)].append(leg)
        kept: deque[Frame] = deque(maxlen=self.length + 1)
        runs: list[AnchorRun] = []
        for index, frame in follow(tracker, clip, limit):
            kept.append(frame)
            for leg in due.get(index, ()):
                run = _run(tracker, clip, leg, [kept[at - index - 1] for at in leg.indices])
                runs.extend([run] if run is not None else [])
        return AnchoredRuns(sequence=clip.name, runs=sorted(runs, key=lambda r: (r.frame, r.direction != "forward")))


def legs(truth: Boxes, visible: Flags, plan: Anchored) -> list[Leg]:
    """The runs from the anchors of an annotation.

    An anchor whose target is not visible moves on to the next frame where it is, and is dropped where that is the next
    anchor's. A run that the sequence's end cuts to less than half of its length is left out, since a tracker that was
    just given the true box is right for a few frames whatever it is worth.
    """
    good = visible & ~np.asarray(np.isnan(truth).any(axis=1))
    total = len(truth)
    shortest = max(1, math.ceil(min(plan.length, total - 1) / 2))
    made = []
    for planned in range(0, total, plan.spacing):
        anchor = next((at for at in range(planned, min(planned + plan.spacing, total)) if good[at]), None)
        if anchor is not None:
            ahead = Leg(anchor, 1, min(plan.length, total - 1 - anchor))
            made += [leg for leg in (ahead, Leg(anchor, -1, min(plan.length, anchor))) if leg.frames >= shortest]
    return made


def _run(tracker: TrackerLike, clip: Clip, leg: Leg, frames: Sequence[Frame]) -> AnchorRun | None:
    """None where no frame after the first can be scored, or the true box lies outside the frame."""
    indices = list(leg.indices)
    truth, counted = clip.truth[indices], clip.visible[indices]
    counted[0] = False
    width, height = frame_size(frames[0])
    x, y, w, h = map(float, truth[0])
    outside = x >= width or y >= height or x + w <= 0 or y + h <= 0
    if outside or not counted.any():
        return None
    tracker.init(frames[0], Box(x, y, w, h))
    found = np.array([truth[0], *(tuple(tracker.update(frame).box) for frame in frames[1:])], np.float64)
    ious = overlaps(found, truth, counted, clip.rules, (width, height))
    return AnchorRun(frame=leg.anchor, direction=leg.direction, ao=float(ious.mean()), frames=len(ious))


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """B minus A over the same short runs.

    Attributes:
        value: mean over sequences of the mean difference of paired runs, -1..1 (0.01 is one point of AO).
        low, high: its 95 % interval, bootstrapped over sequences and the runs within them.
        verdict: of B. `equal`: the interval lies within +-`margin`. `better`, `worse`: it lies on one side of 0 and not
            within the margin. `undecided`: none of these.
        runs, sequences: how many were paired.
        margin: what counts as equal, 0..1.
        more_runs: with `undecided`, how many further runs would probably settle it: the interval's half-width shrinks
            with 1 / sqrt(runs) where they come from further sequences; None otherwise and where no number would.
    """

    value: float
    low: float
    high: float
    verdict: DifferenceVerdict
    runs: int
    sequences: int
    margin: float
    more_runs: int | None

    @property
    def equal(self) -> bool:
        """Whether it is shown that the two differ by no more than the margin."""
        return self.verdict == "equal"

    @property
    def not_worse(self) -> bool:
        """Whether it is shown that B loses no more than the margin; it may gain more."""
        return self.low >= -self.margin

    def describe(self) -> str:
        """In points of AO, such as `-0.31 points (-0.52 to -0.10): worse (82 runs of 10 sequences)`."""
        value, low, high = (POINTS * number for number in (self.value, self.low, self.high))
        said: str = self.verdict
        if self.verdict == "equal":
            said = f"equal within {POINTS * self.margin:g}"
        elif self.verdict == "undecided" and self.more_runs is not None:
            said = f"undecided, about {self.more_runs} more runs would probably settle it"
        runs = f"{counted(self.runs, 'run')} of {counted(self.sequences, 'sequence')}"
        return f"{value:+.2f} points ({low:+.2f} to {high:+.2f}): {said} ({runs})"


def paired_difference(
    a_runs: Sequence[AnchoredRuns],
    b_runs: Sequence[AnchoredRuns],
    margin: float,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Difference:
    """B minus A, run by run from the same anchors.

    Args:
        a_runs, b_runs: of each tracker, one per sequence. Sequences that one of them lacks are left out.
        margin: what counts as equal, 0..1: 0.005 is half a point of AO.
        confidence, resamples, seed: of the bootstrap.

    Raises:
        UsageError: a margin that is no such number, a sequence twice, runs of a sequence that start at other anchors or
            were scored over other frames, or fewer than two pairs, since one pair has no spread.
    """
    check_margin(margin)
    groups = _paired(a_runs, b_runs)
    runs = sum(map(len, groups))
    if runs < 2:
        raise UsageError(
            f"{counted(runs, 'paired run')}; a difference needs 2 or more; give more sequences, or anchors closer by"
        )
    value = mean_of_means(groups)
    low, high = two_level_interval(groups, confidence=confidence, resamples=resamples, seed=seed)
    verdict = judge_difference(low, high, margin)
    return Difference(
        value=value,
        low=low,
        high=high,
        verdict=verdict,
        runs=runs,
        sequences=len(groups),
        margin=margin,
        more_runs=runs_to_settle(value, (high - low) / 2, margin, runs) if verdict == "undecided" else None,
    )


def check_margin(margin: float) -> None:
    """Check what counts as equal.

    Raises:
        UsageError: it is below 0 or not finite.
    """
    if not (math.isfinite(margin) and margin >= 0):
        raise UsageError(
            f"margin {margin:g} ({POINTS * margin:g} points): expected 0 or more, such as half a point, 0.005 of AO"
        )


def _paired(a_runs: Sequence[AnchoredRuns], b_runs: Sequence[AnchoredRuns]) -> list[Floats]:
    a_by, b_by = _by_name(a_runs), _by_name(b_runs)
    groups = []
    for name, a in a_by.items():
        b = b_by.get(name)
        if b is None:
            continue
        if [_start(run) for run in a.runs] != [_start(run) for run in b.runs]:
            raise UsageError(
                f"the runs of {name} do not pair: {len(a.runs)} and {len(b.runs)} of them, from other anchors or over "
                "other frames; run both trackers with the same anchors on the same annotation"
            )
        if a.runs:
            groups.append(np.asarray(b.values - a.values, np.float64))
    return groups


def _by_name(runs: Sequence[AnchoredRuns]) -> dict[str, AnchoredRuns]:
    found = {run.sequence: run for run in runs}
    if len(found) != len(runs):
        raise UsageError(f"{len(runs)} anchored runs of {counted(len(found), 'sequence')}; give each sequence once")
    return found


def _start(run: AnchorRun) -> tuple[int, str, int]:
    return run.frame, run.direction, run.frames
