"""The device's end: `python -m edgetrack.devices.agent`, started over SSH, ends with the connection.

It reads requests on stdin and answers on stdout (`protocol.py`). When stdin ends, or nothing came for its patience,
it ends the benchmark with all its processes and removes what belongs to it: a network that is gone closes no pipe,
so the end of stdin alone would not do.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import IO, BinaryIO

import psutil

from edgetrack import __version__
from edgetrack.bundle.manifest import FileInfo
from edgetrack.bundle.ref import bundle_label
from edgetrack.devices import protocol
from edgetrack.devices.protocol import Beat, Bench, Clean, Done, Log, Missing, Need, Ready, Refused, Reply
from edgetrack.devices.store import Run, Store
from edgetrack.errors import EdgetrackError
from edgetrack.io import encode_line, sha256

COMMAND = (sys.executable, "-m", "edgetrack", "bench")
_TICK_S = 0.2
_LOG_LINE = 2000


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
        command: Sequence[str] = COMMAND,
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
        run: Run | None = None
        try:
            self._say(Ready(protocol.PROTOCOL, __version__, str(self._store.incoming)))
            while True:
                request = protocol.decode_request(self._next())
                if isinstance(request, Clean):
                    return
                if isinstance(request, Need):
                    self._say(Missing(self._store.missing(request.files)))
                if isinstance(request, Bench):
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

    def _bench(self, request: Bench, run: Run) -> Reply:
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
            return Done(process.returncode, None, None)
        info = FileInfo(size=run.record.stat().st_size, sha256=sha256(run.record))
        return Done(process.returncode, str(run.record), info)

    def _forward(self, words: IO[bytes] | None) -> None:
        if words is not None:
            with suppress(OSError, ValueError, GoneError):
                for line in iter(lambda: words.readline(_LOG_LINE), b""):
                    self._say(Log(line.decode("utf-8", "replace").rstrip("\n")))

    def _hear(self) -> None:
        """Wait a little for a sign of life.

        Raises:
            GoneError: there was none for too long.
        """
        try:
            line = self._lines.get(timeout=_TICK_S)
        except queue.Empty:
            self._silent_s += _TICK_S
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
            for line in iter(lambda: self._requests.readline(protocol.LONGEST_LINE), b""):
                self._lines.put(line)
        self._lines.put(b"")

    def _say(self, reply: Reply) -> None:
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
        psutil.wait_procs(family[1:], timeout=_TICK_S)


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
