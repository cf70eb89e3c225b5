"""Ground truth files as arrays: boxes in the column orders that data sets use, and flags per frame."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import numpy as np

from edgetrack.errors import SequenceError
from edgetrack.evaluation.sequence import Boxes, Flags

Columns = Literal["xywh", "corners", "region"]
"""`xywh`: x, y, w, h. `corners`: a number, x1, y1, x2, y2, then anything (NfS). `region`: x, y, w, h or a polygon of
x1, y1, ... x4, y4 (VOT), read as its axis-aligned bounding box."""

_EXPECTED: dict[Columns, str] = {
    "xywh": "four numbers x,y,w,h",
    "corners": "a frame number and four corners x1 y1 x2 y2",
    "region": "four numbers x,y,w,h or the eight of a polygon (masks are not read)",
}
_SEPARATOR = re.compile(r"[,;\s]+")


def read_boxes(path: Path, columns: Columns = "xywh") -> Boxes:
    """float64 (rows, 4): x, y, w, h in pixels, as written: no data set's origin is shifted by one.

    Columns may be separated by commas, tabs, blanks or semicolons. A row of NaN, and a box whose width or height is not
    positive, is NaN throughout: the target is absent.

    Raises:
        SequenceError: the file cannot be read, is empty, or a row is not what it should be.
    """
    lines = _lines(path)
    if not lines:
        raise SequenceError(f"{path} is empty; expected one row per frame: {_EXPECTED[columns]}")
    return np.array([_row(line, columns, path, number) for number, line in enumerate(lines, 1)], np.float64)


def read_flags(path: Path) -> Flags:
    """bool (numbers,): whether each number is not zero; one per row, or all in one row.

    Raises:
        SequenceError: the file cannot be read or holds anything but numbers.
    """
    try:
        return np.array([float(part) != 0 for line in _lines(path) for part in _parts(line)], np.bool_)
    except ValueError as error:
        raise SequenceError(f"{path} holds something that is no number ({error}); expected 0 or 1 per frame") from None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SequenceError(f"{path} cannot be read as text: {error}") from error


def _parts(line: str) -> list[str]:
    return [part for part in _SEPARATOR.split(line) if part]


def _row(line: str, columns: Columns, path: Path, number: int) -> tuple[float, ...]:
    parts = _parts(line)
    try:
        values = [float(part) for part in (parts[1:5] if columns == "corners" else parts)]
    except ValueError:
        values = []
    fits = len(values) == 4 or (columns == "region" and len(values) == 8)
    absent = bool(values) and bool(np.isnan(values).all())
    if not fits or not (absent or np.isfinite(values).all()):
        raise SequenceError(
            f"line {number} of {path} is {line[:80]!r}; expected {_EXPECTED[columns]} in pixels, or NaN in all of "
            "them for a frame without the target"
        )
    x, y, w, h = _xywh(values, columns)
    return (x, y, w, h) if w > 0 and h > 0 else (np.nan,) * 4


def _xywh(values: list[float], columns: Columns) -> tuple[float, float, float, float]:
    if len(values) == 8:
        xs, ys = values[0::2], values[1::2]
        return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
    a, b, c, d = values
    return (a, b, c - a, d - b) if columns == "corners" else (a, b, c, d)
