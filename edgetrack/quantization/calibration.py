"""Calibration sets: hashed lists of (clip, frame, box), kept as TOML and replayed through the tracker.

A set holds no pixels. Each item says around which box of which frame a search region is cut, and with which template:
the same list gives the same crops wherever the clips are.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Annotated

import msgspec

from edgetrack.bundle.manifest import Name, Sha256
from edgetrack.errors import CalibrationError, UnknownNameError
from edgetrack.io import read_toml
from edgetrack.resources import data_folder

DEFAULT = "synthetic"
MAX_ITEMS = 20_000
_LARGEST = 16 << 20
Index = Annotated[int, msgspec.Meta(ge=0, le=10_000_000)]
Numbers = tuple[float, float, float, float]


class Item(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One search region.

    Attributes:
        clip: name of the sequence in its data set.
        template_frame, template: frame (from 0) and box (x, y, w, h in pixels) that the tracker is started with.
        frame: the frame that is searched, after `template_frame`.
        box: x, y, w, h in pixels of the box around which it is searched.
    """

    clip: str
    template_frame: Index
    template: Numbers
    frame: Index
    box: Numbers

    def __post_init__(self) -> None:
        for box in (self.template, self.box):
            if not (all(map(math.isfinite, box)) and box[2] > 0 and box[3] > 0):
                raise ValueError(f"box {box} of {self.clip!r} is not finite or has no area")
        if self.frame <= self.template_frame:
            raise ValueError(
                f"frame {self.frame} of {self.clip!r} does not follow its template's, {self.template_frame}"
            )


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The items of one data set: a folder, or `synthetic:`; `layout` as `edgetrack eval --layout` takes it."""

    dataset: str
    layout: str | None = None
    items: tuple[Item, ...]


class CalibrationSet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A list of search regions.

    Attributes:
        name: of the set.
        about: who tracked and with which seed, for people.
        sha256: of the parts; a list that was changed by hand is refused.
    """

    schema: int = 1
    name: Name
    about: str = ""
    sha256: Sha256
    parts: tuple[Part, ...]

    @property
    def size(self) -> int:
        """How many items there are."""
        return sum(len(part.items) for part in self.parts)


def make_set(name: str, parts: tuple[Part, ...], about: str = "") -> CalibrationSet:
    """A set with its hash."""
    return CalibrationSet(name=name, about=about, sha256=digest(parts), parts=parts)


def digest(parts: tuple[Part, ...]) -> str:
    """SHA-256 of what a set lists."""
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


def to_toml(value: CalibrationSet) -> str:
    """The set as TOML, one line an item; the same set gives the same text."""
    lines = [
        f"schema = {value.schema}",
        f"name = {_toml(value.name)}",
        f"about = {_toml(value.about)}",
        f'sha256 = "{value.sha256}"',
    ]
    for part in value.parts:
        lines += ["", "[[parts]]", f"dataset = {_toml(part.dataset)}"]
        if part.layout is not None:
            lines.append(f"layout = {_toml(part.layout)}")
        lines += ["# clip, template's frame and box, searched frame, box around which it is searched", "items = ["]
        lines += [f"  {_toml(msgspec.to_builtins(item))}," for item in part.items]
        lines.append("]")
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    """A text or list as TOML, which is JSON but for two things: no surrogate escapes, and DEL must be escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def read_set(path: Path) -> CalibrationSet:
    """Read and check a set.

    Raises:
        CalibrationError: not TOML, not a set, empty, too long, or not what its hash says.
    """
    found = read_toml(path, CalibrationSet, "calibration set", error=CalibrationError, largest=_LARGEST)
    if found.schema != 1:
        raise CalibrationError(f"{path} has schema {found.schema}, expected 1; use a newer edgetrack")
    if not 1 <= found.size <= MAX_ITEMS:
        raise CalibrationError(f"{path} lists {found.size} items; expected 1 to {MAX_ITEMS}")
    if digest(found.parts) != found.sha256:
        raise CalibrationError(
            f"{path} was changed after it was made: its items do not have the hash that it states; "
            "make it again with: edgetrack calibrate collect"
        )
    return found


def set_names() -> list[str]:
    """The sets that come with edgetrack."""
    return sorted(path.stem for path in data_folder("calibration").glob("*.toml"))


def find_set(name: str) -> CalibrationSet:
    """A set by its name, or a file that ends in `.toml`.

    Raises:
        UnknownNameError: no such set. CalibrationError: the file is not a set.
    """
    if name.endswith(".toml"):
        return read_set(Path(name))
    if name not in set_names():
        raise UnknownNameError(
            f"calibration set {name!r} is not known; expected a .toml file or {', '.join(set_names())}"
        )
    return read_set(data_folder("calibration") / f"{name}.toml")
