"""Keep OpenCV's and FFmpeg's own messages off stderr: what matters of them is raised as an error with a name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_SILENT = 0


@contextmanager
def quiet_cv2() -> Iterator[None]:
    """No log lines from OpenCV inside; FFmpeg's are off from its first use on, unless the environment asks for them."""
    import cv2

    # AV_LOG_QUIET: OpenCV reads this once, when it first calls FFmpeg, and has no other switch for it.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    # OpenCV 4 has the two functions at the top, OpenCV 5 in a module that OpenCV 4 lacks.
    log: Any = cv2 if hasattr(cv2, "setLogLevel") else cv2.utils.logging
    before = log.getLogLevel()
    log.setLogLevel(_SILENT)
    try:
        yield
    finally:
        log.setLogLevel(before)
