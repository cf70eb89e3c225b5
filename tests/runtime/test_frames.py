"""What is taken as a frame, and what is refused with which words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgetrack.errors import InvalidFrameError
from edgetrack.runtime.frames import as_bgr

RNG = np.random.default_rng(0)
BGR = RNG.integers(0, 256, (6, 8, 3), np.uint8)


def test_bgr_is_taken_as_it_is() -> None:
    assert as_bgr(BGR) is BGR


@pytest.mark.parametrize("view", [BGR[:, ::-1], BGR[..., ::-1], BGR[::2, ::2], BGR.transpose(1, 0, 2)])
def test_views_are_not_copied(view: np.ndarray) -> None:
    assert as_bgr(view) is view


@pytest.mark.parametrize("grey", [BGR[..., 0], BGR[..., :1], BGR[::-1, ::2, 1]])
def test_grey_is_repeated_over_the_channels(grey: np.ndarray) -> None:
    found = as_bgr(grey)
    flat = grey.reshape(grey.shape[:2])
    assert found.shape == (*flat.shape, 3)
    assert all(np.array_equal(found[..., channel], flat) for channel in range(3))


def test_alpha_is_dropped() -> None:
    bgra = np.dstack([BGR, RNG.integers(0, 256, (6, 8), np.uint8)])
    assert np.array_equal(as_bgr(bgra), BGR)
    assert np.array_equal(as_bgr(bgra[:, ::-1]), BGR[:, ::-1])


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (None, "frame is NoneType.*the video has probably ended"),
        (BGR.tolist(), "frame is list, expected a uint8 numpy array"),
        ("frame.png", "frame is str"),
        (np.zeros((0, 8, 3), np.uint8), r"frame is empty, its shape is \(0, 8, 3\)"),
        (np.zeros((6, 8, 0), np.uint8), "frame is empty"),
        (BGR.astype(np.float32) / 255, r"dtype float32, expected uint8.*\(frame \* 255\)"),
        (BGR.astype(np.uint16), "dtype uint16"),
        (BGR.astype(bool), "dtype bool"),
        (BGR[..., :2], r"shape \(6, 8, 2\), expected \(H, W, 3\) BGR"),
        (BGR[None], r"shape \(1, 6, 8, 3\)"),
        (BGR[0, 0], r"shape \(3,\)"),
        (np.uint8(7), "frame is uint8"),
        (np.array(7, np.uint8), r"shape \(\)"),
        (np.array([["a"]], object), "dtype object"),
    ],
)
def test_what_is_no_frame_is_refused(frame: Any, words: str) -> None:
    with pytest.raises(InvalidFrameError, match=words) as caught:
        as_bgr(frame)
    assert caught.value.exit_code == 2
