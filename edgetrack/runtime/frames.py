"""What may be handed to a tracker as a frame, and what is made of it."""

from __future__ import annotations

from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from edgetrack.errors import InvalidFrameError

_CONVERSIONS = {1: cv2.COLOR_GRAY2BGR, 4: cv2.COLOR_BGRA2BGR}


def as_bgr(frame: Any) -> NDArray[np.uint8]:
    """A frame as uint8 (H, W, 3) BGR.

    Taken as it is: uint8 (H, W, 3), also a non-contiguous view. Converted: grey, (H, W) or (H, W, 1), is repeated over
    the three channels; of BGRA, (H, W, 4), the alpha channel is dropped. The size may change from frame to frame.

    Raises:
        InvalidFrameError: not an array, empty, of another dtype (its value range cannot be known) or shape.
    """
    if not isinstance(frame, np.ndarray):
        hint = "; the video has probably ended or the file was not found" if frame is None else ""
        raise InvalidFrameError(f"frame is {type(frame).__name__}, expected a uint8 numpy array (H, W, 3){hint}")
    if frame.size == 0:
        raise InvalidFrameError(f"frame is empty, its shape is {frame.shape}; expected uint8 (H, W, 3)")
    if frame.dtype != np.uint8:
        raise InvalidFrameError(
            f"frame has dtype {frame.dtype}, expected uint8 with values 0..255; convert it, for values 0..1 by "
            "(frame * 255).round().astype('uint8')"
        )
    channels = 1 if frame.ndim == 2 else frame.shape[2] if frame.ndim == 3 else 0
    if channels == 3:
        return frame
    if channels in _CONVERSIONS:
        return cast("NDArray[np.uint8]", cv2.cvtColor(np.ascontiguousarray(frame), _CONVERSIONS[channels]))
    raise InvalidFrameError(f"frame has shape {frame.shape}, expected (H, W, 3) BGR, (H, W, 4) BGRA or (H, W) grey")
