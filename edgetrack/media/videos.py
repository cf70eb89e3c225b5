"""Video files and cameras."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgetrack.errors import SourceError, SourceInterruptedError
from edgetrack.media.frames import Frame, FrameSource, check_size, quiet_cv2

if TYPE_CHECKING:
    import cv2

_COUNTED = frozenset({".mp4", ".m4v", ".mov", ".avi"})
"""Containers that state how many frames they hold; for others OpenCV multiplies duration and rate."""
VIDEO_SUFFIXES = _COUNTED | {
    *(".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".mjpeg", ".mjpg"),
    *(".wmv", ".flv", ".3gp", ".ogv", ".y4m", ".h264", ".hevc"),
}
_SLACK_FRAMES = 3
_SLACK_MS = 250.0
_PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"<?xml", b"v=0")
"""How files start that make FFmpeg open other files or addresses."""


class _Capture:
    """A cv2.VideoCapture that says why it cannot read, and is closed once."""

    def __init__(self, capture: cv2.VideoCapture) -> None:
        self._capture = capture

    def number(self, prop: int) -> float | None:
        """A property of the capture; None where it is unknown."""
        value = float(self._capture.get(prop))
        return value if math.isfinite(value) and value > 0 else None

    def read(self) -> Frame | None:
        """The next frame, or None where there is none or it cannot be decoded."""
        import cv2

        try:
            with quiet_cv2():
                good, image = self._capture.read()
        except cv2.error:
            return None
        return image.astype(np.uint8, copy=False) if good and image is not None else None

    def frame_size(self) -> tuple[int, int] | None:
        """(width, height) in pixels as stated; None where it is unknown."""
        import cv2

        width, height = self.number(cv2.CAP_PROP_FRAME_WIDTH), self.number(cv2.CAP_PROP_FRAME_HEIGHT)
        return (int(width), int(height)) if width and height else None

    def close(self) -> None:
        self._capture.release()


def _open_capture(what: str | int, advice: str) -> _Capture:
    import cv2

    api = cv2.CAP_ANY
    if isinstance(what, str) and cv2.CAP_FFMPEG in cv2.videoio_registry.getStreamBackends():
        # Others take a name with digits or % for a numbered series of images.
        api = cv2.CAP_FFMPEG
    try:
        with quiet_cv2():
            capture = cv2.VideoCapture(what, api)
    except cv2.error as error:
        raise SourceError(f"{advice} (OpenCV says: {error.err})") from error
    if not capture.isOpened():
        capture.release()
        raise SourceError(advice)
    return _Capture(capture)


class VideoSource(FrameSource):
    """A video file; every iteration opens it again."""

    def __init__(self, path: Path) -> None:
        import cv2

        self.name = path.name
        self._path = path
        self._refuse_playlists()
        with closing(self._open()) as capture:
            self.fps = capture.number(cv2.CAP_PROP_FPS)
            count = capture.number(cv2.CAP_PROP_FRAME_COUNT)
            self.length = None if count is None else int(count)
            self.size = capture.frame_size()
        if self.size is not None:
            check_size(*self.size, what=f"video {path}")

    def _refuse_playlists(self) -> None:
        try:
            with self._path.open("rb") as file:
                start = file.read(16)
        except OSError as error:
            raise SourceError(f"video {self._path} cannot be read: {error.strerror or error}") from error
        if not start:
            raise SourceError(f"video {self._path} is an empty file; copy it again")
        if start.lstrip(b"\xef\xbb\xbf \r\n").startswith(_PLAYLISTS):
            raise SourceError(f"{self._path} is a playlist, not a video; give the video that it names")

    def _open(self) -> _Capture:
        advice = (
            f"video {self._path} cannot be opened: it is damaged, cut short or of a kind this OpenCV cannot decode; "
            f"check it with `ffprobe`, or convert it with `ffmpeg -i INPUT -c:v mpeg4 output.mp4`"
        )
        return _open_capture(str(self._path.resolve()), advice)

    def __iter__(self) -> Iterator[Frame]:
        import cv2

        done, shown_ms = 0, 0.0
        with closing(self._open()) as capture:
            while (image := capture.read()) is not None:
                done += 1
                shown_ms = capture.number(cv2.CAP_PROP_POS_MSEC) or shown_ms
                yield image
        if self._ended_early(done, shown_ms):
            stated = "" if self.length is None else f" although it states {self.length} frames"
            raise SourceInterruptedError(
                f"video {self._path} ended early: frame {done} cannot be read{stated}; "
                "the file is cut short or damaged; copy it again"
            )

    def _ended_early(self, done: int, shown_ms: float) -> bool:
        if done == 0:
            return True
        if self.length is None or done >= self.length - _SLACK_FRAMES:
            return False
        if self._path.suffix.lower() in _COUNTED or self.fps is None:
            return True
        return shown_ms + 1000 / self.fps < 1000 * self.length / self.fps - _SLACK_MS


class CameraSource(FrameSource):
    """A camera; it stays open until `close`."""

    def __init__(self, index: int) -> None:
        import cv2

        self.name = f"camera:{index}"
        self.length = None
        self._capture = _open_capture(
            index,
            f"camera {index} cannot be opened; expected the index of a camera that is connected and free: `ls "
            "/dev/video*` lists them; for a folder or file of that name write ./NAME",
        )
        self.fps = self._capture.number(cv2.CAP_PROP_FPS)
        self.size = self._capture.frame_size()

    def __iter__(self) -> Iterator[Frame]:
        done = 0
        while (image := self._capture.read()) is not None:
            done += 1
            yield image
        raise SourceInterruptedError(f"{self.name} gave no frame after {done}; check that it is still connected")

    def close(self) -> None:
        self._capture.close()
