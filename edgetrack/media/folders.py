"""Sequences of image files, checked before they are decoded, and the ground truth that lies beside them."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from edgetrack.arrays import Array
from edgetrack.box import Box, annotated
from edgetrack.errors import SourceError, SourceInterruptedError
from edgetrack.io import read_bytes, read_text
from edgetrack.media.frames import Frame, FrameSource, ReadOptions, check_size, quiet_cv2

IMAGE_FOLDERS = ("img", "imgs", "color")
"""Where a sequence's folder may keep its images."""
_MAGIC = re.compile(r"[*?\[]")


class ImageSource(FrameSource):
    """Image files in the order given; each is read when its turn comes."""

    def __init__(
        self,
        name: str,
        paths: Sequence[Path],
        ground_truth_folders: list[Path],
        options: ReadOptions = ReadOptions(),  # noqa: B008 - frozen
    ) -> None:
        self._options = options
        self.name = name
        self.length = len(paths)
        self.fps = None
        self.paths = tuple(paths)
        self._ground_truth = ground_truth_for(ground_truth_folders, len(paths)) if options.ground_truth else None
        self.size = self._first_size()

    @property
    def ground_truth(self) -> list[Box | None] | None:
        return self._ground_truth

    def _first_size(self) -> tuple[int, int] | None:
        try:
            stored, turned = (_read(self.paths[0], 0, flag) for flag in (_AS_STORED, 0))
        except SourceInterruptedError:
            return None
        if stored.dtype != np.uint8 and self._options.value_range is not None:
            limits = "the 1st and 99th percentile of each frame"
            if self._options.value_range != "percentile":
                limits = "{:g} and {:g}".format(*self._options.value_range)
            self.notes.append(f"the values of {self.name} are {stored.dtype}; {limits} became 0 and 255")
        if self._options.exif == "ignore":
            turned = stored
        elif stored.shape != turned.shape or (stored != turned).any():
            self.notes.append(
                f"the images of {self.name} are turned upright as their EXIF data say; "
                "--exif ignore takes them as they are stored, for boxes that were drawn so"
            )
        return turned.shape[1], turned.shape[0]

    def __iter__(self) -> Iterator[Frame]:
        return self._frames(lambda path, index: read_image(path, index, self._options))

    def deep(self) -> Iterator[Array]:
        """The images with the channels and the depth that the files have: 16-bit depth images stay what they are."""
        return self._frames(lambda path, index: decode_image(path, index, _DEEP | _turning(self._options)))

    def _frames(self, read: Callable[[Path, int], Array]) -> Iterator[Array]:
        last: Array | None = None
        for index, path in enumerate(self.paths):
            try:
                last = read(path, index)
            except SourceInterruptedError as error:
                if last is None or self._options.on_bad_frame == "stop":
                    raise
                self.skipped[index] = str(error)
            yield last


def natural_key(path: Path) -> list[list[tuple[int, int, str]]]:
    """Sorts `frame2` before `frame10`, and `frame02` after `frame2`, folder by folder."""
    return [
        [(0, int(piece), piece) if piece.isdecimal() else (1, 0, piece) for piece in re.split(r"(\d+)", part) if piece]
        for part in path.parts
    ]


def _images_among(paths: Iterator[Path]) -> list[Path]:
    chosen = [p for p in paths if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".") and p.is_file()]
    return sorted(chosen, key=natural_key)


def open_folder(folder: Path, options: ReadOptions) -> ImageSource:
    """The images of a folder, or of its sub-folder `img`, `imgs` or `color` where it has one with images.

    Raises:
        SourceError: no images, or a ground truth file that does not fit them.
    """
    candidates = [folder / name for name in IMAGE_FOLDERS if (folder / name).is_dir()] + [folder]
    for candidate in candidates:
        try:
            paths = _images_among(candidate.iterdir())
        except OSError as error:
            raise SourceError(f"folder {candidate} cannot be listed: {error.strerror or error}") from error
        if paths:
            return _sequence(candidate, paths, options)
    endings = " ".join(sorted(IMAGE_SUFFIXES))
    raise SourceError(
        f"folder {folder} holds no images; expected files ending in {endings}, there or in its folder img"
    )


