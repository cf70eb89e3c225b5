"""From score, size and offset maps to a box in the frame (centre heads; sheet 0.4)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgetrack.box import Box

Map = NDArray[np.float32]


class Peak(NamedTuple):
    """The chosen cell: its un-windowed and windowed score (0..1) and the box in fractions of the crop."""

    score: float
    windowed: float
    cx: float
    cy: float
    w: float
    h: float


def decode_center(score: Map, size: Map, offset: Map, window: Map, response: Map) -> Peak:
    """The cell with the highest windowed score (the first one in row-major order) and its box.

    Args:
        score: (1, 1, F, F).
        size: (1, 2, F, F), width and height as fractions of the crop.
        offset: (1, 2, F, F), in cells.
        window: (F, F), multiplied onto the score.
        response: (F, F), scratch memory for the windowed score.
    """
    cells = window.shape[-1]
    np.multiply(score[0, 0], window, out=response)
    row, column = divmod(int(response.argmax()), cells)
    return Peak(
        score=float(score[0, 0, row, column]),
        windowed=float(response[row, column]),
        cx=(column + float(offset[0, 0, row, column])) / cells,
        cy=(row + float(offset[0, 1, row, column])) / cells,
        w=float(size[0, 0, row, column]),
        h=float(size[0, 1, row, column]),
    )


def map_back(peak: Peak, previous: Box, crop_size: int, resize_factor: float) -> Box:
    """From fractions of the crop to pixels of the frame, not clipped.

    The crop's origin was rounded to whole pixels when it was cut, and the published code does not undo that: a
    sub-pixel bias that is kept for parity.
    """
    scale = crop_size / resize_factor
    cx, cy = previous.center
    half = 0.5 * scale
    return Box.from_center(peak.cx * scale + cx - half, peak.cy * scale + cy - half, peak.w * scale, peak.h * scale)
