"""Textures, and anti-aliased drawing of textured shapes whose bounds are known in closed form, for several cameras.

Coordinates are continuous: pixel (i, j) covers the square [i, i+1) x [j, j+1), so a box (x, y, w, h) covers the pixels
from floor(x) up to but not including ceil(x + w).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edgetrack.box import Box
from edgetrack.media.frames import Frame, Plane

_POWER = 4.0
_DUAL = _POWER / (_POWER - 1.0)


class Region(NamedTuple):
    """Whole pixels: columns x0..x1-1 and rows y0..y1-1."""

    x0: int
    y0: int
    x1: int
    y1: int

    @classmethod
    def around(cls, box: Box) -> Region:
        """Every pixel that the box touches."""
        x1, y1, x2, y2 = box.xyxy
        return cls(math.floor(x1), math.floor(y1), math.ceil(x2), math.ceil(y2))

    def within(self, width: int, height: int) -> Region | None:
        """The part inside a frame of that size in pixels, or None."""
        x0, y0, x1, y1 = max(self.x0, 0), max(self.y0, 0), min(self.x1, width), min(self.y1, height)
        return Region(x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None

    def slices_in(self, outer: Region) -> tuple[slice, slice]:
        """(rows, columns) of this region in an array that spans `outer`."""
        return (
            slice(self.y0 - outer.y0, self.y1 - outer.y0),
            slice(self.x0 - outer.x0, self.x1 - outer.x0),
        )


@dataclass(frozen=True)
class Pose:
    """A superellipse |u/a|^4 + |v/b|^4 <= 1 at `cx`, `cy` (pixels), turned clockwise by `angle` (radians)."""

    cx: float
    cy: float
    a: float
    b: float
    angle: float

    @property
    def bounds(self) -> Box:
        """The axis-aligned bounds, exact: the shape's support function is the dual norm, of power 4/3."""
        cos, sin = abs(math.cos(self.angle)), abs(math.sin(self.angle))
        half_w = ((self.a * cos) ** _DUAL + (self.b * sin) ** _DUAL) ** (1 / _DUAL)
        half_h = ((self.a * sin) ** _DUAL + (self.b * cos) ** _DUAL) ** (1 / _DUAL)
        return Box.from_center(self.cx, self.cy, 2 * half_w, 2 * half_h)


def union(poses: Sequence[Pose]) -> Box:
    """The smallest box around all poses."""
    corners = [pose.bounds.xyxy for pose in poses]
    x1, y1 = min(c[0] for c in corners), min(c[1] for c in corners)
    x2, y2 = max(c[2] for c in corners), max(c[3] for c in corners)
    return Box.from_xyxy(x1, y1, x2, y2)


def span_coverage(low: float, high: float, start: int, stop: int) -> Plane:
    """How much of each pixel start..stop-1 of one axis lies between `low` and `high`: (stop - start,), 0..1."""
    pixel = np.arange(start, stop, dtype=np.float64)
    overlap = np.minimum(pixel + 1, high) - np.maximum(pixel, low)
    shares: Plane = np.clip(overlap, 0, 1).astype(np.float32)
    return shares


def coverage(pose: Pose, region: Region) -> Plane:
    """How much of each pixel the shape covers: (rows, columns) of the region, 0..1; 0 outside the shape's bounds."""
    dx = np.arange(region.x0, region.x1, dtype=np.float32)[None, :] + np.float32(0.5 - pose.cx)
    dy = np.arange(region.y0, region.y1, dtype=np.float32)[:, None] + np.float32(0.5 - pose.cy)
    cos, sin = math.cos(pose.angle), math.sin(pose.angle)
    u2 = np.square((dx * cos + dy * sin) / pose.a)
    v2 = np.square((dy * cos - dx * sin) / pose.b)
    u4, v4 = u2 * u2, v2 * v2
    square = np.sqrt(u4 + v4)
    gauge = np.sqrt(square)
    slope = np.sqrt(u4 * u2 / pose.a**2 + v4 * v2 / pose.b**2)
    distance = (gauge - 1) * gauge * square / np.maximum(slope, 1e-12)
    x1, y1, x2, y2 = pose.bounds.xyxy
    columns = span_coverage(x1, x2, region.x0, region.x1)
    rows = span_coverage(y1, y2, region.y0, region.y1)
    smooth = np.clip(0.5 - distance, 0, 1)
    result: Plane = np.minimum(smooth, rows[:, None] * columns[None, :]).astype(np.float32)
    return result


