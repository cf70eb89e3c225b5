"""Runs kept on disk, one file each, so that an interrupted evaluation goes on where it was.

A file is named by what went in: the bundle's manifest, where and how it ran, the data set, the sequence, its boxes and
the number of frames. A run with anything of it changed is another file; nothing is ever taken for what it is not.
Images themselves are not read for it: after changing pixels under the same names, give `--restart`.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path

import msgspec

from edgetrack.errors import EdgetrackError
from edgetrack.evaluation.ope import Run


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """A run and what it is a run of."""

    schema: int = 1
    key: str
    bundle: str
    weights: str
    dataset: str
    sequence: str
    run: Run


def key_of(*parts: str | int | None) -> str:
    """A hash of what went into a run."""
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


def file_for(folder: Path, sequence: str, key: str) -> Path:
    """Where the run with this key is kept."""
    return folder / f"{plain_name(sequence)}-{key[:16]}.json"


def plain_name(text: str) -> str:
    """Text as the name of a file or folder: letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).lstrip(".") or "_"


def load(path: Path, key: str) -> Saved | None:
    """The run that was kept there under this key; None where there is none or the file is damaged."""
    try:
        saved = msgspec.json.decode(path.read_bytes(), type=Saved)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return saved if saved.key == key and saved.schema == 1 else None


def save(value: msgspec.Struct, path: Path) -> None:
    """Write as JSON so that a reader sees the old file or the new one, never a part.

    Raises:
        EdgetrackError: it cannot be written; what was there is kept.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(msgspec.json.encode(value) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise EdgetrackError(f"{path} cannot be written: {error.strerror or error}; give another --output") from error
