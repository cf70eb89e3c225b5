"""The agent on the device: `python -m edgetrack.devices.agent`, started over SSH; it ends with the connection.

It reads requests on stdin and answers on stdout (`protocol.py`). When stdin ends, or nothing arrives for a minute, it
ends the verb with all its processes and removes its files: a broken network closes no pipe, so the end of stdin
alone would not do.
"""

from __future__ import annotations

import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, BinaryIO

import psutil

from edgetrack import __version__
from edgetrack.bundle.manifest import FileInfo
from edgetrack.devices import protocol
from edgetrack.devices.protocol import AgentReply, AgentRequest, Refused, VerbDone, VerbJob, VerbLog, VerbStep
from edgetrack.errors import BundleIntegrityError, DeviceUnavailableError, EdgetrackError
from edgetrack.io import encode_line, locked, sha256
from edgetrack.presentation.progress import step_of
from edgetrack.processes import NO_DEFAULTS, python_command
from edgetrack.resources import cache_folder

VERB_COMMAND = python_command("edgetrack")
_POLL_S = 0.2
_LOG_LINE = 2000
_TELL_S = 1.0
KEEP_BYTES = 4 << 30
"""Kept for the next job, and more where half of the free disk is more; what was not used for longest goes first."""
_UPLOAD_KEPT_S = 7 * 86_400.0
_JOB_KEPT_S = 30 * 86_400.0


