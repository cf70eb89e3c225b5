"""Which edgetrack a Python environment runs: a change of edgetrack itself is measured by two installations."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import msgspec

import edgetrack
from edgetrack.benchmark.protocol import Start, Worker, WorkerProcess
from edgetrack.errors import UsageError
from edgetrack.gate.report import CodeNote
from edgetrack.io import BAD_JSON
from edgetrack.processes import thread_environ

_WORKER = ("-I", "-m", "edgetrack.benchmark.worker")
"""Isolated, because Python otherwise takes the edgetrack of a checkout that happens to be the current folder."""
_TIMEOUT_S = 60.0
_ASK = "import json, edgetrack; print(json.dumps([edgetrack.__version__, edgetrack.__file__]))"


def own_code() -> CodeNote:
    """The edgetrack of this process."""
    return CodeNote(version=edgetrack.__version__, digest=_digest(Path(edgetrack.__file__).parent))


def code_of(python: Path) -> CodeNote:
    """The edgetrack that another Python would run.

    Raises:
        UsageError: there is no such program, or it has no edgetrack.
    """
    try:
        done = subprocess.run(
            [str(python), "-I", "-c", _ASK], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(
            f"--baseline-python {python} cannot be run: {error}; give an environment's bin/python"
        ) from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UsageError(
            f"{python} cannot import edgetrack ({last}); install the baseline there: {python} -m pip install PATH"
        )
    try:
        version, file = msgspec.json.decode(done.stdout, type=tuple[str, str])
    except BAD_JSON:
        raise UsageError(f"{python} did not say which edgetrack it has; give an environment's bin/python") from None
    return CodeNote(version=version, digest=_digest(Path(file).parent))


def starter(python: Path) -> Start:
    """Starts workers on that Python.

    They run isolated: neither PYTHONPATH nor the current folder decides which edgetrack they import.
    """

    def start(label: str, threads: int) -> Worker:
        return WorkerProcess((str(python), *_WORKER), thread_environ(threads))

    return start


def own_starter(own: CodeNote) -> Start:
    """Starts workers on this Python, with the edgetrack of this process.

    Raises:
        UsageError: an isolated worker would run another one.
    """
    python = Path(sys.executable)
    if code_of(python) != own:
        raise UsageError(
            f"{python} runs another edgetrack than this process has imported; install this one there, or run "
            "edgetrack from outside the checkout"
        )
    return starter(python)


def _digest(package: Path) -> str:
    names = sorted(path.relative_to(package).as_posix() for path in package.rglob("*.py"))
    files = [(name, hashlib.sha256((package / name).read_bytes()).hexdigest()) for name in names]
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()
