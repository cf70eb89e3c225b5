"""Cutting the template and the search region out of a frame, as the official procedures do it."""

from __future__ import annotations

import math

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from edgetrack.box import Box

Image = NDArray[np.uint8]
# A padded square is copied; from this side on (50 MB) it is sampled instead.
LARGEST_COPY = 4096


class CropRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A square of `factor` times the square root of the box's area, resized to `size` x `size` pixels."""

    factor: float
    size: int


class Scratch:
    """Memory for padded squares, kept between frames and grown when a larger square comes."""

    def __init__(self) -> None:
        self._bytes = np.empty(0, np.uint8)

    def square(self, side: int) -> Image:
        """Uninitialised (side, side, 3), valid until the next call."""
        needed = side * side * 3
        if self._bytes.size < needed:
            self._bytes = np.empty(needed, np.uint8)
        return self._bytes[:needed].reshape(side, side, 3)


def crop_square(frame: Image, box: Box, rule: CropRule, out: Image, scratch: Scratch | None = None) -> float:
    """Cut a square around a box, pad it with black, resize it into `out` (the OSTrack family's crop, sheet 0.1).

    Only the part of the square that the frame holds is resized when the square lies inside, so that a frame is
    never copied whole.

    Args:
        frame: uint8 (H, W, 3).
        box: in pixels of the frame; its area must be positive and finite.
        rule: factor and output size.
        out: uint8 (size, size, 3), C-contiguous, written in place.
        scratch: where a square that leaves the frame is padded; new memory when None.

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
        if side > LARGEST_COPY:
            _sample(cut, (y1, x1), side, out)
            return rule.size / side
        padded = (scratch or Scratch()).square(side)
        cv2.copyMakeBorder(cut, top, bottom, left, right, cv2.BORDER_CONSTANT, dst=padded)
        cut = padded
    cv2.resize(cut, (rule.size, rule.size), dst=out, interpolation=cv2.INTER_LINEAR)
    return rule.size / side


def _sample(cut: Image, corner: tuple[int, int], side: int, out: Image) -> None:
    """Resize a padded square without making it: `cut` is what the frame holds of it, black is around.

    The same bilinear rule in floating point; OpenCV's fixed point differs by one grey level at most.

    Args:
        cut: the part of the square that the frame holds; it starts at the square's corner or at the frame's border.
        corner: the square's first row and column in the frame.
        side: of the square, larger than `out`.
        out: written in place.
    """
    vertical, horizontal = (
        _taps(min(start, 0), length, side, out.shape[0]) for start, length in zip(corner, cut.shape[:2], strict=True)
    )
    total = np.zeros(out.shape)
    for rows, row_weights in vertical:
        for columns, column_weights in horizontal:
            total += np.multiply.outer(row_weights, column_weights)[..., None] * cut[np.ix_(rows, columns)]
    out[...] = np.rint(total)


def _taps(start: int, length: int, side: int, size: int) -> list[tuple[NDArray[np.intp], NDArray[np.float64]]]:
    """Along one axis, both places that each output pixel mixes and their weights, 0 for a place that is not there."""
    positions = start + (np.arange(size) + 0.5) * (side / size) - 0.5
    first = np.floor(positions)
    fraction = positions - first
    taps = []
    for place, weight in ((first, 1 - fraction), (first + 1, fraction)):
        there = (place >= 0) & (place < length)
        taps.append((np.where(there, place, 0).astype(np.intp), np.where(there, weight, 0.0)))
    return taps
