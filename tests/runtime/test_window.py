"""The Hann windows: open and never zero, closed and zero at the border, and OpenCV's root of the latter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.runtime.window import hann_closed, hann_open, hann_root


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
