"""Image files that are cut short, empty, garbled or too large end a run after the good frames."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetrack.errors import SourceInterruptedError
from edgetrack.media import FrameSource, open_source, stated_size

SIZE = (160, 96)


def picture(value: int) -> np.ndarray:
    return np.full((SIZE[1], SIZE[0], 3), value, np.uint8)


def put(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    good, data = cv2.imencode(path.suffix, image)
    assert good
    path.write_bytes(data.tobytes())


def until_broken(source: FrameSource) -> tuple[list[np.ndarray], str]:
    """The good frames, and what the error says."""
    frames: list[np.ndarray] = []

    def drain() -> None:
        for frame in source:
            frames.append(frame)  # noqa: PERF402

    with source, pytest.raises(SourceInterruptedError) as caught:
        drain()
    return frames, str(caught.value)


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
    assert "[ WARN" not in capfd.readouterr().err


def test_a_folder_whose_first_image_is_broken_opens_and_says_so_when_read(tmp_path):
    put(tmp_path / "1.png", picture(10))
    put(tmp_path / "2.png", picture(20))
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


def test_a_jpeg_without_its_end_mark_is_taken_where_every_row_is_there(tmp_path):
    rng = np.random.Generator(np.random.PCG64(0))
    put(tmp_path / "1.jpg", rng.integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8))
    whole = (tmp_path / "1.jpg").read_bytes()
    (want,) = list(open_source(tmp_path))
    (tmp_path / "1.jpg").write_bytes(whole.removesuffix(b"\xff\xd9"))
    (found,) = list(open_source(tmp_path))
    assert (found == want).all()
    for missing in (8, 100, 2000):
        (tmp_path / "1.jpg").write_bytes(whole[:-missing])
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


def tiff_that_states(width: int, height: int) -> bytes:
    data = bytearray(cv2.imencode(".tiff", picture(9))[1].tobytes())
    (at,) = struct.unpack_from("<I", data, 4)
    for number, side in enumerate((width, height)):
        assert struct.unpack_from("<H", data, at + 2 + 12 * number) == (256 + number,)
        struct.pack_into("<HII", data, at + 4 + 12 * number, 4, 1, side)
    return bytes(data)


def bigtiff_that_states(width: int, height: int) -> bytes:
    entries = b"".join(struct.pack(">HHQQ", tag, 16, 1, side) for tag, side in ((256, width), (257, height)))
    return b"MM\0+" + struct.pack(">HHQQ", 8, 0, 16, 2) + entries


def webp_that_states(width: int, height: int) -> bytes:
    """The extended form; its plain forms end at 16384 pixels."""
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF\x20\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + sides


def ppm_that_states(width: int, height: int) -> bytes:
    return b"P6\n# a comment\n%d %d\n255\n" % (width, height)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tiff", ".webp", ".ppm", ".pgm"])
@pytest.mark.parametrize("quality", [80, 101])  # of WebP: 101 is the lossless form
def test_every_format_states_its_size(suffix, quality):
    image = picture(9) if suffix != ".pgm" else picture(9)[..., 0]
    data = cv2.imencode(suffix, image, [cv2.IMWRITE_WEBP_QUALITY, quality] if suffix == ".webp" else [])[1].tobytes()
    assert stated_size(data) == SIZE


MAKERS = [
    *(png_that_states, jpeg_that_states, bmp_that_states, tiff_that_states),
    *(bigtiff_that_states, webp_that_states, ppm_that_states),
]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("size", [(20_001, 10), (10, 20_001), (20_000, 20_001)])
def test_an_image_that_would_fill_the_memory_is_not_decoded(tmp_path, make, size, monkeypatch):
    suffix = "." + make.__name__.partition("_")[0].removeprefix("big")
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
