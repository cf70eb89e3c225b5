"""Boxes: algebra, the published clipping rule, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgetrack.box import Box, center_distances, clip, iou, validate
from edgetrack.errors import InvalidBoxError

ANY = st.floats(-1e6, 1e6)
SIZE = st.floats(1e-3, 1e6)
BOXES = st.builds(Box, ANY, ANY, SIZE, SIZE)
WILD = st.builds(Box, *[st.floats(allow_nan=True, allow_infinity=True)] * 4)


def test_corners_centre_and_area() -> None:
    box = Box(10, 20, 30, 40)
    assert box.xyxy == (10, 20, 40, 60)
    assert box.center == (25, 40)
    assert box.area == 1200
    assert Box(0, 0, -3, 5).area == 0


@given(box=BOXES)
def test_centre_and_corner_forms_lead_back_to_the_box(box: Box) -> None:
    assert Box.from_center(*box.center, box.w, box.h) == pytest.approx(box, rel=1e-9, abs=1e-6)
    assert Box.from_xyxy(*box.xyxy) == pytest.approx(box, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (Box(0, 0, 10, 10), Box(0, 0, 10, 10), 1.0),
        (Box(0, 0, 10, 10), Box(5, 0, 10, 10), 1 / 3),
        (Box(0, 0, 10, 10), Box(10, 0, 10, 10), 0.0),
        (Box(0, 0, 10, 10), Box(2, 2, 5, 5), 0.25),
        (Box(0, 0, 10, 10), Box(0, 0, 0, 10), 0.0),
        (Box(0, 0, 10, 10), Box(math.nan, 0, 10, 10), 0.0),
        (Box(0, 0, 10, 10), Box(0, 0, math.inf, 10), 0.0),
    ],
)
def test_overlap_of_known_boxes(a: Box, b: Box, expected: float) -> None:
    assert iou(a, b) == pytest.approx(expected)


@given(a=BOXES, b=BOXES)
@example(a=Box(1e16, 0, 1.5, 1.5), b=Box(1e16, 0, 1.5, 1.5))
def test_overlap_is_symmetric_and_a_fraction(a: Box, b: Box) -> None:
    assert iou(a, b) == pytest.approx(iou(b, a), abs=1e-12)
    assert 0 <= iou(a, b) <= 1


@given(box=BOXES, dx=st.floats(-1e3, 1e3), dy=st.floats(-1e3, 1e3))
def test_centre_error_is_the_length_of_the_move(box: Box, dx: float, dy: float) -> None:
    moved = box._replace(x=box.x + dx, y=box.y + dy)
    assert center_distances(np.array([box]), np.array([moved]))[0] == pytest.approx(math.hypot(dx, dy), abs=1e-6)


@given(box=WILD, height=st.integers(10, 5000), width=st.integers(10, 5000), margin=st.floats(0.5, 10))
def test_clipped_box_lies_in_the_frame_and_keeps_the_margin(box: Box, height: int, width: int, margin: float) -> None:
    if not box.is_finite:
        return
    x, y, w, h = clip(box, height, width, margin)
    assert 0 <= x <= width - margin
    assert 0 <= y <= height - margin
    assert w >= margin
    assert h >= margin
    assert x + w <= width * (1 + 1e-15)
    assert y + h <= height * (1 + 1e-15)


@given(height=st.integers(20, 500), width=st.integers(20, 500), data=st.data())
def test_clipping_leaves_a_box_inside_the_frame_alone(height: int, width: int, data: st.DataObject) -> None:
    x, y = data.draw(st.floats(0, width - 10)), data.draw(st.floats(0, height - 10))
    box = Box(x, y, data.draw(st.floats(10, width - x)), data.draw(st.floats(10, height - y)))
    assert clip(box, height, width) == pytest.approx(box, rel=1e-12, abs=1e-9)


def test_clipping_takes_the_far_edge_from_the_unclipped_corner() -> None:
    assert clip(Box(-20, 5, 50, 50), 100, 100) == Box(0, 5, 30, 50)


@pytest.mark.parametrize("side", [1, 5, 9])
def test_box_is_as_wide_as_the_margin_even_where_the_frame_is_not(side: int) -> None:
    assert clip(Box(0, 0, 3, 3), side, side)[2:] == (10, 10)


def test_clipping_is_the_official_one(golden: Callable[[str], Any]) -> None:
    cases = golden("decode_center").group("clip")
    for name in {key.partition("/")[0] for key in cases}:
        expected = cases[f"{name}/out_margin10_H240_W320"]
        assert clip(Box(*cases[f"{name}/in"]), 240, 320) == pytest.approx(expected, abs=1e-9), name


@pytest.mark.parametrize("text", ["10,20,64,48", "10 20 64 48", " 10, 20, 64 ,48 ", "1e1,20.0,64,48"])
def test_text_is_parsed(text: str) -> None:
    assert Box.parse(text) == Box(10, 20, 64, 48)


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "1;2;3;4", "1,2,0,4", "1,2,3,-4", "1,2,nan,4"])
def test_text_that_is_no_box_is_refused_with_its_words(text: str) -> None:
    with pytest.raises(InvalidBoxError) as caught:
        Box.parse(text)
    assert caught.value.exit_code == 2


@given(text=st.text(max_size=30))
def test_any_text_is_a_box_or_a_clear_error(text: str) -> None:
    try:
        box = Box.parse(text)
    except InvalidBoxError:
        return
    assert box.is_finite
    assert box.area >= 0


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((1, 2, 3), "not four numbers"),
        ((1, 2, 3, 4, 5), "not four numbers"),
        (None, "box None is not four numbers"),
        (7, "box 7 is not four numbers"),
        ((1, 2, "wide", 4), "not four numbers"),
        ((1, 2, None, 4), "not four numbers"),
        ((1, 2, math.nan, 4), "NaN or infinity"),
        ((math.inf, 2, 3, 4), "NaN or infinity"),
        ((1, 2, 1e-7, 4), "too small"),
        ((1, 2, 4, 1e7), "too large"),
        ((1, 2, 0, 4), "no area"),
        ((1, 2, 3, -4), "no area"),
        ((0, 0, 1e200, 1e200), "too large"),
        ((100, 0, 10, 10), "outside the frame of 100x50"),
        ((0, 50, 10, 10), "outside the frame of 100x50"),
        ((-10, 0, 10, 10), "outside the frame of 100x50"),
        ((0, -10, 10, 10), "outside the frame of 100x50"),
    ],
)
def test_what_is_no_box_in_the_frame_is_refused(values: Any, words: str) -> None:
    with pytest.raises(InvalidBoxError, match=words):
        validate(values, (50, 100))


@pytest.mark.parametrize("values", [(99.5, 49.5, 10, 10), (-9.5, -9.5, 10, 10), (-5, -5, 500, 500), (3, 4, 1e-6, 1e-6)])
def test_box_that_touches_the_frame_is_taken(values: tuple[float, ...]) -> None:
    assert validate(values, (50, 100)) == Box(*values)


def test_iterators_and_arrays_of_numbers_are_taken() -> None:
    assert validate(iter([1, 2, 3, 4])) == Box(1, 2, 3, 4)
