"""Cutting the template and the search region out of a frame, as the official procedures do it."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from edgetrack.box import Box

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]
BLACK: Colour = (0, 0, 0)
# A padded square is copied; from this side on (50 MB) it is sampled instead.
LARGEST_COPY = 4096


class CropRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A square of `factor` times the square root of the box's area, resized to `size` x `size` pixels."""

    factor: float
    size: int


class Square(NamedTuple):
    """A square of whole pixels: its first column `x` and row `y`, which the frame need not hold, and `side` >= 1."""

    x: int
    y: int
    side: int

    def is_inside(self, frame: Image) -> bool:
        """Whether the frame holds all of it."""
        height, width = frame.shape[:2]
        return self.x >= 0 and self.y >= 0 and self.x + self.side <= width and self.y + self.side <= height


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
    side = max(1, math.ceil(math.sqrt(box.w * box.h) * rule.factor))
    # Python's round (half to even) is the official rule.
    square = Square(round(box.x + 0.5 * box.w - 0.5 * side), round(box.y + 0.5 * box.h - 0.5 * side), side)
    # The -1 is official: a square that touches the last column or row gives it up to padding.
    held = (frame.shape[0] - 1, frame.shape[1] - 1)
    _resize(frame, square, held, BLACK, out, scratch)
    return rule.size / side


def crop_filled(frame: Image, square: Square, fill: Colour, out: Image, scratch: Scratch | None = None) -> None:
    """Cut a square, pad what the frame does not hold with a colour, resize it into `out` (NanoTrack's sheet, 3a).

    Args:
        frame: uint8 (H, W, 3).
        square: where.
        fill: three grey levels, 0..255.
        out: uint8 (size, size, 3), C-contiguous, written in place.
        scratch: where a square that leaves the frame is padded; new memory when None.
    """
    _resize(frame, square, (frame.shape[0], frame.shape[1]), fill, out, scratch)


def _resize(
    frame: Image, square: Square, held: tuple[int, int], fill: Colour, out: Image, scratch: Scratch | None
) -> None:
    """Resize a square of which the frame holds the rows and columns below `held`; all else has the colour `fill`."""
    x1, y1, side = square
    x2, y2 = x1 + side, y1 + side
    left, top, right, bottom = max(0, -x1), max(0, -y1), max(0, x2 - held[1]), max(0, y2 - held[0])
    cut = frame[y1 + top : max(y1 + top, y2 - bottom), x1 + left : max(x1 + left, x2 - right)]
    if cut.size == 0:
        out[...] = fill
        return
    if left or top or right or bottom:
        if side > LARGEST_COPY:
            _sample(cut, (y1, x1), side, fill, out)
            return
        padded = (scratch or Scratch()).square(side)
        cv2.copyMakeBorder(cut, top, bottom, left, right, cv2.BORDER_CONSTANT, dst=padded, value=fill)
        cut = padded
    cv2.resize(cut, (out.shape[1], out.shape[0]), dst=out, interpolation=cv2.INTER_LINEAR)


def _sample(cut: Image, corner: tuple[int, int], side: int, fill: Colour, out: Image) -> None:
    """Resize a padded square without making it: `cut` is what the frame holds of it, `fill` is around.

    The same bilinear rule in floating point; OpenCV's fixed point differs by one grey level at most.

    Args:
        cut: the part of the square that the frame holds; it starts at the square's corner or at the frame's border.
        corner: the square's first row and column in the frame.
        side: of the square, larger than `out`.
        fill: the colour of all that the frame does not hold.
        out: written in place.
    """
    vertical, horizontal = (
        _taps(min(start, 0), length, side, out.shape[0]) for start, length in zip(corner, cut.shape[:2], strict=True)
    )
    total = np.zeros(out.shape)
    total += fill
    for rows, row_weights in vertical:
        for columns, column_weights in horizontal:
            weights = np.multiply.outer(row_weights, column_weights)[..., None]
            total += weights * np.subtract(cut[np.ix_(rows, columns)], fill, dtype=np.float64)
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
