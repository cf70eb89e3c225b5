"""From a head's maps to a box: windows, centre heads, and anchor-free heads of scored boxes or distances to edges."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from edgetrack.arrays import Array
from edgetrack.box import Box

Map = NDArray[np.float32]
_NO_EXTENT = 1e-6


def hann_open(size: int) -> Map:
    """(size, size) Hann window without zeros at the border: 0.5 (1 - cos(2 pi k / (size + 1))), k = 1..size.

    Multiplied onto the scores of centre heads. Two Hann definitions exist: `hann_closed` is the other.
    """
    row = 0.5 * (1 - np.cos(2 * np.pi * np.arange(1, size + 1) / (size + 1)))
    return np.outer(row, row).astype(np.float32)


def hann_closed(size: int) -> NDArray[np.float64]:
    """(size, size) Hann window with zeros at the border: 0.5 (1 - cos(2 pi k / (size - 1))), k = 0..size-1.

    Added to the scores of anchor-free heads. `size` is 2 or more.
    """
    row = 0.5 * (1 - np.cos(2 * np.pi * np.arange(size) / (size - 1)))
    return np.outer(row, row)


def hann_root(size: int) -> Map:
    """The square root of `hann_closed`, which is wider: what OpenCV's `createHanningWindow` gives."""
    return np.sqrt(hann_closed(size).astype(np.float32))


class Peak(NamedTuple):
    """The chosen cell: its un-windowed and windowed score (0..1) and the box in fractions of the crop."""

    score: float
    windowed: float
    cx: float
    cy: float
    w: float
    h: float


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


class ScoreMaps(NamedTuple):
    """What a cell was last chosen from, both (n, n): the scores with their penalty, and with the window too.

    The next choice overwrites them.
    """

    score: Array
    windowed: Array


class Chooser(Protocol):
    """Chooses a cell of a map.

    Attributes:
        windowless: whether the window is left out, since the target may be anywhere.
    """

    windowless: bool

    @property
    def maps(self) -> ScoreMaps:
        """What the last cell was chosen from."""


class Choice(NamedTuple):
    """The cell that a `CellChooser` chose.

    Attributes:
        cell: its number in row-major order.
        score: probability of the target, 0..1; `windowed`: the number that was compared, penalty and window in it.
        weight: penalty times score, 0..1.
    """

    cell: int
    score: float
    windowed: float
    weight: float


class CellChooser:
    """The first best cell, in row-major order, of an anchor-free head, by its score, its change and a window.

    A cell is worse the more its box differs from the last one in scale and in aspect (docs/trackers/nanotrack.md and
    dastm.md, Decoding). All memory is made once.
    """

    def __init__(
        self,
        window: NDArray[Any],
        *,
        influence: float,
        penalty: float = 0.0,
        dtype: type[np.floating[Any]] = np.float64,
    ) -> None:
        """Prepare the numbers of each cell.

        Args:
            window: (n, n), added to the score.
            influence: of the window, 0..1.
            penalty: how strongly changes count; 0 or more, at 0 boxes are not looked at.
            dtype: of the arithmetic.
        """
        self.window = (window.reshape(-1) * influence).astype(dtype)
        self.keep = 1 - influence
        self.penalty = -penalty
        self.windowless = False
        self._memory = np.empty((3, window.size), dtype)

    @property
    def maps(self) -> ScoreMaps:
        """See `Chooser`."""
        size = math.isqrt(self.window.size)
        score, windowed, _ = self._memory.reshape(3, size, size)
        return ScoreMaps(score, windowed)

    def choose(
        self,
        score: Array,
        width: Array | None = None,
        height: Array | None = None,
        scale: float = 1.0,
        aspect: float = 1.0,
    ) -> Choice:
        """The best cell; where a number that decides is NaN or infinite, so are numbers of the choice.

        Args:
            score: (n * n,), 0..1.
            width, height: (n * n,), of each cell's box, in pixels of the crop; needed for a penalty.
            scale: what `size_with_context` gives for the last box, in pixels of the crop.
            aspect: width over height of the last box.
        """
        change, response, ratio = self._memory
        with np.errstate(all="ignore"):
            if self.penalty and width is not None and height is not None:
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
                np.divide(width, height, out=ratio)
                np.divide(aspect, ratio, out=ratio)
                np.reciprocal(ratio, out=response)
                np.maximum(ratio, response, out=ratio)
                change *= ratio
                change -= 1
                change *= self.penalty
                np.exp(change, out=change)
                np.multiply(change, score, out=change)
            else:
                np.copyto(change, score)
            if self.windowless:
                np.copyto(response, change)
            else:
                np.multiply(change, self.keep, out=response)
                response += self.window
        best = int(response.argmax())
        return Choice(best, float(score[best]), float(response[best]), float(change[best]))


