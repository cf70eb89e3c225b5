"""From maps to a box: every golden case, and what any maps give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.box import Box, clip
from edgetrack.runtime.decode import Peak, decode_center, map_back
from edgetrack.runtime.window import hann_open

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
