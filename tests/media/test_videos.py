"""Video files: whole ones, cut ones, and counts that are merely inexact."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgetrack.errors import SourceError, SourceInterruptedError
from edgetrack.media import FrameSource, ReadOptions, load_scene, open_source

SIZE = (160, 96)


def put_video(path: Path, frames: int, codec: str) -> None:
    scene = load_scene("drift", frames=frames, size=SIZE)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 25, SIZE)
    assert writer.isOpened()
    for index in range(frames):
        writer.write(scene.frame(index))
    writer.release()


def until_broken(source: FrameSource) -> tuple[list[np.ndarray], str]:
    """The good frames, and what the error says."""
    frames: list[np.ndarray] = []

    def drain() -> None:
        for frame in source:
            frames.append(frame)  # noqa: PERF402

    with source, pytest.raises(SourceInterruptedError) as caught:
        drain()
    return frames, str(caught.value)


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
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
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
        return np.zeros((SIZE[1], SIZE[0], 3), np.uint8) if self.done <= self.delivered else None

    def close(self) -> None: ...


def pretend(monkeypatch, path: Path, **how: float) -> FrameSource:
    path.write_bytes(b"a video")
    monkeypatch.setattr("edgetrack.media.videos.open_capture", lambda *_: Pretender(**how))
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


def hide(path: Path, first: int, last: int) -> None:
    """Write into an MP4's edit list that only the frames `first` up to `last` are shown, as a trim without encoding."""
    data = bytearray(path.read_bytes())
    at = data.find(b"elst") + 12
    track = int.from_bytes(data[(m := data.find(b"mdhd")) + 16 : m + 20], "big")
    data[at : at + 8] = struct.pack(">Ii", (last - first) * 40, first * track // 25)
    path.write_bytes(data)


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_frames_that_an_edit_list_hides_are_not_missing(tmp_path, suffix):
    path = tmp_path / f"trimmed{suffix}"
    put_video(path, 40, "mp4v")
    hide(path, 12, 32)
    with open_source(path) as source:
        assert source.length == 20
        frames = list(source)
    assert len(frames) == 20
    assert np.abs(frames[0].astype(int) - load_scene("drift", frames=40, size=SIZE).frame(12)).mean() < 12


def test_a_name_that_is_not_utf8_opens_as_any(tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xb3\xb5\xc1\xbe"))
    folder.mkdir()
    put_video(tmp_path / "a.mp4", 5, "mp4v")
    (tmp_path / "a.mp4").rename(folder / os.fsdecode(b"\xb3.mp4"))
    assert len(list(open_source(folder / os.fsdecode(b"\xb3.mp4")))) == 5


class Stumbling(Pretender):
    """One whose frames with these numbers cannot be read; a frame's values are its number."""

    def __init__(self, bad: set[int], frames: int) -> None:
        super().__init__(stated=frames, delivered=frames, end_ms=40 * frames)
        self.bad = bad

    def read(self) -> np.ndarray | None:
        number = self.done
        image = super().read()
        return None if image is None or number in self.bad else image + number


def test_a_bad_frame_in_the_middle_stops_or_is_skipped(tmp_path, monkeypatch):
    (tmp_path / "a.mp4").write_bytes(b"a video")
    monkeypatch.setattr("edgetrack.media.videos.open_capture", lambda *_: Stumbling({7, 8, 20}, 40))
    assert len(until_broken(open_source(tmp_path / "a.mp4"))[0]) == 7
    source = open_source(tmp_path / "a.mp4", ReadOptions(on_bad_frame="skip"))
    numbers = [int(frame[0, 0, 0]) for frame in source]
    assert numbers == [6 if n in (7, 8) else 19 if n == 20 else n for n in range(40)]
    assert sorted(source.skipped) == [7, 8, 20]
    assert source.notes == []


def test_skipping_says_where_a_truncated_video_ends(tmp_path):
    put_video(tmp_path / "a.avi", 40, "MJPG")
    data = (tmp_path / "a.avi").read_bytes()
    (tmp_path / "a.avi").write_bytes(data[: len(data) // 2])
    source = open_source(tmp_path / "a.avi", ReadOptions(on_bad_frame="skip"))
    assert 10 <= len(list(source)) <= 30
    assert "although it states 40 frames" in source.notes[0]
