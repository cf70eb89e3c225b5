"""Writing a bundle: staged beside its destination, described, flushed and renamed into place; never half there."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np
import psutil
from numpy.typing import NDArray

from edgetrack.bundle.integrity import (
    LIMITS,
    MANIFEST_FILE,
    MAX_MANIFEST_BYTES,
    check_manifest,
    hash_file,
    open_plain,
    os_errors,
    scan_folder,
)
from edgetrack.bundle.manifest import Manifest
from edgetrack.bundle.reader import Bundle
from edgetrack.errors import BundleError, UsageError
from edgetrack.io import BAD_JSON, locked, open_flags


class BundleWriter:
    """Writes one bundle, all or nothing.

        with BundleWriter(Path("out/smat-onnx-fp32")) as writer:
            export_graphs(writer.folder)
            writer.commit(manifest)

    `folder` is a staging folder beside the destination, hidden and named after this process. Leaving the `with` without
    a commit, or by an exception, removes it; what a killed writer left is removed when the next one starts.

    To replace a bundle the old one is renamed aside, the new one in, and the old one removed. A kill between the two
    renames leaves nothing under the name; the next writer puts the old one back.
    """

    def __init__(self, destination: Path, *, overwrite: bool = False) -> None:
        """Name the destination; `overwrite` replaces a bundle that is there, but never anything else."""
        self.destination = destination
        self._target = destination.absolute()
        self._overwrite = overwrite
        self._staging: Path | None = None

    @property
    def folder(self) -> Path:
        """The staging folder; absolute. UsageError outside the `with` and after the commit."""
        if self._staging is None:
            raise UsageError("a BundleWriter has a folder only inside its `with` and before its commit")
        return self._staging

    def __enter__(self) -> BundleWriter:
        """Make the staging folder.

        Raises:
            UsageError: the destination is taken, or has no name of its own.
            BundleError: nothing can be written beside it.
        """
        if self._target.name in ("", ".."):
            raise UsageError(f"{self.destination}: not a name for a bundle; give one such as out/smat-onnx-fp32")
        staging = hidden_sibling(self._target, "partial")
        try:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            with locked(hidden_lock(self._target)):
                sweep(self._target)
                self._check_destination()
            staging.mkdir()
        except OSError as error:
            raise BundleError(f"{self.destination}: cannot be written there: {error.strerror or error}") from error
        self._staging = staging
        return self

    def __exit__(self, *_: object) -> None:
        if self._staging is not None:
            discard(self._staging, self._target)
            self._staging = None

    def copy_from(self, bundle: Bundle, leave_out: Collection[str] = ()) -> None:
        """Copy another bundle's files, all but the manifest and those left out, into the staging folder."""
        for name in bundle.manifest.files:
            if name not in leave_out:
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(bundle.path(name), self.folder / name)

    def commit(self, manifest: Manifest) -> Path:
        """Put the staged files under the destination's name, with `manifest` completed by their sizes and hashes.

        Returns:
            The destination.

        Raises:
            BundleIntegrityError: links, special files or odd names in the folder, or a graph without its file.
            BundleError: the manifest breaks its schema, the bundle is too large, or the disk does not take it.
            UsageError: the destination was taken meanwhile.
        """
        staging = self.folder
        with os_errors(self.destination, "cannot be written"):
            names = scan_folder(staging)
            if MANIFEST_FILE in names:
                raise BundleError(f"{staging}: {MANIFEST_FILE} is written by commit(); do not put one there")
            files = {name: hash_file(staging / name, LIMITS.file_bytes) for name in names}
            encoded = self._encode(msgspec.structs.replace(manifest, files=files))
            (staging / MANIFEST_FILE).write_bytes(encoded)
            _flush(staging)
            with locked(hidden_lock(self._target)):
                self._install(staging)
        return self.destination

    def _encode(self, manifest: Manifest) -> bytes:
        encoded = manifest.to_json()
        # A Manifest made in Python was never held to its schema: readers would find out too late.
        check_manifest(Manifest.from_json(encoded, source=str(self.destination)), self.destination)
        if len(encoded) > MAX_MANIFEST_BYTES:
            raise BundleError(f"{self.destination}: the manifest has {len(encoded)} of {MAX_MANIFEST_BYTES} bytes")
        return encoded

    def _install(self, staging: Path) -> None:
        self._check_destination()
        aside = hidden_sibling(self._target, "old") if os.path.lexists(self._target) else None
        try:
            if aside is not None:
                self._target.rename(aside)
            staging.rename(self._target)
        except BaseException:
            if aside is not None:
                self._put_back(aside)
            raise
        self._staging = None
        flush_entry(self._target.parent)
        if aside is not None:
            discard(aside, self._target)

    def _put_back(self, aside: Path) -> None:
        try:
            aside.rename(self._target)
        except FileNotFoundError:
            return
        except OSError as error:
            raise BundleError(f"{self.destination}: the bundle that was there is now {aside}: {error}") from error

    def _check_destination(self) -> None:
        check_destination(self._target, overwrite=self._overwrite, shown=self.destination)


