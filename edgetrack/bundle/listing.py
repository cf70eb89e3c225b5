"""Which bundles lie in a folder: broken ones are listed with what is wrong, nothing is hashed or unpacked."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from edgetrack.bundle.contents import open_zip, read_folder, read_zip
from edgetrack.bundle.manifest import Manifest
from edgetrack.bundle.rules import (
    MANIFEST_FILE,
)
from edgetrack.errors import BundleError, UsageError


@dataclass(frozen=True)
class ListedBundle:
    """A bundle that `find_bundles` found: its manifest, or the error that says why it cannot be used.

    `size_bytes` is that of the folder's files or of the zip, 0 where it cannot be known.
    """

    path: Path
    manifest: Manifest | None
    error: str | None
    size_bytes: int


def find_bundles(folder: Path) -> list[ListedBundle]:
    """The bundles in `folder` (not deeper), or `folder` itself if it is one; by name, hidden ones left out.

    Folders with a manifest.json and all .zip files count as bundles. Names and sizes are checked, hashes are not. A
    broken bundle is listed with its error. A folder that does not exist holds none.

    Raises:
        UsageError: `folder` is a file or cannot be read.
    """
    if not os.path.lexists(folder):
        return []
    try:
        paths = [folder] if _looks_like_bundle(folder) else sorted(folder.iterdir())
        bundles = [path for path in paths if _looks_like_bundle(path) and not path.name.startswith(".")]
    except OSError as error:
        raise UsageError(f"{folder}: cannot be listed: {error.strerror}; give a folder with bundles in it") from error
    return [_listed(path) for path in bundles]


def _looks_like_bundle(path: Path) -> bool:
    if path.is_dir():
        return os.path.lexists(path / MANIFEST_FILE)
    return path.suffix == ".zip" and path.is_file()


def _listed(path: Path) -> ListedBundle:
    size = _size(path)
    try:
        if path.is_dir():
            return ListedBundle(path, read_folder(path), None, size)
        with open_zip(path) as (archive, entries):
            return ListedBundle(path, read_zip(archive, entries, path), None, size)
    except BundleError as error:
        return ListedBundle(path, None, str(error), size)


def _size(path: Path) -> int:
    paths = (Path(root, name) for root, _, names in os.walk(path) for name in names) if path.is_dir() else [path]
    total = 0
    for file in paths:
        with contextlib.suppress(OSError):
            total += file.lstat().st_size
    return total
