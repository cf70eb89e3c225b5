"""From maps to a box: score, size and offset of centre heads (sheet 0.4), distances to edges of anchor-free heads."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgetrack.box import Box

Map = NDArray[np.float32]


class Peak(NamedTuple):
    """The chosen cell: its un-windowed and windowed score (0..1) and the box in fractions of the crop."""

    score: float
    windowed: float
    cx: float
    cy: float
    w: float
    h: float


def all_finite(*maps: Map) -> bool:
    """Whether no map holds NaN or infinity: either reaches the sum, which is cheaper than an array of truth values."""
    with np.errstate(all="ignore"):
        return all(bool(np.isfinite(values.sum())) for values in maps)


def decode_center(score: Map, size: Map, offset: Map, window: Map, response: Map) -> Peak:
    """The cell with the highest windowed score (the first one in row-major order) and its box.

    Args:
        score: (1, 1, F, F).
        size: (1, 2, F, F), width and height as fractions of the crop.
        offset: (1, 2, F, F), in cells.
        window: (F, F), multiplied onto the score.
        response: (F, F), scratch memory for the windowed score.
    """
    cells = window.shape[-1]
    np.multiply(score[0, 0], window, out=response)
    row, column = divmod(int(response.argmax()), cells)
    return Peak(
        score=float(score[0, 0, row, column]),
        windowed=float(response[row, column]),
        cx=(column + float(offset[0, 0, row, column])) / cells,
        cy=(row + float(offset[0, 1, row, column])) / cells,
        w=float(size[0, 0, row, column]),
        h=float(size[0, 1, row, column]),
    )


def map_back(peak: Peak, previous: Box, crop_size: int, resize_factor: float) -> Box:
    """From fractions of the crop to pixels of the frame, not clipped.

    The crop's origin was rounded to whole pixels when it was cut, and the published code does not undo that: a
    sub-pixel bias that is kept for parity.
    """
    scale = crop_size / resize_factor
    cx, cy = previous.center
    half = 0.5 * scale
    return Box.from_center(peak.cx * scale + cx - half, peak.cy * scale + cy - half, peak.w * scale, peak.h * scale)


class CellBox(NamedTuple):
    """The chosen cell: its score without the window, 0..1, and its box in fractions of the crop."""

    score: float
    box: Box


def decode_boxes(score: Map, boxes: Map, window: NDArray[np.float32], influence: float) -> CellBox:
    """The first cell in row-major order whose score, with the window mixed in, is the highest (SPMTrack's sheet, 3.5).

    Args:
        score: (1, F, F) logits.
        boxes: (1, F, F, 4), x1, y1, x2, y2 as fractions of the crop.
        window: (F, F), 0..1.
        influence: share of the window, 0..1.
    """
    probability = 1 / (1 + np.exp(-np.clip(score[0], -80, 80)))
    best = int(np.argmax(probability * (1 - influence) + window * influence))
    x1, y1, x2, y2 = map(float, boxes.reshape(-1, 4)[best])
    return CellBox(float(probability.reshape(-1)[best]), Box(x1, y1, x2 - x1, y2 - y1))


class Found(NamedTuple):
    """The chosen cell of a head of distances.

    Attributes:
        score: probability of the target, 0..1; `windowed`: the number that was compared, penalty and window in it.
        weight: penalty times score, 0..1.
        x, y: the box's centre in pixels of the crop, from the crop's middle.
        w, h: its size in pixels of the crop, above 0.
    """

    score: float
    windowed: float
    weight: float
    x: float
    y: float
    w: float
    h: float


class DistanceDecoder:
    """Logits and log-distances of every cell to the best box (NanoTrack's sheet, 3a steps 4 to 6).

    A cell is worse the more its box differs from the last one in scale and in aspect. All memory is made once.
    """

    def __init__(
        self,
        window: NDArray[Any],
        *,
        stride: int,
        influence: float,
        penalty: float,
        origin: int = 0,
        dtype: type[np.floating[Any]] = np.float64,
    ) -> None:
        """Prepare the numbers of each cell.

        Args:
            window: (n, n), added to the score.
            stride: pixels of the crop between two cells; cell n // 2 is the crop's middle.
            influence: of the window, 0..1.
            penalty: how strongly changes count; 0 or more.
            origin: coordinate of the crop's middle while edges are computed: where roundings fall, nothing else.
            dtype: of the arithmetic.
        """
        cells = window.shape[0]
        self.origin = dtype(origin)
        self.points = [dtype(stride * (index - cells // 2) + origin) for index in range(cells)]
        self.window = (window.reshape(-1) * influence).astype(dtype)
        self.keep = 1 - influence
        self.penalty = -penalty
        self._distances = np.empty((4, cells * cells), np.float32)
        self._memory = np.empty((6, cells * cells), dtype)

    def __call__(self, cls: Map, loc: Map, scale: float, aspect: float) -> Found | None:
        """The first best cell in row-major order, or None where a map or the chosen box holds NaN or infinity.

        Args:
            cls: (1, 2, n, n) logits of background and target.
            loc: (1, 4, n, n) logarithms of the distances to left, top, right and lower edge, in pixels of the crop.
            scale: what `size_with_context` gives for the last box, in pixels of the crop.
            aspect: width over height of the last box.
        """
        with np.errstate(all="ignore"):
            best, windowed = self._best(cls.reshape(2, -1), loc.reshape(4, -1), scale, aspect)
        score, weight = float(self._memory[0, best]), float(self._memory[4, best])
        # A NaN or an infinity anywhere reaches the sums; they are cheaper than arrays of truth values.
        with np.errstate(all="ignore"):
            total = float(cls.sum()) + float(loc.sum()) + float(self._distances.sum())
            x, y, width, height = self._box(best)
        if not (math.isfinite(total) and math.isfinite(windowed) and width > 0 and height > 0):
            return None
        return Found(score, windowed, weight, x, y, width, height)

    def _box(self, best: int) -> tuple[float, float, float, float]:
        """Centre, from the crop's middle, and size of a cell's box."""
        left, top, right, bottom = self._distances[:, best]
        row, column = divmod(best, len(self.points))
        x1, x2 = self.points[column] - left, self.points[column] + right
        y1, y2 = self.points[row] - top, self.points[row] + bottom
        return float((x1 + x2) / 2 - self.origin), float((y1 + y2) / 2 - self.origin), float(x2 - x1), float(y2 - y1)

    def _best(self, cls: Map, loc: Map, scale: float, aspect: float) -> tuple[int, float]:
        """Fill the memory: score, width, height, change, weight, response; the best cell and its response."""
        score, width, height, change, weight, response = self._memory
        np.subtract(cls[0], cls[1], out=score)
        np.exp(score, out=score)
        score += 1
        np.reciprocal(score, out=score)
        left, top, right, bottom = np.exp(loc, out=self._distances)
        np.add(left, right, out=width)
        np.add(top, bottom, out=height)
        # The size of a box with its context, squared: (w + (w + h) / 2) (h + (w + h) / 2).
        np.add(width, height, out=response)
        response *= 0.5
        np.add(width, response, out=change)
        response += height
        change *= response
        np.sqrt(change, out=change)
        change /= scale
        np.reciprocal(change, out=response)
        np.maximum(change, response, out=change)
        width /= height
        np.divide(aspect, width, out=width)
        np.reciprocal(width, out=response)
        np.maximum(width, response, out=width)
        change *= width
        change -= 1
        change *= self.penalty
        np.exp(change, out=change)
        np.multiply(change, score, out=weight)
        np.multiply(weight, self.keep, out=response)
        response += self.window
        best = int(response.argmax())
        return best, float(response[best])


def size_with_context(w: float, h: float) -> float:
    """The geometric mean of the sides of a box that has half of (w + h) more on both axes."""
    context = 0.5 * (w + h)
    product = (w + context) * (h + context)
    return math.sqrt(product) if product < math.inf else math.sqrt(w + context) * math.sqrt(h + context)
