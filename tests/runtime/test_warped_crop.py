"""STMTrack's crop and target map against the official numbers, and any box anywhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgetrack.runtime.warped_crop import crop_warped, find_patch, target_rectangle

PLACE = st.floats(-1e150, 1e150, allow_nan=False)


def canvas(size: int) -> NDArray[np.uint8]:
    """A crop's memory with a value that no test image has."""
    return np.full((size, size, 3), 77, np.uint8)


def test_crops_are_the_official_ones(golden: Callable[[str], Any], synthetic_image: NDArray[np.uint8]) -> None:
    fixture = golden("crop_stm")
    fill = tuple(int(value) for value in fixture.arrays["avg_chans"])
    for index in range(7):
        case = fixture.group(f"case{index}")
        x, y, w, h = case["rect_xywh"]
        wanted = math.sqrt(w * h) * 4
        assert wanted / 289 == pytest.approx(float(case["target_scale"]), rel=1e-7)
        patch, out = find_patch((x + (w - 1) / 2, y + (h - 1) / 2), wanted, 289), canvas(289)
        crop_warped(synthetic_image, patch, fill, out)
        assert patch.scale(289) == pytest.approx(float(case["scale"]), rel=1e-12), index
        assert np.abs(out[::6, ::6].astype(int) - case["crop_every_6px"]).max() <= 1, index
        np.testing.assert_allclose(out.mean(axis=(0, 1)), case["crop_mean"], atol=0.01, err_msg=str(index))


@given(x=PLACE, y=PLACE, wanted=st.floats(0, 1e160), height=st.integers(1, 40), width=st.integers(1, 40))
@example(x=-1e6, y=5, wanted=1e7, height=30, width=30)
@example(x=1e150, y=1e150, wanted=1e-300, height=3, width=3)
def test_any_place_gives_pixels_or_the_fill(x: float, y: float, wanted: float, height: int, width: int) -> None:
    frame = np.full((height, width, 3), 200, np.uint8)
    patch, out = find_patch((x, y), wanted, 17), canvas(17)
    crop_warped(frame, patch, (10, 20, 30), out)
    assert 0 < patch.scale(17) < 17
    # Between the two colours, whatever is mixed.
    assert (out >= np.array([10, 20, 30])).all()
    assert (out <= 200).all()


def test_a_patch_of_the_crops_size_is_a_copy() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)
    patch, out = find_patch((25.9, 30.2), 16.0, 17), canvas(17)
    assert (patch.corner, patch.side) == ((18, 23), 16)
    crop_warped(frame, patch, (0, 0, 0), out)
    assert np.array_equal(out, frame[23:40, 18:35])


def test_of_much_larger_squares_pixels_are_left_out() -> None:
    frame = np.random.default_rng(1).integers(0, 256, (200, 200, 3), np.uint8)
    patch, out = find_patch((100, 101), 64.0, 17), canvas(17)
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
