"""An object of one picture laid over another."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edgetrack.box import Box
from edgetrack.runtime.crop import Image

_AROUND = 0.1
_FEATHER = 0.12


def paste(image: Image, box: Box, background: Image, rng: np.random.Generator) -> tuple[Image, Box]:
    """Cut the box out with a tenth of itself around, as an ellipse with a soft edge, and lay it somewhere.

    Args:
        image: uint8 (H, W, 3), with the object in `box` (pixels, centre inside).
        background: uint8 (h, w, 3).

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
    # Place (u, v) of the image goes to scale * (u - box.x) + left; pixel centres lie at half numbers.
    shift_x, shift_y = (p - scale * c + 0.5 * scale - 0.5 for p, c in ((left, box.x), (top, box.y)))
    matrix = np.array([[scale, 0, shift_x], [0, scale, shift_y]])
    over = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR)
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
