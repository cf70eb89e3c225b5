"""Where a training crop is cut, and where a box lies in it."""

from __future__ import annotations

import math
from typing import NamedTuple

from edgetrack.box import Box


class Square(NamedTuple):
    """Whole pixels of the image that a crop shows: top-left corner (may be outside) and side."""

    x: int
    y: int
    side: int


def square_around(box: Box, factor: float) -> Square:
    """The square that `edgetrack.runtime.crop.crop_square` cuts around a box (docs/trackers/smat.md, Crop)."""
    side = max(1, math.ceil(math.sqrt(box.w * box.h) * factor))
    return Square(round(box.x + 0.5 * box.w - 0.5 * side), round(box.y + 0.5 * box.h - 0.5 * side), side)


def into_square(box: Box, square: Square) -> Box:
    """A box of the image in fractions of the crop; not clipped, so it may reach beyond 0..1."""
    side = square.side
    return Box((box.x - square.x) / side, (box.y - square.y) / side, box.w / side, box.h / side)


def mirrored(box: Box) -> Box:
    """A box in fractions of a crop, after the crop was flipped left to right."""
    return Box(1.0 - box.x - box.w, box.y, box.w, box.h)
