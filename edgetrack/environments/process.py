"""Calls of a target's worker in the Python environment that is its own; arrays go by a file, nothing is pickled."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from edgetrack.arrays import Array
from edgetrack.environments import PythonEnvironment, serve
from edgetrack.environments.setup import require_ready
from edgetrack.errors import UsageError, WorkerError
from edgetrack.io import ScratchFolder, decode_line
from edgetrack.processes import JsonLinesProcess, error_by_name, thread_environ

CALL_TIMEOUT_S = 600.0
_Layout = tuple[str, str, tuple[int, ...], int]


class WorkerCall(msgspec.Struct, frozen=True):
    """A function of the worker, what it is given, and where its arrays lie in the file: name, dtype, shape, offset."""

    name: str
    arrays: list[_Layout]
    options: dict[str, Any]


class Said(msgspec.Struct, frozen=True, tag="said"):
    """A line of progress."""

    text: str


class Returned(msgspec.Struct, frozen=True, tag="returned"):
    """What the function returned."""

    arrays: list[_Layout]
    values: dict[str, Any]


class Raised(msgspec.Struct, frozen=True, tag="raised"):
    """What it raised: the name of the exception's class, and its text."""

    error: str
    message: str


_Reply = Said | Returned | Raised
_REPLIES: msgspec.json.Decoder[_Reply] = msgspec.json.Decoder(_Reply)


class Answer(msgspec.Struct, frozen=True):
    """What a call gave: arrays by name, and plain values."""

    arrays: dict[str, Array]
    values: dict[str, Any]


class EnvironmentProcess(JsonLinesProcess):
    """The worker of a target, running in its environment; a context manager, ended by `close`.

    Args:
        python: the environment's.
        worker: the worker's file.
        threads: that its libraries shall take.
    """

    def __init__(self, python: Path, worker: Path, threads: int = 1) -> None:
        self._scratch = ScratchFolder()
        self._files = {name: str(self._scratch.path / f"{name}.bin") for name in ("in", "out")}
        command = (str(python), "-I", serve.__file__, str(worker.absolute()), str(self._scratch.path))
        super().__init__(command, thread_environ(threads))

    def __enter__(self) -> EnvironmentProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(
        self,
        name: str,
        arrays: Mapping[str, Array] | None = None,
        *,
        say: Callable[[str], None] = lambda text: None,
        timeout_s: float = CALL_TIMEOUT_S,
        **options: Any,
    ) -> Answer:
        """Call a function of the worker.

        Args:
            name: of the function.
            arrays: of numbers or truth values, by name; none are changed.
            say: takes the function's lines of progress.
            timeout_s: longest wait for the next line.
            options: JSON values, which the function gets by keyword. Paths must be absolute.

        Raises:
            EdgetrackError: what the function raised, of the class of that name; WorkerError for any other exception.
            WorkerError: the process died, took too long or broke its protocol; it is of no more use then.
        """

        def more(reply: _Reply) -> bool:
            if isinstance(reply, Said):
                say(reply.text)
            return isinstance(reply, Said)

        layout = serve.write_arrays(self._files["in"], arrays or {})
        call = WorkerCall(name, [(one, kind, tuple(shape), at) for one, kind, shape, at in layout], options)
        reply = self.exchange(call, _decode, timeout_s, more=more)
        if isinstance(reply, Raised):
            raise error_by_name(reply.error, reply.message)
        if not isinstance(reply, Returned):
            raise WorkerError("broke its protocol: said something after it had answered")
        try:
            return Answer(serve.read_arrays(self._files["out"], reply.arrays), reply.values)
        except (ValueError, TypeError, OSError) as error:
            raise WorkerError(f"broke its protocol: its arrays cannot be read: {error}") from None

    def close(self) -> None:
        """End it, however busy it is; safe to call twice."""
        super().close()
        self._scratch.remove()


def _decode(line: bytes) -> _Reply:
    def broken(shown: str, why: str) -> WorkerError:
        return WorkerError(f"broke its protocol: {shown} is no reply: {why}")

    return decode_line(line, _REPLIES, broken)


def open_environment(environment: PythonEnvironment, *, threads: int = 1) -> EnvironmentProcess:
    """Start the worker of a target in its environment.

    Raises:
        BackendMissingError: the environment is not set up; the message says what to type.
        UsageError: the target's package lacks the worker that it names.
    """
    python = require_ready(environment)
    return EnvironmentProcess(python, worker_file(environment), threads)


def worker_file(environment: PythonEnvironment) -> Path:
    """The file of the worker; it is not imported, only the packages that it lies in.

    Raises:
        UsageError: there is none.
    """
    try:
        spec = importlib.util.find_spec(environment.worker)
    except ImportError as error:
        raise UsageError(f"the worker {environment.worker!r} of environment {environment.name!r}: {error}") from None
    if spec is None or spec.origin is None:
        raise UsageError(
            f"environment {environment.name!r} names the worker {environment.worker!r}, which its package lacks"
        )
    return Path(spec.origin)
