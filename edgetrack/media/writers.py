"""A run's boxes and video as files that survive its end: each takes its final name only when it is done."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgetrack.box import Box
from edgetrack.errors import UsageError
from edgetrack.media.frames import Frame, quiet_cv2

if TYPE_CHECKING:
    import cv2

BOX_SUFFIXES = (".txt", ".csv", ".json")
SCHEMA = 1
CODECS = {".mp4": "mp4v", ".avi": "MJPG"}


@dataclass(frozen=True)
class BoxRecord:
    """One frame's result.

    Attributes:
        frame: number of the frame, from 0.
        box: top-left corner and size in pixels.
        score: the tracker's confidence, or None where it gives none.
        lost: whether the tracker says that it has lost the target.
        track_ms: time from frame to box in milliseconds, or None where it was not taken.
        diagnostics: what the tracker mixed, mixture -> part -> share; empty for most.
    """

    frame: int
    box: Box
    score: float | None
    lost: bool
    track_ms: float | None
    diagnostics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


class BoxWriter:
    """Writes one record after another: `.txt` (x,y,w,h per line, as the toolkits read it), `.csv` or `.json`.

    Lines go to `<path>.partial` and are flushed one by one; closing gives the file its name. When the `with` block
    fails, what was written still gets the final name (a JSON file is completed), and the error is raised; a block that
    fails before the first record leaves nothing. A killed process leaves the `.partial` file.

    JSON: `{"schema": 1, "source": ..., "boxes": [{"frame", "box": [x, y, w, h], "score", "lost", "track_ms"}]}`, and
    `"diagnostics": {mixture: {part: share}}` in a row that has any; the other formats leave them out.
    Numbers that are not finite are null in JSON, empty in CSV and `nan` in text.
    """

    def __init__(self, path: str | Path, *, source: str = "", overwrite: bool = False) -> None:
        """Open the file.

        Args:
            path: where to write; the ending decides the format. Its folder is made where it is missing.
            source: what the boxes belong to; kept in JSON.
            overwrite: replace an existing file, and one left by a killed run.

        Raises:
            UsageError: another ending, an existing file, or a place that cannot be written to.
        """
        self.path = Path(path)
        self.count = 0
        """Records written so far."""
        self._suffix = suffix_of(self.path, BOX_SUFFIXES, "boxes")
        self._partial = self.path.with_name(self.path.name + ".partial")
        claim(self.path, self._partial, overwrite=overwrite)
        try:
            self._file = self._partial.open("w" if overwrite else "x", encoding="utf-8", newline="\n")
        except OSError as error:
            raise UsageError(f"{self.path} cannot be written: {error.strerror or error}") from error
        self._put(self._head(source))

    def write(self, record: BoxRecord) -> None:
        """Add one record; it is with the operating system when this returns.

        Raises:
            ValueError: the writer is closed.
        """
        if self._suffix == ".txt":
            line = ",".join(f"{value:.4f}" for value in record.box) + "\n"
        elif self._suffix == ".csv":
            line = _csv_row(record)
        else:
            line = (",\n" if self.count else "\n") + _json_row(record)
        self._put(line)
        self.count += 1

    def close(self) -> None:
        """Complete the file and give it its final name. May be called more than once."""
        if self._file.closed:
            return
        with self._file:
            if self._suffix == ".json":
                self._put("\n]}\n")
            os.fsync(self._file.fileno())
        self._partial.replace(self.path)

    def __enter__(self) -> BoxWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or self.count:
            self.close()
        elif not self._file.closed:
            self._file.close()
            self._partial.unlink()

    def _head(self, source: str) -> str:
        heads = {
            ".txt": "",
            ".csv": "frame,x,y,w,h,score,lost,track_ms\n",
            ".json": f'{{"schema": {SCHEMA}, "source": {json.dumps(source)}, "boxes": [',
        }
        return heads[self._suffix]

    def _put(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()


def _finite(value: float | None, digits: int) -> float | None:
    return round(float(value), digits) if value is not None and math.isfinite(value) else None


def _csv_row(record: BoxRecord) -> str:
    numbers = [*(_finite(value, 4) for value in record.box), _finite(record.score, 6)]
    cells = ["" if number is None else repr(number) for number in numbers]
    time = _finite(record.track_ms, 4)
    return ",".join([str(record.frame), *cells, str(int(record.lost)), "" if time is None else repr(time)]) + "\n"


def _json_row(record: BoxRecord) -> str:
    row: dict[str, object] = {
        "frame": record.frame,
        "box": [_finite(value, 4) for value in record.box],
        "score": _finite(record.score, 6),
        "lost": bool(record.lost),
        "track_ms": _finite(record.track_ms, 4),
    }
    if record.diagnostics:
        row["diagnostics"] = {
            name: {part: _finite(share, 6) for part, share in parts.items()}
            for name, parts in record.diagnostics.items()
        }
    return json.dumps(row, allow_nan=False)


def claim(path: Path, partial: Path, *, overwrite: bool) -> None:
    """Make sure that `path` may be written by way of `partial`, its sibling; their folder is made where it is missing.

    Raises:
        UsageError: either exists and `overwrite` is not set, `path` is a folder, or its folder cannot be made.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give the name of a file to write")
    if not overwrite and path.exists():
        raise UsageError(f"{path} exists; give another name or add --overwrite")
    if not overwrite and partial.exists():
        raise UsageError(f"{partial} was left by a run that did not end; move it away or add --overwrite")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the folder of {path} cannot be made: {error.strerror or error}") from error


