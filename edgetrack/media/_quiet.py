"""Keep OpenCV's and FFmpeg's own messages off stderr: what matters of them is raised as an error with a name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_cv2() -> Iterator[None]:
    """No log lines from OpenCV inside; FFmpeg's are off from its first use on, unless the environment asks for them."""
    import cv2

    # AV_LOG_QUIET: OpenCV reads this once, when it first calls FFmpeg, and has no other switch for it.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    before = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(before)
