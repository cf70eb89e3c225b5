"""What a loss could be told by: one pass in which the features of `edgetrack.runtime.lost` are kept for every frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import msgspec

from edgetrack.box import Box
from edgetrack.bundle.manifest import LostFeature
from edgetrack.evaluation.datasets.clip import Clip
from edgetrack.evaluation.protocols import follow
from edgetrack.runtime.lost import FEATURES, OF_MAPS, evidence
from edgetrack.runtime.session import Tracker
from edgetrack.runtime.trackers.base import Decision


class EvidenceRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run and its features.

    Attributes:
        boxes: of every frame, the given one first.
        features: of every frame after the first: name -> values; those of a score map are left out without one.
    """

    boxes: list[Box]
    features: dict[LostFeature, list[float]]


@dataclass(frozen=True)
class EvidenceTask:
    """Track from the first box to the end, and keep what is decoded."""

    name: ClassVar[str] = "evidence"
    needs_truth: ClassVar[bool] = True
    result: ClassVar[type[EvidenceRun]] = EvidenceRun
    key: ClassVar[tuple[str | float, ...]] = ("evidence", 1)

    def run(self, tracker: Tracker, clip: Clip, limit: int | None = None) -> EvidenceRun:
        """See `edgetrack.evaluation.protocols.Task.run`."""
        procedure = tracker.procedure
        wanted = [name for name in FEATURES if procedure.chooser is not None or name not in OF_MAPS]
        boxes, features = [clip.start], {name: list[float]() for name in wanted}
        for index, frame in follow(tracker, clip, limit):
            if index == 0:
                tracker.init(frame, clip.start)
                continue
            before = procedure.state
            update = tracker.update(frame)
            boxes.append(update.box)
            for name, value in evidence(procedure, before, Decision(update.box, update.score), wanted).items():
                features[name].append(value)
        return EvidenceRun(boxes=boxes, features=features)
