"""Cutting the template and the search region out of a frame, as the official procedures do it.

Three crop rules: padded squares (`crop_square`, `crop_filled`), crops aligned to whole pixels on both sides
(`crop_aligned`), and warped patches (`crop_warped`).
"""

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
# A coordinate this far past a whole pixel starts the next one (`touched`).
_SLACK = 1 - 1e-4


class CropRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A square of `factor` times the square root of the box's area, resized to `size` x `size` pixels."""

    factor: float
    size: int


class PixelSquare(NamedTuple):
    """A square of whole pixels: its first column `x` and row `y`, which the frame need not hold, and `side` >= 1."""

    x: int
    y: int
    side: int

    def is_inside(self, frame: Image) -> bool:
        """Whether the frame holds all of it."""
        height, width = frame.shape[:2]
        return self.x >= 0 and self.y >= 0 and self.x + self.side <= width and self.y + self.side <= height


class Scratch:
    """Memory for padded squares, kept between frames and grown when a larger square comes.

    Attributes:
        largest: the longest side, in pixels, of a square that is copied.
    """

    def __init__(self, largest: int = LARGEST_COPY) -> None:
        self.largest = largest
        self._bytes = np.empty(0, np.uint8)

    def square(self, side: int) -> Image:
        """Uninitialised (side, side, 3), valid until the next call."""
        needed = side * side * 3
        if self._bytes.size < needed:
            self._bytes = np.empty(needed, np.uint8)
        return self._bytes[:needed].reshape(side, side, 3)


def square_around(box: Box, factor: float) -> PixelSquare:
    """The square that `crop_square` cuts around a box; it may reach beyond the frame."""
    side = max(1, math.ceil(math.sqrt(box.w * box.h) * factor))
    # Python's round (half to even) is the official rule.
    return PixelSquare(round(box.x + 0.5 * box.w - 0.5 * side), round(box.y + 0.5 * box.h - 0.5 * side), side)


def whole_square_around(box: Box, factor: float) -> PixelSquare:
    """The square around a box of whole pixels, as `cv2.TrackerVit` cuts it: half a pixel goes toward the box."""
    side = max(1, math.ceil(math.sqrt(box.w * box.h) * factor))
    return PixelSquare(int(box.x) + int((box.w - side) / 2), int(box.y) + int((box.h - side) / 2), side)


