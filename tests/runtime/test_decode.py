"""From maps to a box: windows, every golden case, and what any maps give."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgetrack.box import Box, clip
from edgetrack.runtime.decode import (
    CellChooser,
    DistanceDecoder,
    Found,
    Peak,
    decode_center,
    hann_closed,
    hann_open,
    hann_root,
    map_back,
    size_with_context,
)

CASES = [(cells, case) for cells in (16, 24) for case in range(5)]


@pytest.mark.parametrize(("cells", "case"), CASES)
def test_decoding_is_the_official_one(golden: Callable[[str], Any], cells: int, case: int) -> None:
    d = golden("decode_center").group(f"fs{cells}/case{case}")
    window, crop_size = hann_open(cells), cells * 16
    maps = [d[f"{name}_map"] for name in ("score", "size", "offset")]
    peak = decode_center(*maps, window, np.empty_like(window))
    np.testing.assert_allclose(peak[2:], d["pred_cxcywh_norm"][0], rtol=0, atol=1e-6)
    assert peak.windowed == pytest.approx(float(d["windowed_score"].item()), abs=1e-6)
    previous, factor = Box(*d["prev_xywh"].tolist()), float(d["resize_factor"])
    box = map_back(peak, previous, crop_size, factor)
    np.testing.assert_allclose(box, d["box_xywh_unclipped"], rtol=0, atol=1e-3)
    height, width = d["image_hw"].tolist()
    np.testing.assert_allclose(clip(box, height, width), d["new_xywh"], rtol=0, atol=1e-3)


@pytest.mark.parametrize(("cells", "case"), CASES)
def test_without_a_window_the_official_choice_is_found_too(golden: Callable[[str], Any], cells: int, case: int) -> None:
    d = golden("decode_center").group(f"fs{cells}/case{case}")
    flat = np.ones((cells, cells), np.float32)
    peak = decode_center(*(d[f"{name}_map"] for name in ("score", "size", "offset")), flat, np.empty_like(flat))
    np.testing.assert_allclose(peak[2:], d["pred_cxcywh_norm_no_window"][0], rtol=0, atol=1e-6)
    assert peak.score == peak.windowed


def test_golden_cases_are_all_compared(golden: Callable[[str], Any]) -> None:
    found = {tuple(key.split("/")[:2]) for key in golden("decode_center").arrays if key.startswith("fs")}
    assert found == {(f"fs{cells}", f"case{case}") for cells, case in CASES}


def maps(cells: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return tuple(np.zeros((1, channels, cells, cells), np.float32) for channels in (1, 2, 2))


def test_first_of_equal_cells_wins() -> None:
    score, size, offset = maps(4)
    score[0, 0, 1, 2] = score[0, 0, 2, 1] = 0.5
    window = np.ones((4, 4), np.float32)
    peak = decode_center(score, size, offset, window, np.empty_like(window))
    assert (peak.cx, peak.cy) == (2 / 4, 1 / 4)


@given(row=st.integers(0, 15), column=st.integers(0, 15), dx=st.floats(-1, 1, width=32), dy=st.floats(-1, 1, width=32))
def test_peak_is_its_cell_and_offset(row: int, column: int, dx: float, dy: float) -> None:
    score, size, offset = maps(16)
    score[0, 0, row, column] = 0.5
    size[0, :, row, column] = 0.25, 0.125
    offset[0, :, row, column] = dx, dy
    window = hann_open(16)
    peak = decode_center(score, size, offset, window, np.empty_like(window))
    assert peak == Peak(
        0.5, float(np.float32(0.5) * window[row, column]), (column + dx) / 16, (row + dy) / 16, 0.25, 0.125
    )


@given(
    x=st.floats(-500, 500), y=st.floats(-500, 500), w=st.floats(1, 200), h=st.floats(1, 200), side=st.integers(4, 900)
)
def test_peak_in_the_middle_keeps_the_centre(x: float, y: float, w: float, h: float, side: int) -> None:
    previous = Box(x, y, w, h)
    box = map_back(Peak(1, 1, 0.5, 0.5, 0.25, 0.5), previous, 256, 256 / side)
    assert box.center == pytest.approx(previous.center, abs=1e-6)
    assert box[2:] == pytest.approx((side / 4, side / 2))


STRIDE, INFLUENCE, PENALTY = 16, 0.4, 0.15


def decoder(cells: int, **changes: Any) -> DistanceDecoder:
    given_ = {"stride": STRIDE, "influence": INFLUENCE, "penalty": PENALTY} | changes
    stride, origin = given_.pop("stride"), given_.pop("origin", 0)
    return DistanceDecoder(CellChooser(hann_closed(cells), **given_), stride=stride, origin=origin)


def slow_cells(cls: np.ndarray, loc: np.ndarray, scale: float, aspect: float) -> list[Found]:
    """Steps 1 to 3 of docs/trackers/nanotrack.md (Decoding), cell by cell."""
    cells, found = cls.shape[-1], []
    window = np.outer(np.hanning(cells), np.hanning(cells))
    for row in range(cells):
        for column in range(cells):
            score = 1 / (1 + math.exp(float(cls[0, 0, row, column]) - float(cls[0, 1, row, column])))
            left, top, right, bottom = (math.exp(float(v)) for v in loc[0, :, row, column])
            w, h = left + right, top + bottom
            ratio, shape = math.sqrt((w + (w + h) / 2) * (h + (w + h) / 2)) / scale, aspect / (w / h)
            weight = score * math.exp(-(max(ratio, 1 / ratio) * max(shape, 1 / shape) - 1) * PENALTY)
            windowed = weight * (1 - INFLUENCE) + window[row, column] * INFLUENCE
            x, y = (STRIDE * (i - cells // 2) for i in (column, row))
            found.append(Found(score, windowed, weight, x + (right - left) / 2, y + (bottom - top) / 2, w, h))
    return found


@settings(max_examples=60)
@given(
    data=st.data(),
    cells=st.integers(2, 7),
    scale=st.floats(5, 500),
    aspect=st.floats(0.1, 10),
)
def test_distances_decode_as_cell_by_cell(data: st.DataObject, cells: int, scale: float, aspect: float) -> None:
    numbers = st.floats(-4, 4, width=32)
    cls = data.draw(hnp.arrays(np.float32, (1, 2, cells, cells), elements=numbers))
    loc = data.draw(hnp.arrays(np.float32, (1, 4, cells, cells), elements=numbers))
    found, expected = decoder(cells)(cls, loc, scale, aspect), slow_cells(cls, loc, scale, aspect)
    assert found is not None
    # Cells may tie to rounding; then any of them is right.
    best = max(cell.windowed for cell in expected)
    ties = [cell for cell in expected if cell.windowed >= best - 1e-5]
    assert any(found == pytest.approx(cell, rel=1e-4, abs=1e-3) for cell in ties)


def test_first_of_equal_cells_is_decoded() -> None:
    loc = np.zeros((1, 4, 5, 5), np.float32)
    cls = np.zeros((1, 2, 5, 5), np.float32)
    cls[0, 1, 1, 3] = cls[0, 1, 3, 1] = 9
    flat = DistanceDecoder(CellChooser(np.zeros((5, 5)), influence=INFLUENCE, penalty=PENALTY), stride=STRIDE)
    found = flat(cls, loc, 4.0, 1.0)
    assert found is not None
    assert (found.x, found.y) == (STRIDE, -STRIDE)


def test_float32_decoder_with_an_origin_finds_the_same() -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        cls, loc = (rng.standard_normal((1, count, 16, 16)).astype(np.float32) for count in (2, 4))
        plain, single = (decoder(16, **c)(cls, loc, 64.0, 1.5) for c in ({}, {"dtype": np.float32, "origin": 127}))
        assert plain is not None
        assert single == pytest.approx(plain, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e4])
@pytest.mark.parametrize("name", ["cls", "loc"])
def test_one_bad_value_anywhere_is_no_box(name: str, bad: float) -> None:
    maps = {"cls": np.zeros((1, 2, 4, 4), np.float32), "loc": np.ones((1, 4, 4, 4), np.float32)}
    assert decoder(4)(*maps.values(), 64.0, 1.0) is not None
    maps[name][0, 1, 3, 3] = bad
    found = decoder(4)(*maps.values(), 64.0, 1.0)
    # A large logit is only a sure cell; a logarithm of that size overflows.
    assert (found is not None) is (name == "cls" and bad == 1e4)


@given(
    cls=hnp.arrays(np.float32, (1, 2, 4, 4), elements=st.floats(width=32)),
    loc=hnp.arrays(np.float32, (1, 4, 4, 4), elements=st.floats(width=32)),
    scale=st.floats(0, 1e6),
    aspect=st.floats(0, 1e6),
)
def test_any_maps_give_a_box_with_an_area_or_none(
    cls: np.ndarray, loc: np.ndarray, scale: float, aspect: float
) -> None:
    found = decoder(4)(cls, loc, scale, aspect)
    if found is not None:
        assert all(math.isfinite(value) for value in found)
        assert found.w > 0
        assert found.h > 0
        assert 0 <= found.weight <= found.score <= 1


def test_size_with_context_is_that_of_a_wider_box_and_never_overflows() -> None:
    assert size_with_context(30.0, 30.0) == pytest.approx(60.0)
    assert size_with_context(20.0, 40.0) == pytest.approx(math.sqrt(50 * 70))
    assert size_with_context(1e300, 1e-300) == pytest.approx(math.sqrt(1.5 * 0.5) * 1e300)


@pytest.mark.parametrize("size", [16, 24])
def test_window_is_the_official_one(golden: Callable[[str], Any], size: int) -> None:
    np.testing.assert_allclose(hann_open(size), golden("decode_center").arrays[f"hann{size}"], rtol=0, atol=1e-6)


@given(size=st.integers(1, 64))
def test_window_is_symmetric_positive_and_highest_in_the_middle(size: int) -> None:
    window = hann_open(size)
    assert window.shape == (size, size)
    assert window.dtype == np.float32
    np.testing.assert_allclose(window, window[::-1, ::-1], atol=1e-6)
    np.testing.assert_allclose(window, window.T, atol=1e-6)
    assert 0 < window.min() <= window.max() <= 1
    assert window[size // 2, size // 2] == pytest.approx(window.max(), abs=1e-6)


@given(size=st.integers(2, 64))
def test_closed_window_is_numpys(size: int) -> None:
    np.testing.assert_allclose(hann_closed(size), np.outer(np.hanning(size), np.hanning(size)), rtol=0, atol=1e-15)


@given(size=st.integers(2, 64))
def test_root_window_is_opencvs(size: int) -> None:
    # The two cosines may differ in the last place; near the border the root magnifies that.
    expected = cv2.createHanningWindow((size, size), cv2.CV_32F)
    np.testing.assert_allclose(hann_root(size), expected, rtol=0, atol=1e-6)
