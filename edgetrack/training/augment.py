"""How a crop is made to look different: every function takes a uint8 BGR crop and returns one, the input unchanged."""

from __future__ import annotations

from typing import cast

import cv2
import msgspec
import numpy as np

from edgetrack.box import Box
from edgetrack.runtime.crop import Image


class Looks(msgspec.Struct, frozen=True):
    """How often and how much.

    Probabilities: `flip` and `grey` hit both crops of a pair together; `blur` each crop for itself; `occlude` the
    search crop. `brightness`, `contrast` and `tint` are the largest relative change, drawn for each crop.
    """

    flip: float = 0.5
    grey: float = 0.05
    blur: float = 0.1
    occlude: float = 0.1
    brightness: float = 0.25
    contrast: float = 0.2
    tint: float = 0.08


def recolour(image: Image, rng: np.random.Generator, looks: Looks) -> Image:
    """Brightness and tint multiply, contrast stretches around mid-grey; one table per channel, clipped to 0..255.

    Black stays black: it is what a tracker sees beyond the frame's border.
    """
    gain = (1 + looks.brightness * rng.uniform(-1, 1)) * (1 + looks.tint * rng.uniform(-1, 1, 3))
    contrast = 1 + looks.contrast * rng.uniform(-1, 1)
    levels = np.arange(256.0)[:, None] * gain
    table = np.rint((levels - 128) * contrast + 128).clip(0, 255).astype(np.uint8)
    table[0] = 0
    return cast(Image, cv2.LUT(image, table[None]))


def grey(image: Image) -> Image:
    """Luminance in all three channels."""
    return cast(Image, cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR))


def blurred(image: Image, rng: np.random.Generator) -> Image:
    """Out of focus, or moved along a line of 3..9 pixels in one of four directions."""
    if rng.random() < 0.5:
        return cast(Image, cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.6, 2.0))))
    length = 2 * int(rng.integers(1, 5)) + 1
    line = np.eye(length, dtype=np.float32)
    if rng.random() < 0.5:
        line[:] = 0.0
        line[length // 2] = 1.0
    kernel = np.ascontiguousarray(np.rot90(line, int(rng.integers(2)))) / length
    return cast(Image, cv2.filter2D(image, -1, kernel))


def occluded(image: Image, box: Box, rng: np.random.Generator) -> Image:
    """A patch from elsewhere in the crop laid over up to 40 % of the width and height of the box (fractions of it)."""
    size = image.shape[0]
    width, height = (max(2, int(rng.uniform(0.2, 0.4) * side * size)) for side in (box.w, box.h))
    width, height = min(width, size), min(height, size)
    out = image.copy()
    cx, cy = box.x + box.w * rng.uniform(0.15, 0.85), box.y + box.h * rng.uniform(0.15, 0.85)
    x = int(np.clip(cx * size - width / 2, 0, size - width))
    y = int(np.clip(cy * size - height / 2, 0, size - height))
    from_x, from_y = int(rng.integers(0, size - width + 1)), int(rng.integers(0, size - height + 1))
    out[y : y + height, x : x + width] = image[from_y : from_y + height, from_x : from_x + width]
    return cast(Image, out)
