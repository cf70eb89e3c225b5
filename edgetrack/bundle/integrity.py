"""What a bundle may hold, and whether a folder or zip keeps to it: names, sizes, links, hashes, zip bombs.

The writer keeps to these rules, the reader checks others against them, as if an enemy had made the bundle.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, Protocol

import msgspec

from edgetrack.bundle.manifest import FileInfo, FilePath, Manifest
from edgetrack.errors import BundleError, BundleIntegrityError
from edgetrack.io import BoundedReads, open_regular

MANIFEST_FILE = "manifest.json"
MAX_MANIFEST_BYTES = 4 << 20
_MAX_BUFFERS = 1 << 30
_LITTER = frozenset({".ds_store", "thumbs.db", "desktop.ini", "@eadir", "__macosx", ".appledouble", ".spotlight-v100"})
_COPY = "model caches link their files: copy the folder with what its links lead to (cp -rL) and give the copy"
# zipfile reads the directory at an archive's end in one piece, whatever length is claimed: 4096 entries need 1.3 MB.
_MAX_READ = 4 << 20
_BOMB_BYTES = 16 << 20
_BLOCK = 1 << 20
_ZIP_DAMAGE = (
    zipfile.BadZipFile,
    EOFError,
    ValueError,
    RuntimeError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
)


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
    file_bytes: int = 8 << 30
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


def is_litter(name: str) -> bool:
    """Whether a file or folder is one that macOS, Windows or a NAS puts beside others; it is no part of a bundle."""
    return any(part.startswith("._") or part.casefold() in _LITTER for part in name.split("/"))


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
        return open_regular(path, follow=False)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise BundleIntegrityError(f"{path}: a symbolic link; a bundle holds plain files only; {_COPY}") from None
        if error.errno in (errno.EISDIR, errno.EINVAL):
            raise BundleIntegrityError(f"{path}: not a regular file; a bundle holds plain files only") from None
        raise


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
                if is_litter(entry.name):
                    continue
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
        kind, advice = "neither a file nor a folder", "remove it"
        if stat.S_ISLNK(mode):
            kind, advice = "a symbolic link", _COPY
        raise BundleIntegrityError(f"{folder}: {name!r} is {kind}; a bundle holds plain files only: {advice}")
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
    buffers = sum(tensor.nbytes for graph in manifest.graphs for tensor in (*graph.inputs, *graph.outputs))
    if buffers > _MAX_BUFFERS:
        raise BundleError(
            f"{source}: its graphs' inputs and outputs have {buffers} bytes; at most {_MAX_BUFFERS} are allowed"
        )
    for graph in manifest.graphs:
        _check_unique((tensor.name for tensor in graph.inputs), source, f"inputs of graph {graph.name!r}")
        _check_unique((tensor.name for tensor in graph.outputs), source, f"outputs of graph {graph.name!r}")
        if not any(name == graph.file or name.startswith(f"{graph.file}/") for name in manifest.files):
            raise BundleIntegrityError(
                f"{source}: graph {graph.name!r} is in {graph.file!r}, which is not among the bundle's files; "
                "export it again"
            )
        for engine in graph.engines:
            listed = manifest.files.get(str(engine.get("file")))
            if listed is None or listed.sha256 != engine.get("sha256"):
                raise BundleIntegrityError(
                    f"{source}: engine {engine.get('file')!r} of graph {graph.name!r} is not among the bundle's files "
                    "with the hash that is recorded for it; export it again"
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


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def copy_hashed(source: _Readable, target: IO[bytes] | None, limit: int) -> FileInfo:
    """Copy `source` to `target` (None: only hash) and say what went by; stops at the first byte past `limit`."""
    digest, size = hashlib.sha256(), 0
    while size <= limit and (block := source.read(min(_BLOCK, limit + 1 - size))):
        size += len(block)
        digest.update(block)
        if target is not None:
            target.write(block)
    return FileInfo(size=size, sha256=digest.hexdigest())


def hash_file(path: Path, limit: int) -> FileInfo:
    """Size and hash of a plain file, of its first `limit` + 1 bytes if it is longer.

    Raises:
        BundleIntegrityError: a link or a special file.
        OSError: it cannot be read.
    """
    with open_plain(path) as file:
        return copy_hashed(file, None, limit)


def check_content(found: FileInfo, expected: FileInfo, name: str, source: Path) -> None:
    """Raise BundleIntegrityError unless a file's size and hash are those of the manifest."""
    if found != expected:
        raise BundleIntegrityError(
            f"{source}: {name!r} was changed: {found.size} bytes, sha256 {found.sha256[:16]}..., where the manifest "
            f"says {expected.size} bytes, sha256 {expected.sha256[:16]}...; copy the bundle again from where it was "
            "made, or export it again"
        )


def read_folder(folder: Path, limits: Limits = LIMITS) -> Manifest:
    """The manifest of a bundle's folder, checked against the names and sizes of what is there; nothing is hashed.

    Raises:
        BundleError: no manifest, or one that cannot be read or is not valid.
        BundleIntegrityError: a file is missing, extra, of another size, or of a kind or name that is not allowed.
    """
    with os_errors(folder, "cannot be read"):
        if not os.path.lexists(folder / MANIFEST_FILE):
            raise BundleError(f"{folder}: no bundle: it has no {MANIFEST_FILE}; give the folder that holds it")
        found = scan_folder(folder, limits)
        with open_plain(folder / MANIFEST_FILE) as file:
            data = file.read(MAX_MANIFEST_BYTES + 1)
    return _sound_manifest(data, found, folder, limits)


