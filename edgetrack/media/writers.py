"""A run's boxes and video as files that survive its end: each takes its final name only when it is done."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgetrack.box import Box
from edgetrack.errors import EdgetrackError, UsageError
from edgetrack.io import hold, is_at, open_flags
from edgetrack.media.frames import Frame, native_name, quiet_cv2

if TYPE_CHECKING:
    import cv2

BOX_SUFFIXES = (".txt", ".csv", ".json", ".jsonl")
SCHEMA = 1
CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
MAX_FPS = 1000


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
        age_ms: milliseconds from when the frame was there, decoded, to its box; None for frames that are not live.
        target: number of the target, where several are followed.
    """

    frame: int
    box: Box
    score: float | None
    lost: bool
    track_ms: float | None
    diagnostics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    age_ms: float | None = None
    target: int | None = None


class BoxWriter:
    """Writes one record after another: `.txt` (x,y,w,h per line, as the toolkits read it), `.csv`, `.json`, `.jsonl`.

    Lines go to `<path>.partial` (`.2.partial` ... while other runs write the same file; the last to end wins) and are
    flushed one by one; closing gives the file its name. When the `with` block fails, what was written still gets the
    final name (a JSON file is completed), and the error is raised; a block that fails before the first record leaves
    nothing. A killed process leaves the `.partial` file, a full disk what fitted on it.

    JSON: `{"schema": 1, "source": ..., "boxes": [{"frame", "box": [x, y, w, h], "score", "lost", "track_ms"}]}`, and
    `"diagnostics": {mixture: {part: share}}` and `"age_ms"` in a row that has them; text and CSV leave them out.
    `.jsonl` has the rows alone, one a line. Where several targets are followed a row has `"target"`, its number.
    Numbers that are not finite are null in JSON, empty in CSV and `nan` in text.
    """

    def __init__(self, path: str | Path, *, source: str = "", overwrite: bool = False, several: bool = False) -> None:
        """Open the file.

        Args:
            path: where to write; the ending decides the format. Its folder is made where it is missing.
            source: what the boxes belong to; kept in JSON.
            overwrite: replace an existing file.
            several: whether the records are of several targets.

        Raises:
            UsageError: another ending, or an existing file.
            EdgetrackError: a place that cannot be written to.
        """
        self.path = Path(path)
        self.count = 0
        """Records written so far."""
        self._several = several
        self._suffix = suffix_of(
            self.path, BOX_SUFFIXES[1:] if several else BOX_SUFFIXES, "boxes of several targets" if several else "boxes"
        )
        handle, self._partial = claim(self.path, self.path.name, ".partial", overwrite=overwrite)
        # Unbuffered: a line that did not fit would else be tried again at closing.
        self._file = os.fdopen(handle, "wb", buffering=0)
        self._failed = False
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
        elif self._suffix == ".jsonl":
            line = _json_row(record) + "\n"
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
            # While it is open: with it goes the lock that keeps others from its name.
            self._partial.replace(self.path)

    def __enter__(self) -> BoxWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._failed:
            self._file.close()
        elif kind is None or self.count:
            self.close()
        elif not self._file.closed:
            self._file.close()
            self._partial.unlink()

    def _head(self, source: str) -> str:
        heads = {
            ".txt": "",
            ".jsonl": "",
            ".csv": f"frame,{'target,' if self._several else ''}x,y,w,h,score,lost,track_ms\n",
            ".json": f'{{"schema": {SCHEMA}, "source": {json.dumps(source)}, "boxes": [',
        }
        return heads[self._suffix]

    def _put(self, text: str) -> None:
        data = text.encode()
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            self._failed = True
            raise EdgetrackError(
                f"{self.path} cannot be written: {error.strerror or error}; its first {self.count} boxes are in "
                f"{self._partial}"
            ) from error


def _finite(value: float | None, digits: int) -> float | None:
    return round(float(value), digits) if value is not None and math.isfinite(value) else None


