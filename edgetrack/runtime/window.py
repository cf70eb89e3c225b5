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
