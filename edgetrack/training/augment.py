"""How training crops are made to look different, and where a box lies in them.

Functions that take a crop return another one and leave their input unchanged. A crop is uint8 (S, S, 3) BGR, or
(S, S, 6) with a thermal, depth or event image behind the colours: places change in both, colours in the first alone.
"""

from __future__ import annotations

from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from edgetrack.box import Box
from edgetrack.exporting.recipe import Augmentation
from edgetrack.runtime.crop import Image


def recolour(image: Image, rng: np.random.Generator, change: Augmentation) -> Image:
    """Brightness and tint multiply, contrast stretches around mid-grey; one table per channel, clipped to 0..255.

    Black stays black: it is what a tracker sees beyond the frame's border.
    """
    gain = (1 + change.brightness * rng.uniform(-1, 1)) * (1 + change.tint * rng.uniform(-1, 1, 3))
    contrast = 1 + change.contrast * rng.uniform(-1, 1)
    levels = np.arange(256.0)[:, None] * gain
    table = np.rint((levels - 128) * contrast + 128).clip(0, 255).astype(np.uint8)
    table[0] = 0
    return _with_colours(image, cv2.LUT(_colours(image), table[None]))


def grey(image: Image) -> Image:
    """Luminance in all three channels."""
    return _with_colours(image, cv2.cvtColor(cv2.cvtColor(_colours(image), cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR))


def _colours(image: Image) -> Image:
    return np.ascontiguousarray(image[..., :3])


def _with_colours(image: Image, colours: Any) -> Image:
    """The image with other colours; what lies behind them stays."""
    return cast(Image, colours if image.shape[2] == 3 else np.concatenate((colours, image[..., 3:]), axis=2))


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


_AROUND = 0.1
_FEATHER = 0.12


def paste(image: Image, box: Box, background: Image, rng: np.random.Generator) -> tuple[Image, Box]:
    """Cut the box out with a tenth of itself around, as an ellipse with a soft edge, and lay it somewhere.

    Args:
        image: uint8 (H, W, C), with the object in `box` (pixels, centre inside).
        background: uint8 (h, w, C).

    Returns:
        The new picture, and the object's box in it: between an eighth and a third of the background's shorter side
        (square root of the area), all of it inside where it fits.
    """
    height, width = background.shape[:2]
    wanted = rng.uniform(1 / 8, 1 / 3) * min(height, width)
    limit = min(0.9 * width / (box.w * (1 + 2 * _AROUND)), 0.9 * height / (box.h * (1 + 2 * _AROUND)))
    scale = min(float(wanted / np.sqrt(box.w * box.h)), limit)
    w, h = box.w * scale, box.h * scale
    left, top = (
        rng.uniform(_AROUND * w, width - w * (1 + _AROUND)),
        rng.uniform(_AROUND * h, height - h * (1 + _AROUND)),
    )
    # TrainPosition (u, v) of the image goes to scale * (u - box.x) + left; pixel centres lie at half numbers.
    shift_x, shift_y = (p - scale * c + 0.5 * scale - 0.5 for p, c in ((left, box.x), (top, box.y)))
    matrix = np.array([[scale, 0, shift_x], [0, scale, shift_y]])
    # OpenCV warps no more than four channels at once.
    parts = [np.ascontiguousarray(image[..., n : n + 3]) for n in range(0, image.shape[2], 3)]
    warped = [cv2.warpAffine(part, matrix, (width, height), flags=cv2.INTER_LINEAR) for part in parts]
    over = np.concatenate(warped, axis=2)
    there = cv2.warpAffine(np.ones(image.shape[:2], np.float32), matrix, (width, height))
    mask = _ellipse(width, height, Box(left, top, w, h)) * there
    mixed = background + mask[..., None] * (over.astype(np.float32) - background)
    return np.rint(mixed).clip(0, 255).astype(np.uint8), Box(left, top, w, h)


def _ellipse(width: int, height: int, box: Box) -> NDArray[np.float32]:
    """1 inside the ellipse that touches the widened box, falling to 0 at its edge."""
    cx, cy = box.center
    u = (np.arange(width) + 0.5 - cx) / (0.5 * box.w * (1 + 2 * _AROUND))
    v = (np.arange(height) + 0.5 - cy) / (0.5 * box.h * (1 + 2 * _AROUND))
    radius = np.sqrt(u[None, :] ** 2 + v[:, None] ** 2)
    return np.clip((1 - radius) / _FEATHER, 0, 1).astype(np.float32)


def mirrored(box: Box) -> Box:
    """A box in fractions of a crop, after the crop was flipped left to right."""
    return Box(1.0 - box.x - box.w, box.y, box.w, box.h)
