"""What a bundle may hold: the writer keeps to these rules, the readers hold others to them."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import msgspec

from edgetrack.bundle.manifest import FilePath, Manifest
from edgetrack.errors import BundleError, BundleIntegrityError

MANIFEST_FILE = "manifest.json"
MAX_MANIFEST_BYTES = 4 << 20


@dataclass(frozen=True)
class Limits:
    """What a bundle may weigh at most.

    Attributes:
        total_bytes: all its files together, unpacked.
        file_bytes: one file, unpacked.
        files: files and folders in it.
        ratio: unpacked size over packed size of one zip entry.
    """

    total_bytes: int = 8 << 30
    file_bytes: int = 4 << 30
    files: int = 4096
    ratio: int = 300


LIMITS = Limits()


def is_file_name(name: str) -> bool:
    """Whether a bundle may hold a file of that name: plain components joined by `/`, none of them `..` or hidden."""
    try:
        msgspec.convert(name, FilePath)
    except msgspec.ValidationError:
        return False
    return "\n" not in name


@contextlib.contextmanager
def os_errors(source: Path, what: str) -> Iterator[None]:
    """Turn an OSError inside into a BundleError `SOURCE: WHAT: reason`."""
    try:
        yield
    except OSError as error:
        raise BundleError(f"{source}: {what}: {error.strerror or error}") from error


def open_plain(path: Path) -> BinaryIO:
    """Open for reading a regular file that is no symbolic link; BundleIntegrityError for any other, never a hang."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise BundleIntegrityError(f"{path}: a symbolic link; a bundle holds plain files only") from None
        raise
    file = os.fdopen(descriptor, "rb") if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    if file is None:
        os.close(descriptor)
        raise BundleIntegrityError(f"{path}: not a regular file; a bundle holds plain files only")
    return file


def scan_folder(folder: Path, limits: Limits = LIMITS) -> dict[str, int]:
    """Size in bytes of every file under `folder`, the manifest included, by its name (`a/b` in a subfolder), sorted.

    Raises:
        BundleIntegrityError: a symbolic link, a device, pipe or socket, a name that no bundle may hold, or more entries
            than `limits.files`.
        OSError: a folder cannot be read.
    """
    sizes: dict[str, int] = {}
    pending, seen = [""], 0
    while pending:
        prefix = pending.pop()
        with os.scandir(folder / prefix) as entries:
            for entry in entries:
                seen += 1
                name, mode = prefix + entry.name, entry.stat(follow_symlinks=False).st_mode
                _check_entry(folder, name, mode, seen, limits)
                if stat.S_ISDIR(mode):
                    pending.append(f"{name}/")
                else:
                    sizes[name] = entry.stat(follow_symlinks=False).st_size
    return dict(sorted(sizes.items()))


def _check_entry(folder: Path, name: str, mode: int, seen: int, limits: Limits) -> None:
    if seen > limits.files:
        raise BundleIntegrityError(f"{folder}: more than {limits.files} files and folders, too many for a bundle")
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        kind = "a symbolic link" if stat.S_ISLNK(mode) else "neither a file nor a folder"
        raise BundleIntegrityError(f"{folder}: {name!r} is {kind}; a bundle holds plain files only: remove it")
    if not is_file_name(name):
        raise BundleIntegrityError(
            f"{folder}: {name!r} is not a name that a bundle may hold (letters, digits, '_', '-', '.', and none starts "
            "with '-' or '.'): remove or rename it"
        )


def check_manifest(manifest: Manifest, source: Path, limits: Limits = LIMITS) -> None:
    """Check what the schema cannot say: names that clash, graphs without their file, sizes over the limits.

    Raises:
        BundleError: two graphs, or two inputs or outputs of one graph, of the same name; too large.
        BundleIntegrityError: a file name that is not allowed or clashes with another, a graph whose file is not listed.
    """
    _check_file_names(manifest.files, source)
    _check_unique((graph.name for graph in manifest.graphs), source, "graphs")
    for graph in manifest.graphs:
        _check_unique((tensor.name for tensor in graph.inputs), source, f"inputs of graph {graph.name!r}")
        _check_unique((tensor.name for tensor in graph.outputs), source, f"outputs of graph {graph.name!r}")
        if not any(name == graph.file or name.startswith(f"{graph.file}/") for name in manifest.files):
            raise BundleIntegrityError(
                f"{source}: graph {graph.name!r} is in {graph.file!r}, which is not among the bundle's files; "
                "export it again"
            )
        for engine in graph.engines:
            listed = manifest.files.get(engine.file)
            if listed is None or listed.sha256 != engine.sha256:
                raise BundleIntegrityError(
                    f"{source}: engine {engine.file!r} of graph {graph.name!r} is not among the bundle's files with "
                    "the hash that is recorded for it; export it again"
                )
    if len(manifest.files) > limits.files:
        raise BundleError(f"{source}: lists {len(manifest.files)} files; at most {limits.files} are allowed")
    for name, info in manifest.files.items():
        if info.size > limits.file_bytes:
            raise BundleError(f"{source}: {name!r} has {info.size} bytes; at most {limits.file_bytes} are allowed")
    total = sum(info.size for info in manifest.files.values())
    if total > limits.total_bytes:
        raise BundleError(f"{source}: {total} bytes in all; at most {limits.total_bytes} are allowed")


def _check_unique(names: Iterable[str], source: Path, what: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise BundleError(f"{source}: two {what} are named {twice[0]!r}; each needs its own name: export it again")


def _check_file_names(names: Iterable[str], source: Path) -> None:
    taken = {MANIFEST_FILE}
    folders: set[str] = set()
    for name in names:
        if not is_file_name(name):
            raise BundleIntegrityError(f"{source}: the manifest lists {name!r}, not a name that a bundle may hold")
        # Where upper and lower case are one (macOS, Windows) the second file would replace the first.
        if name.casefold() in taken:
            raise BundleIntegrityError(f"{source}: the manifest lists {name!r}, which clashes with another file")
        taken.add(name.casefold())
        folders.update(str(parent).casefold() for parent in PurePosixPath(name).parents)
    if both := sorted(taken & folders):
        raise BundleIntegrityError(f"{source}: the manifest lists {both[0]!r} as a file and as a folder")


def compare_files(manifest: Manifest, found: Mapping[str, int], source: Path) -> None:
    """Compare names and sizes in bytes of the files found, with or without the manifest, to the manifest's list.

    Raises:
        BundleIntegrityError: a file is missing, extra, or of another size.
    """
    again = "copy the bundle again from where it was made, or export it again"
    if missing := sorted(manifest.files.keys() - found.keys()):
        raise BundleIntegrityError(f"{source}: {missing[0]!r} is missing ({len(missing)} in all); {again}")
    if extra := sorted(found.keys() - manifest.files.keys() - {MANIFEST_FILE}):
        raise BundleIntegrityError(
            f"{source}: {extra[0]!r} is not in the manifest ({len(extra)} such in all); remove it, or {again}"
        )
    for name, info in manifest.files.items():
        if found[name] != info.size:
            raise BundleIntegrityError(
                f"{source}: {name!r} has {found[name]} bytes where the manifest says {info.size}; {again}"
            )
