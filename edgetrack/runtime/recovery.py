"""Judging whether a target is lost, and acting on it: wider, elsewhere, and only what the calibration trusts.

While the target is followed, nothing here changes the boxes of the published procedure. With `recover="expand"`, from a
loss on, each frame looks at one place of a round, around where the target is expected by now:

1. wider regions, each 1.5 times the one before, up to the whole frame;
2. a grid of regions over the frame, half a region apart, the nearest first: of the usual size, or 1.5 times that as
   often as it takes for a round to end soon.

After every fourth place comes the usual region where the target is expected: it often returns where it left.

A look leaves the window out, since the target may be anywhere. What it finds has to be confirmed by another around it,
at the target's own size and with the window, as frames are searched in which the target is followed: of those, the
confidence is calibrated. A frame so costs one search or two, and never more.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, get_args

import msgspec
import numpy as np

from edgetrack.box import Box
from edgetrack.bundle.manifest import LostModel, Manifest
from edgetrack.errors import BundleError, UnknownNameError, UsageError
from edgetrack.media.frames import Frame
from edgetrack.runtime.lost import OF_MAPS, LostJudge
from edgetrack.runtime.trackers.base import Decision, Procedure, StageTimer

Recover = Literal["expand"]
WIDER = 1.5
"""From one region to the next."""
DAMPING = 0.8
"""What each frame of coasting leaves of the velocity: in the end a target is expected 4 frames' path away."""
SMOOTHING = 0.3
"""Weight of the newest path in the velocity."""
MOST_CANDIDATES = 256
MOST_PLACES = 20
"""Of a grid: with all that comes before and between, a round takes about 30 frames."""
_BETWEEN = 4
"""Places from one look at the expected place to the next."""


class Proposal(NamedTuple):
    """What became of a detector's candidates.

    Attributes:
        confidences: of each, 0..1, in their order.
        accepted: the number of the one that is followed from now on; None where none can be trusted.
        box: that is followed, in pixels of the frame.
    """

    confidences: tuple[float, ...]
    accepted: int | None
    box: Box


class Place(NamedTuple):
    """Where to look: the centre, and how many times the usual region."""

    cx: float
    cy: float
    factor: float = 1.0


