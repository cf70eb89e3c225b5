"""What can be done with a tracker and a sequence. A task is plain data, so that it can be sent to another machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Protocol, TypeVar

from edgetrack.box import Box
from edgetrack.errors import SequenceError
from edgetrack.evaluation.datasets.clip import Clip
from edgetrack.media import Frame
from edgetrack.runtime.session import Tracker
from edgetrack.runtime.trackers.base import Diagnostics

_Found = TypeVar("_Found", covariant=True)


class Task(Protocol[_Found]):
    """An evaluation protocol with its settings.

    Attributes:
        name: shown behind the sequence's name; empty for the one pass.
        needs_truth: whether a sequence whose annotation is withheld is left out.
        result: the type of what `run` returns, a msgspec struct.
        key: what of the task decides its result.
    """

    @property
    def name(self) -> str: ...
    @property
    def needs_truth(self) -> bool: ...
    @property
    def result(self) -> type[_Found]: ...
    @property
    def key(self) -> tuple[str | float, ...]: ...

    def run(self, tracker: Tracker, clip: Clip, limit: int | None) -> _Found:
        """Track a sequence, or its first `limit` frames.

        Raises:
            SequenceError: the sequence has more or fewer frames than boxes.
            EdgetrackError: it cannot be opened or a frame cannot be read, or the tracker fails.
        """


class TimingLike(Protocol):
    """The time of an update."""

    @property
    def total(self) -> float:
        """Milliseconds from frame to box."""


class UpdateLike(Protocol):
    """What an update returns."""

    @property
    def box(self) -> Box: ...
    @property
    def score(self) -> float: ...
    @property
    def lost(self) -> bool: ...
    @property
    def timing(self) -> TimingLike: ...
    @property
    def diagnostics(self) -> Diagnostics: ...


class TrackerLike(Protocol):
    """What can be evaluated: `edgetrack.Tracker`, or anything with its two methods."""

    def init(self, frame: Any, box: Iterable[float]) -> None:
        """Take the target of the first frame."""

    def update(self, frame: Any) -> UpdateLike:
        """Find it in the next one."""


def frames_to_track(clip: Clip, limit: int | None) -> int | None:
    """How many frames `follow` yields; None where only the end of the clip says it."""
    if not clip.scored:
        return limit
    return len(clip.truth) if limit is None else min(limit, len(clip.truth))


def follow(tracker: object, clip: Clip, limit: int | None = None) -> Iterator[tuple[int, Frame]]:
    """The frames of a clip, or its first `limit`, each with its index; both images where the tracker takes two.

    Raises:
        SequenceError: after the last frame, where the clip has more or fewer frames than boxes.
        EdgetrackError: it cannot be opened or a frame cannot be read.
    """
    count = 0
    with clip.open(getattr(tracker, "modalities", 1)) as frames:
        for count, frame in enumerate(islice(frames, limit), 1):
            yield count - 1, frame
    if clip.scored and count != frames_to_track(clip, limit):
        raise SequenceError(
            f"{clip.name} has {count} frames and {len(clip.truth)} boxes; expected one box per frame; "
            "cut the longer of the two"
        )


def frame_size(frame: Frame) -> tuple[int, int]:
    """(width, height) in pixels."""
    return frame.shape[1], frame.shape[0]