def _sequence(folder: Path, paths: list[Path], options: ReadOptions) -> ImageSource:
    folder = folder.absolute()
    if folder.name in IMAGE_FOLDERS:
        return ImageSource(folder.parent.name, paths, [folder.parent, folder], options)
    return ImageSource(folder.name or "frames", paths, [folder], options)


def is_pattern(text: str) -> bool:
    """Whether the text has wildcards."""
    return _MAGIC.search(text) is not None


def open_pattern(pattern: str, options: ReadOptions) -> ImageSource:
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
        return _sequence(folders.pop(), paths, options)
    return ImageSource(root.absolute().name or "frames", paths, [], options)


IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})

_PNG, _JPEG, _JPEG_END = b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"\xff\xd9"
_NOT_A_SIZE = frozenset({0xC4, 0xC8, 0xCC})
_START_OF_SCAN = 0xDA
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})


# As cv2 numbers them, which takes 0.1 s to import.
_AS_STORED, _COLOURS, _DEEP = 128, 2 | 1, 2 | 4


def _turning(options: ReadOptions) -> int:
    return _AS_STORED if options.exif == "ignore" else 0


def read_image(path: Path, index: int, options: ReadOptions) -> Frame:
    """Decode image number `index` of a sequence: uint8, (height, width, 3), BGR.

    Raises:
        SourceInterruptedError: as `decode_image`.
        SourceError: it has 16 bits or floats, and the options give no range.
    """
    image = _read(path, index, _turning(options))
    if image.dtype == np.uint8:
        return image
    values = image[np.isfinite(image)] if image.dtype.kind == "f" else image
    if options.value_range is None:
        lowest = float(values.min()) if values.size else 0.0
        highest = max(float(values.max()) if values.size else 0.0, lowest + 1)
        raise SourceError(
            f"frame {index} ({path}) holds {image.dtype} values, {lowest:g} to {highest:g}, and a tracker takes 0 to "
            f"255; give `edgetrack track` --range LOW:HIGH, such as --range {lowest:g}:{highest:g}, or --range "
            "percentile, or convert the images to 8 bits"
        )
    if options.value_range == "percentile":
        low, high = map(float, np.percentile(values, (1, 99))) if values.size else (0.0, 1.0)
    else:
        low, high = options.value_range
    scaled = (image.astype(np.float32) - low) * (255 / max(high - low, 1e-12))
    return cast(Frame, np.clip(np.nan_to_num(scaled), 0, 255).round().astype(np.uint8))


def _read(path: Path, index: int, turning: int) -> Array:
    if path.suffix.lower() not in (".tif", ".tiff"):
        return decode_image(path, index, _COLOURS | turning)
    # OpenCV 5 cannot make three channels of one of floats.
    image = decode_image(path, index, _DEEP | turning)
    return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image


def decode_image(path: Path, index: int, flags: int) -> Array:
    """Decode image number `index` of a sequence as OpenCV's `flags` say.

    Raises:
        SourceInterruptedError: not there, empty, cut short, too large or not decodable.
    """
    what = f"frame {index} ({path})"
    try:
        data = read_bytes(path)
    except OSError as error:
        raise SourceInterruptedError(f"{what} cannot be read: {error.strerror or error}") from error
    return decode(data, what, flags)


def decode(data: bytes, what: str, flags: int) -> Array:
    """Decode an image file's content, called `what` in messages, as OpenCV's `flags` say.

    Raises:
        SourceInterruptedError: empty, cut short, too large or not decodable.
    """
    import cv2

    if not data:
        raise SourceInterruptedError(f"{what} is an empty file; copy it again or remove it")
    size = stated_size(data)
    try:
        if size is not None:
            check_size(*size, what="the image")
        if size is None or _is_cut_short(data):
            fault = "cannot be decoded as an image" if size is None else "is cut short"
            raise SourceInterruptedError(f"{what} {fault}; copy it again or remove it")
        with quiet_cv2():
            # A second end mark, where there is one, is never reached; without any, OpenCV 5 refuses the image.
            image = cv2.imdecode(np.frombuffer(data + _JPEG_END if data.startswith(_JPEG) else data, np.uint8), flags)
    except SourceError as error:
        raise SourceInterruptedError(f"{what}: {error}") from error
    except cv2.error as error:
        raise SourceInterruptedError(f"{what} cannot be decoded: {error.err}") from error
    if image is None:
        raise SourceInterruptedError(f"{what} cannot be decoded as an image; copy it again or remove it")
    return image


