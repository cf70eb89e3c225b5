"""Drawing on frames, and the videos that keep them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from edgetrack.box import Box
from edgetrack.errors import UsageError
from edgetrack.media import VideoWriter, draw, load_scene, open_source

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


def frames_of(path: Path) -> list[np.ndarray]:
    with open_source(path) as source:
        return list(source)


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
@pytest.mark.parametrize("size", [(160, 120), (161, 121)])
def test_a_video_reads_back_as_it_was_written(tmp_path, suffix, size):
    scene = load_scene("drift", frames=6, size=size)
    path = tmp_path / f"ein film ü{suffix}"
    with VideoWriter(path, fps=25) as writer:
        for index in range(6):
            writer.write(scene.frame(index))
    back = frames_of(path)
    assert len(back) == 6
    assert np.abs(back[3].astype(int) - scene.frame(3)[: back[3].shape[0], : back[3].shape[1]]).mean() < 12
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_failing_run_keeps_the_frames_written(tmp_path):
    path = tmp_path / "a.mp4"

    def fail() -> None:
        with VideoWriter(path) as writer:
            for _ in range(4):
                writer.write(GREY)
            assert not path.exists()
            raise RuntimeError("tracker failed")

    with pytest.raises(RuntimeError, match="tracker failed"):
        fail()
    assert len(frames_of(path)) == 4
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_no_frame_no_file(tmp_path):
    with VideoWriter(tmp_path / "a.mp4"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong", [GREY[:200], GREY[..., 0], GREY.astype(np.float32), np.zeros((360, 640, 4), np.uint8)]
)
def test_a_frame_unlike_the_first_is_refused_and_the_others_are_kept(tmp_path, wrong):
    with VideoWriter(tmp_path / "a.avi") as writer:
        writer.write(GREY)
        with pytest.raises(UsageError, match="expected uint8 of shape"):
            writer.write(wrong)
    assert len(frames_of(tmp_path / "a.avi")) == 1


def test_an_existing_video_is_refused_unless_told_to_overwrite(tmp_path):
    path = tmp_path / "a.avi"
    path.write_bytes(b"mine")
    with pytest.raises(UsageError, match="--overwrite"):
        VideoWriter(path)
    with VideoWriter(path, overwrite=True) as writer:
        writer.write(GREY)
        assert path.read_bytes() == b"mine"
    assert len(frames_of(path)) == 1


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"'\.gif'; videos are written as \.mp4, \.avi"):
        VideoWriter(tmp_path / "a.gif")


@pytest.mark.parametrize("fps", [0, -1, math.nan, math.inf, 1e6])
def test_a_rate_out_of_range_is_refused(tmp_path, fps):
    with pytest.raises(UsageError, match="above 0, up to 1000"):
        VideoWriter(tmp_path / "a.mp4", fps=fps)


def test_a_video_that_cannot_be_opened_says_what_to_try(tmp_path, capfd):
    folder = tmp_path / "out"
    writer = VideoWriter(folder / "a.mp4")
    folder.rmdir()
    with pytest.raises(UsageError, match=r"cannot be opened for writing \(mp4v, 640x360\).*\.avi"):
        writer.write(GREY)
    assert capfd.readouterr().err == ""
