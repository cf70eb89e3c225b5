"""Crops against the official ones, by every rule, and of any box."""

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
from edgetrack.runtime.crop import (
    CropRule,
    PixelSquare,
    Scratch,
    crop_aligned,
    crop_filled,
    crop_square,
    crop_warped,
    find_patch,
    mean_colour,
    rasterised,
    target_rectangle,
    touched,
    wanted_mapping,
)

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
    crop_square(frame, Box(x, y, size, size), SMALL, sampled, Scratch(largest=16))
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


def plain_filled(frame: NDArray[np.uint8], square: PixelSquare, size: int) -> NDArray[np.uint8]:
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
    out, square = canvas(16), PixelSquare(x, y, side)
    crop_filled(frame, square, FILL, out, Scratch(largest_copy))
    # Above the limit the square is sampled in floating point.
    allowed = 0 if side <= largest_copy else 1
    assert np.abs(out.astype(int) - plain_filled(frame, square, 16)).max() <= allowed
    inside = min(x, y) >= 0 and x + side <= width and y + side <= height
    assert square.is_inside(frame) is inside


def test_filled_crop_of_the_right_size_is_a_copy() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    out = canvas(16)
    crop_filled(frame, PixelSquare(7, 9, 16), FILL, out)
    assert np.array_equal(out, frame[9:25, 7:23])


@pytest.mark.parametrize(
    "square", [PixelSquare(10**30, 3, 8), PixelSquare(-5, -(10**300), 8), PixelSquare(-(10**9), -(10**9), 2 * 10**9)]
)
def test_filled_crop_takes_any_square(square: PixelSquare) -> None:
    out = canvas(16)
    crop_filled(np.zeros((12, 20, 3), np.uint8), square, FILL, out)
    assert not (out == 77).any()


ALIGNED_CASES = [(kind, f"{kind}/case{index}") for kind in ("template", "search") for index in range(7)]
PIXELS = st.floats(-500, 800)
SIDES = st.floats(0.01, 2000)


def corners(values: Any) -> Box:
    x1, y1, x2, y2 = map(float, values)
    return Box(x1, y1, x2 - x1, y2 - y1)


@pytest.mark.parametrize(("kind", "case"), ALIGNED_CASES)
def test_aligned_crops_are_the_official_ones(
    golden: Callable[[str], Any], synthetic_image: np.ndarray, kind: str, case: str
) -> None:
    fixture, found = golden("crop_spmtrack").group(case), golden("crop_spmtrack").arrays
    box, (factor, size) = corners(fixture["bbox_xyxy"]), {"template": (2.0, 196), "search": (5.0, 378)}[kind]
    fill = mean_colour(synthetic_image)
    np.testing.assert_allclose(fill, found["image_mean_rgb"], rtol=0, atol=1e-4)
    around = box if kind == "template" else Box.from_center(*box.center, max(10, box.w), max(10, box.h))
    out = np.empty((size, size, 3), np.float32)
    mapping = crop_aligned(synthetic_image, around, factor, fill, out)
    step = int(fixture["subsample_step"])
    np.testing.assert_allclose(out.transpose(2, 0, 1)[:, ::step, ::step], fixture["crop_subsampled"], rtol=0, atol=0.05)
    np.testing.assert_allclose(np.reshape(mapping, (2, 2)), fixture["adjusted_params_scale_translation"], rtol=1e-7)
    wanted = np.reshape(wanted_mapping(around, factor, size), (2, 2))
    np.testing.assert_allclose(wanted, fixture["params_scale_translation"], rtol=1e-12)
    if kind == "template":
        target = mapping.to_crop(box)
        assert list(touched(Box(*(v / 14 for v in target)))) == fixture["mask_rect_x0y0x1y1_feature_cells"].tolist()


@given(x=PIXELS, y=PIXELS, w=SIDES, h=SIDES, factor=st.floats(1, 6))
def test_any_box_gives_a_crop_and_a_mapping_that_can_be_undone(
    x: float, y: float, w: float, h: float, factor: float
) -> None:
    frame, out = np.full((40, 60, 3), 200, np.uint8), np.full((28, 28, 3), np.nan, np.float32)
    box = Box(x, y, w, h)
    mapping = crop_aligned(frame, box, factor, np.array([1, 2, 3], np.float32), out)
    assert np.isfinite(out).all()
    assert np.isclose(out[..., None], (1, 2, 3, 200), rtol=0, atol=1e-3).any(axis=-1).all()
    np.testing.assert_allclose(mapping.to_frame(mapping.to_crop(box)), box, rtol=1e-3, atol=0.5)


