"""Child processes: one that answers JSON lines, how one ended, and errors that keep their class on the way."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec
import psutil

from edgetrack import errors
from edgetrack.errors import EdgetrackError, WorkerError
from edgetrack.io import encode_line
from edgetrack.resources import THREAD_VARIABLES

LONGEST_LINE = 256 << 20
_GRACE_S = 5.0
_STDERR_TAIL = 2000
_IDLE_STEP_S = 0.05
_IDLE_STEPS = 40
_TICK_S = 0.011
"""One tick of the kernel's accounting of processor time, and a little."""
_T = TypeVar("_T")
NO_DEFAULTS = {"EDGETRACK_DEFAULTS": "off"}
"""In the environment of a verb that another one starts: its options were said already."""
# Python 3.10 has no -P, and -I would also hide PYTHONPATH and what `pip install --user` has installed.
_SAFE_PATH = "import sys; f = sys.flags; f.isolated or getattr(f, 'safe_path', 0) or sys.path.pop(0); "
_END_WITH_PARENT = "import ctypes; ctypes.CDLL(None).prctl(1, 9); " if sys.platform == "linux" else ""
_RUN = "del sys.argv[0]; import runpy; runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"


def module_arguments(module: str, *arguments: str) -> tuple[str, ...]:
    """Make any Python run a module as `-m` does, without importing an inspect.py that lies in the current folder."""
    return ("-c", _SAFE_PATH + _RUN, module, *arguments)


def python_command(module: str, *arguments: str) -> tuple[str, ...]:
    """The same, run by this Python; on Linux the process is killed when the thread that started it has ended."""
    return (sys.executable, "-c", _SAFE_PATH + _END_WITH_PARENT + _RUN, module, *arguments)


def end_with_parent(parent: int) -> None:
    """On Linux, let this process be killed when the thread that started it has ended."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it was gone before
            os._exit(1)


@contextmanager
def isolated_children() -> Iterator[None]:
    """Children that a library starts meanwhile import nothing from the current folder.

    Python 3.10 knows no PYTHONSAFEPATH: there they start in the root folder, and must be told where to go.
    """
    before, folder = os.environ.get("PYTHONSAFEPATH"), Path.cwd() if sys.version_info < (3, 11) else None
    os.environ["PYTHONSAFEPATH"] = "1"
    if folder is not None:
        os.chdir(os.sep)
    try:
        yield
    finally:
        if folder is not None:
            os.chdir(folder)
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def thread_environ(threads: int) -> dict[str, str]:
    """This process's environment with the number of threads that a child's libraries shall take."""
    return {**os.environ, **{name: str(threads) for name in THREAD_VARIABLES}}


def error_by_name(name: str, message: str) -> EdgetrackError:
    """The error that another process reported, of the same class where it is one of edgetrack's."""
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, EdgetrackError):
        return kind(message)
    return WorkerError(f"{name}: {message}")


def exit_reason(code: int, stderr: str) -> str:
    """How a process ended, with the last line that it wrote to stderr; a negative code is a signal's."""
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    lines = stderr.strip().splitlines()
    return f"the process was {how}" + (f"; its last words: {lines[-1]}" if lines else "")


class JsonLinesProcess:
    """A process that answers each line of JSON on its stdin with one on its stdout.

    Args:
        command: the program and its arguments.
        environ: its environment.
        sleep: waits that many seconds.
        longest_line: most bytes of an answer.
    """

    def __init__(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        *,
        sleep: Callable[[float], None] = time.sleep,
        longest_line: int = LONGEST_LINE,
    ) -> None:
        self._sleep = sleep
        self._longest_line = longest_line
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        # A session of its own: Ctrl-C stops the parent, which then saves what it has and ends its children.
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

    def exchange(
        self,
        request: msgspec.Struct,
        decode: Callable[[bytes], _T],
        timeout_s: float,
        *,
        more: Callable[[_T], bool] = lambda reply: False,
    ) -> _T:
        """Send a request and decode the line that answers it; after an error the process is of no more use.

        Args:
            request: what is asked.
            decode: makes a reply of a line.
            timeout_s: longest wait for a line.
            more: takes a reply and tells whether another line follows it, which is the answer then.

        Raises:
            WorkerError: it died, took too long or broke its protocol.
            Exception: what `decode` raises.
        """
        if not self._in_step:
            raise WorkerError("was asked again after it had failed")
        self._in_step = False
        try:
            self._stdin.write(encode_line(request))
        except OSError:
            raise WorkerError(self._exit_reason()) from None
        while more(reply := decode(self._line(timeout_s))):
            pass
        self._in_step = True
        return reply

    def wait_idle(self) -> bool:
        """Wait until its threads have stopped spinning; False where it still computes after two seconds."""
        try:
            process = psutil.Process(self.pid)
            before = _cpu_s(process)
            for _ in range(_IDLE_STEPS):
                self._sleep(_IDLE_STEP_S)
                now = _cpu_s(process)
                if now - before <= _TICK_S:
                    return True
                before = now
        except psutil.Error:
            return True
        return False

    def close(self) -> None:
        """Let it end, kill it where it is in the middle of something or does not, and collect it; safe to repeat."""
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

    def _line(self, timeout_s: float) -> bytes:
        end = time.monotonic() + timeout_s
        while b"\n" not in self._pending:
            try:
                ready, _, _ = select.select([self._stdout], [], [], max(0.0, end - time.monotonic()))
            except OSError as error:  # Windows
                raise WorkerError(
                    f"cannot be waited for on this system ({error.strerror or error}); on Windows, run edgetrack in WSL"
                ) from None
            if not ready:
                raise WorkerError(f"gave no answer within {timeout_s:g} s and was ended; a slow device needs --timeout")
            part = os.read(self._stdout.fileno(), 1 << 20)
            if not part:
                raise WorkerError(self._exit_reason())
            self._pending += part
            if len(self._pending) > self._longest_line:
                raise WorkerError(f"broke its protocol: a line of more than {self._longest_line >> 20} MiB")
        line, _, rest = bytes(self._pending).partition(b"\n")
        self._pending = bytearray(rest)
        return line

    def _exit_reason(self) -> str:
        try:
            code = self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            return "closed its output while still running"
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - _STDERR_TAIL))
        return exit_reason(code, self._stderr.read().decode("utf-8", "replace"))


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
