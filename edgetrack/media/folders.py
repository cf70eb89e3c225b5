"""Sequences of image files, checked before they are decoded, and the ground truth that lies beside them."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgetrack.box import Box
from edgetrack.errors import SourceError, SourceInterruptedError
from edgetrack.io import read_text
from edgetrack.media.frames import Frame, FrameSource, check_size, quiet_cv2

_IMAGE_FOLDERS = ("img", "imgs")
_MAGIC = re.compile(r"[*?\[]")


class ImageSource(FrameSource):
    """Image files in the order given; each is read when its turn comes."""

    def __init__(self, name: str, paths: Sequence[Path], ground_truth_folders: list[Path]) -> None:
        self.name = name
        self.length = len(paths)
        self.fps = None
        self.paths = tuple(paths)
        self._ground_truth = ground_truth_for(ground_truth_folders, len(paths))
        self.size = self._first_size()

    @property
    def ground_truth(self) -> list[Box | None] | None:
        return self._ground_truth

    def _first_size(self) -> tuple[int, int] | None:
        try:
            height, width = read_image(self.paths[0], 0).shape[:2]
        except SourceInterruptedError:
            return None
        return width, height

    def __iter__(self) -> Iterator[Frame]:
        for index, path in enumerate(self.paths):
            image = read_image(path, index)
            try:
                check_size(image.shape[1], image.shape[0], "the image")
            except SourceError as error:
                raise SourceInterruptedError(f"frame {index} ({path}): {error}") from error
            yield image


def natural_key(path: Path) -> list[list[tuple[int, int, str]]]:
    """Sorts `frame2` before `frame10`, and `frame02` after `frame2`, folder by folder."""
    return [
        [(0, int(piece), piece) if piece.isdecimal() else (1, 0, piece) for piece in re.split(r"(\d+)", part) if piece]
        for part in path.parts
    ]


def _images_among(paths: Iterator[Path]) -> list[Path]:
    chosen = [p for p in paths if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".") and p.is_file()]
    return sorted(chosen, key=natural_key)


def open_folder(folder: Path) -> ImageSource:
    """The images of a folder, or of its sub-folder `img` or `imgs` where it has one with images.

    Raises:
        SourceError: no images, or a ground truth file that does not fit them.
    """
    candidates = [folder / name for name in _IMAGE_FOLDERS if (folder / name).is_dir()] + [folder]
    for candidate in candidates:
        try:
            paths = _images_among(candidate.iterdir())
        except OSError as error:
            raise SourceError(f"folder {candidate} cannot be listed: {error.strerror or error}") from error
        if paths:
            return _sequence(candidate, paths)
    endings = " ".join(sorted(IMAGE_SUFFIXES))
    raise SourceError(
        f"folder {folder} holds no images; expected files ending in {endings}, there or in its folder img"
    )


def _sequence(folder: Path, paths: list[Path]) -> ImageSource:
    folder = folder.absolute()
    if folder.name in _IMAGE_FOLDERS:
        return ImageSource(folder.parent.name, paths, [folder.parent, folder])
    return ImageSource(folder.name or "frames", paths, [folder])


def is_pattern(text: str) -> bool:
    """Whether the text has wildcards."""
    return _MAGIC.search(text) is not None


def open_pattern(pattern: str) -> ImageSource:
    """The images that a glob pattern matches, such as `frames/*.jpg`.

    Raises:
        SourceError: it matches no images, or a ground truth file does not fit them.
    """
    path = Path(pattern).expanduser()
    fixed = next(index for index, part in enumerate(path.parts) if is_pattern(part))
    root = Path(*path.parts[:fixed])
    try:
        paths = _images_among(root.glob(str(Path(*path.parts[fixed:]))))
    except (OSError, ValueError) as error:
        raise SourceError(f"pattern {pattern!r} cannot be searched: {error}") from error
    if not paths:
        raise SourceError(
            f"pattern {pattern!r} matches no images; expected something such as 'frames/*.jpg', in quotes so that the "
            "shell leaves it alone"
        )
    folders = {p.parent for p in paths}
    if len(folders) == 1:
        return _sequence(folders.pop(), paths)
    return ImageSource(root.absolute().name or "frames", paths, [])


IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_NOT_A_SIZE = frozenset({0xC4, 0xC8, 0xCC})
_START_OF_SCAN = 0xDA
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})


def read_image(path: Path, index: int) -> Frame:
    """Decode image number `index` of a sequence: uint8, (height, width, 3), BGR, turned upright as its EXIF data say.

    Raises: as `decode_image`.
    """
    import cv2

    return decode_image(path, index, cv2.IMREAD_COLOR).astype(np.uint8, copy=False)


def read_deep_image(path: Path, index: int) -> np.ndarray[Any, Any]:
    """The same with the channels and the depth that the file has: 16-bit depth images stay what they are.

    Raises: as `decode_image`.
    """
    import cv2

    return decode_image(path, index, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)


def decode_image(path: Path, index: int, flags: int) -> np.ndarray[Any, Any]:
    """Decode image number `index` of a sequence as OpenCV's `flags` say.

    Raises:
        SourceInterruptedError: not there, empty, cut short, too large or not decodable.
    """
    import cv2

    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceInterruptedError(f"frame {index} ({path}) cannot be read: {error.strerror or error}") from error
    if not data:
        raise SourceInterruptedError(f"frame {index} ({path}) is an empty file; copy it again or remove it")
    try:
        size = stated_size(data)
        if size is not None:
            check_size(*size, what="the image")
        if _is_cut_short(data):
            raise SourceInterruptedError(f"frame {index} ({path}) is cut short; copy it again or remove it")
        with quiet_cv2():
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except SourceError as error:
        raise SourceInterruptedError(f"frame {index} ({path}): {error}") from error
    except cv2.error as error:
        raise SourceInterruptedError(f"frame {index} ({path}) cannot be decoded: {error.err}") from error
    if image is None:
        raise SourceInterruptedError(
            f"frame {index} ({path}) cannot be decoded as an image; copy it again or remove it"
        )
    return image


def stated_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) that a PNG, JPEG or BMP header states, in pixels; None for other formats and broken headers."""
    if data.startswith(_PNG) and len(data) >= 24:
        width, height = struct.unpack(">II", data[16:24])
        return width, height
    if data.startswith(b"BM") and len(data) >= 26:
        width, height = struct.unpack("<ii", data[18:26])
        return abs(width), abs(height)
    return _jpeg_layout(data)[0] if data.startswith(_JPEG) else None


