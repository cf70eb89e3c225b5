"""Names for the arrays that are passed around."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]
Images = NDArray[np.uint8]
Boxes = NDArray[np.float64]
"""(n, 4): x, y, width, height."""
