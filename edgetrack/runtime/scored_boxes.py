"""From scores and boxes of all cells to the next state, with penalties for change and a window (sheet 4.4)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgetrack.runtime.decode import Map, size_with_context

Values = NDArray[np.float64]


class Chosen(NamedTuple):
    """The best cell: its score and the number that was compared, 0..1, the penalty 0..1, and its box.

    `x`, `y` are the box's centre, `w`, `h` its size, in pixels of the crop; a box from pixel 3 to pixel 5 is 3 wide.
    """

    cell: int
    score: float
    windowed: float
    penalty: float
    x: float
    y: float
    w: float
    h: float


def _change(ratio: Values) -> Values:
    """A ratio or its inverse, whichever is larger."""
    return np.maximum(ratio, 1 / ratio)


def choose_box(
    score: Map,
    boxes: Map,
    expected: tuple[float, float],
    window: NDArray[np.float64],
    *,
    influence: float,
    penalty_k: float,
) -> Chosen | None:
    """The first best cell in row-major order; None where what decides holds NaN or infinity.

    Args:
        score: (1, F, F), 0..1.
        boxes: (1, F, F, 4), x1, y1, x2, y2 in pixels of the crop.
        expected: width and height in pixels of the crop that carry no penalty.
        window: (F, F), 0..1.
        influence: share of the window, 0..1.
        penalty_k: how strongly changes of size and aspect count; 0 or more.
    """
    plain = score.reshape(-1).astype(np.float64)
    x1, y1, x2, y2 = boxes.reshape(-1, 4).astype(np.float64).T
    with np.errstate(all="ignore"):
        w, h = x2 - x1 + 1, y2 - y1 + 1
        context = (w + h) / 2
        size = _change(np.sqrt((w + context) * (h + context)) / size_with_context(*expected))
        aspect = _change(np.float64(expected[0]) / np.float64(expected[1]) / (w / h))
        penalty = np.exp(-(size * aspect - 1) * penalty_k)
        windowed = penalty * plain * (1 - influence) + window.reshape(-1) * influence
        best = int(windowed.argmax())
        x, y = (x1[best] + x2[best]) / 2, (y1[best] + y2[best]) / 2
    values = (plain[best], windowed[best], penalty[best], x, y, w[best], h[best])
    found = Chosen(best, *map(float, values))
    return found if all(map(math.isfinite, found)) else None
