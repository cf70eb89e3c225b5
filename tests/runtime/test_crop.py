"""The crop: every golden case, and any box anywhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgetrack.box import Box
from edgetrack.runtime import crop
from edgetrack.runtime.crop import CropRule, Square, crop_filled, crop_square

GROUPS = {"f2_s128": CropRule(2.0, 128), "f4_s256": CropRule(4.0, 256), "f5_s384": CropRule(5.0, 384)}
SMALL = CropRule(4.0, 16)
PLACE = st.floats(allow_nan=False, allow_infinity=False)
# The product of two sizes must not overflow; `validate` refuses such boxes.
SIZE = st.floats(min_value=5e-324, max_value=1e150)


def canvas(size: int) -> NDArray[np.uint8]:
    """A crop's memory with a value that no test image has."""
    return np.full((size, size, 3), 77, np.uint8)


def plain_crop(frame: NDArray[np.uint8], box: Box, rule: CropRule) -> NDArray[np.uint8]:
    """The rule written the long way: the frame without its last row and column where the square reaches past them."""
    side = max(1, math.ceil(math.sqrt(box.w * box.h) * rule.factor))
    x1, y1 = round(box.x + 0.5 * box.w - 0.5 * side), round(box.y + 0.5 * box.h - 0.5 * side)
    square = np.zeros((side, side, 3), np.uint8)
    for row in range(max(0, y1), min(y1 + side, frame.shape[0] - 1)):
        for column in range(max(0, x1), min(x1 + side, frame.shape[1] - 1)):
            square[row - y1, column - x1] = frame[row, column]
    return cv2.resize(square, (rule.size, rule.size), interpolation=cv2.INTER_LINEAR)


@pytest.mark.parametrize("group", sorted(GROUPS))
def test_crops_are_the_official_ones(
    golden: Callable[[str], Any], synthetic_image: NDArray[np.uint8], group: str
) -> None:
    cases, rule = golden("crop_ostrack").group(group), GROUPS[group]
    names = sorted({key.partition("/")[0] for key in cases})
    assert len(names) == 10
    for name in names:
        case = {key.partition("/")[2]: value for key, value in cases.items() if key.startswith(f"{name}/")}
        out = canvas(rule.size)
        factor = crop_square(synthetic_image, Box(*case["rect_xywh"].tolist()), rule, out)
        assert factor == pytest.approx(float(case["resize_factor"]), rel=1e-12), name
        assert round(rule.size / factor) == int(case["crop_x1_y1_side"][2]), name
        step = rule.size // 32
        off = np.abs(out[::step, ::step].astype(int) - case["crop_subsampled"])
        assert off.max() <= 1, name
        np.testing.assert_allclose(out.mean(axis=(0, 1)), case["crop_mean"], atol=0.02, err_msg=name)


def test_golden_groups_are_all_compared(golden: Callable[[str], Any]) -> None:
    found = {key.partition("/")[0] for key in golden("crop_ostrack").arrays}
    assert found - {"image", "normalise"} == GROUPS.keys()


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(2, 20),
    width=st.integers(2, 20),
    x=st.floats(-30, 40),
    y=st.floats(-30, 40),
    w=st.floats(0.1, 15),
    h=st.floats(0.1, 15),
)
def test_crop_is_cut_pad_and_resize(height: int, width: int, x: float, y: float, w: float, h: float) -> None:
    frame = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)
    out = canvas(16)
    crop_square(frame, Box(x, y, w, h), SMALL, out)
    assert np.array_equal(out, plain_crop(frame, Box(x, y, w, h), SMALL))


@settings(deadline=None, max_examples=300)
@given(x=PLACE, y=PLACE, w=SIZE, h=SIZE)
@example(x=0, y=0, w=1e6, h=1e6)
@example(x=-1e18, y=0, w=10, h=10)
@example(x=1e20, y=1, w=1e10, h=1e10)
@example(x=0, y=0, w=1e150, h=1e150)
@example(x=2, y=2, w=5e-324, h=5e-324)
def test_any_finite_box_gives_a_crop_and_a_positive_factor(x: float, y: float, w: float, h: float) -> None:
    frame = np.full((12, 20, 3), 200, np.uint8)
    out = canvas(16)
    assert 0 < crop_square(frame, Box(x, y, w, h), SMALL, out) <= 16
    assert not (out == 77).all(), "the crop was not written"
    assert out.max() <= 200


@pytest.mark.parametrize("box", [Box(500, 5, 4, 4), Box(5, 500, 4, 4), Box(-500, 5, 4, 4), Box(5, -1e300, 4, 4)])
def test_crop_outside_the_frame_is_black(box: Box) -> None:
    out = canvas(16)
    crop_square(np.full((12, 20, 3), 200, np.uint8), box, SMALL, out)
    assert not out.any()


