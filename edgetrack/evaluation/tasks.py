"""What can be done with a sequence. A task is plain data, so that it can be sent to another process or machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeVar

from edgetrack.evaluation.anchors import AnchoredRun, AnchorPlan, anchored
from edgetrack.evaluation.latencies import Recorded
from edgetrack.evaluation.ope import Run, one_pass
from edgetrack.evaluation.sequence import Sequence
from edgetrack.evaluation.streaming import StreamedRun, stream
from edgetrack.runtime.session import Tracker

Found = TypeVar("Found", covariant=True)


class Task(Protocol[Found]):
    """Something to do with a tracker and a sequence.

    Attributes:
        name: for people, behind the sequence's name; empty for the usual one.
        needs_truth: whether a sequence whose annotation is withheld is left out.
    """

    @property
    def name(self) -> str: ...
    @property
    def needs_truth(self) -> bool: ...
    @property
    def found(self) -> type[Found]:
        """The kind of thing that comes of it."""

    @property
    def key(self) -> tuple[str | float, ...]:
        """What of the task decides what comes of it."""

    def run(self, tracker: Tracker, sequence: Sequence, limit: int | None) -> Found:
        """Do it.

        Raises:
            EdgetrackError: the sequence cannot be read, or the tracker fails.
        """


@dataclass(frozen=True)
class OnePass:
    """From the first box to the end."""

    name: ClassVar[str] = ""
    needs_truth: ClassVar[bool] = False
    found: ClassVar[type[Run]] = Run
    key: ClassVar[tuple[str | float, ...]] = ()

    def run(self, tracker: Tracker, sequence: Sequence, limit: int | None) -> Run:
        """See `one_pass`."""
        return one_pass(tracker, sequence, limit)


@dataclass(frozen=True)
class Anchored:
    """Short runs from anchors."""

    name: ClassVar[str] = "anchors"
    needs_truth: ClassVar[bool] = True
    found: ClassVar[type[AnchoredRun]] = AnchoredRun
    plan: AnchorPlan

    @property
    def key(self) -> tuple[str | float, ...]:
        return "anchors", self.plan.spacing, self.plan.length

    def run(self, tracker: Tracker, sequence: Sequence, limit: int | None) -> AnchoredRun:
        """See `anchored`."""
        return anchored(tracker, sequence, self.plan, limit)


@dataclass(frozen=True)
class Streamed:
    """Under a clock of `fps` frames per second; `recorded` None measures how long updates take here."""

    name: ClassVar[str] = "streaming"
    needs_truth: ClassVar[bool] = True
    found: ClassVar[type[StreamedRun]] = StreamedRun
    fps: float
    recorded: Recorded | None = None

    @property
    def key(self) -> tuple[str | float, ...]:
        return "streaming", self.fps, *([] if self.recorded is None else [self.recorded.digest])

    def run(self, tracker: Tracker, sequence: Sequence, limit: int | None) -> StreamedRun:
        """See `stream`."""
        return stream(tracker, sequence, self.fps, self.recorded, limit)
