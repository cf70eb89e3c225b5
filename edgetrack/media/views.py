"""What other cameras see of a synthetic scene: its heat, its depth, its changes; in the same pixels as the colours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgetrack.media.frames import Frame, Plane
from edgetrack.media.raster import Pose, Region, coverage, pyramid

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
class Look:
    """The textures of all that is in a scene, as one camera sees them; of shapes with their halvings."""

    surroundings: Frame
    target: tuple[Frame, ...]
    distractors: tuple[tuple[Frame, ...], ...]
    bars: tuple[Frame, ...]

    def heated(self) -> Look:
        """The same to a thermal camera: grey, soft, the target warmer than all else."""
        return Look(
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
