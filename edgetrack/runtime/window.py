"""Windows that pull the score map towards the centre of the search region. Two Hann definitions exist: mind which."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def hann_open(size: int) -> NDArray[np.float32]:
    """(size, size) Hann window without zeros at the border: 0.5 (1 - cos(2 pi k / (size + 1))), k = 1..size.

    The one of the OSTrack family, multiplied onto the score map (sheet 0.2).
    """
    row = 0.5 * (1 - np.cos(2 * np.pi * np.arange(1, size + 1) / (size + 1)))
    return np.outer(row, row).astype(np.float32)


def hann_closed(size: int) -> NDArray[np.float64]:
    """(size, size) Hann window with zeros at the border: 0.5 (1 - cos(2 pi k / (size - 1))), k = 0..size-1.

    The one of the SiamFC family, added to the score map (NanoTrack's sheet, 3a). `size` is 2 or more.
    """
    row = 0.5 * (1 - np.cos(2 * np.pi * np.arange(size) / (size - 1)))
    return np.outer(row, row)


def hann_root(size: int) -> NDArray[np.float32]:
    """The square root of `hann_closed`, wider: what OpenCV's `createHanningWindow` gives (NanoTrack's sheet, 3b)."""
    return np.sqrt(hann_closed(size).astype(np.float32))
