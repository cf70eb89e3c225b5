"""Cutting the template and the search region out of a frame, as the official procedures do it."""

from __future__ import annotations

import math
from typing import cast

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from edgetrack.box import Box

Image = NDArray[np.uint8]


class CropRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A square of `factor` times the square root of the box's area, resized to `size` x `size` pixels."""

    factor: float
    size: int


def crop_square(frame: Image, box: Box, rule: CropRule, out: Image) -> float:
    """Cut a square around a box, pad it with black, resize it into `out` (the OSTrack family's crop, sheet 0.1).

    Only the part of the square that the frame holds is resized when the square lies inside, so that a frame is
    never copied whole.

    Args:
        frame: uint8 (H, W, 3).
        box: in pixels of the frame; its area must be positive and finite.
        rule: factor and output size.
        out: uint8 (size, size, 3), C-contiguous, written in place.

    Returns:
        The resize factor: crop pixels per frame pixel.
    """
    height, width = frame.shape[:2]
    side = max(1, math.ceil(math.sqrt(box.w * box.h) * rule.factor))
    # Python's round (half to even) is the official rule.
    x1 = round(box.x + 0.5 * box.w - 0.5 * side)
    y1 = round(box.y + 0.5 * box.h - 0.5 * side)
    x2, y2 = x1 + side, y1 + side
    left, top = max(0, -x1), max(0, -y1)
    # The +1 is official: a square that touches the last column or row gives it up to padding.
    right, bottom = max(0, x2 - width + 1), max(0, y2 - height + 1)
    cut = frame[y1 + top : max(y1 + top, y2 - bottom), x1 + left : max(x1 + left, x2 - right)]
    if cut.size == 0:
        out[...] = 0
        return rule.size / side
    if left or top or right or bottom:
        cut = cast(Image, cv2.copyMakeBorder(cut, top, bottom, left, right, cv2.BORDER_CONSTANT))
    cv2.resize(cut, (rule.size, rule.size), dst=out, interpolation=cv2.INTER_LINEAR)
    return rule.size / side
