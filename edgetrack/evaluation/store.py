"""Runs kept on disk, one file each, so that an interrupted evaluation goes on where it was.

A file is named by what went in: the bundle's manifest, where and how it ran, the data set, the sequence, its boxes and
the number of frames. A run with anything of it changed is another file; nothing is ever taken for what it is not.
Images themselves are not read for it: after changing pixels under the same names, give `--restart`.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TypeVar

import msgspec

from edgetrack.files import write_whole

Kind = TypeVar("Kind")


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """A run of any task, and what it is a run of."""

    schema: int = 1
    key: str
    bundle: str
    weights: str
    dataset: str
    sequence: str
    run: msgspec.Raw


def key_of(*parts: str | float | None) -> str:
    """A hash of what went into a run."""
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


def file_for(folder: Path, sequence: str, key: str) -> Path:
    """Where the run with this key is kept."""
    return folder / f"{plain_name(sequence)}-{key[:16]}.json"


def plain_name(text: str) -> str:
    """Text as the name of a file or folder: letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).lstrip(".") or "_"


def encoded(run: msgspec.Struct) -> msgspec.Raw:
    """A run as `Saved` holds it."""
    return msgspec.Raw(msgspec.json.encode(run))


def load(path: Path, key: str, kind: type[Kind]) -> Kind | None:
    """The run of this kind that was kept there under this key; None where there is none or the file is damaged."""
    try:
        saved = msgspec.json.decode(path.read_bytes(), type=Saved)
        return msgspec.json.decode(saved.run, type=kind) if saved.key == key and saved.schema == 1 else None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def save(value: msgspec.Struct, path: Path) -> None:
    """Write as JSON so that a reader sees the old file or the new one, never a part.

    Raises:
        EdgetrackError: it cannot be written; what was there is kept.
    """
    write_whole(path, msgspec.json.encode(value), b"\n")
