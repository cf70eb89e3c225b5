"""SPMTrack's crop (its sheet, 3.4): scaled around the box, aligned to whole pixels on both sides, float32."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from edgetrack.box import Box
from edgetrack.runtime.crop import Image

# A coordinate this far past a whole pixel starts the next one.
_SLACK = 1 - 1e-4


class Mapping(NamedTuple):
    """From pixels of the frame to pixels of the crop: p -> scale p + shift, by axis."""

    scale_x: float
    scale_y: float
    shift_x: float
    shift_y: float

    def to_crop(self, box: Box) -> Box:
        """A box of the frame in pixels of the crop."""
        return Box(
            box.x * self.scale_x + self.shift_x,
            box.y * self.scale_y + self.shift_y,
            box.w * self.scale_x,
            box.h * self.scale_y,
        )

    def to_frame(self, box: Box) -> Box:
        """A box of the crop in pixels of the frame."""
        return Box(
            (box.x - self.shift_x) / self.scale_x,
            (box.y - self.shift_y) / self.scale_y,
            box.w / self.scale_x,
            box.h / self.scale_y,
        )


class Cells(NamedTuple):
    """Whole pixels or cells: x and y from the first up to, not including, the last."""

    x1: int
    y1: int
    x2: int
    y2: int

    @property
    def is_empty(self) -> bool:
        """Whether there are none."""
        return self.x1 >= self.x2 or self.y1 >= self.y2


def touched(box: Box) -> Cells:
    """The pixels that a box touches, wherever they are."""
    return Cells(
        math.floor(box.x),
        math.floor(box.y),
        math.floor(box.x + box.w + _SLACK),
        math.floor(box.y + box.h + _SLACK),
    )


def rasterised(box: Box, width: int, height: int) -> Cells:
    """The pixels that a box touches, within (width, height)."""
    x1, y1, x2, y2 = touched(box)
    return Cells(max(0, x1), max(0, y1), min(width, x2), min(height, y2))


def wanted_mapping(box: Box, factor: float, size: int) -> Mapping:
    """What puts a box, with (factor - 1) / 2 of (w + h) more on each axis, into the middle of a crop.

    Args:
        box: in pixels of the frame, with an area.
        factor: 1 or more.
        size: of the crop, in pixels.
    """
    context = (factor - 1) * (box.w + box.h) / 2
    scale = math.sqrt(size * size / ((box.w + context) * (box.h + context)))
    cx, cy = box.center
    return Mapping(scale, scale, size / 2 - cx * scale, size / 2 - cy * scale)


def crop_aligned(frame: Image, box: Box, factor: float, fill: NDArray[np.float32], out: NDArray[np.float32]) -> Mapping:
    """Cut and scale into `out`.

    Args:
        frame: uint8 (H, W, 3).
        box, factor: see `wanted_mapping`.
        fill: (3,), the colour of what the frame does not hold.
        out: float32 (size, size, 3), written in place, 0..255.

    Returns:
        The mapping after alignment, which is the one to map back with; the wanted one where the crop sees no pixel.
    """
    (height, width), size = frame.shape[:2], out.shape[0]
    wanted = wanted_mapping(box, factor, size)
    seen = wanted.to_crop(Box(0.0, 0.0, float(width), float(height)))
    x1, y1 = max(0.0, seen.x), max(0.0, seen.y)
    x2, y2 = min(float(size), seen.x + seen.w), min(float(size), seen.y + seen.h)
    target = rasterised(Box(x1, y1, x2 - x1, y2 - y1), size, size)
    out[...] = fill
    if x1 >= x2 or y1 >= y2 or target.is_empty:
        return wanted
    back = wanted.to_frame(Box(target.x1, target.y1, target.x2 - target.x1, target.y2 - target.y1))
    source = rasterised(back, width, height)
    if source.is_empty:
        return wanted
    wide, high = target.x2 - target.x1, target.y2 - target.y1
    cut = frame[source.y1 : source.y2, source.x1 : source.x2].astype(np.float32)
    out[target.y1 : target.y2, target.x1 : target.x2] = cv2.resize(cut, (wide, high), interpolation=cv2.INTER_LINEAR)
    # float32, as published: what follows from it is compared with the official boxes.
    scale_x = np.float32(wide) / np.float32(source.x2 - source.x1)
    scale_y = np.float32(high) / np.float32(source.y2 - source.y1)
    shift_x, shift_y = target.x1 - source.x1 * scale_x, target.y1 - source.y1 * scale_y
    return Mapping(*(float(value) for value in (scale_x, scale_y, shift_x, shift_y)))


def mean_colour(frame: Image) -> NDArray[np.float32]:
    """(3,): the mean of each channel."""
    return np.array(cv2.mean(frame)[:3], np.float32)
