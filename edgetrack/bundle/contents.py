"""The manifest of a bundle's folder or zip, checked against the names and sizes of what is there; nothing is hashed."""

from __future__ import annotations

import contextlib
import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from edgetrack.bundle.manifest import Manifest
from edgetrack.bundle.rules import (
    LIMITS,
    MANIFEST_FILE,
    MAX_MANIFEST_BYTES,
    Limits,
    check_manifest,
    compare_files,
    is_file_name,
    open_plain,
    os_errors,
    scan_folder,
)
from edgetrack.errors import BundleError, BundleIntegrityError

# zipfile reads the directory at an archive's end in one piece, whatever length is claimed: 4096 entries need 1.3 MB.
_MAX_READ = 4 << 20
_BOMB_BYTES = 16 << 20
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


def read_folder(folder: Path, limits: Limits = LIMITS) -> Manifest:
    """The manifest of a bundle's folder, checked against the names and sizes of what is there; nothing is hashed.

    Raises:
        BundleError: no manifest, or one that cannot be read or is not sound.
        BundleIntegrityError: a file is missing, extra, of another size, or of a kind or name that is not allowed.
    """
    with os_errors(folder, "cannot be read"):
        found = scan_folder(folder, limits)
        if MANIFEST_FILE not in found:
            raise BundleError(f"{folder}: has no {MANIFEST_FILE}, so it is no bundle; give the folder that holds it")
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


class _BoundedReads(io.BufferedReader):
    """A file that refuses to be read in pieces larger than `_MAX_READ` bytes."""

    def read(self, size: int | None = -1, /) -> bytes:
        wanted = _MAX_READ if size is None or size < 0 else size
        if wanted > _MAX_READ:
            raise zipfile.BadZipFile(f"its directory claims {wanted} bytes")
        return super().read(wanted)


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
        with _BoundedReads(io.FileIO(path)) as file, zipfile.ZipFile(file) as archive:
            yield archive, _checked_entries(archive.infolist(), path, limits, allowed)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read or unpacked: {error.strerror or error}") from error
    except _ZIP_DAMAGE as error:
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
    if size > _BOMB_BYTES and size > limits.ratio * info.compress_size:
        raise BundleError(
            f"{path}: {name!r} unpacks {info.compress_size} bytes to {size}, more than {limits.ratio} times as many, "
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