def _is_cut_short(data: bytes) -> bool:
    # Some OpenCV versions decode the first rows of such a file and fill the rest with grey.
    if data.startswith(_PNG):
        return b"IEND" not in data
    if data.startswith(_JPEG):
        return data.find(b"\xff\xd9", _jpeg_layout(data)[1]) < 0
    return False


def _jpeg_layout(data: bytes) -> tuple[tuple[int, int] | None, int]:
    """The size in the frame header, and where the compressed pixels start (the end of the data where they do not).

    Segments are skipped by their length, so that a thumbnail in the EXIF segment counts for neither.
    """
    size: tuple[int, int] | None = None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF or marker in _BARE_MARKERS:
            at += 1 if marker == 0xFF else 2
            continue
        if 0xC0 <= marker <= 0xCF and marker not in _NOT_A_SIZE:
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            size = (width, height)
        if marker == _START_OF_SCAN:
            return size, at
        at += 2 + int(struct.unpack(">H", data[at + 2 : at + 4])[0])
    return size, len(data)


_GROUND_TRUTH_NAMES = ("groundtruth.txt", "groundtruth_rect.txt")


def read_ground_truth(path: Path) -> list[Box | None]:
    """One box per row: x, y, w, h in pixels, separated by commas, tabs, semicolons or spaces.

    A row of NaN, or one without a positive width and height, is None: the target is absent.

    Raises:
        SourceError: the file cannot be read, or a row is not four numbers.
    """
    text = read_text(path, error=SourceError)
    return [_row(line, path, number) for number, line in enumerate(text.rstrip().splitlines(), 1)]


def _row(line: str, path: Path, number: int) -> Box | None:
    try:
        x, y, w, h = (float(part) for part in line.replace(",", " ").replace(";", " ").split())
    except ValueError:
        raise SourceError(
            f"line {number} of {path} is {line[:80]!r}; expected four numbers x,y,w,h in pixels, or nan,nan,nan,nan "
            "for a frame without the target"
        ) from None
    box = Box(x, y, w, h)
    return box if box.is_finite and w > 0 and h > 0 else None


def ground_truth_for(folders: list[Path], frames: int) -> list[Box | None] | None:
    """The first ground truth file in these folders, one entry per frame; None where there is none.

    A file with a single row, as the test sets of GOT-10k and TrackingNet have, speaks of the first frame alone.

    Raises:
        SourceError: it cannot be read, or has neither one row nor one row per frame.
    """
    path = next(
        (folder / name for folder in folders for name in _GROUND_TRUTH_NAMES if (folder / name).is_file()), None
    )
    if path is None:
        return None
    boxes = read_ground_truth(path)
    if len(boxes) == 1:
        boxes += [None] * (frames - 1)
    if len(boxes) != frames:
        raise SourceError(
            f"{path} has {len(boxes)} rows for {frames} images; expected one row per image, or one row for the first; "
            "give the images that it speaks of, or rename the file to go without it"
        )
    return boxes