def _csv_row(record: BoxRecord) -> str:
    numbers = [*(_finite(value, 4) for value in record.box), _finite(record.score, 6)]
    cells = ["" if number is None else repr(number) for number in numbers]
    time = _finite(record.track_ms, 4)
    numbered = [str(record.frame), *([] if record.target is None else [str(record.target)])]
    return ",".join([*numbered, *cells, str(int(record.lost)), "" if time is None else repr(time)]) + "\n"


def _json_row(record: BoxRecord) -> str:
    row: dict[str, object] = {
        "frame": record.frame,
        **({} if record.target is None else {"target": record.target}),
        "box": [_finite(value, 4) for value in record.box],
        "score": _finite(record.score, 6),
        "lost": bool(record.lost),
        "track_ms": _finite(record.track_ms, 4),
    }
    if record.age_ms is not None:
        row["age_ms"] = _finite(record.age_ms, 4)
    if record.diagnostics:
        row["diagnostics"] = {
            name: {part: _finite(share, 6) for part, share in parts.items()}
            for name, parts in record.diagnostics.items()
        }
    return json.dumps(row, allow_nan=False)


def claim(path: Path, start: str, end: str, *, overwrite: bool) -> tuple[int, Path]:
    """A new sibling of `path` to write to, open and locked until it is closed; their folder is made where missing.

    Args:
        path: what it is to become.
        start, end: of the sibling's name; a number goes between while other runs hold the names before it.
        overwrite: whether `path` may be replaced; what a dead run left under the sibling's name always is.

    Raises:
        UsageError: `path` exists or is being written and `overwrite` is not set, or it is a folder.
        EdgetrackError: it cannot be written.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give the name of a file to write")
    if not overwrite and path.exists():
        raise UsageError(f"{path} exists; give another name or add --overwrite")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EdgetrackError(f"the folder of {path} cannot be made: {error.strerror or error}") from error
    for number in range(1, 1000):
        partial = path.with_name(start + ("" if number == 1 else f".{number}") + end)
        try:
            handle = os.open(partial, open_flags("O_RDWR", "O_CREAT"), 0o666)
        except OSError as error:
            raise EdgetrackError(f"{path} cannot be written: {error.strerror or error}") from error
        held = hold(handle)
        if held is None and not overwrite and os.fstat(handle).st_size:
            os.close(handle)
            raise UsageError(f"{partial} may belong to a run that goes on; remove it, or add --overwrite")
        if held is not False and is_at(handle, partial):
            os.ftruncate(handle, 0)
            return handle, partial
        os.close(handle)
        if not overwrite and held is False:
            raise UsageError(f"{path} is being written by another run; give another name or add --overwrite")
    raise UsageError(f"{path} is being written by too many runs")


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
    Without a frame there is no file. Frames of another size than the first are scaled to fit, with black bars.
    """

    def __init__(self, path: str | Path, *, fps: float | None = None, overwrite: bool = False) -> None:
        """Prepare the file; it is opened with the first frame, which fixes the size.

        Args:
            path: where to write; its folder is made where it is missing.
            fps: frames per second, above 0 up to 1000, rounded to what the format can state; 30 where it is None.
            overwrite: replace an existing file.

        Raises:
            UsageError: another ending, an existing file, or a rate out of range.
            EdgetrackError: a place that cannot be written to.
        """
        self.path = Path(path)
        self.count = 0
        """Frames written so far."""
        self.scaled = 0
        """Frames among them that had another size than the first."""
        self._codec = CODECS[suffix_of(self.path, tuple(CODECS), "videos")]
        self.fps = 30.0 if fps is None else float(fps)
        if not (math.isfinite(self.fps) and 0 < self.fps <= MAX_FPS):
            raise UsageError(f"a video of {fps} frames per second was asked for; give a rate above 0, up to {MAX_FPS}")
        # MPEG-4 states a rate as a fraction of 16 bits, and OpenCV makes it one of a power of ten.
        self.fps = next(rate for digits in (3, 2, 1, 0) if (rate := round(self.fps, digits)) * 10**digits < 2**16)
        self.fps = max(self.fps, 0.01)
        self._stack = ExitStack()
        handle, self._partial = claim(self.path, self.path.stem, f".partial{self.path.suffix}", overwrite=overwrite)
        self._stack.callback(os.close, handle)
        self._writer: cv2.VideoWriter | None = None
        self._shape: tuple[int, ...] = ()

    @property
    def notes(self) -> list[str]:
        """What the user should know of the video that was not asked for; sentences without a full stop."""
        if not self.scaled:
            return []
        height, width = self._shape[:2]
        return [f"{self.path}: frames of another size scaled to fit {width}x{height}: {self.scaled}"]

    def write(self, frame: Frame) -> None:
        """Add one frame: uint8, (height, width, 3), BGR.

        Raises:
            UsageError: the video cannot be opened, or the frame is not uint8 of three channels.
        """
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise UsageError(
                f"frame {self.count} for {self.path} is {frame.dtype} of shape {frame.shape}; expected uint8 of shape "
                "(height, width, 3)"
            )
        if self._writer is None:
            self._shape = frame.shape
            self._writer = self._open(frame.shape[1], frame.shape[0])
        if frame.shape != self._shape:
            frame = _fitted(frame, *self._shape[:2])
            self.scaled += 1
        with quiet_cv2():
            self._writer.write(frame)
        self.count += 1

    def close(self) -> None:
        """Complete the file and give it its final name. May be called more than once.

        Raises:
            EdgetrackError: the file is not whole, as on a full disk; it is removed.
        """
        with self._stack:
            if self._writer is None:
                if self.count == 0:
                    self._partial.unlink(missing_ok=True)
                return
            with quiet_cv2():
                self._writer.release()
            self._writer = None
            if not self._is_whole():
                self._partial.unlink(missing_ok=True)
                free = shutil.disk_usage(self.path.parent).free
                raise EdgetrackError(
                    f"video {self.path} could not be written whole and is removed: the disk is probably full "
                    f"({free / 2**20:.0f} MiB free), or files have a size limit; give another place with --video"
                )
            self._partial.replace(self.path)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            # What failed first is what the user should read.
            with suppress(EdgetrackError, OSError):
                self.close()

    def _is_whole(self) -> bool:
        """Whether the file opens, has all frames and shows the last: OpenCV does not say when writing fails."""
        import cv2

        with native_name(self._partial) as name, quiet_cv2():
            capture = cv2.VideoCapture(name)
            try:
                if round(capture.get(cv2.CAP_PROP_FRAME_COUNT)) != self.count:
                    return False
                capture.set(cv2.CAP_PROP_POS_FRAMES, self.count - 1)
                return bool(capture.read()[0])
            finally:
                capture.release()

    def _open(self, width: int, height: int) -> cv2.VideoWriter:
        import cv2

        code = cv2.VideoWriter.fourcc(*self._codec)
        name = self._stack.enter_context(native_name(self._partial))
        with quiet_cv2():
            writer = cv2.VideoWriter(name, code, self.fps, (width, height))
        if not writer.isOpened():
            writer.release()
            self._partial.unlink(missing_ok=True)
            other = next(suffix for suffix in CODECS if suffix != self.path.suffix.lower())
            raise UsageError(
                f"{self.path} cannot be opened for writing ({self._codec}, {width}x{height}): this OpenCV may lack the "
                f"codec, or the folder cannot be written to; try a name that ends in {other}"
            )
        return writer


def _fitted(frame: Frame, height: int, width: int) -> Frame:
    """The frame scaled into this size, in its middle, with black bars where the shapes differ."""
    import cv2

    scale = min(height / frame.shape[0], width / frame.shape[1])
    high, wide = max(1, round(frame.shape[0] * scale)), max(1, round(frame.shape[1] * scale))
    top, left = (height - high) // 2, (width - wide) // 2
    fitted = np.zeros((height, width, 3), np.uint8)
    fitted[top : top + high, left : left + wide] = cv2.resize(frame, (wide, high), interpolation=cv2.INTER_AREA)
    return fitted