@given(x=PIXELS, y=PIXELS, w=SIDES, h=SIDES)
def test_rasterised_cells_lie_in_the_picture(x: float, y: float, w: float, h: float) -> None:
    cells = rasterised(Box(x, y, w, h), 60, 40)
    if not cells.is_empty:
        assert 0 <= cells.x1 < cells.x2 <= 60
        assert 0 <= cells.y1 < cells.y2 <= 40


WARPED_PLACE = st.floats(-1e150, 1e150, allow_nan=False)


def warped_canvas(size: int) -> NDArray[np.uint8]:
    """A crop's memory with a value that no test image has."""
    return np.full((size, size, 3), 77, np.uint8)


def test_warped_crops_are_the_official_ones(golden: Callable[[str], Any], synthetic_image: NDArray[np.uint8]) -> None:
    fixture = golden("crop_stm")
    fill = tuple(int(value) for value in fixture.arrays["avg_chans"])
    for index in range(7):
        case = fixture.group(f"case{index}")
        x, y, w, h = case["rect_xywh"]
        wanted = math.sqrt(w * h) * 4
        assert wanted / 289 == pytest.approx(float(case["target_scale"]), rel=1e-7)
        patch, out = find_patch((x + (w - 1) / 2, y + (h - 1) / 2), wanted, 289), warped_canvas(289)
        crop_warped(synthetic_image, patch, fill, out)
        assert patch.scale(289) == pytest.approx(float(case["scale"]), rel=1e-12), index
        assert np.abs(out[::6, ::6].astype(int) - case["crop_every_6px"]).max() <= 1, index
        np.testing.assert_allclose(out.mean(axis=(0, 1)), case["crop_mean"], atol=0.01, err_msg=str(index))


@given(x=WARPED_PLACE, y=WARPED_PLACE, wanted=st.floats(0, 1e160), height=st.integers(1, 40), width=st.integers(1, 40))
@example(x=-1e6, y=5, wanted=1e7, height=30, width=30)
@example(x=1e150, y=1e150, wanted=1e-300, height=3, width=3)
def test_any_place_gives_pixels_or_the_fill(x: float, y: float, wanted: float, height: int, width: int) -> None:
    frame = np.full((height, width, 3), 200, np.uint8)
    patch, out = find_patch((x, y), wanted, 17), warped_canvas(17)
    crop_warped(frame, patch, (10, 20, 30), out)
    assert 0 < patch.scale(17) < 17
    # Between the two colours, whatever is mixed.
    assert (out >= np.array([10, 20, 30])).all()
    assert (out <= 200).all()


def test_a_patch_of_the_crops_size_is_a_copy() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)
    patch, out = find_patch((25.9, 30.2), 16.0, 17), warped_canvas(17)
    assert (patch.corner, patch.side) == ((18, 23), 16)
    crop_warped(frame, patch, (0, 0, 0), out)
    assert np.array_equal(out, frame[23:40, 18:35])


def test_of_much_larger_squares_pixels_are_left_out() -> None:
    frame = np.random.default_rng(1).integers(0, 256, (200, 200, 3), np.uint8)
    patch, out = find_patch((100, 101), 64.0, 17), warped_canvas(17)
    assert patch.step == 3
    crop_warped(frame, patch, (0, 0, 0), out)
    cut = frame[patch.offset[1] :: 3, patch.offset[0] :: 3][patch.corner[1] :, patch.corner[0] :]
    assert np.array_equal(out[0, 0], cut[0, 0])
    assert np.abs(out[-1, -1].astype(int) - cut[patch.side, patch.side]).max() <= 1


def test_target_rectangles_are_the_official_ones(golden: Callable[[str], Any]) -> None:
    fixture = golden("stm_postprocess")
    for index in range(3):
        label = fixture.group(f"label{index}")
        assert target_rectangle(*label["size_times_scale"], 289) == tuple(label["fg_inclusive_x0y0x1y1"])


@given(w=st.floats(0, 1e300), h=st.floats(0, 1e300))
def test_a_rectangle_is_inside_and_about_its_middle(w: float, h: float) -> None:
    x1, y1, x2, y2 = target_rectangle(w, h, 289)
    # Narrower than a pixel, it may hold none.
    assert 0 <= x1 <= 144
    assert 143 <= x2 <= 288
    assert 0 <= y1 <= 144
    assert 143 <= y2 <= 288
