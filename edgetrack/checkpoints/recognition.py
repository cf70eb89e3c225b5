"""What a file is, from its first bytes: a weights file, or one of the things that are found in its place."""

from __future__ import annotations

from edgetrack.checkpoints.policy import shown
from edgetrack.errors import CheckpointError

HEAD_BYTES = 512
"""How much of a file `recognise` wants to see."""

_MAX_SAFETENSORS_HEADER = 100_000_000

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
    if _is_safetensors(head):
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


def _is_safetensors(head: bytes) -> bool:
    # The length of a JSON header, as 8 bytes, and the header. The library refuses longer headers too.
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _MAX_SAFETENSORS_HEADER


def _is_text(head: bytes) -> bool:
    return all(byte >= 0x20 or byte in b"\t\n\r\f" for byte in head)