def stated_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) in pixels that the header of an image states; None for other formats and broken headers."""
    try:
        if data.startswith(_PNG):
            return cast("tuple[int, int]", struct.unpack_from(">II", data, 16))
        if data.startswith(b"BM"):
            width, height = struct.unpack_from("<ii", data, 18)
            return abs(width), abs(height)
        if data.startswith(_JPEG):
            return _jpeg_layout(data)[0]
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp_size(data)
        if found := _PNM.match(data):
            return int(found[1]), int(found[2])
        if data[:4] in _TIFF:
            return _tiff_size(data)
    except (struct.error, IndexError, KeyError):
        return None
    return None


_PNM = re.compile(rb"P[1-6](?:\s|#[^\n]{0,1000}\n){1,100}(\d{1,9})(?:\s|#[^\n]{0,1000}\n){1,100}(\d{1,9})\s")
# Byte order and form: 42 is TIFF, 43 BigTIFF.
_TIFF = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">"}


def _webp_size(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L":
        bits = int(struct.unpack_from("<I", data, 21)[0])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _tiff_size(data: bytes) -> tuple[int, int]:
    """The width and height (tags 256 and 257) of the first picture, which is the one that is decoded."""
    order, big = _TIFF[data[:4]], b"+" in data[:4]
    (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
    sides: dict[int, int] = {}
    for number in range(min(count, 1000)):
        entry = at + (8 + 20 * number if big else 2 + 12 * number)
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if tag in (256, 257):
            form = {3: "H", 4: "I", 16: "Q"}[kind]
            sides[tag] = struct.unpack_from(order + form, data, entry + (12 if big else 8))[0]
    return sides[256], sides[257]


def _is_cut_short(data: bytes) -> bool:
    # Some OpenCV versions decode the first rows of such a file and fill the rest with grey.
    if data.startswith(_PNG):
        return b"IEND" not in data
    if data.startswith(_JPEG) and data.find(_JPEG_END, _jpeg_layout(data)[1]) < 0:
        # Some cameras leave the end mark out. Where every row is there, what follows the pixels changes none.
        # (A single byte: libjpeg prints a line about more.)
        return _decoded(data + b"\x00") != _decoded(data + b"\xfe")
    return False


def _decoded(data: bytes) -> bytes | None:
    import cv2

    with quiet_cv2():
        image = cv2.imdecode(np.frombuffer(data + _JPEG_END, np.uint8), _COLOURS)
    return None if image is None else image.tobytes()


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


GROUND_TRUTH_NAMES = ("groundtruth.txt", "groundtruth_rect.txt")


def read_ground_truth(path: Path) -> list[Box | None]:
    """One box per row: x, y, w, h in pixels, separated by commas, tabs, semicolons or spaces; of a polygon its bounds.

    A row of NaN, or one without a positive width and height, is None: the target is absent.

    Raises:
        SourceError: the file cannot be read, or a row is not four numbers.
    """
    text = read_text(path, error=SourceError)
    return [_row(line, path, number) for number, line in enumerate(text.rstrip().splitlines(), 1)]


def _row(line: str, path: Path, number: int) -> Box | None:
    try:
        values = [float(part) for part in line.replace(",", " ").replace(";", " ").split()]
        if len(values) == 8:  # x1, y1, ... x4, y4, as VOT has it
            xs, ys = values[::2], values[1::2]
            values = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
        x, y, w, h = values
        return annotated(x, y, w, h)
    except ValueError:
        raise SourceError(
            f"line {number} of {path} is {line[:80]!r}; expected four numbers x,y,w,h in pixels, or nan,nan,nan,nan "
            "for a frame without the target"
        ) from None


def ground_truth_for(folders: list[Path], frames: int) -> list[Box | None] | None:
    """The first ground truth file in these folders, one entry per frame; None where there is none.

    A file with a single row, as the test sets of GOT-10k and TrackingNet have, speaks of the first frame alone.

    Raises:
        SourceError: it cannot be read, or has neither one row nor one row per frame.
    """
    path = next((folder / name for folder in folders for name in GROUND_TRUTH_NAMES if (folder / name).is_file()), None)
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
