"""A frame, and what every source of frames has in common."""

from __future__ import annotations

import math
import os
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias
from urllib.parse import parse_qsl

import numpy as np
import numpy.typing as npt

from edgetrack.arrays import Array
from edgetrack.box import Box
from edgetrack.errors import EdgetrackError, SourceError, UsageError

Frame: TypeAlias = npt.NDArray[np.uint8]
"""An image: uint8, (height, width, 3), channels in the order blue, green, red."""
Plane: TypeAlias = npt.NDArray[np.float32]
"""One or more float32 values per pixel: (height, width) or (height, width, channels)."""
MAX_SIDE = 20_000
"""Pixels: no wider or higher image is taken."""
MAX_PIXELS = 400_000_000
"""Pixels per image: 1.2 GB once decoded."""


@dataclass(frozen=True)
class ReadOptions:
    """How frames are read.

    Attributes:
        on_bad_frame: what a frame that cannot be read does: `stop` ends the run, `skip` repeats the frame before it and
            notes its number in `FrameSource.skipped`.
        exif: `apply` turns images upright as their EXIF data say, `ignore` leaves them as they are stored.
        value_range: the values of 16-bit and float images that become 0 and 255, or `percentile` for the 1st and 99th
            percentile of each frame; None refuses such images.
        ground_truth: whether ground truth beside the images is read.
        timeout_s: of a live source: longest wait for its connection and for a frame, where OpenCV can bound it.
        reconnect_s: of a live source: how long it is opened again and again after it broke; 0: never.
    """

    on_bad_frame: Literal["stop", "skip"] = "stop"
    exif: Literal["apply", "ignore"] = "apply"
    value_range: tuple[float, float] | Literal["percentile"] | None = None
    ground_truth: bool = True
    timeout_s: float = 10.0
    reconnect_s: float = 30.0


def parse_options(query: str, parsers: Mapping[str, Callable[[str], Any]], wrong: str) -> dict[str, Any]:
    """What follows the `?` of a source: KEY=VALUE&..., each key at most once and among those of `parsers`.

    Raises:
        SourceError: it is not that, or a parser has raised ValueError; the message is `wrong`.
    """
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
        unknown = next((key for key, _ in pairs if key not in parsers), None)
        if unknown is not None:
            raise SourceError(f"{wrong}; {unknown!r} is none of them")
        if len(dict(pairs)) != len(pairs):
            raise SourceError(wrong)
        return {key: parsers[key](value) for key, value in pairs}
    except ValueError:
        raise SourceError(wrong) from None


def parse_size(text: str) -> tuple[int, int]:
    """(width, height) in pixels of `WIDTHxHEIGHT`.

    Raises:
        ValueError: it is none.
    """
    width, height = (int(part) for part in text.lower().split("x"))
    return width, height


def parse_range(text: str) -> tuple[float, float] | Literal["percentile"]:
    """A `ReadOptions.value_range` as it is typed.

    Raises:
        UsageError: neither `percentile` nor two rising numbers with a colon between them.
    """
    if text == "percentile":
        return "percentile"
    try:
        low, high = (float(part) for part in text.split(":"))
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(f"range {text!r}: expected LOW:HIGH with LOW below HIGH, such as 7000:8000, or percentile")
    return low, high


class FrameSource(ABC):
    """Frames in order, as a context manager and an iterable of uint8 (height, width, 3) BGR arrays.

    Iterating again starts over, except for a camera, which continues.

    Attributes:
        live: whether frames come when they come and are gone when they are not taken, as a camera's.
        name: of the video, sequence, scene or camera; for labels and file names; without a password.
        length: number of frames, or None where it is not known (a camera).
        fps: frames per second, or None where it is not known (images).
        size: (width, height) of the first frame in pixels, or None where it is not known yet.
    """

    live: bool = False
    name: str
    length: int | None
    fps: float | None
    size: tuple[int, int] | None

    @cached_property
    def on_event(self) -> Callable[[str], None]:
        """Is told, in the thread that reads, when a live source breaks and when it is back."""
        return lambda event: None

    @cached_property
    def notes(self) -> list[str]:
        """What the user should know of how the frames were read; sentences without a full stop."""
        return []

    @cached_property
    def skipped(self) -> dict[int, str]:
        """Numbers of the frames that could not be read, each with the reason; the frame before stood in for them."""
        return {}

    @cached_property
    def breaks_s(self) -> list[float]:
        """How long each break was in which the source gave no frame and after which it did again, in seconds."""
        return []

    @property
    def ground_truth(self) -> list[Box | None] | None:
        """One box (pixels) per frame, None for a frame without one; None where there is no ground truth at all."""
        return None

    def truth_at(self, index: int) -> Box | None:
        """The box of frame `index` alone; None where `ground_truth` has none for it."""
        boxes = self.ground_truth or []
        return boxes[index] if index < len(boxes) else None

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """The frames.

        Raises:
            SourceInterruptedError: after the good frames, where the next cannot be read.
        """

    def deep(self) -> Iterator[Array]:
        """The frames with the channels and the depth in bits that the source has: depth images stay what they are."""
        return iter(self)

    def interrupt(self) -> None:  # noqa: B027
        """Let the thread that waits for a frame end soon; called from another one, before `close`."""

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
def native_name(path: Path) -> Iterator[str]:
    """The path as text that native code can take: OpenCV 5 dies of names that are not UTF-8, so they get a link.

    Raises:
        EdgetrackError: no link can be made.
    """
    absolute = str(path.absolute())
    if is_unicode(absolute):
        yield absolute
        return
    advice = f"{path} has a name that is not UTF-8; rename it (`convmv` does whole folders)"
    try:
        with tempfile.TemporaryDirectory(prefix="edgetrack-name-") as folder:
            link = Path(folder, "video" + (path.suffix if is_unicode(path.suffix) else ""))
            if not is_unicode(str(link)):
                raise EdgetrackError(advice)
            link.symlink_to(absolute)
            yield str(link)
    except OSError as error:
        raise EdgetrackError(f"{advice}; a link to it cannot be made: {error.strerror or error}") from error


def is_unicode(text: str) -> bool:
    """Whether native code can take the text: names of files that are not UTF-8 are no Unicode in Python."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Silence:
    """How many ask for silence at the moment, in whatever threads, and the level that the last of them restores."""

    lock = threading.Lock()
    askers = 0
    level_before = 0


@contextmanager
def quiet_cv2() -> Iterator[None]:
    """Silence OpenCV's log lines inside, and FFmpeg's from its first use on, unless the environment asks for them."""
    import cv2

    # AV_LOG_QUIET: OpenCV reads this once, when it first calls FFmpeg, and has no other switch for it.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    # OpenCV 4 has the two functions at the top, OpenCV 5 in a module that OpenCV 4 lacks.
    log: Any = cv2 if hasattr(cv2, "setLogLevel") else cv2.utils.logging
    with _Silence.lock:
        if _Silence.askers == 0:
            _Silence.level_before = log.getLogLevel()
            log.setLogLevel(0)
        _Silence.askers += 1
    try:
        yield
    finally:
        with _Silence.lock:
            _Silence.askers -= 1
            if _Silence.askers == 0:
                log.setLogLevel(_Silence.level_before)
