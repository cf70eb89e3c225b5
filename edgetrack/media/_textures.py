"""Textures for the synthetic scenes: muted surroundings, and objects in strong colours that stand out from them."""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

from edgetrack.media._types import Frame, Plane

_OBJECT_COLOURS = np.array(
    [(20, 40, 220), (30, 150, 250), (40, 220, 250), (235, 235, 240), (60, 20, 90), (200, 60, 200)], np.float32
)
_RIM = np.array([30, 20, 190], np.float32)


def generator(seed: int, *names: str) -> np.random.Generator:
    """A stream of its own for every purpose: adding one leaves the others' numbers as they are."""
    entropy = [seed, *(zlib.crc32(name.encode()) for name in names)]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))


def _noise(rng: np.random.Generator, width: int, height: int, cell: float, channels: int) -> Plane:
    import cv2

    coarse = rng.standard_normal((int(height / cell) + 2, int(width / cell) + 2, channels)).astype(np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return smooth.reshape(height, width, channels).astype(np.float32)


def _to_frame(values: npt.NDArray[np.floating]) -> Frame:
    rounded: Frame = np.clip(values + 0.5, 0, 255).astype(np.uint8)
    return rounded


def surroundings(rng: np.random.Generator, width: int, height: int, unit: float) -> Frame:
    """A muted landscape with blocks and grain: (height, width, 3); `unit` is the frame's shorter side in pixels."""
    image = np.empty((height, width, 3), np.float32)
    image[...] = rng.uniform(80, 130, 3).astype(np.float32)
    for share, strength in ((0.5, 22.0), (0.2, 16.0), (0.08, 12.0), (0.03, 10.0)):
        image += strength * _noise(rng, width, height, max(share * unit, 3.0), 1)
    image += 8.0 * _noise(rng, width, height, max(0.15 * unit, 3.0), 3)
    for _ in range(60):
        w, h = (rng.uniform(0.03, 0.25, 2) * unit).astype(int) + 2
        x, y = int(rng.uniform(-0.5 * w, width)), int(rng.uniform(-0.5 * h, height))
        block = image[max(y, 0) : y + h, max(x, 0) : x + w]
        block += (0.55 * (rng.uniform(50, 170) + rng.uniform(-12, 12, 3) - block)).astype(np.float32)
    image += 5.0 * _noise(rng, width, height, 3.0, 1)
    return _to_frame(image)


def object_skin(rng: np.random.Generator, width: int, height: int) -> Frame:
    """Patches of strong colours, fine grain and a red rim along the shape's edge: (height, width, 3)."""
    import cv2

    picks = rng.permutation(np.resize(np.arange(len(_OBJECT_COLOURS)), 30)).reshape(5, 6)
    image = cv2.resize(_OBJECT_COLOURS[picks], (width, height), interpolation=cv2.INTER_NEAREST)
    image = image + 14.0 * _noise(rng, width, height, max(width / 24, 2.0), 1)
    u = (np.arange(width) + 0.5) / width * 2 - 1
    v = (np.arange(height) + 0.5) / height * 2 - 1
    gauge = (v[:, None] ** 4 + u[None, :] ** 4) ** 0.25
    rim = np.clip((gauge - 0.86) / 0.04, 0, 1)[..., None]
    return _to_frame(image * (1 - rim) + _RIM * rim)


def bar_skin(rng: np.random.Generator, width: int, height: int, unit: float) -> Frame:
    """Slanted grey bands with grain, for what stands in front: (height, width, 3)."""
    slant = np.arange(height)[:, None] + 0.6 * np.arange(width)[None, :]
    bands = 26.0 * np.sign(np.sin(slant * (2 * np.pi / max(0.14 * unit, 6.0))))
    tint = np.array([118.0, 112.0, 100.0]) + rng.uniform(-10, 10, 3)
    return _to_frame(tint + bands[..., None] + 9.0 * _noise(rng, width, height, 4.0, 1))
