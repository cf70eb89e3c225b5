"""Boxes and numbers drawn on frames."""

from __future__ import annotations

from itertools import product

import numpy as np

from edgetrack.arrays import Array
from edgetrack.box import Box
from edgetrack.media.frames import Frame

_TRACKED, _LOST, _TRUTH = (80, 230, 60), (60, 60, 255), (255, 220, 60)
_DARK, _LIGHT = (0, 0, 0), (255, 255, 255)
_HEAT = 0.75
"""How much of the frame the largest weight of a map of attention covers."""


def draw(
    frame: Frame,
    box: Box | None,
    *,
    score: float | None = None,
    lost: bool = False,
    fps: float | None = None,
    age_ms: float | None = None,
    ground_truth: Box | None = None,
    target: int | None = None,
) -> Frame:
    """A copy of the frame with the result on it; the frame itself stays as it is.

    The tracker's box is green, or red where the target is lost, with the score above or below it; ground truth is thin
    and light blue; the frame rate, and the frame's age at its box, stand in the upper left corner. Lines and letters
    have a dark edge, to be read on any ground, and grow with the frame.

    Args:
        frame: uint8, (height, width, 3), BGR.
        box: pixels; None, or one that is not finite, is not drawn.
        score: the tracker's confidence, shown with two digits.
        lost: whether the tracker has lost the target.
        fps: frames per second.
        age_ms: milliseconds from frame to box.
        ground_truth: pixels, or None.
        target: its number, where several are followed; stands in front of the score.
    """
    image: Frame = np.array(frame, dtype=np.uint8, order="C")
    scale = max(min(image.shape[:2]) / 480, 0.35)
    thick = max(round(2 * scale), 1)
    if ground_truth is not None:
        _outline(image, ground_truth, _TRUTH, max(thick // 2, 1))
    colour = _LOST if lost else _TRACKED
    words = ("" if target is None else f"#{target}", "LOST" if lost else "", "" if score is None else f"{score:.2f}")
    label = " ".join(filter(None, words))
    if box is not None and box.is_finite:
        _outline(image, box, colour, thick)
        if label:
            _text(image, label, (box.x, _label_height(box, scale)), scale, colour)
    elif label:
        _text(image, label, (8 * scale, image.shape[0] - 8 * scale), scale, colour)
    speed = ([f"{fps:.1f} fps"] if fps is not None else []) + ([f"{age_ms:.0f} ms old"] if age_ms is not None else [])
    if speed:
        _text(image, ", ".join(speed), (8 * scale, 0.0), scale, _LIGHT)
    return image


def draw_attention(frame: Frame, name: str, weights: Array | None, region: Box | None) -> Frame:
    """A copy of the frame with a map of attention laid over the region that it covers, and its name below.

    The least weight of the map leaves the frame as it is, the largest covers most of it; numbers that are not finite
    count as the least.

    Args:
        frame: uint8, (height, width, 3), BGR.
        name: stands in the lower right corner.
        weights: (rows, columns); None where the frame has no map: the name alone is written.
        region: in pixels of the frame, beyond which it may reach; outlined.
    """
    image: Frame = np.array(frame, dtype=np.uint8, order="C")
    scale = max(min(image.shape[:2]) / 480, 0.35)
    if weights is not None and region is not None:
        _heat(image, weights, region)
        _outline(image, region, _LIGHT, max(round(scale), 1))
    _text(image, name, (image.shape[1], image.shape[0] - 8 * scale), scale, _LIGHT)
    return image


def _heat(image: Frame, weights: Array, region: Box) -> None:
    import cv2

    # Only the part of the frame that the region covers is touched.
    height, width = image.shape[:2]
    left, top = max(0, round(region.x)), max(0, round(region.y))
    right, bottom = min(width, round(region.x + region.w)), min(height, round(region.y + region.h))
    if right <= left or bottom <= top:
        return
    finite = np.isfinite(weights)
    least, largest = (float(f(weights[finite])) for f in (np.min, np.max)) if finite.any() else (0.0, 0.0)
    shares = np.where(finite, weights - least, 0).astype(np.float32) / max(largest - least, 1e-12)
    # A pixel's middle, in cells from the middle of the first one.
    (rows, columns), step_x, step_y = weights.shape, weights.shape[1] / region.w, weights.shape[0] / region.h
    xs = np.clip((np.arange(left, right) + 0.5 - region.x) * step_x - 0.5, 0, columns - 1)
    ys = np.clip((np.arange(top, bottom) + 0.5 - region.y) * step_y - 0.5, 0, rows - 1)
    at_x, at_y = np.meshgrid(xs.astype(np.float32), ys.astype(np.float32))
    values = cv2.remap(shares, at_x, at_y, cv2.INTER_LINEAR)
    colours = cv2.applyColorMap(np.rint(values * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    cover = (_HEAT * values)[..., None]
    part = image[top:bottom, left:right]
    part[...] = np.rint(part * (1 - cover) + colours * cover).astype(np.uint8)


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
