"""Names for the arrays that are passed around, and whether their numbers are any."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]
Images = NDArray[np.uint8]
Boxes = NDArray[np.float64]
"""(n, 4): x, y, width, height."""


def all_finite(*maps: Array) -> bool:
    """Whether no map holds NaN or infinity: either reaches the sum, which is cheaper than an array of truth values."""
    with np.errstate(all="ignore"):
        return all(bool(np.isfinite(values.sum())) for values in maps)
