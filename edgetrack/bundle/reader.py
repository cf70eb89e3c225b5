"""Naming, opening and listing bundles, and reading their JSON and arrays; all is checked before anything is loaded."""

from __future__ import annotations

import contextlib
import math
import os
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.lib import format as npy_format

from edgetrack.bundle.integrity import (
    LIMITS,
    MANIFEST_FILE,
    Limits,
    check_content,
    extract,
    hash_file,
    open_plain,
    open_zip,
    os_errors,
    read_folder,
    read_zip,
)
from edgetrack.bundle.manifest import Manifest, split_precision
from edgetrack.decoding import decode_json
from edgetrack.device_name import reads_as_device
from edgetrack.errors import BundleError, UsageError, did_you_mean
from edgetrack.io import ScratchFolder

MAX_JSON_BYTES = 64 << 20
NPZ_LIMITS = Limits(total_bytes=1 << 30, file_bytes=1 << 30, files=4096, ratio=2000)
"""Deflate packs a constant array about 1000 times smaller, which is no bomb here: a GiB is the limit."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Bundle:
    """A bundle that was checked, open; also a context manager.

    Attributes:
        folder: where its files are; for a zip a private temporary folder, gone after `close` or with the Bundle.
        manifest: what it says of itself.
        source: the folder or zip that was opened.
    """

    folder: Path
    manifest: Manifest
    source: Path
    _private: ScratchFolder | None = field(default=None, repr=False, compare=False)

    def path(self, file: str) -> Path:
        """Where a file of the manifest is, or a folder with such files (a Core ML package).

        Raises:
            BundleError: no such file in the manifest, or the bundle was a zip and is closed.
        """
        if self._private is not None and not self._private.remove.alive:
            raise BundleError(f"{self.source}: the bundle is closed; open it again")
        files = self.manifest.files
        if file not in files and not any(name.startswith(f"{file}/") for name in files):
            raise BundleError(f"{self.source}: has no file {file!r}; it has: {', '.join(files) or 'none'}")
        return self.folder / file

    def close(self) -> None:
        """Remove the temporary folder of an opened zip; any number of times."""
        if self._private is not None:
            self._private.remove()

    def __enter__(self) -> Bundle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_bundle(path: str | Path, *, verify_files: bool = True, limits: Limits = LIMITS) -> Bundle:
    """Open a bundle's folder or zip after checking it.

    Args:
        path: a folder, a zip (`.zip` may be left out), or a bare name, looked for here and in ./out.
        verify_files: hash every file; without it names and sizes are checked alone.
        limits: what the bundle may weigh.

    Raises:
        UsageError: there is no such bundle, or it is an address: nothing is fetched here.
        BundleError: it cannot be read, its manifest is not valid, or it breaks a limit.
        BundleIntegrityError: a file is missing, extra, changed or out of place, or a link or special file.
    """
    refuse_address(str(path))
    source = _locate(Path(path))
    if source.is_dir():
        manifest = read_folder(source, limits)
        if verify_files:
            _verify(source, manifest)
        return Bundle(source, manifest, source)
    if not source.is_file():
        raise BundleError(f"{source}: neither a folder nor a zip; give a bundle's folder or its zip")
    return _open_zip(source, verify_files, limits)


def refuse_address(text: str) -> None:
    """Raise UsageError where a bundle's path is the address of one elsewhere."""
    found = re.match(r"(hf|https?):/+(.*)", text, re.DOTALL)  # a Path keeps one slash of two
    if found is not None:
        raise UsageError(
            f"{text}: bundles are run from this machine alone, and nothing is fetched unasked; fetch it first: "
            f"edgetrack pull {found[1]}://{found[2]}"
        )


def _verify(folder: Path, manifest: Manifest) -> None:
    with os_errors(folder, "cannot be read"):
        for name, expected in manifest.files.items():
            check_content(hash_file(folder / name, expected.size), expected, name, folder)


def _open_zip(source: Path, verify_files: bool, limits: Limits) -> Bundle:
    with os_errors(source, "cannot be unpacked"):
        private = ScratchFolder()
        try:
            manifest = extract(source, private.path, verify_files=verify_files, limits=limits)
            (private.path / MANIFEST_FILE).write_bytes(manifest.to_json())
        except BaseException:
            private.remove()
            raise
    return Bundle(private.path, manifest, source, private)


def _locate(path: Path) -> Path:
    """The first candidate that looks like a bundle, else the first that is there at all."""
    bases = [path] if len(path.parts) != 1 or path.is_absolute() else [path, Path("out") / path]
    candidates = [name for base in bases for name in (base, *_zip_of(base))]
    there = [candidate for candidate in candidates if os.path.lexists(candidate)]
    if not there:
        raise UsageError(_absent(path, candidates))
    return next((one for one in there if one.is_file() or os.path.lexists(one / MANIFEST_FILE)), there[0])


def _zip_of(base: Path) -> list[Path]:
    return [base.with_name(f"{base.name}.zip")] if base.name not in ("", "..") and base.suffix != ".zip" else []


def _absent(path: Path, candidates: list[Path]) -> str:
    names = {name for folder in {candidate.parent for candidate in candidates} for name in _bundle_names(folder)}
    return (
        f"there is no bundle {str(path)!r}{did_you_mean(path.name, sorted(names))}; looked for "
        f"{', '.join(map(str, candidates))}. `edgetrack list` shows the bundles that are there, "
        "`edgetrack export TRACKER --target TARGET` makes one"
    )


def _bundle_names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir() if path.suffix == ".zip" or (path / MANIFEST_FILE).is_file()]
    except (OSError, ValueError):
        return []


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


