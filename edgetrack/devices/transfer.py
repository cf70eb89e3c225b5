"""Files on their way: uploads that go on where they stopped, and results that are written only when all have come."""

from __future__ import annotations

import asyncio
import hashlib
import re
import stat
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetrack.bundle.manifest import FileInfo
from edgetrack.devices import protocol
from edgetrack.devices.ssh import import_asyncssh
from edgetrack.errors import WorkerError
from edgetrack.io import open_regular, read_bytes, sha256, write_whole
from edgetrack.presentation.sanitize import printable

LARGEST_RESULT = 512 << 20
"""Bytes of one file that a device may send."""
CHUNK = 4 << 20
"""Bytes that are on their way at once: of an upload that was cut off, the last such piece is sent again."""
_AT_ONCE = 8
"""Files that are sent at the same time, since each waits for several answers of the device."""
_PLAIN = re.compile(r"[^./][^/]*(/[^./][^/]*)*\Z")
Moved = Callable[[int], None]
"""Is told how many more bytes have come or gone."""


@dataclass(frozen=True)
class JobOutput:
    """What a device may write on this machine: a file, or plain names in a folder.

    Attributes:
        there: file or folder below the job's folder on the device.
        here: where it belongs on this machine.
        names: which of the folder's files are taken, by their path in it; None: it is a file.
    """

    there: str
    here: Path
    names: re.Pattern[str] | None = None

    def place(self, name: str) -> Path | None:
        """Where a file of the device belongs; None where it is none of these.

        Args:
            name: its path below the job's folder.
        """
        if self.names is None:
            return self.here if name == self.there else None
        inner = name.removeprefix(f"{self.there}/")
        if inner == name or not (_PLAIN.match(inner) and inner.isprintable() and self.names.fullmatch(inner)):
            return None
        return self.here / inner


async def send(sftp: Any, sources: Mapping[str, Path], incoming: str, moved: Moved) -> None:
    """Upload files under their hashes, several at a time; what arrived of a large one before is not sent again.

    A part stays on the device when the connection is lost, and is removed when the device refuses to write.
    """
    waiting = deque(sources.items())

    async def worker() -> None:
        while waiting:
            name, source = waiting.popleft()
            try:
                await _send(sftp, source, f"{incoming}/{name}", moved)
            except BaseException:
                waiting.clear()
                raise

    workers = [worker() for _ in range(min(_AT_ONCE, len(sources)))]
    # All of them come to an end: one that fails, too, removes what it has written.
    ended = await asyncio.gather(*workers, return_exceptions=True)
    for fault in ended:
        if fault is not None:
            raise fault


async def _send(sftp: Any, source: Path, target: str, moved: Moved) -> None:
    asyncssh = import_asyncssh()
    start, size = 0, source.stat().st_size
    if size > CHUNK:
        with suppress(asyncssh.SFTPNoSuchFile):
            there = (await sftp.lstat(target)).size or 0
            # Pieces of one chunk arrive in any order: before the last chunk there are no holes.
            start = max(0, (min(there, size) - 1) // CHUNK) * CHUNK
    with open_regular(source) as file:
        file.seek(start)
        moved(start)
        try:
            async with sftp.open(target, "r+b" if start else "wb") as remote:
                while chunk := file.read(CHUNK):
                    await remote.write(chunk, start)
                    start += len(chunk)
                    moved(len(chunk))
        except (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection):
            raise
        except asyncssh.SFTPError:
            with suppress(Exception):
                await asyncio.wait_for(sftp.remove(target), protocol.BEAT_S)
            raise


@dataclass(frozen=True)
class FetchedFile:
    """A file of the device that came in full: where it lies now, and where it belongs."""

    scratch: Path
    here: Path


async def fetch(
    sftp: Any,
    label: str,
    done: protocol.VerbDone,
    outputs: Sequence[JobOutput],
    scratch: Path,
    moved: Moved,
) -> list[FetchedFile]:
    """Download what a job wrote, into a scratch folder; what lies here already is not fetched again.

    In a folder that was asked for, files of other names are left where they are.

    Raises:
        WorkerError: a file that was not asked for, is none, is too large or was changed on its way.
    """
    fetched: list[FetchedFile] = []
    for name, info in done.files.items():
        here = next((place for one in outputs if (place := one.place(name)) is not None), None)
        if here is None:
            if any(one.names is not None and name.startswith(f"{one.there}/") for one in outputs):
                continue  # of another job on the same data
            raise WorkerError(f"{label} names a file that was not asked for: {printable(name)}")
        if info.size > LARGEST_RESULT:
            raise WorkerError(f"{label}: {printable(name)} of {info.size} bytes is no result of edgetrack's")
        if not _same(here, info):
            path = scratch / str(len(fetched))
            await _fetch(sftp, label, f"{done.folder}/{name}", info, path, moved)
            fetched.append(FetchedFile(path, here))
    return fetched


def _same(path: Path, info: FileInfo) -> bool:
    try:
        return path.is_file() and path.stat().st_size == info.size and sha256(path) == info.sha256
    except OSError:
        return False


async def _fetch(sftp: Any, label: str, path: str, info: FileInfo, target: Path, moved: Moved) -> None:
    found = await sftp.lstat(path)
    # Opening a FIFO, or a device that never ends, would wait for as long as it likes.
    if found.permissions is None or not stat.S_ISREG(found.permissions) or found.size != info.size:
        raise WorkerError(f"{label}: what it names as {printable(path)} is not a file of {info.size} bytes")
    digest, left = hashlib.sha256(), info.size
    async with sftp.open(path, "rb") as file:
        with target.open("wb") as copy:
            while left and (data := await file.read(min(left, CHUNK))):
                digest.update(data)
                copy.write(data)
                left -= len(data)
                moved(len(data))
    if digest.hexdigest() != info.sha256:
        raise WorkerError(f"{label}: {printable(path)} was changed on its way here; type the same command again")


def keep(fetched: Sequence[FetchedFile]) -> Iterator[Path]:
    """Put files where they belong, each whole or not at all.

    Raises:
        EdgetrackError: one cannot be written.
    """
    for one in fetched:
        write_whole(one.here, read_bytes(one.scratch, LARGEST_RESULT))
        yield one.here
