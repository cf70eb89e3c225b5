from __future__ import annotations

from contextlib import closing, nullcontext
from itertools import islice

import cv2
import numpy as np
import pytest

from edgetrack.benchmark.frames import FrameFeed, back_and_forth, decoded, prepare_frames, streamed
from edgetrack.box import Box
from edgetrack.errors import InvalidBoxError, SourceError, UsageError

SCENE = "synthetic:drift?frames=5&size=96x64"


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(4):
        cv2.imwrite(str(folder / f"{index}.png"), np.full((64, 96, 3), 50 * index, np.uint8))
    return folder


def scene_folder(tmp_path):
    folder = tmp_path / "scene"
    folder.mkdir()
    return folder


def test_a_scene_becomes_images_that_are_decoded_again(tmp_path):
    frames = prepare_frames(SCENE, None, scene_folder(tmp_path))
    assert frames.note.spec == SCENE
    assert frames.note.size == (96, 64)
    assert frames.note.box.area > 0
    assert "JPEG" in frames.note.camera
    assert len(list((tmp_path / "scene").glob("*.jpg"))) == 5
    assert [frame.shape for frame in decoded(frames.path)] == [(64, 96, 3)] * 5


def test_other_sources_are_read_where_they_are(tmp_path, images):
    folder = scene_folder(tmp_path)
    frames = prepare_frames(str(images), Box(10, 10, 20, 20), folder)
    assert frames.path == str(images)
    assert frames.note.box == Box(10, 10, 20, 20)
    assert not list(folder.iterdir())


def test_a_box_is_needed_and_must_be_in_the_frame(tmp_path, images):
    with pytest.raises(UsageError, match="--box"):
        prepare_frames(str(images), None, tmp_path)
    with pytest.raises(InvalidBoxError, match="outside"):
        prepare_frames(str(images), Box(500, 10, 20, 20), tmp_path)


def test_two_frames_are_too_few(tmp_path):
    with pytest.raises(UsageError, match="2 frames"):
        prepare_frames("synthetic:drift?frames=2&size=96x64", None, tmp_path)


def test_frames_kept_are_bounded_by_number_and_by_size(images):
    assert len(decoded(str(images), most_frames=3)) == 3
    one_mb = 64 * 96 * 3 / 2**20
    assert len(decoded(str(images), most_mb=3.5 * one_mb)) == 3
    assert len(decoded(str(images), most_mb=0)) == 3
    assert len(decoded(str(images))) == 4


def test_frames_in_memory_go_back_and_forth_without_a_jump():
    frames = [np.full((2, 2, 3), value, np.uint8) for value in range(4)]
    shots = list(islice(back_and_forth(frames), 13))
    assert [int(frame[0, 0, 0]) for frame, _ in shots] == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0]
    assert [index for index, (_, anew) in enumerate(shots) if anew] == [0, 6, 12]


def test_streamed_frames_begin_again_after_the_last(images):
    shots = list(islice(streamed(str(images)), 9))
    assert [int(frame[0, 0, 0]) for frame, _ in shots] == [0, 50, 100, 150, 0, 50, 100, 150, 0]
    assert [anew for _, anew in shots] == [True, False, False, False] * 2 + [True]


def test_a_source_without_frames_is_an_error_and_no_endless_loop(monkeypatch):
    monkeypatch.setattr("edgetrack.benchmark.frames.open_source", lambda spec: nullcontext([]))
    with pytest.raises(SourceError, match="no frames"):
        list(streamed("a-camera"))


@pytest.mark.parametrize("spec", ["0", "rtsp://host/live", "gst:videotestsrc"])
def test_a_live_source_is_refused(tmp_path, spec):
    with pytest.raises(SourceError, match="is a live source, which cannot be read twice"):
        prepare_frames(spec, None, tmp_path)


@pytest.mark.parametrize("ahead", [False, True])
def test_frames_read_ahead_are_the_same_ones_with_the_stand_in_made(images, ahead):
    feed = FrameFeed(str(images), 2, 10, 10.0)
    with closing(feed.from_source(ahead=ahead)) as shots:
        taken = list(islice(shots, 9))
    assert [(int(frame[0, 0, 0]), int(frame[0, 0, 3])) for frame, _ in taken] == [
        (value, 255 - value) for value in (0, 50, 100, 150, 0, 50, 100, 150, 0)
    ]
    assert [anew for _, anew in taken] == [True, False, False, False] * 2 + [True]
