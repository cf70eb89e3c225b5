"""Two trackers on the same crops: each is placed at the same boxes before every frame, so that no error is fed back."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgetrack.box import Box
from edgetrack.errors import SequenceError
from edgetrack.evaluation.datasets.clip import Clip
from edgetrack.evaluation.protocols import follow
from edgetrack.runtime.session import Tracker

LARGEST_MAP = 16_384
"""Values: an output of a step graph that has more is features or memory, not a map."""


class MapInfo(msgspec.Struct, frozen=True, order=True):
    """An output of a step graph: its name as `graph/output`, and its shape."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Values in one map."""
        return math.prod(self.shape)


class OpenLoopRun(msgspec.Struct, frozen=True, kw_only=True):
    """What a tracker made of each frame after the first, placed at the box before it.

    Attributes:
        boxes: x, y, w, h in pixels.
        maps: the outputs that were kept, in the order in which they lie in `file`.
        file: where they are.
    """

    boxes: list[Box]
    maps: list[MapInfo]
    file: str


@dataclass(frozen=True)
class OpenLoop:
    """Track, placed at given boxes.

    Attributes:
        boxes: of every frame; frame i + 1 is searched around box i.
        file: where the maps of each frame are written: float32, one frame after another.
    """

    name: ClassVar[str] = "open loop"
    needs_truth: ClassVar[bool] = False
    result: ClassVar[type[OpenLoopRun]] = OpenLoopRun
    boxes: tuple[Box, ...]
    file: Path

    @property
    def key(self) -> tuple[str | float, ...]:
        return "replay", hashlib.sha256(np.array(self.boxes, "<f8").tobytes()).hexdigest()

    def run(self, tracker: Tracker, clip: Clip, limit: int | None) -> OpenLoopRun:
        """See `Task.run`; the boxes say how far to go, since an evaluation may have been limited."""
        outputs = maps_of(tracker)
        found: list[Box] = []
        with self.file.open("wb") as file:
            for index, frame in follow(tracker, clip, len(self.boxes)):
                if index == 0:
                    tracker.init(frame, self.boxes[0])
                    continue
                tracker.reset_box(self.boxes[index - 1])
                found.append(Box(*tracker.update(frame).box))
                for _, values in outputs:
                    file.write(np.ascontiguousarray(values, "<f4").tobytes())
        if len(found) != len(self.boxes) - 1:
            raise SequenceError(f"{clip.name} has {len(found) + 1} frames and {len(self.boxes)} boxes were tracked")
        return OpenLoopRun(boxes=found, maps=[info for info, _ in outputs], file=str(self.file))


def maps_of(tracker: Tracker) -> list[tuple[MapInfo, NDArray[Any]]]:
    """The maps that an update leaves in the tracker's step graphs, and the arrays in which it leaves them."""
    return [
        (MapInfo(f"{graph.name}/{name}", tuple(values.shape)), values)
        for graph in tracker.manifest.graphs
        if graph.role == "step"
        for name, values in tracker.graphs[graph.name].outputs.items()
        if np.issubdtype(values.dtype, np.floating) and values.size <= LARGEST_MAP
    ]


class MapError(msgspec.Struct, frozen=True, kw_only=True):
    """B's map against A's over all frames: `relative_rms` is the RMS of the difference over that of A's values."""

    name: str
    relative_rms: float | None
    max_abs: float


def map_errors(pairs: Iterable[tuple[OpenLoopRun, OpenLoopRun]]) -> list[MapError]:
    """The errors of the maps that both trackers have by name and shape, over all sequences; none where they share none.

    Args:
        pairs: A's run and B's of each sequence, whose files are still there.
    """
    sums: dict[str, list[float]] = {}
    for a, b in pairs:
        ours, theirs = _rows(a), _rows(b)
        for info in sorted(set(a.maps) & set(b.maps)):
            total = sums.setdefault(info.name, [0.0, 0.0, 0.0])
            for x, y in zip(ours[:, _span(a.maps, info)], theirs[:, _span(b.maps, info)], strict=True):
                reference = x.astype(np.float64)
                error = y - reference
                total[0] += float((error**2).sum())
                total[1] += float((reference**2).sum())
                total[2] = max(total[2], float(np.abs(error).max(initial=0.0)))
    return [
        MapError(name=name, relative_rms=math.sqrt(error / size) if size else None, max_abs=largest)
        for name, (error, size, largest) in sums.items()
    ]


def _rows(run: OpenLoopRun) -> NDArray[np.float32]:
    """float32 (frames, values of all maps), read as needed; nothing where there is no frame or no map."""
    width = sum(info.size for info in run.maps)
    if not run.boxes or not width:
        return np.zeros((len(run.boxes), width), np.float32)
    return np.memmap(run.file, "<f4", "r", shape=(len(run.boxes), width))


def _span(maps: Sequence[MapInfo], wanted: MapInfo) -> slice:
    start = sum(info.size for info in maps[: maps.index(wanted)])
    return slice(start, start + wanted.size)