def _sound_manifest(data: bytes, found: Mapping[str, int], source: Path, limits: Limits) -> Manifest:
    if len(data) > MAX_MANIFEST_BYTES:
        raise BundleError(f"{source}: its {MANIFEST_FILE} is larger than {MAX_MANIFEST_BYTES} bytes")
    manifest = Manifest.from_json(data, source=str(source))
    check_manifest(manifest, source, limits)
    compare_files(manifest, found, source)
    return manifest


@contextlib.contextmanager
def open_zip(
    path: Path, limits: Limits = LIMITS, allowed: Callable[[str], bool] = is_file_name
) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """Open a zip and check its directory: the archive and its files' entries by name, folders left out.

    What zipfile raises inside the `with` for a damaged member becomes a BundleError too.

    Raises:
        BundleError: not a zip, truncated, damaged, encrypted, packed in an unusual way, or over a limit.
        BundleIntegrityError: links or special files, and names that are not `allowed` or come twice.
    """
    try:
        with open_regular(path) as file, zipfile.ZipFile(BoundedReads(file, _MAX_READ)) as archive:
            yield archive, _checked_entries(archive.infolist(), path, limits, allowed)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read or unpacked: {error.strerror or error}") from error
    except _ZIP_DAMAGE as error:
        if path.suffix == ".onnx":
            raise BundleError(
                f"{path}: an ONNX file is no bundle yet; begin with: edgetrack recipe new --onnx {path.name}"
            ) from error
        reason = str(error) or type(error).__name__
        raise BundleError(f"{path}: cannot be read as a zip: {reason}; copy it again from where it was made") from error


def _checked_entries(
    infos: list[zipfile.ZipInfo], path: Path, limits: Limits, allowed: Callable[[str], bool]
) -> dict[str, zipfile.ZipInfo]:
    if len(infos) > limits.files:
        raise BundleError(f"{path}: {len(infos)} entries in the zip; at most {limits.files} are allowed")
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        # `filename` is cut at a NUL; `orig_filename` is what the archive says.
        name = info.orig_filename
        is_folder = name.endswith("/") and info.file_size == 0
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFDIR if is_folder else stat.S_IFREG):
            raise BundleIntegrityError(f"{path}: {name!r} is a link or a special file; a bundle holds plain files only")
        if is_litter(name):
            continue
        if not allowed(name.removesuffix("/") if is_folder else name):
            raise BundleIntegrityError(f"{path}: {name!r} is not a name that may be in it; nothing was unpacked")
        if name in entries:
            raise BundleIntegrityError(f"{path}: {name!r} is in the zip twice; nothing was unpacked")
        _check_packing(info, path, limits)
        if not is_folder:
            entries[name] = info
    total = sum(info.file_size for info in entries.values())
    if total > limits.total_bytes:
        raise BundleError(f"{path}: {total} bytes when unpacked; at most {limits.total_bytes} are allowed")
    _check_ratio("all of it together", total, sum(info.compress_size for info in entries.values()), path, limits)
    return entries


def _check_packing(info: zipfile.ZipInfo, path: Path, limits: Limits) -> None:
    name, size = info.orig_filename, info.file_size
    if info.flag_bits & 1:
        raise BundleError(f"{path}: {name!r} is encrypted; unpack it with its password and pack it again without one")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BundleError(
            f"{path}: {name!r} is packed by method {info.compress_type}; only stored and deflated are read"
        )
    if size > limits.file_bytes:
        raise BundleError(f"{path}: {name!r} has {size} bytes when unpacked; at most {limits.file_bytes} are allowed")
    _check_ratio(repr(name), size, info.compress_size, path, limits)


def _check_ratio(what: str, size: int, packed: int, path: Path, limits: Limits) -> None:
    if size > _BOMB_BYTES and size > limits.ratio * packed:
        raise BundleError(
            f"{path}: {what} unpacks {packed} bytes to {size}, more than {limits.ratio} times as many, "
            "as only a zip bomb does; nothing was unpacked"
        )


def read_zip(
    archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo], path: Path, limits: Limits = LIMITS
) -> Manifest:
    """The manifest in an archive that `open_zip` gave, checked against the names and sizes of its entries.

    Raises: as `read_folder`.
    """
    info = entries.get(MANIFEST_FILE)
    if info is None:
        nested = next((name for name in entries if name.endswith(f"/{MANIFEST_FILE}")), None)
        hint = f"; {nested!r} is one level too deep: pack the folder's contents, not the folder" if nested else ""
        raise BundleError(f"{path}: has no {MANIFEST_FILE} at its top, so it is no bundle{hint}")
    with archive.open(info) as member:
        data = member.read(MAX_MANIFEST_BYTES + 1)
    return _sound_manifest(data, {name: entry.file_size for name, entry in entries.items()}, path, limits)


def extract(path: Path, folder: Path, *, verify_files: bool = True, limits: Limits = LIMITS) -> Manifest:
    """Check a bundle's zip and write its files, all but the manifest, into `folder`, which is empty and private.

    Returns:
        The manifest.

    Raises:
        BundleError: the zip cannot be read or breaks a limit.
        BundleIntegrityError: a file is missing, extra, changed (with `verify_files`) or out of place.
    """
    with open_zip(path, limits) as (archive, entries):
        manifest = read_zip(archive, entries, path, limits)
        for name, expected in manifest.files.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entries[name]) as member, target.open("xb") as file:
                found = copy_hashed(member, file, expected.size)
            if verify_files:
                check_content(found, expected, name, path)
    return manifest