def suffix_of(path: Path, allowed: tuple[str, ...], what: str) -> str:
    """The path's ending in lower case.

    Raises:
        UsageError: it is none of those allowed.
    """
    suffix = path.suffix.lower()
    if suffix not in allowed:
        raise UsageError(f"{path} ends in {suffix or 'nothing'!r}; {what} are written as {', '.join(allowed)}")
    return suffix


class VideoWriter:
    """Writes frames to an `.mp4` (MPEG-4) or `.avi` (Motion JPEG) file.

    Frames go to `<stem>.partial<suffix>` beside it; closing gives the file its name, also when the `with` block failed.
    Without a frame there is no file.
    """

    def __init__(self, path: str | Path, *, fps: float | None = None, overwrite: bool = False) -> None:
        """Prepare the file; it is opened with the first frame, which fixes the size.

        Args:
            path: where to write; its folder is made where it is missing.
            fps: frames per second, above 0 up to 1000; 30 where it is None.
            overwrite: replace an existing file, and one left by a killed run.

        Raises:
            UsageError: another ending, an existing file, a rate out of range, or a folder that cannot be made.
        """
        self.path = Path(path)
        self.count = 0
        """Frames written so far."""
        self._codec = CODECS[suffix_of(self.path, tuple(CODECS), "videos")]
        self._fps = 30.0 if fps is None else float(fps)
        if not (math.isfinite(self._fps) and 0 < self._fps <= 1000):
            raise UsageError(f"a video of {fps} frames per second was asked for; give a rate above 0, up to 1000")
        self._partial = self.path.with_name(f"{self.path.stem}.partial{self.path.suffix}")
        claim(self.path, self._partial, overwrite=overwrite)
        self._writer: cv2.VideoWriter | None = None
        self._shape: tuple[int, ...] = ()

    def write(self, frame: Frame) -> None:
        """Add one frame: uint8, (height, width, 3), BGR.

        Raises:
            UsageError: the video cannot be opened, or the frame is not uint8 of three channels and of the first's size.
        """
        expected = self._shape or (*frame.shape[:2], 3)
        if frame.shape != expected or frame.dtype != np.uint8:
            raise UsageError(
                f"frame {self.count} for {self.path} is {frame.dtype} of shape {frame.shape}; expected uint8 of shape "
                f"{expected}: a video has one size, that of its first frame"
            )
        if self._writer is None:
            self._shape = frame.shape
            self._writer = self._open(frame.shape[1], frame.shape[0])
        self._writer.write(frame)
        self.count += 1

    def close(self) -> None:
        """Complete the file and give it its final name. May be called more than once."""
        if self._writer is None:
            return
        with quiet_cv2():
            self._writer.release()
        self._writer = None
        self._partial.replace(self.path)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, width: int, height: int) -> cv2.VideoWriter:
        import cv2

        code = cv2.VideoWriter.fourcc(*self._codec)
        with quiet_cv2():
            writer = cv2.VideoWriter(str(self._partial), code, self._fps, (width, height))
        if not writer.isOpened():
            writer.release()
            self._partial.unlink(missing_ok=True)
            other = next(suffix for suffix in CODECS if suffix != self.path.suffix.lower())
            raise UsageError(
                f"{self.path} cannot be opened for writing ({self._codec}, {width}x{height}): this OpenCV may lack the "
                f"codec, or the folder cannot be written to; try a name that ends in {other}"
            )
        return writer
