"""The device's end: `python -m edgetrack.devices.agent`, started over SSH, ends with the connection.

It reads requests on stdin and answers on stdout (`protocol.py`). When stdin ends, or nothing came for its patience,
it ends the benchmark with all its processes and removes what belongs to it: a network that is gone closes no pipe,
so the end of stdin alone would not do.
"""

from __future__ import annotations

import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, BinaryIO

import psutil

from edgetrack import __version__
from edgetrack.bundle.manifest import FileInfo
from edgetrack.bundle.ref import bundle_label
from edgetrack.devices import protocol
from edgetrack.devices.protocol import (
    AgentReady,
    AgentReply,
    Beat,
    BenchDone,
    BenchJob,
    BenchLog,
    Clean,
    MissingFiles,
    NeededFiles,
    Refused,
    SentBundle,
)
from edgetrack.errors import BundleIntegrityError, DeviceUnavailableError, EdgetrackError
from edgetrack.io import encode_line, locked, sha256
from edgetrack.resources import cache_folder

BENCH_COMMAND = (sys.executable, "-m", "edgetrack", "bench")
_POLL_S = 0.2
_LOG_LINE = 2000
KEEP_BYTES = 4 << 30
"""What is kept for next time; the files that were not used for longest go first."""
_UPLOAD_KEPT_S = 86_400.0


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

    def begin(self) -> DeviceRun:
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
        return DeviceRun(Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=self.runs)), self, held)

    def sweep(self) -> None:
        """Remove runs whose process has ended, parts of uploads, and the files that were not used for longest."""
        for folder in self.runs.iterdir():
            pid = folder.name.partition("-")[0]
            if not (pid.isdigit() and psutil.pid_exists(int(pid))):
                shutil.rmtree(folder, ignore_errors=True)
        for path in self.incoming.iterdir():
            with suppress(OSError):
                if time.time() - path.lstat().st_mtime > _UPLOAD_KEPT_S:
                    path.unlink()
        with suppress(OSError):
            newest = sorted(self.files.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
            kept = 0
            for path in newest:
                kept += path.stat().st_size
                if kept > KEEP_BYTES:
                    path.unlink()


@dataclass(frozen=True)
class DeviceRun:
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


class GoneError(Exception):
    """The workstation is not there any more."""


class Agent:
    """Serves one workstation.

    Args:
        requests, replies: its pipes.
        store: where files lie.
        patience_s: longest silence.
        command: starts a benchmark.

    Attributes:
        reader: the thread that reads the requests; it ends when they do.
    """

    def __init__(
        self,
        requests: BinaryIO,
        replies: BinaryIO,
        store: Store,
        *,
        patience_s: float = protocol.PATIENCE_S,
        command: Sequence[str] = BENCH_COMMAND,
    ) -> None:
        self._requests = requests
        self._replies = replies
        self._store = store
        self._patience_s = patience_s
        self._command = command
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._lock = threading.Lock()
        self._silent_s = 0.0
        self.reader = threading.Thread(target=self._read, name="requests", daemon=True)

    def serve(self) -> None:
        """Until the workstation has what it came for, or is gone."""
        self.reader.start()
        run: DeviceRun | None = None
        try:
            self._say(AgentReady(protocol.PROTOCOL, __version__, str(self._store.incoming)))
            while True:
                request = protocol.decode_request(self._next())
                if isinstance(request, Clean):
                    return
                if isinstance(request, NeededFiles):
                    self._say(MissingFiles(self._store.missing(request.files)))
                if isinstance(request, BenchJob):
                    run = run or self._store.begin()
                    self._say(self._bench(request, run))
        except GoneError:
            return
        except OSError as error:
            self._say(Refused("EdgetrackError", f"on the device: {error.strerror or error}"))
        except EdgetrackError as error:
            self._say(Refused(type(error).__name__, str(error)))
        finally:
            if run is not None:
                run.remove()

    def _bench(self, request: BenchJob, run: DeviceRun) -> AgentReply:
        """Put the bundles together, run the benchmark in a process of its own, and say how it ended."""
        names = [bundle_label(str(run.assemble(bundle)), bundle.hint) for bundle in request.bundles]
        extra = ["--reference", str(run.assemble(request.reference))] if request.reference else []
        arguments = [*self._command, *request.options, *extra, "-o", str(run.record), "--", *names]
        with subprocess.Popen(
            arguments,
            cwd=run.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as process:
            try:
                words = threading.Thread(target=self._forward, args=(process.stderr,), daemon=True)
                words.start()
                while process.poll() is None:
                    self._hear()
            finally:
                end(process.pid)
            words.join()
        if not run.record.is_file():
            return BenchDone(process.returncode, None, None)
        info = FileInfo(size=run.record.stat().st_size, sha256=sha256(run.record))
        return BenchDone(process.returncode, str(run.record), info)

    def _forward(self, words: IO[bytes] | None) -> None:
        if words is not None:
            with suppress(OSError, ValueError, GoneError):
                for line in iter(lambda: words.readline(_LOG_LINE), b""):
                    self._say(BenchLog(line.decode("utf-8", "replace").rstrip("\n")))

    def _hear(self) -> None:
        """Wait a little for a sign of life.

        Raises:
            GoneError: there was none for too long.
        """
        try:
            line = self._lines.get(timeout=_POLL_S)
        except queue.Empty:
            self._silent_s += _POLL_S
            if self._silent_s > self._patience_s:
                raise GoneError from None
            return
        self._silent_s = 0.0
        if not line or not isinstance(protocol.decode_request(line), Beat):
            raise GoneError

    def _next(self) -> bytes:
        """The next request that is more than a sign of life."""
        while True:
            try:
                line = self._lines.get(timeout=self._patience_s)
            except queue.Empty:
                raise GoneError from None
            if not line:
                raise GoneError
            if not isinstance(protocol.decode_request(line), Beat):
                return line

    def _read(self) -> None:
        with suppress(OSError, ValueError):
            for line in iter(lambda: self._requests.readline(protocol.LONGEST_MESSAGE), b""):
                self._lines.put(line)
        self._lines.put(b"")

    def _say(self, reply: AgentReply) -> None:
        try:
            with self._lock:
                self._replies.write(encode_line(reply))
                self._replies.flush()
        except (OSError, ValueError):
            raise GoneError from None


def end(pid: int) -> None:
    """Kill a process and all that it has started, whichever sessions those are in."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        for member in family:
            with suppress(psutil.Error):
                member.kill()
        psutil.wait_procs(family[1:], timeout=_POLL_S)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def main() -> None:
    """Serve on this process's pipes; what libraries print to stdout goes to stderr."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, leave)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        Agent(sys.stdin.buffer, replies, Store.default()).serve()
    except EdgetrackError as error:
        replies.write(encode_line(Refused(type(error).__name__, str(error))))
    finally:
        with suppress(OSError):
            replies.close()
        # The thread that reads requests may hold stdin's lock for as long as the workstation says nothing.
        os._exit(0)


if __name__ == "__main__":
    main()
