"""What a weights file is, from its first bytes, and where torch.save keeps its storages in it."""

from __future__ import annotations

import re
import sys
import zipfile
from typing import BinaryIO, Protocol

from edgetrack.checkpoints.interpreter import MAX_PICKLE_BYTES, Interpreter, StorageRef, malformed
from edgetrack.checkpoints.policy import shown
from edgetrack.errors import CheckpointError
from edgetrack.io import BoundedReads

HEAD_BYTES = 512
"""How much of a file `recognise` wants to see."""

_MAX_SAFETENSORS_HEADER = 4 << 20  # 1000 tensors have 100 KiB; the library itself would take 100 MB
_MAX_DIRECTORY = 4 << 20  # zipfile reads a directory in one piece and makes objects of it: 40,000 members
_BLOCK = 1 << 20

_DOWNLOAD = "Download the weights file again, and look at what the address really gives"
_UNPACK = "Unpack it first and give the weights file inside"

_PREFIXES = (
    (b"version https://git-lfs", "a Git LFS pointer, not the weights themselves. Run `git lfs pull` where it lies"),
    (b"\x1f\x8b", f"a gzip file. {_UNPACK}"),
    (b"BZh", f"a bzip2 file. {_UNPACK}"),
    (b"\xfd7zXZ\x00", f"an xz file. {_UNPACK}"),
    (b"\x28\xb5\x2f\xfd", f"a zstd file. {_UNPACK}"),
    (b"7z\xbc\xaf", f"a 7z file. {_UNPACK}"),
    (b"Rar!", f"a rar file. {_UNPACK}"),
    (b"\x93NUMPY", "a numpy array file. Name its tensors and save them with safetensors.torch.save_file"),
    (b"\x89HDF", "an HDF5 file. Convert it to safetensors with the library that wrote it"),
)


def recognise(head: bytes, size: int) -> str:
    """The format of a file of `size` bytes that starts with `head`: "torch-zip", "safetensors" or "pickle".

    Raises:
        CheckpointError: it is something else; the message says what it looks like and what to do.
    """
    if not head:
        raise CheckpointError("the file is empty (0 bytes). Download or copy it again")
    if head.startswith(b"PK\x03\x04"):
        return "torch-zip"
    if head[8:9] == b"{" and (length := int.from_bytes(head[:8], "little")) <= 100_000_000:
        if length > _MAX_SAFETENSORS_HEADER:
            raise CheckpointError(
                f"a safetensors file whose header has {length} bytes; at most {_MAX_SAFETENSORS_HEADER} "
                f"are read. {_DOWNLOAD}"
            )
        return "safetensors"
    for prefix, meaning in _PREFIXES:
        if head.startswith(prefix):
            raise CheckpointError(meaning)
    if head[257:262] == b"ustar":
        raise CheckpointError(f"a tar archive. {_UNPACK}")
    if head[0] == 0x80:
        return "pickle"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise CheckpointError(f"a web page, not weights: the download gave an error or a login page. {_DOWNLOAD}")
    if _is_text(head):
        raise CheckpointError(f"text, not weights; it starts with: {shown(head.decode('utf-8', 'replace'), 60)}")
    raise CheckpointError(
        f"not a file that torch.save or safetensors wrote: {size} bytes that start with {head[:8].hex(' ')}. "
        f"{_DOWNLOAD}"
    )


def _is_text(head: bytes) -> bool:
    return all(byte >= 0x20 or byte in b"\t\n\r\f" for byte in head)


LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""The first value in every file of the legacy format."""

_LEGACY_PROTOCOL = 1001


class Storages(Protocol):
    """Gives the bytes of storages, little end first, exactly `ref.nbytes` of them."""

    def read(self, ref: StorageRef) -> bytearray: ...


class ZipStorages:
    """The zip format (torch >= 1.6): `NAME/data.pkl` and one stored member `NAME/data/N` for each storage."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        """Check the archive `file` of `size` bytes; raises CheckpointError and what zipfile raises on damage."""
        self._archive = zipfile.ZipFile(BoundedReads(file, _MAX_DIRECTORY))
        self._members = _checked_members(self._archive.infolist(), size)
        pickles = [name for name in self._members if re.fullmatch("[^/]+/data[.]pkl", name)]
        if len(pickles) != 1:
            raise CheckpointError(
                "a zip archive, but not one that torch.save wrote: it has no data.pkl in its one folder. "
                "If the weights are inside, unpack them first"
            )
        self._prefix = pickles[0].removesuffix("data.pkl")
        if f"{self._prefix}constants.pkl" in self._members:
            raise CheckpointError(
                "a TorchScript program (torch.jit.save), which is code. Save its state_dict() with torch.save, or to "
                "safetensors, where it was made"
            )
        _check_byte_order(self._optional("byteorder").decode("ascii") or "little")

    def pickle(self) -> bytes:
        """The pickle that describes the objects."""
        info = self._members[f"{self._prefix}data.pkl"]
        if info.file_size > MAX_PICKLE_BYTES:
            raise CheckpointError(f"its pickle is longer than {MAX_PICKLE_BYTES} bytes, too long for a weights file")
        with self._archive.open(info) as member:
            return b"".join(iter(lambda: member.read(_BLOCK), b""))

    def read(self, ref: StorageRef) -> bytearray:
        """The bytes of a storage; CheckpointError if the member is absent or of another length."""
        info = self._members.get(f"{self._prefix}data/{ref.key}")
        if info is None:
            raise malformed(f"storage {shown(ref.key)} is not in the archive")
        if info.file_size != ref.nbytes:
            raise malformed(f"storage {shown(ref.key)} has {info.file_size} bytes instead of {ref.nbytes}")
        data, start = bytearray(ref.nbytes), 0
        with self._archive.open(info) as member:
            while block := member.read(_BLOCK):
                data[start : start + len(block)] = block
                start += len(block)
        return data

    def _optional(self, name: str) -> bytes:
        info = self._members.get(self._prefix + name)
        if info is None:
            return b""
        if info.file_size > 64:
            raise malformed(f"its member {name} has {info.file_size} bytes")
        return self._archive.read(info)


def _checked_members(infos: list[zipfile.ZipInfo], size: int) -> dict[str, zipfile.ZipInfo]:
    members = {info.filename: info for info in infos}
    if len(members) != len(infos):
        raise malformed("two members of the archive have the same name")
    for info in infos:
        parts = info.filename.split("/")
        if {"", ".", ".."} & set(parts) or "\\" in info.filename or info.filename != info.orig_filename:
            raise malformed(f"the member name {shown(info.orig_filename)} leads out of the archive or is no file")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise CheckpointError(
                f"the member {shown(info.filename)} is compressed ({info.file_size} bytes from {info.compress_size}); "
                "torch.save never compresses. If you packed it again yourself, pack it without compression (zip -0)"
            )
    if len({name.partition("/")[0] for name in members}) > 1:
        raise CheckpointError("a zip archive with more than one folder, so not one that torch.save wrote")
    if sum(info.file_size for info in infos) > size:
        raise malformed("the members of the archive overlap: together they are longer than the file")
    return members


class LegacyStorages:
    """The format before torch 1.6: four pickles and the list of storages, then each storage with its length."""

    def __init__(self, file: BinaryIO, machine: Interpreter) -> None:
        """Find the storages that `machine` met; `file` stands after the list of their keys, which is read here."""
        self._file = file
        self._offsets: dict[str, int] = {}
        keys = machine.run()
        if not isinstance(keys, list):
            raise malformed("the list of its storages is no list")
        for key in keys:
            ref = machine.storages.get(key) if isinstance(key, str) else None
            if ref is None:
                raise malformed("it lists a storage that no tensor uses")
            self._offsets[ref.key] = self._skip(ref)

    def _skip(self, ref: StorageRef) -> int:
        numel = int.from_bytes(self._file.read(8), "little")
        if numel != ref.numel:
            raise malformed(f"storage {shown(ref.key)} has {numel} elements instead of {ref.numel}")
        start = self._file.tell()
        if start + ref.nbytes > self._file.seek(0, 2):
            raise malformed(f"the file ends inside storage {shown(ref.key)}")
        self._file.seek(start + ref.nbytes)
        return start

    def read(self, ref: StorageRef) -> bytearray:
        """The bytes of a storage; CheckpointError if the file does not hold it."""
        if ref.key not in self._offsets:
            raise malformed(f"storage {shown(ref.key)} is not in the file")
        self._file.seek(self._offsets[ref.key])
        data = bytearray(self._file.read(ref.nbytes))
        if len(data) != ref.nbytes:
            raise malformed(f"the file ends inside storage {shown(ref.key)}")
        return data


def read_legacy_head(machine: Interpreter) -> None:
    """Read the magic number, the protocol and the system's properties; raises CheckpointError."""
    if machine.run() != LEGACY_MAGIC:
        raise CheckpointError(
            "a pickle that torch.save did not write. Open it in the program that wrote it and save its tensors with "
            "torch.save or safetensors.torch.save_file"
        )
    if machine.run() != _LEGACY_PROTOCOL:
        raise malformed(f"the legacy format has only the protocol {_LEGACY_PROTOCOL}")
    system = machine.run()
    if not isinstance(system, dict):
        raise malformed("the properties of the system that wrote it are no dict")
    _check_byte_order("little" if system.get("little_endian") is True else "big")


def _check_byte_order(order: str) -> None:
    if order != sys.byteorder:
        raise CheckpointError(
            f"written {shown(order)}-endian and this machine is {sys.byteorder}-endian. Convert it to safetensors on "
            "the machine that wrote it"
        )
