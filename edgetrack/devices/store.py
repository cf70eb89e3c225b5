"""Files on a device, by hash: what is there is not sent again, nothing is used before its hash was checked there."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from edgetrack.bundle.manifest import FileInfo
from edgetrack.devices.protocol import SentBundle
from edgetrack.errors import BundleIntegrityError, DeviceUnavailableError, EdgetrackError
from edgetrack.io import locked, sha256
from edgetrack.resources import cache_folder

KEEP_BYTES = 4 << 30
"""What is kept for next time; the files that were not used for longest go first."""
_STALE_S = 86_400.0


@dataclass(frozen=True)
class Store:
    """A folder of the user's, with `files` that were checked, `incoming` that were not, and `runs`."""

    root: Path

    @classmethod
    def default(cls) -> Store:
        """Under the user's cache folder.

        Raises:
            EdgetrackError: there is none, or it cannot be written.
        """
        cache = cache_folder()
        if cache is None:
            raise EdgetrackError("the device has no cache folder that can be written; set EDGETRACK_CACHE there")
        store = cls(cache / "devices")
        for folder in (store.files, store.incoming, store.runs):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        store.sweep()
        return store

    @property
    def files(self) -> Path:
        """Checked files, each named by its hash."""
        return self.root / "files"

    @property
    def incoming(self) -> Path:
        """Uploads, each named by the hash that it should have."""
        return self.root / "incoming"

    @property
    def runs(self) -> Path:
        """One folder per running agent, named by its process."""
        return self.root / "runs"

    def missing(self, files: Sequence[FileInfo]) -> list[str]:
        """The hashes of those that are not there in their full size."""
        there = {file.sha256 for file in files if _size(self.files / file.sha256) == file.size}
        return sorted({file.sha256 for file in files} - there)

    def take(self, file: FileInfo) -> Path:
        """A file that was checked, now or when it came; an upload that is not what it should be is removed.

        Raises:
            BundleIntegrityError: it is not there, or its content has another hash.
        """
        kept, sent = self.files / file.sha256, self.incoming / file.sha256
        for path in (sent, kept):
            if not path.is_file() or path.is_symlink():
                continue
            if _size(path) == file.size and sha256(path) == file.sha256:
                path.replace(kept)
                os.utime(kept)
                return kept
            path.unlink()
            raise BundleIntegrityError(
                f"a file of the bundle was changed on its way to the device (sha256 {file.sha256[:16]}...); it was "
                "removed there: type the same command again"
            )
        raise BundleIntegrityError(f"a file of the bundle did not reach the device (sha256 {file.sha256[:16]}...)")

    def begin(self) -> Run:
        """A folder for one benchmark, which has the device to itself until `remove`.

        Raises:
            DeviceUnavailableError: another workstation's benchmark runs.
        """
        held = ExitStack()
        try:
            held.enter_context(locked(self.root / "lock", timeout_s=0))
        except TimeoutError:
            raise DeviceUnavailableError(
                "another workstation measures on the device; two at once would slow each other: wait until it is done"
            ) from None
        return Run(Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=self.runs)), self, held)

    def sweep(self) -> None:
        """Remove runs whose process has ended, parts of uploads, and the files that were not used for longest."""
        for folder in self.runs.iterdir():
            pid = folder.name.partition("-")[0]
            if not (pid.isdigit() and psutil.pid_exists(int(pid))):
                shutil.rmtree(folder, ignore_errors=True)
        for path in self.incoming.iterdir():
            with suppress(OSError):
                if time.time() - path.lstat().st_mtime > _STALE_S:
                    path.unlink()
        with suppress(OSError):
            newest = sorted(self.files.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
            kept = 0
            for path in newest:
                kept += path.stat().st_size
                if kept > KEEP_BYTES:
                    path.unlink()


@dataclass(frozen=True)
class Run:
    """One benchmark's folder."""

    folder: Path
    store: Store
    _held: ExitStack

    @property
    def record(self) -> Path:
        """Where the benchmark writes what it found."""
        return self.folder / "record.json"

    def assemble(self, bundle: SentBundle) -> Path:
        """A bundle's folder from the store.

        Raises:
            BundleIntegrityError: a file is missing or has another hash.
        """
        folder = self.folder / bundle.name
        for name, info in bundle.files.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.store.take(info), target)
        return folder

    def remove(self) -> None:
        """Remove the folder, and leave the device to others."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._held.close()


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
