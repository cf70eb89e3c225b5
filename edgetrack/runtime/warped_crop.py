"""Squares with whole-pixel corners, warped to a crop whose corner pixels are theirs: STMTrack's crop (sheet 4.4)."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from edgetrack.runtime.crop import Colour, Image


class Patch(NamedTuple):
    """Where a crop comes from: every `step`-th pixel of the frame from `offset` on, of those a square.

    Attributes:
        step: 1 or more.
        offset: x, y of the first pixel.
        corner: x, y of the square's first pixel, counted in such pixels.
        side: of the square less one: from its first to its last pixel.
    """

    step: int
    offset: tuple[int, int]
    corner: tuple[int, int]
    side: int

    def scale(self, size: int) -> float:
        """Pixels of a crop of `size` to one of the frame, as published (with one pixel more than there is)."""
        return size / ((self.side + 1) * self.step)


def find_patch(centre: tuple[float, float], wanted: float, size: int) -> Patch:
    """The square nearest to the one that is wanted.

    Args:
        centre: in pixels of the frame, truncated toward zero.
        wanted: its side in pixels of the frame.
        size: of the crop; of much larger squares, pixels are left out.
    """
    step = max(int(wanted / size - 0.1), 1)
    x, y = (int(value) for value in centre)
    offset = x % step, y % step
    count = max(round(wanted / step), 2)
    corner = (x - offset[0]) // step - (count - 1) // 2, (y - offset[1]) // step - (count - 1) // 2
    return Patch(step, offset, corner, (count - 1) // 2 + count // 2 + 1)


def crop_warped(frame: Image, patch: Patch, fill: Colour, out: Image) -> None:
    """Sample a patch bilinearly into `out`.

    Args:
        frame: uint8 (H, W, 3).
        patch: where.
        fill: what the frame does not hold.
        out: uint8 (size, size, 3), written in place.
    """
    starts, held = [], []
    for length, offset, corner in zip(frame.shape[1::-1], patch.offset, patch.corner, strict=True):
        count = max(0, -(-(length - offset) // patch.step))
        # One pixel more on each side, which bilinear samples reach.
        first, last = max(0, corner - 1), min(count, corner + patch.side + 2)
        starts.append(first)
        held.append(slice(offset + first * patch.step, offset + last * patch.step if last > first else 0, patch.step))
    cut: NDArray[np.uint8] = frame[held[1], held[0]]
    if cut.size == 0:
        out[...] = fill
        return
    ratio = patch.side / (out.shape[0] - 1)
    x, y = (corner - start for corner, start in zip(patch.corner, starts, strict=True))
    mapping = np.array([[ratio, 0.0, x], [0.0, ratio, y]])
    cv2.warpAffine(
        np.ascontiguousarray(cut),
        mapping,
        (out.shape[1], out.shape[0]),
        dst=out,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=fill,
    )


def target_rectangle(w: float, h: float, size: int) -> tuple[int, int, int, int]:
    """First and last column and row, x1, y1, x2, y2, of a target of (w, h) pixels in the middle of a crop."""
    middle, last = size // 2, size - 1
    corners = (middle - (w - 1) / 2, middle - (h - 1) / 2, middle + (w - 1) / 2, middle + (h - 1) / 2)
    # The published code truncates and leaves a rectangle larger than the crop to slicing.
    x1, y1, x2, y2 = (int(min(max(0.0, math.trunc(value)), last)) for value in corners)
    return x1, y1, x2, y2
