"""Make a target's environment: the commands, how far they have come, and running them, only where that was asked for.

Every finished step is kept in a record in the environment's folder, so that an interrupted setup resumes.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgetrack.decoding import decode_json
from edgetrack.environments import PythonEnvironment
from edgetrack.errors import BackendMissingError, EdgetrackError, UsageError
from edgetrack.io import encode_json, locked, read_bytes, replace_whole, sha256
from edgetrack.presentation.progress import Progress
from edgetrack.resources import RunCommand, command_output

RECORD_FILE = "edgetrack-environment.json"
_LARGEST_RECORD = 64 << 10
_LAST_LINES = 5
_VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"
_VERSIONS = "import importlib.metadata as m, sys; [print(n, m.version(n)) for n in sys.argv[1:]]"
StartCommand = Callable[..., "subprocess.Popen[str]"]


class EnvironmentRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was done in an environment's folder.

    Attributes:
        declared: SHA-256 of the declaration that it was made from.
        python: the interpreter that made it.
        done: finished steps.
        versions: of what was installed by name, when all was.
    """

    schema: int = 1
    declared: str
    python: str
    done: int = 0
    versions: dict[str, str] = {}


@dataclass(frozen=True)
class EnvironmentState:
    """How far an environment is: `record` is None where nothing was begun; `fits` tells the declaration of today."""

    environment: PythonEnvironment
    folder: Path
    record: EnvironmentRecord | None
    fits: bool

    @property
    def steps(self) -> int:
        """Steps of a whole setup: the environment, pip's runs, the proof."""
        return len(self.environment.steps) + 2

    @property
    def done(self) -> int:
        """Finished steps that count."""
        return self.record.done if self.record is not None and self.fits else 0

    @property
    def ready(self) -> bool:
        """Whether it can be used."""
        return self.done == self.steps

    @property
    def versions(self) -> dict[str, str]:
        """Of what was installed by name; empty unless it is ready."""
        return self.record.versions if self.record is not None and self.ready else {}

    def __str__(self) -> str:
        if self.ready:
            return "ready"
        if self.record is None:
            return "not set up"
        return f"{self.done} of {self.steps} steps done" if self.fits else "outdated: the target has changed"


@dataclass(frozen=True)
class SetupStep:
    """A command of a setup."""

    about: str
    command: tuple[str, ...]
    done: bool

    def __str__(self) -> str:
        return shlex.join(self.command)


def environments_folder() -> Path:
    """`$EDGETRACK_ENVIRONMENTS`, else `edgetrack/environments` in the user's data folder (`$XDG_DATA_HOME`).

    Raises:
        UsageError: the user has no home.
    """
    if chosen := os.environ.get("EDGETRACK_ENVIRONMENTS", ""):
        return Path(chosen).absolute()
    try:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    except RuntimeError:
        raise UsageError("there is no home folder; set EDGETRACK_ENVIRONMENTS to a folder for environments") from None
    return base.absolute() / "edgetrack" / "environments"


def state_of(environment: PythonEnvironment) -> EnvironmentState:
    """How far an environment is, by its record; nothing is run."""
    folder, record = environments_folder() / environment.name, None
    try:
        data = read_bytes(folder / RECORD_FILE, _LARGEST_RECORD)
        record = decode_json(data, EnvironmentRecord, EdgetrackError)
    except (OSError, EdgetrackError):
        record = None
    fits = record is not None and record.declared == _declared(environment) and _python_in(folder).exists()
    return EnvironmentState(environment, folder, record, fits)


def require_ready(environment: PythonEnvironment) -> Path:
    """The environment's Python.

    Raises:
        BackendMissingError: it is not set up.
    """
    state = state_of(environment)
    if not state.ready:
        raise BackendMissingError(
            f"the Python environment {environment.name!r} in {state.folder} is {_not_ready(state)}; "
            f"type: edgetrack target setup {environment.name}"
        )
    return _python_in(state.folder)


def _not_ready(state: EnvironmentState) -> str:
    return "not complete (" + str(state) + ")" if state.record is not None and state.fits else str(state)


def _declared(environment: PythonEnvironment) -> str:
    return sha256(encode_json([environment.python, [one.arguments for one in environment.steps], environment.imports]))


