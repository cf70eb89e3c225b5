"""Sources of frames: what opens, in which order and with which ground truth, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetrack.box import Box
from edgetrack.errors import SourceError, SourceInterruptedError, UnknownNameError, UsageError
from edgetrack.media import FrameSource, ReadOptions, load_scene, open_source
from edgetrack.media.folders import natural_key
from edgetrack.media.frames import parse_range

SIZE = (160, 96)


def picture(value: int) -> np.ndarray:
    return np.full((SIZE[1], SIZE[0], 3), value, np.uint8)


def put(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    good, data = cv2.imencode(path.suffix, image)
    assert good
    path.write_bytes(data.tobytes())


def put_series(folder: Path, count: int = 4, suffix: str = ".png") -> None:
    """Images 1.png, 2.png ... whose brightness is ten times their number."""
    for number in range(1, count + 1):
        put(folder / f"{number}{suffix}", picture(10 * number))


def levels(source: FrameSource) -> list[int]:
    with source:
        return [round(float(frame.mean()) / 10) for frame in source]


# Scenes


def test_a_scene_is_a_source_with_exact_ground_truth():
    with open_source("synthetic:exit?frames=80&size=320x180&seed=3") as source:
        scene = load_scene("exit", frames=80, size=(320, 180), seed=3)
        assert (source.name, source.length, source.fps, source.size) == ("synthetic:exit", 80, 30.0, (320, 180))
        assert [source.truth_at(index) for index in range(81)] == [*(scene.box(index) for index in range(80)), None]
        assert "ground_truth" not in vars(source), "one box does not ask for all"
        assert source.ground_truth == [scene.box(index) for index in range(80)]
        assert None in source.ground_truth
        assert (next(iter(source)) == scene.frame(0)).all()
        assert sum(1 for _ in source) == 80


def test_a_scene_without_options_has_its_defaults():
    source = open_source("synthetic:drift")
    assert (source.length, source.size) == (150, (640, 360))


def test_a_very_long_scene_opens_at_once():
    assert open_source("synthetic:drift?frames=1000000").length == 1_000_000


def test_an_unknown_scene_is_named():
    with pytest.raises(UnknownNameError, match="did you mean 'blur'"):
        open_source("synthetic:blurr")


@pytest.mark.parametrize("query", ["frames", "frames=", "frames=ten", "size=320", "size=1x2x3", "x=1", "seed=1&seed=2"])
def test_options_that_make_no_sense_show_how_to_write_them(query):
    with pytest.raises(SourceError, match=r"synthetic:NAME\?frames=150&size=640x360&seed=0"):
        open_source(f"synthetic:drift?{query}")


def test_options_out_of_range_are_refused():
    with pytest.raises(UsageError, match="0 frames"):
        open_source("synthetic:drift?frames=0")


# Folders and patterns


def test_a_folder_is_read_in_natural_order(tmp_path):
    folder = tmp_path / "mein Ordner ü"
    put_series(folder, 12)
    (folder / "notes.txt").write_text("not an image")
    (folder / "._1.png").write_bytes(b"not an image either")
    source = open_source(folder)
    assert (source.name, source.length, source.fps, source.size) == ("mein Ordner ü", 12, None, SIZE)
    assert source.ground_truth is None
    assert levels(source) == list(range(1, 13))


def test_iterating_again_starts_over(tmp_path):
    put_series(tmp_path)
    with open_source(str(tmp_path)) as source:
        assert levels(source) == levels(source) == [1, 2, 3, 4]


@given(numbers=st.lists(st.integers(0, 10**12), min_size=1, max_size=12, unique=True))
@settings(max_examples=40, deadline=None)
def test_natural_order_is_the_order_of_the_numbers(numbers):
    paths = [Path(f"seq/frame{number}_x.jpg") for number in numbers]
    assert sorted(paths, key=natural_key) == [Path(f"seq/frame{number}_x.jpg") for number in sorted(numbers)]


def test_natural_order_takes_mixed_names():
    names = ["a.png", "2.png", "02.png", "b10c.png", "b9.png", "²½.png", "10.png"]
    ordered = [path.name for path in sorted(map(Path, names), key=natural_key)]
    assert ordered == ["02.png", "2.png", "10.png", "a.png", "b9.png", "b10c.png", "²½.png"]


@pytest.mark.parametrize("sub", ["img", "imgs"])
def test_a_sequence_has_its_images_in_a_sub_folder(tmp_path, sub):
    put_series(tmp_path / "Walking" / sub)
    put(tmp_path / "Walking" / "preview.png", picture(200))
    source = open_source(tmp_path / "Walking")
    assert source.name == "Walking"
    assert levels(source) == [1, 2, 3, 4]


def test_an_empty_sub_folder_does_not_hide_the_images(tmp_path):
    put_series(tmp_path)
    (tmp_path / "img").mkdir()
    assert open_source(tmp_path).length == 4


def test_grey_and_transparent_images_come_as_bytes_in_three_channels(tmp_path):
    put(tmp_path / "1.png", picture(30)[..., 0])
    put(tmp_path / "2.png", np.dstack([picture(30), picture(255)[..., :1]]))
    with open_source(tmp_path) as source:
        frames = list(source)
    assert {(frame.shape, str(frame.dtype)) for frame in frames} == {((SIZE[1], SIZE[0], 3), "uint8")}
    assert levels(source) == [3, 3]


def test_a_pattern_picks_its_images_in_natural_order(tmp_path):
    put_series(tmp_path / "a b", 11)
    put(tmp_path / "a b" / "left.png", picture(200))
    source = open_source(f"{tmp_path}/a b/[0-9]*.png")
    assert source.name == "a b"
    assert levels(source) == list(range(1, 12))


def test_a_pattern_may_span_folders(tmp_path):
    put_series(tmp_path / "s2", 1)
    put_series(tmp_path / "s10", 2)
    assert levels(open_source(f"{tmp_path}/s*/*.png")) == [1, 1, 2]


def test_a_relative_pattern_starts_at_the_working_folder(tmp_path, monkeypatch):
    put_series(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert open_source("*.png").length == 4


def test_a_folder_with_wildcards_in_its_name_is_a_folder(tmp_path):
    put_series(tmp_path / "run [1]")
    assert open_source(str(tmp_path / "run [1]")).length == 4


# Ground truth


@pytest.mark.parametrize("separator", [",", "\t", " ", ", ", "  ", ";"])
@pytest.mark.parametrize("name", ["groundtruth.txt", "groundtruth_rect.txt"])
def test_ground_truth_is_read_with_any_separator(tmp_path, name, separator):
    put_series(tmp_path / "img")
    rows = [["1", "2", "3", "4"], ["NaN"] * 4, ["0"] * 4, ["5.5", "-6", "7e0", "8"]]
    (tmp_path / name).write_text("\r\n".join(separator.join(row) for row in rows) + "\r\n\r\n")
    assert open_source(tmp_path).ground_truth == [Box(1, 2, 3, 4), None, None, Box(5.5, -6, 7, 8)]


@pytest.mark.parametrize("given_as", ["folder", "img", "pattern"])
def test_ground_truth_is_found_beside_the_image_folder(tmp_path, given_as):
    put_series(tmp_path / "seq" / "img", 2)
    (tmp_path / "seq" / "groundtruth.txt").write_text("1,2,3,4\n2,2,3,4\n")
    spec = {"folder": "seq", "img": "seq/img", "pattern": "seq/img/*.png"}[given_as]
    source = open_source(f"{tmp_path}/{spec}")
    assert source.name == "seq"
    assert source.ground_truth == [Box(1, 2, 3, 4), Box(2, 2, 3, 4)]
    assert [source.truth_at(index) for index in (1, 2)] == [Box(2, 2, 3, 4), None]


def test_ground_truth_is_found_with_the_images(tmp_path):
    put_series(tmp_path, 1)
    (tmp_path / "groundtruth.txt").write_text("1,2,3,4")
    assert open_source(tmp_path).ground_truth == [Box(1, 2, 3, 4)]


def test_a_single_row_speaks_of_the_first_frame(tmp_path):
    put_series(tmp_path, 3)
    (tmp_path / "groundtruth.txt").write_text("1,2,3,4\n")
    assert open_source(tmp_path).ground_truth == [Box(1, 2, 3, 4), None, None]


@pytest.mark.parametrize("rows", [0, 2, 5])
def test_ground_truth_of_another_length_is_refused(tmp_path, rows):
    put_series(tmp_path, 4)
    (tmp_path / "groundtruth.txt").write_text("1,2,3,4\n" * rows)
    with pytest.raises(SourceError, match=f"{rows} rows for 4 images"):
        open_source(tmp_path)


@pytest.mark.parametrize("row", ["1,2,3", "1,2,3,4,5,6,7", "a,b,c,d", ""])
def test_a_row_that_is_not_four_numbers_is_named_by_its_line(tmp_path, row):
    put_series(tmp_path, 3)
    (tmp_path / "groundtruth.txt").write_text(f"1,2,3,4\n{row}\n1,2,3,4\n")
    with pytest.raises(SourceError, match=r"line 2 of .*groundtruth\.txt.*expected four numbers"):
        open_source(tmp_path)


def test_a_vot_sequence_has_polygons_and_its_images_in_color(tmp_path):
    (tmp_path / "color").mkdir()
    put_series(tmp_path / "color", 2)
    (tmp_path / "groundtruth.txt").write_text("10,5,20,15,10,25,0,15\n1,2,3,4\n")
    with open_source(tmp_path) as source:
        assert source.ground_truth == [(0, 5, 20, 20), (1, 2, 3, 4)]


def test_ground_truth_that_is_not_text_is_refused(tmp_path):
    put_series(tmp_path, 1)
    (tmp_path / "groundtruth.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SourceError, match=r"groundtruth\.txt is UTF-16 or no text; save it as UTF-8"):
        open_source(tmp_path)


# What is refused


@pytest.mark.parametrize("spec", ["", "  ", "no/such/place", "camera:", "camera:x", "a\0b", "x" * 5000])
def test_what_is_no_source_is_told_what_is_one(spec):
    with pytest.raises(SourceError, match="expected a video file, a folder of images"):
        open_source(spec)


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "readme.md").write_text("")
    with pytest.raises(SourceError, match=r"holds no images; expected files ending in \.bmp .*img"):
        open_source(tmp_path)


def test_a_pattern_without_matches_is_refused(tmp_path):
    with pytest.raises(SourceError, match="matches no images"):
        open_source(f"{tmp_path}/*.jpg")


def test_a_file_that_is_no_video_by_its_ending_is_refused(tmp_path):
    put(tmp_path / "a.png", picture(1))
    with pytest.raises(SourceError, match="for images give their folder or a pattern"):
        open_source(tmp_path / "a.png")


def test_a_pipe_is_neither_a_file_nor_a_folder(tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(SourceError, match="is neither a file nor a folder"):
        open_source(tmp_path / "a.mp4")


@pytest.mark.parametrize("spec", [97, "97", "camera:97", "/dev/video97", -1, 999_999, True, "9" * 5000])
def test_an_absent_camera_is_refused_without_noise(spec, capfd):
    with pytest.raises(SourceError, match=r"camera (97|-1|999999|True|9{20}) |/dev/video97 cannot be opened"):
        open_source(spec, live=True)
    assert capfd.readouterr().err == ""


def test_a_path_of_digits_is_a_folder_not_a_camera(tmp_path, monkeypatch):
    put_series(tmp_path / "97")
    monkeypatch.chdir(tmp_path)
    assert open_source(Path("97")).length == 4
    assert open_source("./97").length == 4


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("rtsp://camera/live", "as `ffmpeg -i 'rtsp://camera/live' -t 60 -c copy clip.mp4` makes one"),
        ("https://me:secret@host/a.mp4", "https://me:***@host/a.mp4 is a live source"),
        ("file:///videos/a.mp4", "give the path alone: /videos/a.mp4"),
        ("ftp://me:secret@host/a.mp4", "ftp://me:***@host/a.mp4 is an address of another kind; expected rtsp, http"),
        ("/dev/video3", "is a live source, which cannot be read twice"),
        (3, "is a live source, which cannot be read twice"),
        ("gst:videotestsrc", "is a live source, which cannot be read twice"),
    ],
)
def test_an_address_is_told_what_is_taken(spec, said):
    with pytest.raises(SourceError) as caught:
        open_source(spec)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


# How frames are read


def test_a_bad_image_stops_or_is_skipped(tmp_path):
    put_series(tmp_path, 5)
    (tmp_path / "3.png").write_bytes(b"")
    with pytest.raises(SourceInterruptedError, match=r"frame 2 .*3\.png\) is an empty file"):
        levels(open_source(tmp_path))
    source = open_source(tmp_path, ReadOptions(on_bad_frame="skip"))
    assert levels(source) == [1, 2, 2, 4, 5]
    assert list(source.skipped) == [2]


def test_the_first_frame_cannot_be_skipped(tmp_path):
    put_series(tmp_path, 2)
    (tmp_path / "1.png").write_bytes(b"")
    with pytest.raises(SourceInterruptedError, match="frame 0"):
        levels(open_source(tmp_path, ReadOptions(on_bad_frame="skip")))


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_deep_images_are_refused_or_stretched(tmp_path, suffix):
    kelvin = np.linspace(7000, 7800, SIZE[0], dtype=np.uint16 if suffix == ".png" else np.float32)
    put(tmp_path / f"1{suffix}", np.broadcast_to(kelvin, (SIZE[1], SIZE[0])).copy())
    with pytest.raises(SourceError, match=r"7000 to 7800.*--range 7000:7800, or --range percentile"):
        list(open_source(tmp_path))
    source = open_source(tmp_path, ReadOptions(value_range=(7000, 7800)))
    (frame,) = list(source)
    assert frame.dtype == np.uint8
    assert len(np.unique(frame)) >= SIZE[0] - 1
    assert (frame[0, 0] == 0).all()
    assert (frame[0, -1] == 255).all()
    assert "7000 and 7800 became 0 and 255" in source.notes[0]
    (spread,) = list(open_source(tmp_path, ReadOptions(value_range="percentile")))
    assert (spread[0, :2] == 0).all()
    assert abs(int(spread[0, SIZE[0] // 2, 0]) - 128) <= 2


@pytest.mark.parametrize("text", ["", "7", "8:7", "1:nan", "a:b", "1:2:3", "percent"])
def test_a_range_that_is_none_shows_how_to_write_one(text):
    with pytest.raises(UsageError, match="LOW:HIGH"):
        parse_range(text)
    assert parse_range("-1.5:7e3") == (-1.5, 7000)


def turned_jpeg(image: np.ndarray) -> bytes:
    """A JPEG whose EXIF data say: turn it a quarter clockwise."""
    data = cv2.imencode(".jpg", image)[1].tobytes()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    return data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:]


def test_images_are_turned_with_a_word_or_left_as_stored(tmp_path):
    for number in (1, 2):
        (tmp_path / f"{number}.jpg").write_bytes(turned_jpeg(picture(90)))
    source = open_source(tmp_path)
    assert source.size == (SIZE[1], SIZE[0])
    assert [frame.shape[:2] for frame in source] == [(SIZE[0], SIZE[1])] * 2
    assert len(source.notes) == 1
    assert "--exif ignore" in source.notes[0]
    stored = open_source(tmp_path, ReadOptions(exif="ignore"))
    assert stored.size == SIZE
    assert [frame.shape[:2] for frame in stored] == [(SIZE[1], SIZE[0])] * 2
    assert stored.notes == []


def test_ground_truth_that_is_not_wanted_is_not_read(tmp_path):
    put_series(tmp_path, 2)
    (tmp_path / "groundtruth.txt").write_bytes(b"\xff\xfe\x00")
    assert open_source(tmp_path, ReadOptions(ground_truth=False)).ground_truth is None


def test_a_row_without_area_is_absent_and_half_a_box_is_refused(tmp_path):
    put_series(tmp_path, 2)
    (tmp_path / "groundtruth.txt").write_text("1,2,3,4\nnan,nan,0,0\n")
    assert open_source(tmp_path).ground_truth == [Box(1, 2, 3, 4), None]
    for row in ("1,nan,3,4", "1,2,inf,4", "nan,nan,3,4"):
        (tmp_path / "groundtruth.txt").write_text(f"1,2,3,4\n{row}\n")
        with pytest.raises(SourceError, match="line 2"):
            open_source(tmp_path)


def test_a_view_of_a_scene_is_a_source_of_its_own_and_depth_keeps_its_bits() -> None:
    plain, heat, depth = (
        open_source(f"synthetic:drift?frames=2&size=96x64{v}") for v in ("", "&view=thermal", "&view=depth")
    )
    assert plain.ground_truth == heat.ground_truth == depth.ground_truth
    assert (next(iter(heat)) != next(iter(plain))).any()
    assert {frame.dtype.name for frame in depth} == {"uint8"}
    assert {(frame.dtype.name, frame.shape) for frame in depth.deep()} == {("uint16", (64, 96))}
    assert {frame.shape for frame in heat.deep()} == {(64, 96, 3)}
    with pytest.raises(SourceError, match="one of the views colour, thermal, depth, event"):
        open_source("synthetic:drift?view=radar")
