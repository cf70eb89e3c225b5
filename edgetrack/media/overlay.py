"""Boxes and numbers drawn on frames, and the video that holds them."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from edgetrack.box import Box
from edgetrack.errors import UsageError
from edgetrack.media._outputs import claim, suffix_of
from edgetrack.media._quiet import quiet_cv2
from edgetrack.media._types import Frame

if TYPE_CHECKING:
    import cv2

CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
_TRACKED, _LOST, _TRUTH = (80, 230, 60), (60, 60, 255), (255, 220, 60)
_DARK, _LIGHT = (0, 0, 0), (255, 255, 255)


def draw(
    frame: Frame,
    box: Box | None,
    *,
    score: float | None = None,
    lost: bool = False,
    fps: float | None = None,
    ground_truth: Box | None = None,
) -> Frame:
    """A copy of the frame with the result on it; the frame itself stays as it is.

    The tracker's box is green, or red where the target is lost, with the score above or below it; ground truth is thin
    and light blue; the frame rate stands in the upper left corner. Lines and letters have a dark edge,
    to be read on any ground, and grow with the frame.

    Args:
        frame: uint8, (height, width, 3), BGR.
        box: pixels; None, or one that is not finite, is not drawn.
        score: the tracker's confidence, shown with two digits.
        lost: whether the tracker has lost the target.
        fps: frames per second.
        ground_truth: pixels, or None.
    """
    image: Frame = np.array(frame, dtype=np.uint8, order="C")
    scale = max(min(image.shape[:2]) / 480, 0.35)
    thick = max(round(2 * scale), 1)
    if ground_truth is not None:
        _outline(image, ground_truth, _TRUTH, max(thick // 2, 1))
    colour = _LOST if lost else _TRACKED
    label = " ".join((["LOST"] if lost else []) + ([f"{score:.2f}"] if score is not None else []))
    if box is not None and box.is_finite:
        _outline(image, box, colour, thick)
        if label:
            _text(image, label, (box.x, _label_height(box, scale)), scale, colour)
    elif label:
        _text(image, label, (8 * scale, image.shape[0] - 8 * scale), scale, colour)
    if fps is not None:
        _text(image, f"{fps:.1f} fps", (8 * scale, 0.0), scale, _LIGHT)
    return image


def _outline(image: Frame, box: Box, colour: tuple[int, int, int], thick: int) -> None:
    import cv2

    if not box.is_finite:
        return
    height, width = image.shape[:2]
    spare = 4 * thick + 2
    x1, y1, x2, y2 = box.xyxy
    left, right = (round(min(max(x, -spare), width + spare)) for x in (x1, x2 - 1))
    top, bottom = (round(min(max(y, -spare), height + spare)) for y in (y1, y2 - 1))
    cv2.rectangle(image, (left, top), (right, bottom), _DARK, thick + 2)
    cv2.rectangle(image, (left, top), (right, bottom), colour, thick)


def _label_height(box: Box, scale: float) -> float:
    """The label's base line: above the box, or below it where the frame rate's line is in the way."""
    above = box.y - 6 * scale
    return above if above > 64 * scale else box.y + box.h + 30 * scale


def _text(image: Frame, text: str, at: tuple[float, float], scale: float, colour: tuple[int, int, int]) -> None:
    """Write with the lower left corner `at`, moved so that all of it is inside the frame."""
    import cv2

    font, size, thick = cv2.FONT_HERSHEY_SIMPLEX, 0.85 * scale, max(round(1.6 * scale), 1)
    (width, height), below = cv2.getTextSize(text, font, size, thick)
    edge = max(round(1.5 * scale), 1)
    x = min(max(at[0], edge), max(image.shape[1] - width - edge, edge))
    y = min(max(at[1], height + edge), max(image.shape[0] - below - edge, height + edge))
    # OpenCV 5 draws Hershey text with a font whose weight hardly follows the thickness: shifted copies make the edge.
    for dx, dy in product((-edge, 0, edge), repeat=2):
        cv2.putText(image, text, (round(x) + dx, round(y) + dy), font, size, _DARK, thick, cv2.LINE_AA)
    cv2.putText(image, text, (round(x), round(y)), font, size, colour, thick, cv2.LINE_AA)


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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
