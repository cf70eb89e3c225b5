"""One zip of a bundle: packed to the same bytes every time, unpacked only after its directory was checked."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path

from edgetrack.bundle.integrity import (
    LIMITS,
    MANIFEST_FILE,
    Limits,
    check_content,
    copy_hashed,
    extract,
    open_plain,
    open_zip,
    os_errors,
)
from edgetrack.bundle.manifest import FileInfo
from edgetrack.bundle.reader import Bundle
from edgetrack.bundle.writer import BundleWriter, discard, flush_entry, hidden_sibling, sweep
from edgetrack.errors import BundleError, UsageError

_FIXED_DATE = (1980, 1, 1, 0, 0, 0)


def pack(bundle: Bundle, destination: Path, overwrite: bool = False) -> Path:
    """Write an open bundle as one zip; files are hashed on the way.

    The same bundle gives the same bytes on any machine: names in order, one date, one mode, nothing compressed (two
    builds of zlib need not agree, and weights shrink by a few per cent at most).

    Args:
        bundle: the bundle, open.
        destination: the zip to write, `.zip` included; a failure leaves what was there as it was.
        overwrite: replace a zip of a bundle that is there.

    Returns:
        The destination.

    Raises:
        UsageError: the destination is taken or is not a `.zip`.
        BundleIntegrityError: a file was changed since the bundle was made.
        BundleError: a file cannot be read, the disk does not take the zip, or nothing can be written beside it.
    """
    target = destination.absolute()
    _check_destination(destination, overwrite)
    staging = hidden_sibling(target, "partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target)
    except OSError as error:
        raise BundleError(f"{destination}: cannot be written there: {error.strerror or error}") from error
    try:
        with os_errors(destination, "cannot be written"):
            with zipfile.ZipFile(staging, "x", zipfile.ZIP_STORED) as archive:
                _add_files(archive, bundle)
            flush_entry(staging)
            staging.replace(target)
            flush_entry(target.parent)
    finally:
        discard(staging, target)
    return destination


def unpack(archive: Path, folder: Path, *, overwrite: bool = False, limits: Limits = LIMITS) -> Path:
    """Unpack a bundle's zip to `folder`, which appears whole or not at all; everything is checked, hashes too.

    Returns:
        The folder.

    Raises:
        UsageError: there is no such zip, or `folder` is taken; `overwrite` replaces a bundle.
        BundleError: the zip cannot be read or breaks a limit.
        BundleIntegrityError: a file is missing, extra, changed or out of place.
    """
    if not archive.is_file():
        raise UsageError(f"{archive}: there is no such zip; `edgetrack list` shows the bundles that are there")
    with BundleWriter(folder, overwrite=overwrite) as writer:
        return writer.commit(extract(archive, writer.folder, limits=limits))


def _add_files(archive: zipfile.ZipFile, bundle: Bundle) -> None:
    for name in sorted([*bundle.manifest.files, MANIFEST_FILE]):
        info = zipfile.ZipInfo(name, _FIXED_DATE)
        info.create_system = 3
        info.external_attr = (stat.S_IFREG | 0o644) << 16
        if name == MANIFEST_FILE:
            archive.writestr(info, bundle.manifest.to_json())
        else:
            _add_file(archive, info, bundle.path(name), bundle.manifest.files[name], bundle.folder)


def _add_file(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, expected: FileInfo, folder: Path) -> None:
    info.file_size = expected.size
    with open_plain(path) as file, archive.open(info, "w") as member:
        found = copy_hashed(file, member, expected.size)
    check_content(found, expected, info.filename, folder)


def _check_destination(destination: Path, overwrite: bool) -> None:
    if destination.suffix != ".zip":
        raise UsageError(f"{destination}: a packed bundle's name ends in .zip")
    if not os.path.lexists(destination):
        return
    if not _is_bundle_zip(destination):
        raise UsageError(f"{destination}: is there and is not a packed bundle; it stays. Give another name")
    if not overwrite:
        raise UsageError(f"{destination}: is there already; --overwrite replaces it")


def _is_bundle_zip(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    try:
        with open_zip(path) as (_, entries):
            return MANIFEST_FILE in entries
    except BundleError:
        return False