def mean_coverage(poses: Sequence[Pose], region: Region) -> Plane:
    """The coverage averaged over the poses of one exposure: (rows, columns), 0..1. The region must hold every pose."""
    total = np.zeros((region.y1 - region.y0, region.x1 - region.x0), np.float32)
    for pose in poses:
        own = Region.around(pose.bounds)
        total[own.slices_in(region)] += coverage(pose, own)
    total /= np.float32(len(poses))
    return total


def pyramid(texture: Frame) -> tuple[Frame, ...]:
    """The texture and its halvings down to 16 pixels, so that a small drawing does not alias."""
    import cv2

    levels = [texture]
    while min(levels[-1].shape[:2]) >= 32:
        height, width = levels[-1].shape[:2]
        levels.append(cv2.resize(levels[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA).astype(np.uint8))
    return tuple(levels)


def _warped(levels: Sequence[Frame], pose: Pose, region: Region) -> Plane:
    import cv2

    ratio = levels[0].shape[1] / max(2 * pose.a, 1.0)
    texture = levels[min(max(int(math.log2(max(ratio, 1.0)) + 0.25), 0), len(levels) - 1)]
    height, width = texture.shape[:2]
    cos, sin = math.cos(pose.angle), math.sin(pose.angle)
    su, sv = width / (2 * pose.a), height / (2 * pose.b)
    x, y = region.x0 + 0.5 - pose.cx, region.y0 + 0.5 - pose.cy
    matrix = np.array(
        [
            [su * cos, su * sin, su * (x * cos + y * sin) + width / 2 - 0.5],
            [-sv * sin, sv * cos, sv * (y * cos - x * sin) + height / 2 - 0.5],
        ]
    )
    size = (region.x1 - region.x0, region.y1 - region.y0)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(texture, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return warped.astype(np.float32)


def paint(canvas: Frame, levels: Sequence[Frame], poses: Sequence[Pose]) -> None:
    """Draw a textured shape into the canvas, in place, averaged over the poses of one exposure."""
    region = Region.around(union(poses)).within(canvas.shape[1], canvas.shape[0])
    if region is None:
        return
    colour = np.zeros((region.y1 - region.y0, region.x1 - region.x0, 3), np.float32)
    alpha = np.zeros(colour.shape[:2], np.float32)
    for pose in poses:
        own = Region.around(pose.bounds).within(canvas.shape[1], canvas.shape[0])
        if own is not None:
            part = coverage(pose, own) / np.float32(len(poses))
            colour[own.slices_in(region)] += _warped(levels, pose, own) * part[..., None]
            alpha[own.slices_in(region)] += part
    view = canvas[region.y0 : region.y1, region.x0 : region.x1]
    view[...] = np.clip(view * (1 - alpha[..., None]) + colour + 0.5, 0, 255).astype(np.uint8)


def paint_bar(canvas: Frame, texture: Frame, left: float, width: float) -> None:
    """Draw a bar over the full height, in place. `left`, `width` in pixels; its texture has 2 spare pixels a side."""
    import cv2

    height = canvas.shape[0]
    whole = Region(math.floor(left), 0, math.ceil(left + width), height)
    region = whole.within(canvas.shape[1], height)
    if region is None:
        return
    columns = whole.x1 - whole.x0
    center = (whole.x0 - left + 2 + (columns - 1) / 2, (height - 1) / 2)
    patch = cv2.getRectSubPix(texture, (columns, height), center)
    view = canvas[:, region.x0 : region.x1]
    alpha = span_coverage(left, left + width, region.x0, region.x1)
    edges = np.flatnonzero(alpha < 1)
    behind, share = view[:, edges].astype(np.float32), alpha[edges][None, :, None]
    view[...] = patch[region.slices_in(whole)]
    view[:, edges] = (behind * (1 - share) + view[:, edges] * share + 0.5).astype(np.uint8)


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


VIEWS = ("colour", "thermal", "depth", "event")
DepthPlane = npt.NDArray[np.uint16]
"""Millimetres, (height, width)."""

_HEAT = {"surroundings": (50, 110), "target": (185, 235), "distractor": (115, 150), "bar": (55, 80)}
"""Lowest and highest grey of what is seen: the target is warm, its look-alikes are cooler."""
_FAR, _NEAR, _RELIEF = 6000.0, 3500.0, 250.0
"""Millimetres: of the surroundings at the top and at the bottom of the frame, and how much their texture moves them."""
TARGET_MM, DISTRACTOR_MM, BAR_MM = 2200.0, 3000.0, 1200.0
"""Millimetres, of what has its usual size; twice as large is half as far."""
_STEP = 0.1
"""Change of the logarithm of the brightness from which on an event camera reports it."""
_RISES, _FALLS, _QUIET = (0, 0, 255), (255, 0, 0), 255


@dataclass(frozen=True)
class Appearance:
    """The textures of all that is in a scene, as one camera sees them; of shapes with their halvings."""

    surroundings: Frame
    target: tuple[Frame, ...]
    distractors: tuple[tuple[Frame, ...], ...]
    bars: tuple[Frame, ...]

    def heated(self) -> Appearance:
        """The same to a thermal camera: grey, soft, the target warmer than all else."""
        return Appearance(
            _heat(self.surroundings, "surroundings"),
            pyramid(_heat(self.target[0], "target")),
            tuple(pyramid(_heat(levels[0], "distractor")) for levels in self.distractors),
            tuple(_heat(texture, "bar") for texture in self.bars),
        )


def _heat(texture: Frame, what: str) -> Frame:
    import cv2

    low, high = _HEAT[what]
    grey = cv2.GaussianBlur(cv2.cvtColor(texture, cv2.COLOR_BGR2GRAY).astype(np.float32), (0, 0), 2.0)
    spread = max(float(np.ptp(grey)), 1e-6)
    values = low + (grey - grey.min()) / spread * (high - low)
    heated: Frame = np.repeat(np.rint(values).astype(np.uint8)[..., None], 3, axis=2)
    return heated


def depth_behind(surroundings: Frame) -> Plane:
    """Millimetres of what is behind everything, (height, width), of the colours that the camera sees of it."""
    height = surroundings.shape[0]
    ramp = np.linspace(_FAR, _NEAR, height, dtype=np.float32)[:, None]
    plane: Plane = ramp + _RELIEF * (surroundings.mean(axis=2, dtype=np.float32) / 127.5 - 1)
    return plane


def stand(plane: Plane, pose: Pose, distance: float) -> None:
    """Put a shape into a plane of millimetres, in place: every pixel that it covers by half or more."""
    region = Region.around(pose.bounds).within(plane.shape[1], plane.shape[0])
    if region is not None:
        inside = coverage(pose, region) >= 0.5
        plane[region.y0 : region.y1, region.x0 : region.x1][inside] = distance


def events(now: Frame, before: Frame) -> Frame:
    """What an event camera reports between two frames: red where it grew brighter, blue where darker, else white."""
    light, dark = (np.log(frame.mean(axis=2, dtype=np.float32) + 8) for frame in (now, before))
    change = light - dark
    picture = np.full(now.shape, _QUIET, np.uint8)
    picture[change > _STEP], picture[change < -_STEP] = _RISES, _FALLS
    return picture


def shown(depth: DepthPlane) -> Frame:
    """Millimetres as grey, near things bright: uint8 (height, width, 3)."""
    grey = 255 - np.rint(np.minimum(depth, 10_000) * (255 / 10_000)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)
