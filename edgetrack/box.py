"""Box algebra. A box is (x, y, w, h): top-left corner and size, float pixels, as OTB and GOT-10k write it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from edgetrack.errors import InvalidBoxError

# Every help text imports this module: NumPy is imported by the functions that need it.
if TYPE_CHECKING:
    import numpy as np

    from edgetrack.arrays import Boxes, Floats


LEAST_SIDE = 1e-6
"""Of a box that is tracked, in pixels: below, its area or its square root in float32 becomes 0."""
LARGEST_SIDE = 1e6
"""Of a box that is tracked, in pixels; no frame is as large."""


class Box(NamedTuple):
    """A box in a frame: top-left corner `x`, `y` and size `w`, `h`, in float pixels."""

    x: float
    y: float
    w: float
    h: float

    @property
    def center(self) -> tuple[float, float]:
        """(cx, cy) in pixels."""
        return self.x + 0.5 * self.w, self.y + 0.5 * self.h

    @property
    def area(self) -> float:
        """Square pixels; 0 for a box without extent."""
        return max(self.w, 0.0) * max(self.h, 0.0)

    @property
    def xyxy(self) -> tuple[float, float, float, float]:
        """(x1, y1, x2, y2): the corners in pixels."""
        return self.x, self.y, self.x + self.w, self.y + self.h

    @property
    def is_finite(self) -> bool:
        """Whether none of the four numbers is NaN or infinite."""
        return all(math.isfinite(v) for v in self)

    @property
    def can_be_followed(self) -> bool:
        """Whether it is finite and no side is negative or longer than `LARGEST_SIDE`."""
        return self.is_finite and 0 <= self.w <= LARGEST_SIDE and 0 <= self.h <= LARGEST_SIDE

    @classmethod
    def from_center(cls, cx: float, cy: float, w: float, h: float) -> Box:
        """From (cx, cy, w, h) in pixels."""
        return cls(cx - 0.5 * w, cy - 0.5 * h, w, h)

    @classmethod
    def from_xyxy(cls, x1: float, y1: float, x2: float, y2: float) -> Box:
        """From corners in pixels."""
        return cls(x1, y1, x2 - x1, y2 - y1)

    @classmethod
    def parse(cls, text: str) -> Box:
        """From text such as `10,20,64,48`.

        Raises:
            InvalidBoxError: not four numbers, or not a box with a positive size.
        """
        parts = text.replace(",", " ").split()
        try:
            values = [float(p) for p in parts]
        except ValueError:
            values = []
        if len(values) != 4:
            raise InvalidBoxError(
                f"box {text!r} is not four numbers; write x,y,w,h in pixels, such as --box 120,80,64,48"
            )
        return validate(values)


def annotated(x: float, y: float, w: float, h: float) -> Box | None:
    """The box of a row of ground truth; None where it says that the target is absent: NaN throughout, or no area.

    Raises:
        ValueError: other rows with NaN, and infinity.
    """
    values = (x, y, w, h)
    if all(map(math.isnan, values)) or ((w <= 0 or h <= 0) and not any(map(math.isinf, values))):
        return None
    if not all(map(math.isfinite, values)):
        raise ValueError("a box that is not finite")
    return Box(x, y, w, h)


def ious(a: Boxes, b: Boxes) -> Floats:
    """Intersection over union, 0..1, row by row of two (n, 4) arrays of boxes.

    It is 0 where a box has no extent or is not finite.
    """
    import numpy as np

    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        corner = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
        # At large coordinates the corners round to more than the sizes say.
        sides = np.minimum(corner - np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:]))
        shared = np.maximum(sides, 0).prod(axis=1)
        found = shared / (a[:, 2:].prod(axis=1) + b[:, 2:].prod(axis=1) - shared)
    clipped: Floats = np.clip(np.nan_to_num(found, nan=0.0, posinf=0.0), 0, 1)
    return clipped


def center_distances(a: Boxes, b: Boxes) -> Floats:
    """Distance of the centres in pixels, row by row of two (n, 4) arrays of boxes."""
    import numpy as np

    offsets = a[:, :2] + a[:, 2:] / 2 - b[:, :2] - b[:, 2:] / 2
    distances: Floats = np.hypot(offsets[:, 0], offsets[:, 1])
    return distances


def iou(a: Box, b: Box) -> float:
    """`ious` of two boxes."""
    import numpy as np

    return float(ious(np.array([a], np.float64), np.array([b], np.float64))[0])


def clip(box: Box, frame_height: int, frame_width: int, margin: float = 10.0) -> Box:
    """Keep a box in the frame with at least `margin` pixels of it on each axis (docs/trackers/smat.md, Decoding).

    The right and lower edge are taken from the *unclipped* corner plus the size, and the result is at least
    `margin` wide and high, even where the frame is smaller: the rule of the OSTrack family, kept exactly.
    """
    x1, y1, x2, y2 = box.xyxy
    left = min(max(0.0, x1), frame_width - margin)
    right = min(max(margin, x2), float(frame_width))
    top = min(max(0.0, y1), frame_height - margin)
    bottom = min(max(margin, y2), float(frame_height))
    return Box(left, top, max(margin, right - left), max(margin, bottom - top))


def jitter(box: Box, rng: np.random.Generator, centre: float, scale: float) -> Box:
    """A box near another, as the OSTrack family draws the place of a search crop.

    Width and height are each multiplied by exp(scale * N(0, 1)); then the centre moves by up to half of `centre` times
    the square root of the new area, uniformly, on each axis.
    """
    w, h = (side * math.exp(scale * float(rng.standard_normal())) for side in (box.w, box.h))
    reach = centre * math.sqrt(w * h)
    cx, cy = (place + reach * (float(rng.random()) - 0.5) for place in box.center)
    return Box.from_center(cx, cy, w, h)


def validate(values: Iterable[float], frame_size: tuple[int, int] | None = None) -> Box:
    """Four numbers as a Box, or a clear error.

    Args:
        values: x, y, w, h in pixels.
        frame_size: (height, width) of the frame the box must touch; not checked when None.

    Raises:
        InvalidBoxError: not four finite numbers, a size that is not positive, tiny or huge, or outside the frame.
    """
    given: object = values
    try:
        given = list(values)
        numbers = [float(v) for v in given]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != 4:
        raise InvalidBoxError(f"box {given!r} is not four numbers; expected (x, y, w, h) in pixels")
    box = Box(*numbers)
    if not box.is_finite:
        raise InvalidBoxError(
            f"box {tuple(box)} holds NaN or infinity; expected four finite numbers (x, y, w, h) in pixels"
        )
    if box.w <= 0 or box.h <= 0:
        raise InvalidBoxError(f"box {tuple(box)} has no area; width and height must be above 0 pixels")
    if min(box.w, box.h) < LEAST_SIDE:
        raise InvalidBoxError(f"box {tuple(box)} is too small; width and height must be {LEAST_SIDE:g} pixels or more")
    if max(box.w, box.h) > LARGEST_SIDE:
        raise InvalidBoxError(
            f"box {tuple(box)} is too large; width and height must be {LARGEST_SIDE:g} pixels or less"
        )
    if frame_size is not None:
        height, width = frame_size
        if box.x >= width or box.y >= height or box.x + box.w <= 0 or box.y + box.h <= 0:
            raise InvalidBoxError(
                f"box {tuple(box)} lies outside the frame of {width}x{height} pixels; "
                "give (x, y, w, h) with the top-left corner as origin"
            )
    return box
