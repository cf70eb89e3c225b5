"""Sources of frames: what opens, what is refused, and what happens when a source breaks midway."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetrack.box import Box
from edgetrack.errors import SourceError, SourceInterruptedError, UnknownNameError, UsageError
from edgetrack.media import FrameSource, load_scene, open_source
from edgetrack.media._folders import natural_key

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


def put_video(path: Path, frames: int, codec: str) -> None:
    scene = load_scene("drift", frames=frames, size=SIZE)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 25, SIZE)
    assert writer.isOpened()
    for index in range(frames):
        writer.write(scene.frame(index))
    writer.release()


def levels(source: FrameSource) -> list[int]:
    with source:
        return [round(float(frame.mean()) / 10) for frame in source]


def until_broken(source: FrameSource) -> tuple[list[np.ndarray], str]:
    """The good frames, and what the error says."""
    frames: list[np.ndarray] = []

    def drain() -> None:
        for frame in source:
            frames.append(frame)  # noqa: PERF402

    with source, pytest.raises(SourceInterruptedError) as caught:
        drain()
    return frames, str(caught.value)


# Scenes


def test_a_scene_is_a_source_with_exact_ground_truth():
    with open_source("synthetic:exit?frames=80&size=320x180&seed=3") as source:
        scene = load_scene("exit", frames=80, size=(320, 180), seed=3)
        assert (source.name, source.length, source.fps, source.size) == ("synthetic:exit", 80, 30.0, (320, 180))
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


def test_grey_and_deep_images_come_as_bytes_in_three_channels(tmp_path):
    put(tmp_path / "1.png", picture(30)[..., 0])
    put(tmp_path / "2.png", picture(30).astype(np.uint16) * 256)
    put(tmp_path / "3.png", np.dstack([picture(30), picture(255)[..., :1]]))
    with open_source(tmp_path) as source:
        frames = list(source)
    assert {(frame.shape, str(frame.dtype)) for frame in frames} == {((SIZE[1], SIZE[0], 3), "uint8")}
    assert levels(source) == [3, 3, 3]


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


@pytest.mark.parametrize("row", ["1,2,3", "1,2,3,4,5,6,7,8", "a,b,c,d", ""])
def test_a_row_that_is_not_four_numbers_is_named_by_its_line(tmp_path, row):
    put_series(tmp_path, 3)
    (tmp_path / "groundtruth.txt").write_text(f"1,2,3,4\n{row}\n1,2,3,4\n")
    with pytest.raises(SourceError, match=r"line 2 of .*groundtruth\.txt.*expected four numbers"):
        open_source(tmp_path)


def test_ground_truth_that_is_not_text_is_refused(tmp_path):
    put_series(tmp_path, 1)
    (tmp_path / "groundtruth.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SourceError, match="cannot be read as text"):
        open_source(tmp_path)


# What is refused


@pytest.mark.parametrize("spec", ["", "  ", "no/such/place", "camera:", "camera:x", "a\0b", "x" * 5000, "9" * 5000])
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


@pytest.mark.parametrize("spec", [97, "97", "camera:97", -1, 999_999, True])
def test_an_absent_camera_is_refused_without_noise(spec, capfd):
    with pytest.raises(SourceError, match=r"camera (97|-1|999999|True)"):
        open_source(spec)
    assert capfd.readouterr().err == ""


def test_a_path_of_digits_is_a_folder_not_a_camera(tmp_path, monkeypatch):
    put_series(tmp_path / "97")
    monkeypatch.chdir(tmp_path)
    assert open_source(Path("97")).length == 4
    assert open_source("./97").length == 4


# Images that break


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garble(path: Path) -> None:
    path.write_bytes(b"this is no image at all")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp"])
@pytest.mark.parametrize("damage", [cut_in_half, empty, garble, Path.unlink])
def test_a_broken_image_ends_the_run_after_the_good_ones(tmp_path, suffix, damage, capfd):
    rng = np.random.Generator(np.random.PCG64(0))
    for number in range(5):
        put(tmp_path / f"{number}{suffix}", rng.integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8))
    source = open_source(tmp_path)
    damage(tmp_path / f"2{suffix}")
    frames, message = until_broken(source)
    assert len(frames) == 2
    assert "frame 2 (" in message
    assert f"2{suffix}" in message
    assert capfd.readouterr().err == ""


def test_a_folder_whose_first_image_is_broken_opens_and_says_so_when_read(tmp_path):
    put_series(tmp_path)
    empty(tmp_path / "1.png")
    source = open_source(tmp_path)
    assert source.size is None
    frames, message = until_broken(source)
    assert frames == []
    assert "is an empty file" in message


def test_a_jpeg_cut_after_its_thumbnail_is_cut_short(tmp_path):
    rng = np.random.Generator(np.random.PCG64(0))
    put(tmp_path / "1.jpg", rng.integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8))
    whole = (tmp_path / "1.jpg").read_bytes()
    thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + len(whole)) + whole
    with_thumbnail = whole[:2] + thumbnail + whole[2:]
    (tmp_path / "1.jpg").write_bytes(with_thumbnail)
    assert len(list(open_source(tmp_path))) == 1
    (tmp_path / "1.jpg").write_bytes(with_thumbnail[:-2000])
    assert "is cut short" in until_broken(open_source(tmp_path))[1]


def png_that_states(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def jpeg_that_states(width: int, height: int) -> bytes:
    data = cv2.imencode(".jpg", picture(9))[1].tobytes()
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def bmp_that_states(width: int, height: int) -> bytes:
    data = cv2.imencode(".bmp", picture(9))[1].tobytes()
    return data[:18] + struct.pack("<ii", width, -height) + data[26:]


@pytest.mark.parametrize("make", [png_that_states, jpeg_that_states, bmp_that_states])
@pytest.mark.parametrize("size", [(20_001, 10), (10, 20_001), (20_000, 20_001)])
def test_an_image_that_would_fill_the_memory_is_not_decoded(tmp_path, make, size, monkeypatch):
    suffix = "." + make.__name__.partition("_")[0]
    (tmp_path / f"1{suffix}").write_bytes(make(*size))
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("was decoded"))
    assert f"states {size[0]}x{size[1]} pixels" in until_broken(open_source(tmp_path))[1]


@given(data=st.binary(max_size=64))
@settings(max_examples=80, deadline=None)
def test_any_bytes_behind_an_image_header_give_a_named_error(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("bytes")
    for number, head in enumerate((b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"BM", b"")):
        (folder / f"{number}.jpg").write_bytes(head + data)
    assert "frame 0" in until_broken(open_source(folder))[1]


# Videos


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "mp4v"), (".avi", "MJPG"), (".mkv", "mp4v")])
def test_a_whole_video_is_read_to_its_end(tmp_path, suffix, codec, capfd):
    path = tmp_path / f"ein film ü %d{suffix}"
    put_video(path, 20, codec)
    with open_source(str(path)) as source:
        assert (source.name, source.length, source.fps, source.size) == (path.name, 20, 25.0, SIZE)
        assert source.ground_truth is None
        first, second = list(source), list(source)
    assert len(first) == len(second) == 20
    assert first[0].shape == (SIZE[1], SIZE[0], 3)
    assert np.abs(first[7].astype(int) - load_scene("drift", frames=20, size=SIZE).frame(7)).mean() < 12
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("suffix", "codec"), [(".avi", "MJPG"), (".mkv", "mp4v")])
def test_a_truncated_video_yields_its_frames_and_then_says_so(tmp_path, suffix, codec):
    path = tmp_path / f"a{suffix}"
    put_video(path, 40, codec)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.5)])
    frames, message = until_broken(open_source(path))
    assert 10 <= len(frames) <= 30
    assert f"ended early: frame {len(frames)} cannot be read although it states 40 frames" in message
    assert str(path) in message


def test_a_truncated_mp4_without_its_index_cannot_be_opened(tmp_path, capfd):
    path = tmp_path / "a.mp4"
    put_video(path, 20, "mp4v")
    cut_in_half(path)
    with pytest.raises(SourceError, match=r"a\.mp4 cannot be opened.*ffmpeg"):
        open_source(path)
    assert "VIDEOIO" not in capfd.readouterr().err


class Pretender:
    """A capture that states one count and delivers another."""

    def __init__(self, stated: float, delivered: int, end_ms: float, fps: float = 25.0) -> None:
        self.stated, self.delivered, self.end_ms, self.fps = stated, delivered, end_ms, fps
        self.done = 0

    def number(self, prop: int) -> float | None:
        shown = self.end_ms * self.done / max(self.delivered, 1)
        return {
            cv2.CAP_PROP_FRAME_COUNT: self.stated,
            cv2.CAP_PROP_FPS: self.fps,
            cv2.CAP_PROP_POS_MSEC: shown,
        }[prop] or None

    def frame_size(self) -> tuple[int, int]:
        return SIZE

    def read(self) -> np.ndarray | None:
        self.done += 1
        return picture(0) if self.done <= self.delivered else None

    def close(self) -> None: ...


def pretend(monkeypatch, path: Path, **how: float) -> FrameSource:
    path.write_bytes(b"a video")
    monkeypatch.setattr("edgetrack.media._videos._open_capture", lambda *_: Pretender(**how))
    return open_source(path)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("a.mp4", {"stated": 100, "delivered": 98, "end_ms": 3920}),
        ("a.avi", {"stated": 100, "delivered": 101, "end_ms": 4040}),
        ("a.mkv", {"stated": 100, "delivered": 60, "end_ms": 3960}),
        ("a.ts", {"stated": 0, "delivered": 5, "end_ms": 200}),
    ],
    ids=["count off by two", "count too low", "variable rate that lasts its time", "no count"],
)
def test_a_count_that_is_merely_inexact_is_no_truncation(tmp_path, monkeypatch, name, how):
    assert len(list(pretend(monkeypatch, tmp_path / name, **how))) == how["delivered"]


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("a.mp4", {"stated": 100, "delivered": 96, "end_ms": 3960}),
        ("a.mkv", {"stated": 100, "delivered": 60, "end_ms": 2400}),
        ("a.mkv", {"stated": 100, "delivered": 0, "end_ms": 0}),
        ("a.ts", {"stated": 0, "delivered": 0, "end_ms": 0}),
    ],
)
def test_a_video_that_misses_frames_is_interrupted(tmp_path, monkeypatch, name, how):
    frames, message = until_broken(pretend(monkeypatch, tmp_path / name, **how))
    assert len(frames) == how["delivered"]
    assert f"frame {how['delivered']} cannot be read" in message


@pytest.mark.parametrize(
    "start", [b"#EXTM3U\nhttp://x/", b"\xef\xbb\xbf#EXTM3U\n", b"ffconcat version 1.0\n", b"<?xml ?>"]
)
def test_a_playlist_is_not_followed(tmp_path, start):
    (tmp_path / "a.mp4").write_bytes(start)
    with pytest.raises(SourceError, match="is a playlist"):
        open_source(tmp_path / "a.mp4")


@pytest.mark.parametrize("data", [b"", b"garbage" * 500])
def test_a_file_that_is_no_video_is_refused(tmp_path, data):
    (tmp_path / "a.mp4").write_bytes(data)
    with pytest.raises(SourceError, match=r"video .*a\.mp4 (is an empty file|cannot be opened)"):
        open_source(tmp_path / "a.mp4")


def test_a_camera_that_stops_is_interrupted(monkeypatch):
    made = Pretender(stated=0, delivered=3, end_ms=0, fps=30.0)
    monkeypatch.setattr("edgetrack.media._videos._open_capture", lambda *_: made)
    source = open_source("camera:0")
    assert (source.name, source.length, source.fps, source.size) == ("camera:0", None, 30.0, SIZE)
    frames, message = until_broken(source)
    assert len(frames) == 3
    assert message.startswith("camera:0 gave no frame after 3")