class Found(NamedTuple):
    """The box of the chosen cell of a head of distances; `score`, `windowed` and `weight` as in `Choice`.

    Attributes:
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
    """Logits and log-distances of every cell to the best box (docs/trackers/nanotrack.md, Decoding)."""

    def __init__(self, chooser: CellChooser, *, stride: int, origin: int = 0) -> None:
        """Prepare the place of each cell.

        Args:
            chooser: of n x n cells; its dtype is that of the arithmetic here, too.
            stride: pixels of the crop between two cells; cell n // 2 is the crop's middle.
            origin: coordinate of the crop's middle while edges are computed: where roundings fall, nothing else.
        """
        count, dtype = chooser.window.size, chooser.window.dtype.type
        cells = math.isqrt(count)
        self.chooser = chooser
        self.origin = dtype(origin)
        self.points = [dtype(stride * (index - cells // 2) + origin) for index in range(cells)]
        self._distances = np.empty((4, count), np.float32)
        self._score, self._width, self._height = np.empty((3, count), dtype)

    def __call__(self, cls: Map, loc: Map, scale: float, aspect: float) -> Found | None:
        """The best box, or None where a map or the chosen box holds NaN or infinity.

        Args:
            cls: (1, 2, n, n) logits of background and target.
            loc: (1, 4, n, n) logarithms of the distances to left, top, right and lower edge, in pixels of the crop.
            scale, aspect: see `CellChooser.choose`.
        """
        logits, score = cls.reshape(2, -1), self._score
        with np.errstate(all="ignore"):
            np.subtract(logits[0], logits[1], out=score)
            np.exp(score, out=score)
            score += 1
            np.reciprocal(score, out=score)
            np.exp(loc.reshape(4, -1), out=self._distances)
            # A NaN or an infinity anywhere reaches the sums; they are cheaper than arrays of truth values.
            total = float(cls.sum()) + float(loc.sum()) + float(self._distances.sum())
        found = self.find(score, scale, aspect)
        return found if math.isfinite(total) and found is not None and found.w > 0 and found.h > 0 else None

    def of_distances(self, score: Map, reg: Map, scale: float, aspect: float) -> Found | None:
        """The best box of a head whose activations are in its graph.

        Args:
            score: (1, 1, n, n) probabilities of the target.
            reg: (1, 4, n, n) distances to left, top, right and lower edge, 0 or more, in pixels of the crop.
            scale, aspect: see `CellChooser.choose`.
        """
        np.copyto(self._score, score.reshape(-1))
        # A box without extent has no aspect; one this small never wins.
        np.maximum(reg.reshape(4, -1), _NO_EXTENT, out=self._distances)
        return self.find(self._score, scale, aspect)

    def find(self, score: Array, scale: float, aspect: float) -> Found | None:
        """The best cell by its score and the distances that were filled in; None where a number is not finite."""
        with np.errstate(all="ignore"):
            left, top, right, bottom = self._distances
            np.add(left, right, out=self._width)
            np.add(top, bottom, out=self._height)
            best = self.chooser.choose(score, self._width, self._height, scale, aspect)
            x, y, width, height = self._box(best.cell)
        if not (math.isfinite(best.windowed) and math.isfinite(width) and math.isfinite(height)):
            return None
        return Found(best.score, best.windowed, best.weight, x, y, width, height)

    def _box(self, cell: int) -> tuple[float, float, float, float]:
        """Centre, from the crop's middle, and size of a cell's box."""
        left, top, right, bottom = self._distances[:, cell]
        row, column = divmod(cell, len(self.points))
        x1, x2 = self.points[column] - left, self.points[column] + right
        y1, y2 = self.points[row] - top, self.points[row] + bottom
        return float((x1 + x2) / 2 - self.origin), float((y1 + y2) / 2 - self.origin), float(x2 - x1), float(y2 - y1)


def size_with_context(w: float, h: float) -> float:
    """The geometric mean of the sides of a box that has half of (w + h) more on both axes."""
    context = 0.5 * (w + h)
    product = (w + context) * (h + context)
    return math.sqrt(product) if product < math.inf else math.sqrt(w + context) * math.sqrt(h + context)
