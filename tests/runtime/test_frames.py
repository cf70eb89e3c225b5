"""What is taken as a frame, and what is refused with which words."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgetrack.errors import InvalidFrameError
from edgetrack.runtime.frames import as_aux, as_bgr, as_input, render_depth, with_stand_in

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


def test_two_images_are_stacked_colour_first() -> None:
    frame, aux = np.full((4, 5, 3), 1, np.uint8), np.full((4, 5), 2, np.uint8)
    found = as_input(frame, aux, 2)
    assert found.shape == (4, 5, 6)
    assert (found[..., :3] == 1).all()
    assert (found[..., 3:] == 2).all()
    assert as_input(found, None, 2) is found
    assert as_input(frame, None, 1) is frame


@pytest.mark.parametrize(
    ("frame", "aux", "modalities", "match"),
    [
        (np.zeros((4, 5, 3), np.uint8), None, 2, "takes two images a frame, given one"),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5, 3), np.uint8), 1, "takes one image a frame, given two"),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((8, 10, 3), np.uint8), 2, "aux is 10x8 pixels, the frame 5x4"),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5, 2), np.uint8), 2, "aux: frame has shape"),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5), np.int64), 2, "aux: frame has dtype int64"),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((0, 5), np.uint16), 2, "aux: frame is empty"),
        (np.zeros((4, 5, 3), np.uint8), "depth.png", 2, "aux: frame is str"),
        (np.zeros((0, 5, 6), np.uint8), None, 2, "frame is empty"),
        (np.zeros((4, 5, 6), np.float32), None, 2, "given one"),
    ],
)
def test_what_is_no_pair_is_named(frame: Any, aux: Any, modalities: int, match: str) -> None:
    with pytest.raises(InvalidFrameError, match=match):
        as_input(frame, aux, modalities)


def test_depth_is_rendered_as_described() -> None:
    # Median 1000: 3000 and more is one colour, JET's last, here in the order that becomes OpenCV's once turned to RGB.
    depth = np.array([[0, 1000, 1000], [1000, 3000, 60000]], np.uint16)
    found = render_depth(depth)
    assert (found[1, 1] == found[1, 2]).all()
    jet = cv2.applyColorMap(np.array([[0, 85, 255]], np.uint8), cv2.COLORMAP_JET)[0]
    assert (found[0, 0] == jet[0][::-1]).all()
    assert (found[0, 1] == jet[1][::-1]).all()
    assert (found[1, 2] == jet[2][::-1]).all()
    assert (as_aux(depth[..., None]) == found).all()


@given(arrays(np.float32, (3, 4), elements=st.floats(width=32)))
def test_any_depth_gives_a_picture(depth: np.ndarray) -> None:
    assert as_aux(depth).shape == (3, 4, 3)


def test_a_stand_in_is_the_negative_where_one_is_due() -> None:
    frame = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    assert with_stand_in(frame, 1) is frame
    pair = with_stand_in(frame, 2)
    assert (pair[..., 3:] == 255 - frame).all()
    assert with_stand_in(pair, 2) is pair
