"""Image files: their stated size before anything is decoded, whether they are whole, and their pixels."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from edgetrack.errors import SourceError, SourceInterruptedError
from edgetrack.media._quiet import quiet_cv2
from edgetrack.media._source import check_size
from edgetrack.media._types import Frame

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
