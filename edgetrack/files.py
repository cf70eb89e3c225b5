"""Writing files so that a reader sees the old one or the new one, never a part."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from edgetrack.errors import EdgetrackError


def write_whole(path: Path, data: bytes) -> None:
    """Write a file through a temporary sibling; its folder is made where it is missing.

    Raises:
        EdgetrackError: it cannot be written; what was there is kept.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise EdgetrackError(f"{path} cannot be written: {error.strerror or error}; give another --output") from error
