"""What backends compile, kept between runs: found by key, checked by hash, in a folder that others cannot write.

Compiled graphs are code. A backend is handed only what was compiled from this graph, by this version, for this device,
and whose bytes are those that were recorded then; who can write there could otherwise run what he likes.
"""

from __future__ import annotations

import functools
import logging
import os
import stat
from collections.abc import Mapping
from pathlib import Path

import msgspec

from edgetrack.errors import EdgetrackError
from edgetrack.io import BAD_JSON, open_regular, read_bytes, sha256, write_whole

log = logging.getLogger(__name__)
CompiledKey = Mapping[str, str | int]
"""What a graph is compiled from, by and for."""
MAX_RECORD_BYTES = 1 << 16
MAX_COMPILED_BYTES = 4 << 30


class CompiledRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What lies beside a compiled graph."""

    key: dict[str, str | int]
    sha256: str


class CompiledCache:
    """A backend's compiled graphs in a folder of the cache.

    Args:
        root: the cache; None for none.
        backend: names the folder.
        what: one of them, for messages: "engine".
    """

    def __init__(self, root: Path | None, backend: str, what: str) -> None:
        self.what = what
        self.folder = None if root is None else _trusted(root / backend, what)

    def read(self, graph: str, name: str, key: CompiledKey) -> bytes | None:
        """The compiled graph `name` where its record and hash say that it is that of `key`; else None, with a word.

        Args:
            graph: its name, for messages.
            name: of the file.
            key: what it has to be.
        """
        if self.folder is None:
            return None
        file = self.folder / name
        beside = file.with_suffix(".json")
        if not beside.is_file() or not file.is_file():
            return None
        start = f"graph {graph}: the cached {self.what}"
        if not (_is_private(beside) and _is_private(file)):
            log.warning("%s belongs to, or can be written by, others: building again", start)
            return None
        try:
            record = msgspec.json.decode(read_bytes(beside, MAX_RECORD_BYTES), type=CompiledRecord)
            with open_regular(file, follow=False) as opened:
                data = opened.read(MAX_COMPILED_BYTES)
        except (OSError, *BAD_JSON) as error:
            log.warning("%s or its record is damaged (%s): building again", start, error)
            return None
        if record.key != key:
            differ = [f"{name} {record.key.get(name)!r}, needed is {value!r}" for name, value in key.items()
                      if record.key.get(name) != value]  # fmt: skip
            log.warning("%s was built by or for another: %s: building again", start, "; ".join(differ))
            return None
        if sha256(data) != record.sha256:
            log.warning("%s was changed after it was built: building again", start)
            return None
        return data

    def keep(self, name: str, data: bytes, key: CompiledKey) -> None:
        """Keep a compiled graph; where that fails, it is said and no error."""
        if self.folder is None:
            return
        file = self.folder / name
        record = CompiledRecord(key=dict(key), sha256=sha256(data))
        # The graph first: a record without its graph, or with another one's hash, is never loaded.
        try:
            write_whole(file, data)
            write_whole(file.with_suffix(".json"), msgspec.json.encode(record))
            for path in (file, file.with_suffix(".json")):
                path.chmod(0o600)
        except (EdgetrackError, OSError) as error:
            _say_once(f"the {self.what} is not cached: {error}")


def _trusted(folder: Path, what: str) -> Path | None:
    """The folder, made where it is missing; None, said once, where others could have put something there."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        whole = folder.resolve(strict=True)
        stranger = next((place for place in (whole, *whole.parents) if not _is_private(place, whole)), None)
    except OSError as error:
        _say_once(f"{what}s are not cached: {folder}: {error.strerror or error}")
        return None
    if stranger is not None:
        _say_once(
            f"{what}s are not cached: {stranger} belongs to, or can be written by, others; type: chmod 700 "
            f"{stranger}, or set EDGETRACK_CACHE to a folder of your own"
        )
        return None
    return folder


def _is_private(path: Path, folder: Path | None = None) -> bool:
    """Whether nobody but this user can write a file or folder; one above `folder` may be root's, or be sticky."""
    if not hasattr(os, "geteuid"):  # Windows: a profile's folder is its user's
        return True
    state = path.lstat()
    above = folder is not None and path != folder
    owners = {os.geteuid(), 0} if above else {os.geteuid()}
    others_write = state.st_mode & 0o022 and not (above and state.st_mode & stat.S_ISVTX)
    return state.st_uid in owners and not others_write and not stat.S_ISLNK(state.st_mode)


@functools.cache
def _say_once(text: str) -> None:
    log.warning("%s", text)