def _python_in(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def find_python(environment: PythonEnvironment, given: Path | None = None, *, run: RunCommand = subprocess.run) -> str:
    """A Python of a version that the environment takes: the given one, this one, else the newest of PATH.

    Raises:
        UsageError: the given one is of another version, or there is none.
    """
    wanted = {f"3.{minor}": f"python3.{minor}" for minor in reversed(environment.minors)}
    if given is not None:
        found = command_output(run, [str(given), "-I", "-c", _VERSION])
        if found not in wanted:
            raise UsageError(
                f"--python {given} is {f'Python {found}' if found else 'no Python that runs'}; environment "
                f"{environment.name!r} needs Python {environment.python}"
            )
        return str(given.absolute())
    if sys.version_info[0] == 3 and sys.version_info[1] in environment.minors:
        return sys.executable
    for version, name in wanted.items():
        path = shutil.which(name)
        if path is not None and command_output(run, [path, "-I", "-c", _VERSION]) == version:
            return path
    raise UsageError(
        f"environment {environment.name!r} needs Python {environment.python}, and none of {', '.join(wanted.values())} "
        "is on PATH; install one, or give --python PATH"
    )


def setup_steps(state: EnvironmentState, python: str) -> list[SetupStep]:
    """The commands of a whole setup, those that are done among them."""
    environment, own = state.environment, str(_python_in(state.folder))
    pip = (own, "-I", "-m", "pip", "install", "--no-input", "--disable-pip-version-check")
    imports = ", ".join(dict.fromkeys(("numpy", *environment.imports)))
    commands = [
        ("making the environment", (python, "-I", "-m", "venv", "--clear", str(state.folder))),
        *((f"installing {', '.join(one.requirements)}", (*pip, *one.arguments)) for one in environment.steps),
        (f"importing {imports}", (own, "-I", "-c", f"import {imports}")),
    ]
    return [SetupStep(about, command, number < state.done) for number, (about, command) in enumerate(commands)]


def set_up(
    environment: PythonEnvironment,
    python: str,
    *,
    restart: bool = False,
    progress: Progress,
    start: StartCommand = subprocess.Popen,
) -> EnvironmentState:
    """Run the commands that are not done yet.

    Args:
        environment: what to make.
        python: the interpreter that makes it.
        restart: begin with the first command, whatever is done.
        progress: is told each line that a command prints, and which one it is.
        start: starts a process as `subprocess.Popen` does.

    Raises:
        EdgetrackError: a command failed, or another process sets up the same environment; what is done is kept.
    """
    folder = environments_folder() / environment.name
    try:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise EdgetrackError(
            f"{folder.parent} cannot be made: {error.strerror or error}; set EDGETRACK_ENVIRONMENTS to another folder"
        ) from None
    try:
        with locked(folder.parent / f".{environment.name}.lock", 0):
            if restart:
                (folder / RECORD_FILE).unlink(missing_ok=True)
            state = state_of(environment)
            record = EnvironmentRecord(declared=_declared(environment), python=python)
            if state.record is not None and state.fits:
                record = state.record
            steps = setup_steps(state, python)
            for number, step in enumerate(steps, 1):
                if not step.done:
                    _run(step, lambda line, n=number: progress(line, n, len(steps)), start)  # type: ignore[misc]
                    record = msgspec.structs.replace(record, done=number)
                    if number == len(steps):
                        record = msgspec.structs.replace(record, versions=_versions(environment, folder))
                    replace_whole(folder / RECORD_FILE, encode_json(record, indent=1) + b"\n")
    except TimeoutError:
        raise EdgetrackError(
            f"environment {environment.name!r} is being set up by another process; wait for it"
        ) from None
    return state_of(environment)


def _run(step: SetupStep, say: Callable[[str], None], start: StartCommand) -> None:
    say(step.about)
    last: list[str] = []
    # Packages of this process are none of the new environment's.
    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONHOME", "PYTHONPATH")}
    with start(
        list(step.command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environ,
        text=True,
        errors="replace",
    ) as process:
        try:
            for line in process.stdout or ():
                if line.strip():
                    last = [*last[1 - _LAST_LINES :], line.strip()]
                    say(f"{step.about}: {line.strip()}")
        except BaseException:
            process.kill()
            raise
    code = process.returncode
    if code:
        said = next((line for line in last if line.startswith("ERROR: ")), last[-1] if last else "it said nothing")
        raise EdgetrackError(f"{step.about} failed with exit code {code}: {said}; the command was: {step}")


def _versions(environment: PythonEnvironment, folder: Path, *, run: RunCommand = subprocess.run) -> Mapping[str, str]:
    names: Sequence[str] = environment.distributions
    lines = command_output(run, [str(_python_in(folder)), "-I", "-c", _VERSIONS, *names]).splitlines()
    return dict(line.split(" ", 1) for line in lines)
