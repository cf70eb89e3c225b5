"""Many short runs of one sequence: restarts at anchor frames, forwards and backwards.

A full run is chaotic: one flipped decision changes all that follows, and ten full runs resolve no half point of AO.
Many short runs do. Anchors restart a tracker as in the VOT challenge since 2020 (Kristan et al., "The Eighth Visual
Object Tracking VOT2020 Challenge Results", ECCV workshops 2020); ours run a set number of frames, in both directions.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Sequence as Series
from dataclasses import dataclass
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from edgetrack.box import Box
from edgetrack.errors import SequenceError, UsageError
from edgetrack.evaluation.metrics import Values, overlaps
from edgetrack.evaluation.ope import TrackerLike
from edgetrack.evaluation.sequence import Boxes, Flags, Sequence
from edgetrack.media import Frame

Direction = Literal["forward", "backward"]


@dataclass(frozen=True)
class AnchorPlan:
    """Where runs start and how far they go.

    Attributes:
        spacing: frames from one anchor to the next; the first is frame 0.
        length: frames that a run goes, the first not counted. While a sequence is read, `length` + 1 of its frames are
            in memory (1280x720: 2.8 MB each).

    Raises:
        UsageError: either is below 1.
    """

    spacing: int
    length: int

    def __post_init__(self) -> None:
        for name, value in (("spacing", self.spacing), ("length", self.length)):
            if value < 1:
                raise UsageError(f"anchors' {name} {value}: expected 1 or more frames, such as 25 apart and 50 long")


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


class AnchoredRun(msgspec.Struct, frozen=True, kw_only=True):
    """All short runs of a sequence, by frame, forwards first; none where nothing is annotated."""

    sequence: str
    runs: list[AnchorRun]

    @property
    def values(self) -> Values:
        """float64 (runs,): mean IoU of each run, 0..1."""
        return np.array([run.ao for run in self.runs], np.float64)

    @property
    def ao(self) -> float | None:
        """The mean over the runs, 0..1; None where there are none."""
        return float(self.values.mean()) if self.runs else None


class Leg(NamedTuple):
    """A run that is to be made: from `anchor`, `frames` further, in steps of 1 or -1."""

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


def anchored(tracker: TrackerLike, sequence: Sequence, plan: AnchorPlan, limit: int | None = None) -> AnchoredRun:
    """Track a sequence, or its first `limit` frames, from every anchor forwards and backwards.

    Every frame is read once. Which runs are made depends on the annotation alone, so that those of two trackers pair.

    Args:
        tracker: `edgetrack.Tracker`, or anything with its `init` and `update`; it is restarted for each run.
        sequence: where its truth is withheld there is nothing to start from, and the result has no runs.
        plan: where and how far.
        limit: frames at most.

    Raises:
        SequenceError: the sequence has more or fewer frames than boxes.
        EdgetrackError: it cannot be opened or a frame cannot be read, or the tracker fails.
    """
    if not sequence.scored:
        return AnchoredRun(sequence=sequence.name, runs=[])
    total = len(sequence.truth) if limit is None else min(limit, len(sequence.truth))
    due: dict[int, list[Leg]] = defaultdict(list)
    for leg in legs(sequence.truth[:total], sequence.visible[:total], plan):
        due[max(leg.indices)].append(leg)
    kept: deque[Frame] = deque(maxlen=plan.length + 1)
    runs: list[AnchorRun] = []
    read = 0
    with sequence.open() as frames:
        for index, frame in enumerate(frames):
            if index == limit:
                break
            read += 1
            kept.append(frame)
            for leg in due.get(index, ()):
                run = _run(tracker, sequence, leg, [kept[at - index - 1] for at in leg.indices])
                runs.extend([run] if run is not None else [])
    if read != total:
        raise SequenceError(
            f"{sequence.name} has {read} frames and {len(sequence.truth)} boxes; cut the longer of the two"
        )
    return AnchoredRun(sequence=sequence.name, runs=sorted(runs, key=lambda r: (r.frame, r.direction != "forward")))


def legs(truth: Boxes, visible: Flags, plan: AnchorPlan) -> list[Leg]:
    """The runs that a plan makes of an annotation.

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


def _run(tracker: TrackerLike, sequence: Sequence, leg: Leg, frames: Series[Frame]) -> AnchorRun | None:
    """None where no frame after the first can be scored, or the true box lies outside the frame."""
    indices = list(leg.indices)
    truth, counted = sequence.truth[indices], sequence.visible[indices]
    counted[0] = False
    height, width = frames[0].shape[:2]
    x, y, w, h = map(float, truth[0])
    outside = x >= width or y >= height or x + w <= 0 or y + h <= 0
    if outside or not counted.any():
        return None
    tracker.init(frames[0], Box(x, y, w, h))
    found = np.array([truth[0], *(tuple(tracker.update(frame).box) for frame in frames[1:])], np.float64)
    ious = overlaps(found, truth, counted, sequence.protocol, (width, height))
    return AnchorRun(frame=leg.anchor, direction=leg.direction, ao=float(ious.mean()), frames=len(ious))