def crop_square(frame: Image, box: Box, rule: CropRule, out: Image, scratch: Scratch | None = None) -> float:
    """Cut a square around a box, pad it with black, resize it into `out` (docs/trackers/smat.md, Crop).

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
    square = square_around(box, rule.factor)
    # The -1 is official: a square that touches the last column or row gives it up to padding.
    held = (frame.shape[0] - 1, frame.shape[1] - 1)
    _resize(frame, square, held, BLACK, out, scratch)
    return rule.size / square.side


def crop_filled(frame: Image, square: PixelSquare, fill: Colour, out: Image, scratch: Scratch | None = None) -> None:
    """Cut a square, pad with a colour, resize into `out` (docs/trackers/nanotrack.md, Crop).

    Args:
        frame: uint8 (H, W, 3).
        square: where.
        fill: three grey levels, 0..255.
        out: uint8 (size, size, 3), C-contiguous, written in place.
        scratch: where a square that leaves the frame is padded; new memory when None.
    """
    _resize(frame, square, (frame.shape[0], frame.shape[1]), fill, out, scratch)


def _resize(
    frame: Image, square: PixelSquare, held: tuple[int, int], fill: Colour, out: Image, scratch: Scratch | None
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
        scratch = scratch or Scratch()
        if side > scratch.largest:
            _sample(cut, (y1, x1), side, fill, out)
            return
        padded = scratch.square(side)
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


class CropMapping(NamedTuple):
    """From pixels of the frame to pixels of the crop: p -> scale p + shift, by axis."""

    scale_x: float
    scale_y: float
    shift_x: float
    shift_y: float

    def to_crop(self, box: Box) -> Box:
        """A box of the frame in pixels of the crop."""
        return Box(
            box.x * self.scale_x + self.shift_x,
            box.y * self.scale_y + self.shift_y,
            box.w * self.scale_x,
            box.h * self.scale_y,
        )

    def to_frame(self, box: Box) -> Box:
        """A box of the crop in pixels of the frame."""
        return Box(
            (box.x - self.shift_x) / self.scale_x,
            (box.y - self.shift_y) / self.scale_y,
            box.w / self.scale_x,
            box.h / self.scale_y,
        )


class Cells(NamedTuple):
    """Whole pixels or cells: x and y from the first up to, not including, the last."""

    x1: int
    y1: int
    x2: int
    y2: int

    @property
    def is_empty(self) -> bool:
        """Whether there are none."""
        return self.x1 >= self.x2 or self.y1 >= self.y2


def touched(box: Box) -> Cells:
    """The pixels that a box touches, wherever they are."""
    return Cells(
        math.floor(box.x),
        math.floor(box.y),
        math.floor(box.x + box.w + _SLACK),
        math.floor(box.y + box.h + _SLACK),
    )


def rasterised(box: Box, width: int, height: int) -> Cells:
    """The pixels that a box touches, within (width, height)."""
    x1, y1, x2, y2 = touched(box)
    return Cells(max(0, x1), max(0, y1), min(width, x2), min(height, y2))


def wanted_mapping(box: Box, factor: float, size: int) -> CropMapping:
    """What puts a box, with (factor - 1) / 2 of (w + h) more on each axis, into the middle of a crop.

    Args:
        box: in pixels of the frame, with an area.
        factor: 1 or more.
        size: of the crop, in pixels.
    """
    context = (factor - 1) * (box.w + box.h) / 2
    scale = math.sqrt(size * size / ((box.w + context) * (box.h + context)))
    cx, cy = box.center
    return CropMapping(scale, scale, size / 2 - cx * scale, size / 2 - cy * scale)


def crop_aligned(
    frame: Image, box: Box, factor: float, fill: NDArray[np.float32], out: NDArray[np.float32]
) -> CropMapping:
    """Cut and scale around a box into `out`, whole pixels to whole pixels (docs/trackers/spmtrack.md, Crop).

    Args:
        frame: uint8 (H, W, 3).
        box, factor: see `wanted_mapping`.
        fill: (3,), the colour of what the frame does not hold.
        out: float32 (size, size, 3), written in place, 0..255.

    Returns:
        The mapping after alignment, which is the one to map back with; the wanted one where the crop sees no pixel.
    """
    (height, width), size = frame.shape[:2], out.shape[0]
    wanted = wanted_mapping(box, factor, size)
    seen = wanted.to_crop(Box(0.0, 0.0, float(width), float(height)))
    x1, y1 = max(0.0, seen.x), max(0.0, seen.y)
    x2, y2 = min(float(size), seen.x + seen.w), min(float(size), seen.y + seen.h)
    target = rasterised(Box(x1, y1, x2 - x1, y2 - y1), size, size)
    out[...] = fill
    if x1 >= x2 or y1 >= y2 or target.is_empty:
        return wanted
    back = wanted.to_frame(Box(target.x1, target.y1, target.x2 - target.x1, target.y2 - target.y1))
    source = rasterised(back, width, height)
    if source.is_empty:
        return wanted
    wide, high = target.x2 - target.x1, target.y2 - target.y1
    cut = frame[source.y1 : source.y2, source.x1 : source.x2].astype(np.float32)
    out[target.y1 : target.y2, target.x1 : target.x2] = cv2.resize(cut, (wide, high), interpolation=cv2.INTER_LINEAR)
    # float32, as published: what follows from it is compared with the official boxes.
    scale_x = np.float32(wide) / np.float32(source.x2 - source.x1)
    scale_y = np.float32(high) / np.float32(source.y2 - source.y1)
    shift_x, shift_y = target.x1 - source.x1 * scale_x, target.y1 - source.y1 * scale_y
    return CropMapping(*(float(value) for value in (scale_x, scale_y, shift_x, shift_y)))


def mean_colour(frame: Image) -> NDArray[np.float32]:
    """(3,): the mean of each channel."""
    return np.array(cv2.mean(frame)[:3], np.float32)


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
    """Sample a patch bilinearly into `out`, whose corner pixels are the patch's (docs/trackers/dastm.md, Crop).

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
