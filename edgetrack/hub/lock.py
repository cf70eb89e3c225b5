"""The lock file: the hash that each address had when it was first trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from edgetrack.bundle.manifest import Name, Sha256
from edgetrack.decoding import decode_json
from edgetrack.errors import EdgetrackError
from edgetrack.io import encode_json, locked, read_bytes, write_whole

LOCK_FILE = Path("edgetrack-lock.json")
"""Its usual place, in the folder where `pull` is typed."""
_LARGEST = 4 << 20


class LockedBundle(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an address holds: the bundle's name, the zip's SHA-256 and size in bytes."""

    name: Name
    sha256: Sha256
    size: Annotated[int, msgspec.Meta(ge=0)]


class LockFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bundles by their address, without the part behind `#`."""

    schema: int = 1
    bundles: dict[Annotated[str, msgspec.Meta(max_length=2000)], LockedBundle] = {}


def read_lock(path: Path) -> LockFile:
    """What a lock file holds; nothing where there is none.

    Raises:
        EdgetrackError: it cannot be read, or is no lock file of this version.
    """
    if not path.exists():
        return LockFile()
    try:
        data = read_bytes(path, _LARGEST)
    except OSError as error:
        raise EdgetrackError(f"{path} cannot be read: {error.strerror or error}; give another --lock") from error
    found = decode_json(data, LockFile, lambda words: EdgetrackError(f"{path} is no lock file of edgetrack: {words}"))
    if found.schema != 1:
        raise EdgetrackError(f"{path} is a lock file of schema {found.schema}; this version reads schema 1")
    return found


def add_to_lock(path: Path, address: str, bundle: LockedBundle) -> None:
    """Write what was seen at an address; entries of other addresses stay, one of this address that differs too.

    Raises:
        EdgetrackError: it cannot be written, or another process has written another hash of this address meanwhile.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EdgetrackError(f"{path} cannot be written: {error.strerror or error}; give another --lock") from error
    with locked(path.with_name(f".{path.name}.lock")):
        known = read_lock(path)
        earlier = known.bundles.get(address)
        if earlier is not None and earlier.sha256 != bundle.sha256:
            raise EdgetrackError(f"{path}: {address} was given sha256 {earlier.sha256} meanwhile; pull it again")
        merged = LockFile(bundles=dict(sorted({**known.bundles, address: bundle}.items())))
        write_whole(path, encode_json(merged, indent=2) + b"\n")