def check_destination(target: Path, *, overwrite: bool, shown: Path | None = None) -> None:
    """Raise UsageError where a bundle cannot be put under that name; `shown` is how the message calls it."""
    if not os.path.lexists(target):
        return
    if not is_bundle_folder(target):
        raise UsageError(f"{shown or target}: is there and is not a bundle; it stays. Give another name")
    if not overwrite:
        raise UsageError(f"{shown or target}: this bundle is there already; --overwrite replaces it")


def is_bundle_folder(path: Path) -> bool:
    """Whether `path` is a folder, no link, whose manifest.json is a JSON object with a `schema`, of any version."""
    if path.is_symlink() or not path.is_dir():
        return False
    try:
        with open_plain(path / MANIFEST_FILE) as file:
            found = msgspec.json.decode(file.read(MAX_MANIFEST_BYTES + 1))
    except (OSError, BundleError, *BAD_JSON):
        return False
    return isinstance(found, dict) and "schema" in found


def hidden_lock(target: Path) -> Path:
    """The lock file of all who write `target`."""
    return target.parent / f".{target.name}.lock"


def hidden_sibling(target: Path, kind: str) -> Path:
    """A fresh hidden name beside `target` that says who works there: `.NAME.PID-RANDOM.KIND`."""
    return target.parent / f".{target.name}.{os.getpid()}-{secrets.token_hex(8)}.{kind}"


def sweep(target: Path) -> None:
    """Remove what dead writers of `target` left beside it; what living processes have there stays.

    A bundle that a dead writer had set aside, without getting its own in, gets its name back.
    """
    pattern = re.compile(rf"\.{re.escape(target.name)}\.(\d{{1,7}})-[0-9a-f]{{16}}\.(partial|old)")
    for sibling in target.parent.iterdir():
        match = pattern.fullmatch(sibling.name)
        if match is None or psutil.pid_exists(int(match[1])):
            continue
        if match[2] == "old" and not os.path.lexists(target):
            with contextlib.suppress(OSError):
                sibling.rename(target)
        discard(sibling, target)


def discard(path: Path, target: Path) -> None:
    """Remove a file or folder that lies beside `target`, without complaint if it is gone.

    It is renamed first: a living writer taken for dead (one of another container) can then no more find its folder,
    where it would otherwise rename a half-removed one into place.
    """
    doomed = hidden_sibling(target, "partial")
    with contextlib.suppress(OSError):
        path.rename(doomed)
        if doomed.is_dir():
            shutil.rmtree(doomed, ignore_errors=True)
        else:
            doomed.unlink()


def flush_entry(path: Path) -> None:
    """Have the disk hold a file's bytes, or a folder's list of names."""
    try:
        descriptor = os.open(path, open_flags("O_RDONLY"))
    except PermissionError:
        if path.is_dir():  # Windows opens none
            return
        raise
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush(folder: Path) -> None:
    for root, _, names in os.walk(folder, topdown=False):
        for name in names:
            flush_entry(Path(root, name))
        flush_entry(Path(root))


def write_npz(path: Path | IO[bytes], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays as a compressed .npz; the same arrays give the same bytes, since no time of writing is put in."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy")
            info.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(info, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