class Guard:
    """A procedure whose frames are judged by a calibrated model, and whose losses are acted on where that is asked.

    Attributes:
        judge: says what is lost.
        good: the last box that could be trusted; `velocity`: the path of its centre, smoothed, in pixels a frame.
        age: frames of searching so far; 0 while the target is followed.
    """

    def __init__(self, procedure: Procedure, model: LostModel, recover: Recover | None) -> None:
        self.procedure, self.judge, self.recovers = procedure, LostJudge(model), recover is not None
        # The model says what is lost from here on; a family that holds its box below the number goes on doing so.
        if not procedure.holds:
            procedure.lost_below = -math.inf
        self.restart()

    def restart(self) -> None:
        """Begin with a target that is where the procedure's state is."""
        self.judge.restart()
        self._begin(self.procedure.state)

    def _begin(self, box: Box) -> None:
        self.good, self.velocity, self.age = box, (0.0, 0.0), 0
        self.side = self.procedure.region
        self.places: Iterator[Place] = iter(())

    def update(self, frame: Frame, timer: StageTimer) -> Decision:
        """Find the target in the next frame, or search for it where it is lost."""
        if self.age:
            found, confidence = self._search(frame, timer)
            return found._replace(reason=self.judge.judge(confidence))
        before = self.procedure.state
        return self.judged(before, self.procedure.update(frame, timer))

    def judged(self, before: Box, found: Decision) -> Decision:
        """What the procedure has found and follows, as the model judges it; `before` is the box it searched around."""
        self.side = self.side or self.procedure.region
        confidence = self.judge.confidence(self.procedure, before, found)
        reason = self.judge.judge(confidence)
        if self.judge.trusts(confidence):
            self._follow(found.box)
        elif self.judge.lost and self.recovers:
            self.age, self.places = 1, iter(())
        return found._replace(reason=found.reason or reason)

    def propose(self, candidates: Sequence[Box], frame: Frame) -> Proposal:
        """See `Tracker.propose`."""
        if not 1 <= len(candidates) <= MOST_CANDIDATES:
            raise UsageError(f"{len(candidates)} candidates were proposed; give 1 to {MOST_CANDIDATES}")
        before, kept = self.procedure.state, self._kept()
        confidences = []
        for box in candidates:
            confidences.append(self._look(frame, box, _untimed)[1])
            self._put_back(before, kept)
        best = int(np.argmax(confidences))
        if not self.judge.trusts(confidences[best]):
            return Proposal(tuple(confidences), None, before)
        found, _ = self._look(frame, candidates[best], _untimed)
        self.procedure.accept(frame, found, _untimed)
        self.restart()
        return Proposal(tuple(confidences), best, found.box)

    def _follow(self, box: Box) -> None:
        (x, y), (u, v), (old_x, old_y) = box.center, self.velocity, self.good.center
        self.velocity = u + SMOOTHING * (x - old_x - u), v + SMOOTHING * (y - old_y - v)
        self.good, self.side = box, self.procedure.region

    def _search(self, frame: Frame, timer: StageTimer) -> tuple[Decision, float]:
        """Look at the next place; the decision and its confidence.

        Where nothing is found that can be trusted, the box is the last good one, at the place where it is expected.
        """
        expected, kept = self._expected(frame), self._kept()
        found, confidence = self._look_at(self._next_place(frame, expected), frame, timer)
        if self.judge.trusts(confidence):
            self.procedure.accept(frame, found, timer)
            self._begin(found.box)
            return found._replace(diagnostics=self.procedure.diagnostics), confidence
        self._put_back(expected, kept)
        self.age += 1
        return Decision(expected, confidence), confidence

    def _look_at(self, place: Place, frame: Frame, timer: StageTimer) -> tuple[Decision, float]:
        good, factor = self.good, place.factor
        wide = Box.from_center(place.cx, place.cy, good.w * factor, good.h * factor)
        found, confidence = self._look(frame, wide, timer, windowless=True)
        # At its own size the target would already show.
        if found.reason is not None or (factor == 1 and not self.judge.trusts(confidence)):
            return found, confidence
        return self._look(frame, Box.from_center(*found.box.center, good.w, good.h), timer)

    def _look(
        self, frame: Frame, around: Box, timer: StageTimer, *, windowless: bool = False
    ) -> tuple[Decision, float]:
        procedure, chooser = self.procedure, self.procedure.chooser
        procedure.reset_box(around)
        if chooser is not None:
            chooser.windowless = windowless
        try:
            found = procedure.look(frame, timer)
        finally:
            if chooser is not None:
                chooser.windowless = False
        return found, self.judge.confidence(procedure, around, found)

    def _kept(self) -> list[np.ndarray]:
        return [array.copy() for array in self.procedure.looked]

    def _put_back(self, box: Box, kept: Sequence[np.ndarray]) -> None:
        """Undo a look."""
        self.procedure.reset_box(box)
        for array, old in zip(self.procedure.looked, kept, strict=True):
            np.copyto(array, old)

    def _next_place(self, frame: Frame, expected: Box) -> Place:
        place = next(self.places, None)
        if place is None:
            self.places = self._round(frame, expected)
            place = next(self.places)
        return place

    def _round(self, frame: Frame, expected: Box) -> Iterator[Place]:
        """Every place once, and the usual region around the expected one first and again and again."""
        places = self._elsewhere(frame, expected)
        while chunk := list(itertools.islice(places, _BETWEEN)):
            yield Place(*expected.center)
            yield from chunk

    def _elsewhere(self, frame: Frame, expected: Box) -> Iterator[Place]:
        """Wider regions, and the grid."""
        height, width = frame.shape[:2]
        cx, cy = expected.center
        widest = max(width, height) / self.side
        factor = WIDER
        while factor < widest:
            yield Place(cx, cy, factor)
            factor *= WIDER
        yield Place(cx, cy, max(1.0, widest))
        grid, factor = _grid(width, height, self.side), 1.0
        while len(grid) > MOST_PLACES:
            factor *= WIDER
            grid = _grid(width, height, factor * self.side)
        for x, y in sorted(grid, key=lambda at: math.dist(at, (cx, cy))):
            yield Place(x, y, factor)

    def _expected(self, frame: Frame) -> Box:
        """The last good box, moved on by a velocity that fades, its centre in the frame."""
        height, width = frame.shape[:2]
        path = DAMPING * (1 - DAMPING**self.age) / (1 - DAMPING)
        (cx, cy), (u, v) = self.good.center, self.velocity
        cx, cy = min(max(cx + u * path, 0.0), width), min(max(cy + v * path, 0.0), height)
        return Box.from_center(cx, cy, self.good.w, self.good.h)


def _untimed(stage: str) -> None:
    """Nobody asks how long a stage took."""


def _grid(width: int, height: int, side: float) -> list[tuple[float, float]]:
    """Centres of regions that cover a frame, no more than half a region apart."""

    def spread(length: int) -> list[float]:
        count = max(1, math.ceil(2 * length / side) - 1)
        return [length * (index + 1) / (count + 1) for index in range(count)]

    return list(itertools.product(spread(width), spread(height)))


def guard(manifest: Manifest, procedure: Procedure, recover: str | None) -> Guard | None:
    """What judges a bundle's frames; None where its manifest has no model of loss, and nothing is asked for.

    Raises:
        UsageError: recovery is asked for, and the bundle is not calibrated or its procedure goes a way of its own.
        UnknownNameError: there is no such recovery.
        BundleError: the model weighs what the procedure does not have.
    """
    if recover is not None and recover not in get_args(Recover):
        raise UnknownNameError.of("recovery", recover, get_args(Recover))
    model = manifest.lost
    if model is msgspec.UNSET:
        if recover is not None:
            raise uncalibrated(manifest, "recover")
        return None
    if procedure.chooser is None and (unknown := [name for name in model.weights if name in OF_MAPS]):
        raise BundleError(
            f"the model of loss of bundle {manifest.name!r} weighs {unknown[0]}, and its tracker has no score map; "
            "calibrate it again"
        )
    if recover is not None and (type(procedure).update is not Procedure.update or not _searches(procedure)):
        raise UsageError(f"{type(procedure).__name__} has a way of its own through a frame; leave recover out")
    return Guard(procedure, model, "expand" if recover is not None else None)


def _searches(procedure: Procedure) -> bool:
    return "step" in procedure.graphs and "search" in procedure.step.inputs


def uncalibrated(manifest: Manifest, what: str) -> UsageError:
    """The error where something needs a model of loss, and the bundle has none."""
    return UsageError(
        f"{what} needs to know which scores to trust, and bundle {manifest.name!r} is not calibrated for that; type: "
        f"edgetrack calibrate lost {manifest.name} DATA -o CALIBRATED"
    )
