"""Writing files so that a reader sees the old one or the new one, never a part."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from edgetrack.errors import EdgetrackError


def replace_whole(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file's parts, one behind the other, through a temporary sibling; its folder is made where missing.

    Raises:
        OSError: it cannot be written; what was there is kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_whole(path: Path, *parts: bytes | memoryview) -> None:
    """The same, with an error that says what to type.

    Raises:
        EdgetrackError: it cannot be written; what was there is kept.
    """
    try:
        replace_whole(path, *parts)
    except OSError as error:
        raise EdgetrackError(f"{path} cannot be written: {error.strerror or error}; give another --output") from error