class Store:
    """A folder of the user's: checked files, uploads that were not checked, and a folder for the jobs on each data.

    Attributes:
        files: checked files, each named by its hash.
        incoming: uploads, each named by the hash that it should have.
        jobs: folders named by a hash of the data; in between jobs they hold what those keep.
    """

    def __init__(self, root: Path) -> None:
        self.files, self.incoming, self.jobs = root / "files", root / "incoming", root / "jobs"
        self._lock = root / "lock"
        for folder in (self.files, self.incoming, self.jobs):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    @classmethod
    def default(cls) -> Store:
        """Under the user's cache folder, swept.

        Raises:
            EdgetrackError: there is none, or it cannot be written.
        """
        cache = cache_folder()
        if cache is None:
            raise EdgetrackError("the device has no cache folder that can be written; set EDGETRACK_CACHE there")
        store = cls(cache / "devices")
        store.sweep()
        return store

    @property
    def free(self) -> int:
        """Bytes that the disk has free."""
        return shutil.disk_usage(self.files).free

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
                f"a file was changed on its way to the device (sha256 {file.sha256[:16]}...); it was removed there: "
                "type the same command again"
            )
        raise BundleIntegrityError(f"a file did not reach the device (sha256 {file.sha256[:16]}...)")

    @contextmanager
    def job_folder(self, data: str) -> Iterator[Path]:
        """The folder of jobs on this data, for one job that has the device to itself while the block runs.

        Raises:
            DeviceUnavailableError: another workstation's job runs.
        """
        with ExitStack() as held:
            try:
                held.enter_context(locked(self._lock, timeout_s=0))
            except TimeoutError:
                raise DeviceUnavailableError(
                    "another workstation measures on the device; two at once would slow each other: wait until it is "
                    "done"
                ) from None
            for left in self.jobs.iterdir():  # by an agent that was killed
                _clear(left)
            folder = self.jobs / data
            folder.mkdir(exist_ok=True)
            os.utime(folder)
            try:
                yield folder
            finally:
                _clear(folder)

    def place(self, files: Iterable[tuple[str, FileInfo]], folder: Path) -> Iterator[str]:
        """Put files into a job's folder, one for each step.

        Raises:
            BundleIntegrityError: a file is missing or has another hash.
        """
        for name, info in files:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            kept = self.take(info)
            try:
                os.link(kept, target)
            except OSError:  # a file system without links
                shutil.copyfile(kept, target)
            yield name

    def sweep(self) -> None:
        """Remove jobs, parts of uploads and files that were not used for long."""
        now = time.time()
        for folder in self.jobs.iterdir():
            with suppress(OSError):
                if now - folder.lstat().st_mtime > _JOB_KEPT_S:
                    shutil.rmtree(folder, ignore_errors=True)
        for path in self.incoming.iterdir():
            with suppress(OSError):
                if now - path.lstat().st_mtime > _UPLOAD_KEPT_S:
                    path.unlink()
        with suppress(OSError):
            newest = sorted(self.files.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
            kept, most = 0, max(KEEP_BYTES, self.free // 2)
            for path in newest:
                kept += path.stat().st_size
                if kept > most:
                    path.unlink()


def _clear(folder: Path) -> None:
    """Remove what a job does not keep."""
    for path in folder.iterdir():
        if path.name == protocol.KEPT:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    with suppress(OSError):  # it keeps something
        folder.rmdir()


class GoneError(Exception):
    """The workstation has ended the connection, or is silent."""


class Agent:
    """Serves one workstation.

    Args:
        requests, replies: its pipes.
        store: where files are kept.
        patience_s: the longest silence before the workstation is taken for gone.
        command: what starts edgetrack.

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
        command: Sequence[str] = VERB_COMMAND,
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
        try:
            with ExitStack() as held:
                self._answer(held)
        except GoneError:
            return
        except OSError as error:
            self._say(Refused("EdgetrackError", f"on the device: {error.strerror or error}"))
        except EdgetrackError as error:
            self._say(Refused(type(error).__name__, str(error)))

    def _answer(self, held: ExitStack) -> None:
        self._say(protocol.AgentReady(protocol.PROTOCOL, __version__, str(self._store.incoming)))
        folder: Path | None = None
        while not isinstance(request := self._next(self._patience_s), protocol.Clean):
            if isinstance(request, protocol.NeededFiles):
                self._say(protocol.MissingFiles(self._store.missing(request.files), self._store.free))
            if isinstance(request, protocol.PlacedFiles):
                folder = folder or held.enter_context(self._store.job_folder(request.data))
                self._place(request, folder)
            if isinstance(request, VerbJob):
                if folder is None:
                    raise EdgetrackError("the workstation has placed no file, not even a bundle")
                self._say(self._run(request, folder))

    def _place(self, request: protocol.PlacedFiles, folder: Path) -> None:
        told, total = time.monotonic(), len(request.files)
        for step, _ in enumerate(self._store.place(request.files.items(), folder), 1):
            if time.monotonic() - told >= _TELL_S:
                told = time.monotonic()
                self._say(VerbStep("checking the files on the device", step, total))

    def _run(self, request: VerbJob, folder: Path) -> VerbDone:
        """Run the verb in a process of its own, and say how it ended."""
        (folder / protocol.RESULTS).mkdir(exist_ok=True)
        with (
            (folder / protocol.OUTPUT).open("wb") as output,
            subprocess.Popen(
                [*self._command, request.verb, "--verbose", *request.arguments],
                cwd=folder,
                env={**os.environ, **NO_DEFAULTS},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.PIPE,
                start_new_session=True,
            ) as process,
        ):
            try:
                words = threading.Thread(target=self._forward, args=(process.stderr,), daemon=True)
                words.start()
                while process.poll() is None:
                    if not isinstance(self._next(_POLL_S), protocol.Beat | None):
                        raise GoneError
            finally:
                end(process.pid)
            words.join()
        found = {path.relative_to(folder).as_posix(): path for name in request.wanted for path in _under(folder / name)}
        files = {name: FileInfo(size=path.stat().st_size, sha256=sha256(path)) for name, path in found.items()}
        return VerbDone(process.returncode, str(folder), files)

    def _forward(self, words: IO[bytes] | None) -> None:
        if words is not None:
            with suppress(OSError, ValueError, GoneError):
                for data in iter(lambda: words.readline(_LOG_LINE), b""):
                    line = data.decode("utf-8", "replace").rstrip("\n")
                    step = step_of(line)
                    self._say(VerbLog(line) if step is None else VerbStep(*step))

    def _next(self, wait_s: float) -> AgentRequest | None:
        """The next request; None: there was none in that time.

        Raises:
            GoneError: no more will come, or none came for too long.
        """
        try:
            line = self._lines.get(timeout=wait_s)
        except queue.Empty:
            self._silent_s += wait_s
            if self._silent_s >= self._patience_s:
                raise GoneError from None
            return None
        self._silent_s = 0.0
        if not line:
            raise GoneError
        return protocol.decode_request(line)

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


def _under(path: Path) -> Iterator[Path]:
    """The file, or the files below the folder; no link, pipe or device, and no part of a file that was never done."""
    for one in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if one.is_file() and not one.is_symlink() and not one.name.startswith("."):
            yield one


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
