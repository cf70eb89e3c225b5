"""One-pass evaluation: the tracker is given the first box and then only frames."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec

from edgetrack.box import Box
from edgetrack.errors import SequenceError
from edgetrack.evaluation.sequence import Sequence
from edgetrack.runtime.mixtures import Shares, add_frame
from edgetrack.runtime.trackers.base import Diagnostics

Clock = Callable[[], int]


class Spent(Protocol):
    """Time of an update."""

    @property
    def total(self) -> float:
        """Milliseconds from frame to box."""


class Found(Protocol):
    """What an update returns."""

    @property
    def box(self) -> Box: ...
    @property
    def score(self) -> float: ...
    @property
    def lost(self) -> bool: ...
    @property
    def timing(self) -> Spent: ...
    @property
    def diagnostics(self) -> Diagnostics: ...


class TrackerLike(Protocol):
    """What is evaluated: `edgetrack.Tracker`, or anything with its two methods."""

    def init(self, frame: Any, box: Iterable[float]) -> None:
        """Take the target of the first frame."""

    def update(self, frame: Any) -> Found:
        """Find it in the next one."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What a tracker made of a sequence, one item per frame.

    Attributes:
        size: (width, height) of the first frame in pixels.
        boxes: x, y, w, h in pixels as the tracker reports them, lost or not; first the given one.
        scores: its confidence, 0..1; None for the first frame.
        lost: whether it says that it is lost.
        ms: milliseconds of init and of each update: crop, graphs and decode, without reading the image.
        shares: what the tracker mixed in each update, mixture -> part -> shares; empty for most trackers.
    """

    size: tuple[int, int]
    boxes: list[Box]
    scores: list[float | None]
    lost: list[bool]
    ms: list[float]
    shares: Shares = msgspec.field(default_factory=dict)


def one_pass(
    tracker: TrackerLike, sequence: Sequence, limit: int | None = None, *, clock: Clock = time.perf_counter_ns
) -> Run:
    """Track a sequence from its first box to its end, or for `limit` frames.

    Raises:
        SequenceError: it has more or fewer frames than boxes.
        EdgetrackError: it cannot be opened or a frame cannot be read, or the tracker fails.
    """
    run = Run(size=(0, 0), boxes=[sequence.start], scores=[None], lost=[False], ms=[])
    with sequence.open() as frames:
        for index, frame in enumerate(frames):
            if index == limit:
                return run
            if index == 0:
                start = clock()
                tracker.init(frame, sequence.start)
                run.ms.append((clock() - start) / 1e6)
                run = msgspec.structs.replace(run, size=(frame.shape[1], frame.shape[0]))
                continue
            result = tracker.update(frame)
            run.boxes.append(Box(*result.box))
            run.scores.append(result.score)
            run.lost.append(result.lost)
            run.ms.append(result.timing.total)
            add_frame(run.shares, result.diagnostics)
    tracked = len(run.ms)
    if sequence.scored and tracked not in (len(sequence.truth), limit):
        raise SequenceError(
            f"{sequence.name} has {tracked} frames and {len(sequence.truth)} boxes; expected one box per frame; "
            "cut the longer of the two"
        )
    return run
