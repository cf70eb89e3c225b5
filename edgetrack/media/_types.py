"""The array types that the package speaks of."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Frame: TypeAlias = npt.NDArray[np.uint8]
"""An image: uint8, (height, width, 3), channels in the order blue, green, red."""

Plane: TypeAlias = npt.NDArray[np.float32]
"""One or more float32 values per pixel: (height, width) or (height, width, channels)."""