def read_json(path: Path, type_: type[_T]) -> _T:
    """Decode a JSON file of at most 64 MiB as `type_` (a msgspec Struct, dict[str, float], ...), strictly.

    Raises:
        BundleError: it cannot be read, is not JSON, or is not of that type.
    """
    with os_errors(path, "cannot be read"), open_plain(path) as file:
        data = file.read(MAX_JSON_BYTES + 1)
    if len(data) > MAX_JSON_BYTES:
        raise BundleError(f"{path}: larger than the {MAX_JSON_BYTES} bytes that a bundle's JSON may have")
    return decode_json(
        data,
        type_,
        lambda words: BundleError(f"{path}: not the JSON that was expected: {words}; export the bundle again"),
    )


def read_npz(path: Path, check: Callable[[str, int], None] | None = None) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
    """The arrays of an .npz file by name: numbers and bool only, 1 GiB in all, no pickle.

    Each header is compared with the bytes that are there before anything is allocated.

    Args:
        path: the file.
        check: called with name and bytes (header included) of every array before any is unpacked; raises what it likes.

    Raises:
        BundleError: it cannot be read, is damaged or too large, or holds anything but plain arrays of numbers.
        BundleIntegrityError: a link or special file, or the same name twice.
    """
    with os_errors(path, "cannot be read"):
        open_plain(path).close()
    with open_zip(path, NPZ_LIMITS, allowed=_is_array_name) as (archive, entries):
        if check is not None:
            for name, info in entries.items():
                check(name.removesuffix(".npy"), info.file_size)
        return {name.removesuffix(".npy"): _read_array(archive, info, path) for name, info in entries.items()}


def _is_array_name(name: str) -> bool:
    return name.endswith(".npy") and name.isprintable()


def _read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> np.ndarray[Any, np.dtype[Any]]:
    try:
        with archive.open(info) as member:
            _check_array(member, info, path)
        with archive.open(info) as member:
            array: np.ndarray[Any, np.dtype[Any]] = npy_format.read_array(member, allow_pickle=False)
    except (BundleError, OSError):
        raise
    # A made-up header ends numpy's parser in ValueError, TypeError, KeyError, IndexError, TokenError, ...
    except Exception as error:
        raise BundleError(
            f"{path}: {info.filename!r} is not a valid array: {error}; export the bundle again"
        ) from error
    return array


def _check_array(member: IO[bytes], info: zipfile.ZipInfo, path: Path) -> None:
    version = npy_format.read_magic(member)
    if version not in ((1, 0), (2, 0)):
        raise BundleError(f"{path}: {info.filename!r} has format version {version}; plain arrays have 1.0 or 2.0")
    if version == (1, 0):
        shape, _, dtype = npy_format.read_array_header_1_0(member)
    else:
        shape, _, dtype = npy_format.read_array_header_2_0(member)
    if dtype.kind not in "biuf":
        raise BundleError(f"{path}: {info.filename!r} holds {dtype}; only numbers and bool are read: export it again")
    expected, found = math.prod(shape) * dtype.itemsize, info.file_size - member.tell()
    if min(shape, default=0) < 0 or expected != found:
        raise BundleError(f"{path}: {info.filename!r} says shape {shape} of {dtype} but holds {found} bytes of it")


def bundle_label(name: str, hint: str | None) -> str:
    """A bundle's name as results show it: `smat-openvino-fp32`, or `smat-openvino-fp32@bf16` with a precision hint."""
    return name if hint is None else f"{name}@{hint}"


def split_label(text: str) -> tuple[str, str | None, str | None]:
    """The path or name, precision hint and device of `BUNDLE[@HINT][@DEVICE]`.

    A path that exists is taken as it is, whatever @ is in it.

    Raises:
        UsageError: it is an address.
    """
    refuse_address(text)
    found: dict[bool, str] = {}
    while not Path(text).exists():
        path, at, last = text.rpartition("@")
        if not at or reads_as_device(last) in found:
            break
        found[reads_as_device(last)] = last
        text = path
    return text, found.get(False) or None, found.get(True)


@dataclass(frozen=True)
class BundleRef:
    """A bundle that a command was given.

    Attributes:
        path: absolute, as `edgetrack.load` takes it.
        manifest: what the bundle says of itself.
        hint: the precision hint that it is to be loaded with.
        alias: the end of its path, where another bundle of the same name was given, too.
        device: where it runs; None: where the command says.
    """

    path: Path
    manifest: Manifest
    hint: str | None = None
    alias: str | None = None
    device: str | None = None

    @property
    def name(self) -> str:
        """Its alias where it has one, else the manifest's name."""
        return self.alias or self.manifest.name

    @property
    def label(self) -> str:
        """Its name, with its hint where it has one."""
        return bundle_label(self.name, self.hint)

    @property
    def arithmetic(self) -> str:
        """The precision that it computes in, for one that is quantized that of its integers."""
        stored, _ = split_precision(self.manifest.precision)
        return stored if stored == "int8" else self.hint or stored


def path_aliases(bundles: Sequence[tuple[str, Path]]) -> list[str | None]:
    """What to call bundles of one name in different places, such as two exports of one tracker.

    Args:
        bundles: names and paths.

    Returns:
        For each as much of its path's end as tells it from the others of its name; None where the name does.
    """
    places: dict[str, set[Path]] = {}
    for name, path in bundles:
        places.setdefault(name, set()).add(path.resolve())
    return [_distinct_end(path.resolve(), places[name]) for name, path in bundles]


def _distinct_end(path: Path, places: set[Path]) -> str | None:
    others = [place.parts for place in places if place != path]
    if not others:
        return None
    length = next(n for n in range(1, len(path.parts) + 1) if all(other[-n:] != path.parts[-n:] for other in others))
    return Path(*path.parts[-length:]).as_posix()
