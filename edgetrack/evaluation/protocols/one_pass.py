"""One-pass evaluation: the tracker is given the first box and then only frames."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import msgspec

from edgetrack.box import Box
from edgetrack.evaluation.datasets.clip import Clip
from edgetrack.evaluation.protocols import TrackerLike, follow, frame_size
from edgetrack.runtime.diagnostics import DiagnosticLog, add_frame


class OnePassRun(msgspec.Struct, frozen=True, kw_only=True):
    """A tracker's results on a sequence, one item per frame.

    Attributes:
        size: (width, height) of the first frame in pixels.
        boxes: x, y, w, h in pixels as the tracker reports them, lost or not; the first is the given one.
        scores: its confidence, 0..1; None for the first frame.
        lost: whether it says that it is lost.
        ms: milliseconds of init and of each update: crop, graphs and decode, without reading the image.
        shares: diagnostics of each update, name -> part -> values; empty for most trackers.
    """

    size: tuple[int, int]
    boxes: list[Box]
    scores: list[float | None]
    lost: list[bool]
    ms: list[float]
    shares: DiagnosticLog = msgspec.field(default_factory=dict)


@dataclass(frozen=True)
class OnePass:
    """Track from the first box to the end."""

    name: ClassVar[str] = ""
    needs_truth: ClassVar[bool] = False
    result: ClassVar[type[OnePassRun]] = OnePassRun
    key: ClassVar[tuple[str | float, ...]] = ()

    def run(
        self,
        tracker: TrackerLike,
        clip: Clip,
        limit: int | None = None,
        *,
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> OnePassRun:
        """See `Task.run`."""
        run = OnePassRun(size=(0, 0), boxes=[clip.start], scores=[None], lost=[False], ms=[])
        for index, frame in follow(tracker, clip, limit):
            if index == 0:
                start = clock()
                tracker.init(frame, clip.start)
                run.ms.append((clock() - start) / 1e6)
                run = msgspec.structs.replace(run, size=frame_size(frame))
                continue
            update = tracker.update(frame)
            run.boxes.append(Box(*update.box))
            run.scores.append(update.score)
            run.lost.append(update.lost)
            run.ms.append(update.timing.total)
            add_frame(run.shares, update.diagnostics)
        return run
