"""Drawing on frames, and the videos that keep them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgetrack.box import Box
from edgetrack.media import draw, draw_attention

GREY = np.full((360, 640, 3), 127, np.uint8)
BOX = Box(200, 150, 120, 80)


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return (before != after).any(axis=2)


def test_draw_returns_a_copy_and_leaves_the_frame_alone():
    frame = GREY.copy()
    frame.flags.writeable = False
    out = draw(frame, BOX, score=0.5, fps=30.0)
    assert out is not frame
    assert (frame == 127).all()
    assert out.shape == frame.shape
    assert out.dtype == np.uint8


def test_only_pixels_near_the_outline_the_label_and_the_corner_change():
    mask = changed(GREY, draw(GREY, BOX, score=0.93, lost=True, fps=123.4))
    allowed = np.zeros_like(mask)
    allowed[145:236, 195:326] = True
    allowed[156:224, 206:314] = False
    allowed[120:152, 195:330] = True
    allowed[0:32, 0:130] = True
    assert mask.any()
    assert not (mask & ~allowed).any()


def test_the_outline_runs_along_the_edges_of_the_box():
    mask = changed(GREY, draw(GREY, BOX))
    ys, xs = np.nonzero(mask)
    assert (xs.min(), ys.min()) == (pytest.approx(200, abs=3), pytest.approx(150, abs=3))
    assert (xs.max() + 1, ys.max() + 1) == (pytest.approx(320, abs=3), pytest.approx(230, abs=3))


def test_lost_and_tracked_have_different_colours():
    tracked, lost = draw(GREY, BOX), draw(GREY, BOX, lost=True)
    assert tracked[150, 260, 1] > tracked[150, 260, 2]
    assert lost[150, 260, 2] > lost[150, 260, 1]


@pytest.mark.parametrize("ground", [0, 127, 255])
def test_text_stands_out_on_any_ground(ground):
    frame = np.full((360, 640, 3), ground, np.uint8)
    corner = draw(frame, None, fps=30.0)[0:32, 0:130].astype(int)
    assert corner.max() - corner.min() > 180


def test_text_grows_with_the_frame():
    def share(height: int, width: int) -> float:
        frame = np.zeros((height, width, 3), np.uint8)
        return np.nonzero(draw(frame, None, fps=30.0).any(axis=2))[1].max() / width

    assert share(720, 1280) == pytest.approx(share(1440, 2560), rel=0.1)


@pytest.mark.parametrize("box", [Box(-20, 2, 100, 60), Box(5, 40, 60, 60), Box(0, 0, 640, 360), Box(600, 300, 60, 80)])
def test_label_and_frame_rate_do_not_cover_each_other(box):
    def ink(**what) -> np.ndarray:
        return changed(draw(GREY, box), draw(GREY, box, **what))

    label, rate = ink(score=0.93), ink(fps=123.4)
    assert label.sum() > 100
    assert not (label & rate).any()


def test_ground_truth_is_drawn_apart_from_the_box():
    truth = Box(400, 40, 60, 60)
    mask = changed(draw(GREY, BOX), draw(GREY, BOX, ground_truth=truth))
    ys, xs = np.nonzero(mask)
    assert xs.min() >= 395
    assert xs.max() <= 465
    assert ys.max() <= 105


@pytest.mark.parametrize(
    "box",
    [
        None,
        Box(math.nan, 1, 2, 3),
        Box(math.inf, 1, 2, 3),
        Box(-1e30, -1e30, 2e30, 2e30),
        Box(5000, 5000, 10, 10),
        Box(-500, 10, 100, 100),
        Box(10, 10, 0, 0),
    ],
)
@pytest.mark.parametrize("shape", [(360, 640, 3), (8, 8, 3), (1, 1, 3)])
def test_no_box_is_too_odd_to_draw(box, shape):
    frame = np.full(shape, 127, np.uint8)
    assert draw(frame, box, score=0.1, lost=True, fps=1e6, ground_truth=box).shape == shape


def test_a_box_outside_the_frame_leaves_no_line_at_its_border():
    assert not changed(GREY, draw(GREY, Box(5000, 5000, 10, 10))).any()


def test_a_frame_that_is_a_view_with_gaps_is_taken():
    view = np.full((100, 200, 3), 127, np.uint8)[:, ::2]
    assert draw(view, Box(10, 10, 30, 30)).shape == (100, 100, 3)


REGION = Box(100, 60, 160, 160)


def test_a_map_of_attention_colours_its_largest_cell_and_leaves_the_frame_around():
    weights = np.zeros((4, 4), np.float32)
    weights[1, 2] = 0.3
    mask = changed(GREY, draw_attention(GREY, "", weights, REGION))
    inside = mask[66:214, 106:254]
    ys, xs = np.nonzero(inside)
    # Bilinear: one cell to each side of the middle of cell (row 1, column 2), which is 40 pixels wide.
    assert (xs.mean() + 106, ys.mean() + 66) == (pytest.approx(100 + 2.5 * 40, abs=2), pytest.approx(60 + 60, abs=2))
    assert inside[54, 94]
    assert xs.max() - xs.min() < 80
    outside = mask.copy()
    outside[57:223, 97:263] = False
    assert not outside.any()


@pytest.mark.parametrize("region", [Box(-300, -300, 200, 200), Box(-50, -50, 2000, 2000), Box(630, 350, 40, 40)])
def test_a_region_may_reach_beyond_the_frame(region):
    weights = np.random.default_rng(0).random((8, 8)).astype(np.float32)
    assert draw_attention(GREY, "map", weights, region).shape == GREY.shape


@pytest.mark.parametrize("weights", [np.full((4, 4), 0.1, np.float32), np.full((4, 4), np.nan, np.float32)])
def test_a_map_that_prefers_nothing_colours_nothing(weights):
    mask = changed(GREY, draw_attention(GREY, "", weights, REGION))
    assert not mask[66:214, 106:254].any()


def test_a_map_covers_the_crop_as_the_graph_saw_it():
    """The blob lies where its place in the crop maps to, for a region of uneven sides."""
    weights = np.zeros((16, 8), np.float32)
    weights[15, 0] = 1
    corner = draw_attention(GREY, "", weights, Box(200, 100, 80, 160))
    assert changed(GREY, corner)[254, 206]
    assert not changed(GREY, corner)[150:200, 240:275].any()
