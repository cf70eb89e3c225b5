"""A frame, and what every source of frames has in common."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edgetrack.box import Box
from edgetrack.errors import SourceError

Frame: TypeAlias = npt.NDArray[np.uint8]
"""An image: uint8, (height, width, 3), channels in the order blue, green, red."""
Plane: TypeAlias = npt.NDArray[np.float32]
"""One or more float32 values per pixel: (height, width) or (height, width, channels)."""
MAX_SIDE = 20_000
"""Pixels: no wider or higher image is taken."""
MAX_PIXELS = 400_000_000
"""Pixels per image: 1.2 GB once decoded."""


class FrameSource(ABC):
    """Frames in order, as a context manager and an iterable of uint8 (height, width, 3) BGR arrays.

    Iterating again starts over, except for a camera, which continues.

    Attributes:
        name: of the video, sequence, scene or camera; for labels and file names.
        length: number of frames, or None where it is not known (a camera).
        fps: frames per second, or None where it is not known (images).
        size: (width, height) of the first frame in pixels, or None where it is not known yet.
    """

    name: str
    length: int | None
    fps: float | None
    size: tuple[int, int] | None

    @property
    def ground_truth(self) -> list[Box | None] | None:
        """One box (pixels) per frame, None for a frame without one; None where there is no ground truth at all."""
        return None

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """The frames.

        Raises:
            SourceInterruptedError: after the good frames, where the next cannot be read.
        """

    def close(self) -> None:  # noqa: B027
        """Release files and devices. May be called more than once; most sources hold nothing between frames."""

    def __enter__(self) -> FrameSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_size(width: int, height: int, what: str) -> None:
    """Refuse an image that would fill the memory.

    Raises:
        SourceError: a side above `MAX_SIDE` or more than `MAX_PIXELS` in all.
    """
    if width > MAX_SIDE or height > MAX_SIDE or width * height > MAX_PIXELS:
        raise SourceError(
            f"{what} states {width}x{height} pixels; at most {MAX_SIDE} a side and {MAX_PIXELS // 1_000_000} "
            "megapixels are taken; scale it down first"
        )


@contextmanager
def quiet_cv2() -> Iterator[None]:
    """Silence OpenCV's log lines inside, and FFmpeg's from its first use on, unless the environment asks for them."""
    import cv2

    # AV_LOG_QUIET: OpenCV reads this once, when it first calls FFmpeg, and has no other switch for it.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    # OpenCV 4 has the two functions at the top, OpenCV 5 in a module that OpenCV 4 lacks.
    log: Any = cv2 if hasattr(cv2, "setLogLevel") else cv2.utils.logging
    before = log.getLogLevel()
    log.setLogLevel(0)
    try:
        yield
    finally:
        log.setLogLevel(before)
