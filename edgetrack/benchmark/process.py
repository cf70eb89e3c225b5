"""The parent's side of a worker process: start it, ask it, wait until it rests, end it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import psutil

from edgetrack import errors
from edgetrack.benchmark import protocol
from edgetrack.benchmark.protocol import Failure, ReplyT, WorkerRequest
from edgetrack.errors import EdgetrackError, WorkerError
from edgetrack.io import encode_line
from edgetrack.resources import THREAD_VARIABLES

COMMAND = (sys.executable, "-m", "edgetrack.benchmark.worker")
_LONGEST_LINE = 256 * 2**20
_GRACE_S = 5.0
_STDERR_TAIL = 2000
_REST_STEP_S = 0.05
_REST_STEPS = 40
_TICK_S = 0.011
"""One tick of the kernel's accounting of processor time, and a little."""


class Worker(Protocol):
    """Somebody who answers requests."""

    def ask(self, request: WorkerRequest, expect: type[ReplyT], timeout_s: float) -> ReplyT:
        """The answer, which must be of the expected kind.

        Raises:
            WorkerError: it died, took too long or broke its protocol.
            EdgetrackError: what it says went wrong, of the same class.
        """

    def rest(self) -> bool:
        """Wait until it computes nothing any more; False where it still does after two seconds."""

    def close(self) -> None:
        """End it, however busy it is; safe to call twice."""


Start = Callable[[str, int], Worker]
"""Starts a worker for the candidate of that label, for a number of threads."""


def start_worker(label: str, threads: int) -> Worker:
    """A worker process whose libraries are told the number of threads before they are loaded.

    `OMP_WAIT_POLICY` is left alone: a thread pool that sleeps between layers is not the one that users run.
    """
    return WorkerProcess(COMMAND, worker_environ(threads))


def worker_environ(threads: int) -> dict[str, str]:
    """This process's environment with the number of threads that a worker's libraries shall take."""
    return {**os.environ, **{name: str(threads) for name in THREAD_VARIABLES}}


class WorkerProcess:
    """A worker in a process of its own.

    Args:
        command: the program and its arguments.
        environ: its environment.
        sleep: waits that many seconds.
    """

    def __init__(
        self, command: Sequence[str], environ: Mapping[str, str], *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._sleep = sleep
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        # A session of its own: Ctrl-C stops the benchmark, which then saves what it has and ends its workers.
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=dict(environ),
            bufsize=0,
            start_new_session=True,
        )
        if self._process.stdin is None or self._process.stdout is None:
            raise WorkerError("was started without pipes")
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._pending = bytearray()
        self._in_step = True

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def ask(self, request: WorkerRequest, expect: type[ReplyT], timeout_s: float) -> ReplyT:
        """Send a request and wait for its answer; see `Worker.ask`."""
        if not self._in_step:
            raise WorkerError("was asked again after it had failed")
        self._in_step = False
        self._write(encode_line(request))
        reply = protocol.decode_reply(self._line(timeout_s))
        if not isinstance(reply, (expect, Failure)):
            raise WorkerError(f"broke its protocol: answered {type(request).__name__} with {type(reply).__name__}")
        self._in_step = True
        if isinstance(reply, Failure):
            raise _as_error(reply)
        return reply

    def rest(self) -> bool:
        """Wait until the process's threads have stopped spinning; see `Worker.rest`."""
        try:
            process = psutil.Process(self.pid)
            before = _cpu_s(process)
            for _ in range(_REST_STEPS):
                self._sleep(_REST_STEP_S)
                now = _cpu_s(process)
                if now - before <= _TICK_S:
                    return True
                before = now
        except psutil.Error:
            return True
        return False

    def close(self) -> None:
        """Let the process end, kill it where it is in the middle of something or does not, and collect it."""
        if not self._in_step:
            self._process.kill()
        self._stdin.close()
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stdout.close()
        self._stderr.close()

    def _write(self, line: bytes) -> None:
        try:
            self._stdin.write(line)
        except OSError:
            raise WorkerError(self._epitaph()) from None

    def _line(self, timeout_s: float) -> bytes:
        end = time.monotonic() + timeout_s
        while b"\n" not in self._pending:
            ready, _, _ = select.select([self._stdout], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise WorkerError(f"gave no answer within {timeout_s:g} s and was ended; a slow device needs --timeout")
            part = os.read(self._stdout.fileno(), 1 << 20)
            if not part:
                raise WorkerError(self._epitaph())
            self._pending += part
            if len(self._pending) > _LONGEST_LINE:
                raise WorkerError(f"broke its protocol: a line of more than {_LONGEST_LINE >> 20} MB")
        line, _, rest = bytes(self._pending).partition(b"\n")
        self._pending = bytearray(rest)
        return line

    def _epitaph(self) -> str:
        """How the process ended, with the end of what it wrote to stderr."""
        try:
            code = self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            return "closed its output while still running"
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - _STDERR_TAIL))
        said = self._stderr.read().decode("utf-8", "replace").strip().splitlines()
        return f"the process was {how}" + (f"; its last words: {said[-1]}" if said else "")


def _as_error(failure: Failure) -> EdgetrackError:
    kind = getattr(errors, failure.error, None)
    if isinstance(kind, type) and issubclass(kind, EdgetrackError):
        return kind(failure.message)
    return WorkerError(f"{failure.error}: {failure.message}")


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
