"""Boxes and numbers drawn on frames."""

from __future__ import annotations

from itertools import product

import numpy as np

from edgetrack.box import Box
from edgetrack.media.frames import Frame

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