@settings(deadline=None, max_examples=40)
@given(
    height=st.integers(2, 60),
    width=st.integers(2, 60),
    x=st.floats(-60, 60),
    y=st.floats(-60, 60),
    size=st.floats(20, 60),
)
def test_square_too_large_to_copy_is_sampled_to_the_same_crop(
    height: int, width: int, x: float, y: float, size: float
) -> None:
    frame = np.random.default_rng(height + width).integers(0, 256, (height, width, 3), np.uint8)
    copied, sampled = canvas(16), canvas(16)
    crop_square(frame, Box(x, y, size, size), SMALL, copied)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crop, "LARGEST_COPY", 16)
        crop_square(frame, Box(x, y, size, size), SMALL, sampled)
    assert np.abs(copied.astype(int) - sampled).max() <= 1


@pytest.mark.parametrize("box", [Box(60, 60, 30, 20), Box(-8, -9, 30, 20)])
def test_layout_of_the_frame_does_not_matter(synthetic_image: NDArray[np.uint8], box: Box) -> None:
    image = synthetic_image
    read_only = image.copy()
    read_only.flags.writeable = False
    expected = canvas(128)
    crop_square(image, box, GROUPS["f2_s128"], expected)
    layouts = {
        "reversed channels": image[..., ::-1].copy()[..., ::-1],
        "reversed rows": image[::-1].copy()[::-1],
        "every second column": image.repeat(2, axis=1)[:, ::2],
        "Fortran order": np.asfortranarray(image),
        "read-only": read_only,
    }
    for name, frame in layouts.items():
        found = canvas(128)
        crop_square(frame, box, GROUPS["f2_s128"], found)
        assert np.array_equal(found, expected), name


def test_frame_is_not_changed(synthetic_image: NDArray[np.uint8]) -> None:
    frame = synthetic_image.copy()
    crop_square(frame, Box(-5, 60, 30, 20), SMALL, canvas(16))
    assert np.array_equal(frame, synthetic_image)


def test_rounding_is_half_to_even() -> None:
    frame = np.arange(12, dtype=np.uint8).repeat(3).reshape(1, 12, 3).repeat(12, axis=0)
    rule, firsts = CropRule(1.0, 4), []
    for x in (0.5, 1.5, 2.5, 3.5):
        out = canvas(4)
        crop_square(frame, Box(x, 2, 4, 4), rule, out)
        firsts.append(int(out[0, 0, 0]))
    assert firsts == [0, 2, 2, 4]


FILL = (10, 120, 230)


def plain_filled(frame: NDArray[np.uint8], square: Square, size: int) -> NDArray[np.uint8]:
    """The rule written the long way."""
    x, y, side = square
    cut = np.empty((side, side, 3), np.uint8)
    cut[...] = FILL
    for row in range(max(0, y), min(y + side, frame.shape[0])):
        for column in range(max(0, x), min(x + side, frame.shape[1])):
            cut[row - y, column - x] = frame[row, column]
    return cv2.resize(cut, (size, size), interpolation=cv2.INTER_LINEAR)


@settings(max_examples=80)
@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    x=st.integers(-40, 40),
    y=st.integers(-40, 40),
    side=st.integers(1, 50),
    largest_copy=st.sampled_from([4096, 16]),
)
def test_filled_crop_is_cut_pad_and_resize(
    height: int, width: int, x: int, y: int, side: int, largest_copy: int
) -> None:
    frame = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)
    out, square = canvas(16), Square(x, y, side)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crop, "LARGEST_COPY", largest_copy)
        crop_filled(frame, square, FILL, out)
    # Above the limit the square is sampled in floating point.
    allowed = 0 if side <= largest_copy else 1
    assert np.abs(out.astype(int) - plain_filled(frame, square, 16)).max() <= allowed
    inside = min(x, y) >= 0 and x + side <= width and y + side <= height
    assert square.is_inside(frame) is inside


def test_filled_crop_of_the_right_size_is_a_copy() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    out = canvas(16)
    crop_filled(frame, Square(7, 9, 16), FILL, out)
    assert np.array_equal(out, frame[9:25, 7:23])


@pytest.mark.parametrize(
    "square", [Square(10**30, 3, 8), Square(-5, -(10**300), 8), Square(-(10**9), -(10**9), 2 * 10**9)]
)
def test_filled_crop_takes_any_square(square: Square) -> None:
    out = canvas(16)
    crop_filled(np.zeros((12, 20, 3), np.uint8), square, FILL, out)
    assert not (out == 77).any()
