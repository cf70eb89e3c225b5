"""Collecting calibration items by running the tracker on clips, with its own crops and the training's jitter."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgetrack.box import Box, iou, jitter
from edgetrack.errors import CalibrationError, UsageError
from edgetrack.media import FrameSource
from edgetrack.quantization.calibration import Item
from edgetrack.runtime.frames import with_stand_in
from edgetrack.runtime.prompt import Text, prepare_text
from edgetrack.runtime.trackers.base import Procedure

LOST_IOU = 0.3
"""Below this overlap with the truth the tracker is put back: calibration is to see what one that follows sees."""
FEWEST_PER_CLIP = 4
"""Where a data set has many clips, some of them are visited often enough rather than all of them once."""
DIGITS = 3


class Clip(Protocol):
    """What items are collected from: `edgetrack.evaluation.datasets.clip.Clip`, or anything like it."""

    @property
    def name(self) -> str: ...
    @property
    def truth(self) -> NDArray[np.float64]:
        """(n, 4) x, y, w, h in pixels, NaN where the target is absent; one row where only the start is known."""

    @property
    def text(self) -> Text | None:
        """What is said of the target, where anything is."""

    def open(self) -> FrameSource: ...


@dataclass(frozen=True)
class Wish:
    """How to collect.

    Attributes:
        size: items in all, spread evenly over the clips.
        seed: of frames and jitter.
        centre_jitter, scale_jitter: of every second item's box, as `edgetrack.box.jitter` takes them; the other items
            are where the tracker really was.
    """

    size: int = 300
    seed: int = 0
    centre_jitter: float = 3.0
    scale_jitter: float = 0.25

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UsageError(f"--calib-size {self.size}: expected 1 or more")


def collect(
    clips: Sequence[Clip], procedure: Procedure, wish: Wish, progress: Callable[[str], None] = lambda what: None
) -> tuple[Item, ...]:
    """Run a tracker over clips and list the search regions that it cuts.

    The same clips, tracker and wish give the same items.

    Raises:
        CalibrationError: no clip has a second frame.
        SourceError, SourceInterruptedError: a clip cannot be read.
    """
    if not clips:
        raise CalibrationError("there is no clip to calibrate on; give a folder that holds sequences with boxes")
    chosen = _spread(clips, max(1, min(len(clips), wish.size // FEWEST_PER_CLIP)))
    items: list[Item] = []
    for index, clip in enumerate(chosen):
        progress(f"calibration: tracking {clip.name} ({index + 1} of {len(chosen)})")
        share = wish.size * (index + 1) // len(chosen) - wish.size * index // len(chosen)
        items.extend(_of_clip(clip, procedure, share, wish))
    if not items:
        raise CalibrationError(f"none of {len(chosen)} clips has a second frame to search in; give longer ones")
    return tuple(items)


def _of_clip(clip: Clip, procedure: Procedure, share: int, wish: Wish) -> Iterator[Item]:
    # Of the clip's name, so that a data set may grow without changing what the old clips give.
    rng = np.random.default_rng([wish.seed, zlib.crc32(clip.name.encode())])
    prepare_text(procedure, clip.text)
    with clip.open() as frames:
        length = len(clip.truth) if len(clip.truth) > 1 else frames.length
        wanted = _frames(length, share)
        start = Box(*map(float, clip.truth[0]))
        state = start
        for index, plain in enumerate(frames):
            frame = with_stand_in(plain, procedure.modalities)
            if index == 0:
                procedure.init(frame, start)
                continue
            if index in wanted:
                moved = bool(rng.integers(2))
                box = jitter(state, rng, wish.centre_jitter, wish.scale_jitter) if moved else state
                yield Item(clip.name, 0, _rounded(start), index, _rounded(box))
            if index >= max(wanted, default=0):
                return
            state = procedure.update(frame, lambda stage: None).box
            truth = Box(*map(float, clip.truth[index])) if index < len(clip.truth) else None
            if truth is not None and truth.w > 0 and truth.h > 0 and iou(state, truth) < LOST_IOU:
                procedure.reset_box(truth)
                state = truth


def _frames(length: int | None, share: int) -> frozenset[int]:
    """Frames 1 to `length` - 1, evenly spread; a stream of unknown length gives its first ones."""
    if length is None:
        return frozenset(range(1, share + 1))
    return (
        frozenset(int(i) for i in np.linspace(1, length - 1, min(share, length - 1)).round())
        if length > 1
        else frozenset()
    )


def _spread(clips: Sequence[Clip], count: int) -> list[Clip]:
    return [clips[int(i)] for i in np.linspace(0, len(clips) - 1, count).round()]


def _rounded(box: Box) -> tuple[float, float, float, float]:
    x, y, w, h = (round(float(value), DIGITS) for value in box)
    return x, y, max(w, 10**-DIGITS), max(h, 10**-DIGITS)
