"""Video files, and what OpenCV opens for frames."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import numpy.typing as npt

from edgetrack.errors import SourceError, SourceInterruptedError
from edgetrack.io import open_regular
from edgetrack.media.frames import Frame, FrameSource, ReadOptions, check_size, native_name, quiet_cv2
from edgetrack.presentation.sanitize import hide_passwords

if TYPE_CHECKING:
    import cv2

_COUNTED = frozenset({".mp4", ".m4v", ".mov", ".avi"})
"""Containers that state how many frames they hold; for others OpenCV multiplies duration and rate."""
VIDEO_SUFFIXES = _COUNTED | {
    *(".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".mjpeg", ".mjpg"),
    *(".wmv", ".flv", ".3gp", ".ogv", ".y4m", ".h264", ".hevc"),
}
_EDITED = frozenset({".mp4", ".m4v", ".mov", ".3gp"})
"""Containers with edit lists, which hide frames that they hold."""
_LARGEST_INDEX = 64 << 20
_MOST_SAMPLES = 20_000_000
SLACK_FRAMES = 3
_MOST_BAD = 30
"""So many frames that cannot be read, one after another, are the end."""
_SLACK_MS = 250.0
_PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"<?xml", b"v=0")
"""How files start that make FFmpeg open other files or addresses."""


class Capture:
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

    @property
    def backend(self) -> str:
        """What OpenCV reads it by, such as FFMPEG."""
        return str(self._capture.getBackendName())

    def choose(self, prop: int, value: float) -> float | None:
        """Ask for a value of a property; what it is then, None where that is unknown."""
        with quiet_cv2():
            self._capture.set(prop, value)
        return self.number(prop)

    def frame_size(self) -> tuple[int, int] | None:
        """(width, height) in pixels as stated; None where it is unknown."""
        import cv2

        width, height = self.number(cv2.CAP_PROP_FRAME_WIDTH), self.number(cv2.CAP_PROP_FRAME_HEIGHT)
        return (int(width), int(height)) if width and height else None

    def close(self) -> None:
        self._capture.release()


def open_capture(what: str | int, advice: str, api: int, parameters: Sequence[int] = ()) -> Capture:
    """Let OpenCV open a name or the camera of that index.

    Args:
        what: the name or the index.
        advice: what the user reads where it cannot be opened.
        api: of `cv2.VideoCaptureAPIs`.
        parameters: property, value, property, value, ...

    Raises:
        SourceError: it cannot.
    """
    import cv2

    try:
        with quiet_cv2():
            capture = cv2.VideoCapture(what, api, list(parameters))
    except cv2.error as error:
        raise SourceError(f"{advice} (OpenCV says: {hide_passwords(error.err)})") from error
    if not capture.isOpened():
        capture.release()
        raise SourceError(advice)
    return Capture(capture)


class VideoSource(FrameSource):
    """A video file; every iteration opens it again."""

    def __init__(self, path: Path, options: ReadOptions) -> None:
        import cv2

        self._skips = options.on_bad_frame == "skip"
        self.name = path.name
        self._path = path
        self._refuse_playlists()
        with closing(self._open()) as capture:
            self.fps = capture.number(cv2.CAP_PROP_FPS)
            count = capture.number(cv2.CAP_PROP_FRAME_COUNT)
            self.length = None if count is None else int(count)
            shown = _shown_frames(path)
            if self.length is not None and shown and shown < self.length:
                self.length = shown
            self.size = capture.frame_size()
        if self.size is not None:
            check_size(*self.size, what=f"video {path}")

    def _refuse_playlists(self) -> None:
        try:
            with open_regular(self._path) as file:
                start = file.read(16)
        except OSError as error:
            raise SourceError(f"video {self._path} cannot be read: {error.strerror or error}") from error
        if not start:
            raise SourceError(f"video {self._path} is an empty file; copy it again")
        if start.lstrip(b"\xef\xbb\xbf \r\n").startswith(_PLAYLISTS):
            raise SourceError(f"{self._path} is a playlist, not a video; give the video that it names")

    def _open(self) -> Capture:
        import cv2

        advice = (
            f"video {self._path} cannot be opened: it is damaged, cut short or of a kind this OpenCV cannot decode; "
            f"check it with `ffprobe`, or convert it with `ffmpeg -i INPUT -c:v mpeg4 output.mp4`"
        )
        # Others take a name with digits or % for a numbered series of images.
        has_ffmpeg = cv2.CAP_FFMPEG in cv2.videoio_registry.getStreamBackends()
        with native_name(self._path.resolve()) as name:
            return open_capture(name, advice, cv2.CAP_FFMPEG if has_ffmpeg else cv2.CAP_ANY)

    def __iter__(self) -> Iterator[Frame]:
        import cv2

        done, shown_ms = 0, 0.0
        with closing(self._open()) as capture:
            frames = _until_the_end(self, capture, lambda: self._skips and self._ended_early(done, shown_ms))
            for image in frames:
                done += 1
                shown_ms = capture.number(cv2.CAP_PROP_POS_MSEC) or shown_ms
                yield image
        if self._ended_early(done, shown_ms):
            stated = "" if self.length is None else f" although it states {self.length} frames"
            message = f"video {self._path} ended early: frame {done} cannot be read{stated}"
            if done and self._skips:
                self.notes.append(message)
                return
            raise SourceInterruptedError(f"{message}; the file is cut short or damaged; copy it again")

    def _ended_early(self, done: int, shown_ms: float) -> bool:
        if done == 0:
            return True
        if self.length is None or done >= self.length - SLACK_FRAMES:
            return False
        if self._path.suffix.lower() in _COUNTED or self.fps is None:
            return True
        return shown_ms + 1000 / self.fps < 1000 * self.length / self.fps - _SLACK_MS


def _until_the_end(source: FrameSource, capture: Capture, has_more: Callable[[], bool]) -> Iterator[Frame]:
    """Frames; where one cannot be read although there are more, that before it, noted as skipped.

    At the end nothing stands in: as many as `_MOST_BAD` frames without a readable one after them are not reported.
    """
    index, last = 0, None
    while True:
        missed = 0
        while (image := capture.read()) is None:
            missed += 1
            if last is None or missed > _MOST_BAD or not has_more():
                return
        for _ in range(missed):
            assert last is not None  # or there would have been nothing to miss
            source.skipped[index] = f"frame {index} of {source.name} cannot be read"
            index += 1
            yield last
        index, last = index + 1, image
        yield image


def _shown_frames(path: Path) -> int | None:
    """How many frames of an MP4 or QuickTime file its edit list shows (ISO 14496-12); None where it has none.

    The count that the container states, and OpenCV passes on, includes what a trim without encoding has hidden.
    """
    if path.suffix.lower() not in _EDITED:
        return None
    try:
        with open_regular(path) as file:
            movie = _movie_index(file)
        tracks = (track for kind, track in _atoms(movie) if kind == b"trak")
        track = next(t for t in tracks if _atom(t, b"mdia", b"hdlr")[8:12] == b"vide")
        edits = _atom(track, b"edts", b"elst")
        scale = _timescale(_atom(track, b"mdia", b"mdhd")) / _timescale(_atom(movie, b"mvhd"))
        times = _sample_times(_atom(track, b"mdia", b"minf", b"stbl"))
        shown = 0
        form = ">QqI" if edits[0] else ">IiI"
        for at in range(8, len(edits), struct.calcsize(form)):
            duration, start, _ = struct.unpack_from(form, edits, at)
            end = start + duration * scale if duration else math.inf
            shown += int(((times >= start) & (times < end)).sum()) if start >= 0 else 0
    except (OSError, KeyError, StopIteration, ValueError, IndexError, ZeroDivisionError, struct.error):
        return None
    return shown


def _movie_index(file: BinaryIO) -> bytes:
    while len(head := file.read(16)) >= 8:
        size, kind = struct.unpack(">I4s", head[:8])
        start = 16 if size == 1 else 8
        size = int.from_bytes(head[8:16], "big") if size == 1 else size
        if kind == b"moov" and start <= size <= _LARGEST_INDEX:
            return (head + file.read(size - len(head)))[start:size]
        if size < start:
            break
        file.seek(size - len(head), 1)
    raise KeyError("moov")


def _atoms(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if size < 8 or at + size > len(data):
            return
        yield kind, data[at + 8 : at + size]
        at += size


def _atom(data: bytes, *names: bytes) -> bytes:
    for name in names:
        data = next(inner for kind, inner in _atoms(data) if kind == name)
    return data


def _timescale(header: bytes) -> int:
    return int.from_bytes(header[20:24] if header[0] else header[12:16], "big")


def _sample_times(tables: bytes) -> npt.NDArray[np.int64]:
    """When each sample is shown, in units of the track: the sum of the durations before it, and its own offset."""
    counts, steps = np.frombuffer(_atom(tables, b"stts"), ">u4", offset=8).reshape(-1, 2).T.astype(np.int64)
    if counts.sum() > _MOST_SAMPLES:
        raise ValueError("too many samples")
    durations = np.repeat(steps, counts)
    times: npt.NDArray[np.int64] = np.cumsum(durations) - durations
    offsets = next((inner for kind, inner in _atoms(tables) if kind == b"ctts"), None)
    if offsets is not None:
        counts, shifts = np.frombuffer(offsets, ">i4", offset=8).reshape(-1, 2).T.astype(np.int64)
        if counts.sum() != len(times):
            raise ValueError("offsets do not fit the samples")
        times += np.repeat(shifts, counts)
    return times
