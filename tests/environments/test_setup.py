"""Environments: the declaration, the commands, the record of what is done, and setups that fail or are interrupted."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgetrack.environments import PipStep
from edgetrack.environments.setup import (
    EnvironmentState,
    environments_folder,
    find_python,
    set_up,
    setup_steps,
    state_of,
)
from edgetrack.errors import EdgetrackError, UsageError
from edgetrack.io import locked
from edgetrack.presentation.progress import no_progress
from tests.toy import NUMPY, offline, toy_environment, write_toy_wheels


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": "../x"}, "expected small letters"),
        ({"python": "3.11"}, "expected such as >=3.8,<3.12"),
        ({"worker": "a b"}, "'a b' is no name of a module"),
        ({"imports": ("os; evil",)}, "is no name of a module"),
    ],
)
def test_a_declaration_that_is_none_is_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        toy_environment(**changed)


@pytest.mark.parametrize(
    "requirement", ["numpy", "numpy>=1", "--index-url=x==1", "git+https://x==1", "numpy==1.*", "a==1\n-r b"]
)
def test_a_requirement_that_is_not_pinned_is_refused(requirement: str) -> None:
    with pytest.raises(UsageError, match="is not pinned; expected name==version"):
        PipStep((requirement,))


def test_a_step_is_said_as_pip_takes_it() -> None:
    step = PipStep(("torch==2.13.0",), no_deps=True, index_url="https://example.org/cpu")
    assert step.arguments == ("--no-deps", "--index-url", "https://example.org/cpu", "torch==2.13.0")
    with pytest.raises(UsageError, match="is no https"):
        PipStep(("torch==2.13.0",), index_url="http://example.org")
    with pytest.raises(UsageError, match="without requirements"):
        PipStep(())


def test_an_environment_has_what_it_declares(toy: EnvironmentState) -> None:
    assert (str(toy), toy.ready, toy.versions) == ("ready", True, {"numpy": NUMPY, "toy_engine": "1.0"})
    where = subprocess.run(
        [str(toy.folder / "bin/python"), "-I", "-c", "import toy_engine; print(toy_engine.__file__)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert where.startswith(str(toy.folder))
    assert all(step.done for step in setup_steps(toy, sys.executable))


@pytest.mark.full
def test_the_commands_as_they_are_make_an_environment(tmp_path: Path) -> None:
    with offline(write_toy_wheels(tmp_path / "wheels"), tmp_path / "environments"):
        assert set_up(toy_environment(), sys.executable, progress=no_progress).ready


class Scripted:
    """Starts a Python with a script in place of each command that contains a word, else one that does nothing.

    The environment's own Python is a file from the first command on.
    """

    def __init__(self, scripts: dict[str, str] | None = None) -> None:
        self.scripts, self.commands = scripts or {}, list[list[str]]()

    def __call__(self, command: list[str], **options: Any) -> subprocess.Popen[str]:
        self.commands.append(command)
        if "venv" in command:
            python = Path(command[-1]) / "bin" / "python"
            python.parent.mkdir(parents=True)
            python.touch()
        script = next((script for word, script in self.scripts.items() if word in command), "")
        return subprocess.Popen([sys.executable, "-S", "-c", script], **options)

    @property
    def words(self) -> list[str]:
        return [command[-1] if "install" in command else command[3] for command in self.commands]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGETRACK_ENVIRONMENTS", str(tmp_path / "environments"))
    return tmp_path / "environments" / "toy"


WHOLE = ["venv", f"numpy=={NUMPY}", "toy_engine==1.0", "import numpy, toy_engine"]


def test_a_setup_that_fails_says_why_and_resumes(folder: Path) -> None:
    environment = toy_environment()
    assert str(state_of(environment)) == "not set up"
    broken = Scripted({"toy_engine==1.0": "print('ERROR: no such wheel\\nhint'); raise SystemExit(1)"})
    with pytest.raises(EdgetrackError, match=r"installing toy_engine==1.0 failed with exit code 1: ERROR: no such whe"):
        set_up(environment, "python3", progress=no_progress, start=broken)
    assert str(state_of(environment)) == "2 of 4 steps done"
    start, told = Scripted(), list[tuple[str, int, int]]()
    assert set_up(environment, "python3", progress=lambda *step: told.append(step), start=start).ready
    assert (broken.words, start.words) == (WHOLE[:3], WHOLE[2:])
    assert told == [("installing toy_engine==1.0", 3, 4), ("importing numpy, toy_engine", 4, 4)]
    again = Scripted()
    set_up(environment, "python3", progress=no_progress, start=again)
    assert again.words == []
    (folder / "bin" / "python").unlink()
    assert not state_of(environment).ready


def test_an_interrupted_setup_ends_its_command_and_resumes(folder: Path) -> None:
    started: list[subprocess.Popen[str]] = []
    scripted = Scripted({f"numpy=={NUMPY}": "print('downloading', flush=True); import time; time.sleep(600)"})

    def start(command: list[str], **options: Any) -> subprocess.Popen[str]:
        started.append(scripted(command, **options))
        return started[-1]

    def interrupt(what: str, step: int, total: int) -> None:
        if what.endswith("downloading"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        set_up(toy_environment(), "python3", progress=interrupt, start=start)
    assert started[-1].returncode is not None
    assert state_of(toy_environment()).done == 1


def test_a_changed_declaration_is_begun_anew_and_restart_too(folder: Path) -> None:
    set_up(toy_environment(), "python3", progress=no_progress, start=Scripted())
    changed = toy_environment(steps=(PipStep(("toy_engine==2.0",)),))
    assert "outdated" in str(state_of(changed))
    for environment, restart in ((changed, False), (changed, True)):
        (folder / "bin" / "python").unlink()
        (folder / "bin").rmdir()
        start = Scripted()
        set_up(environment, "python3", restart=restart, progress=no_progress, start=start)
        assert start.words == ["venv", "toy_engine==2.0", "import numpy, toy_engine"]


@pytest.mark.parametrize("record", [b"", b"{", b"[]", b'{"done": 99}', b"\xff"])
def test_a_damaged_record_is_none(folder: Path, record: bytes) -> None:
    set_up(toy_environment(), "python3", progress=no_progress, start=Scripted())
    (folder / "edgetrack-environment.json").write_bytes(record)
    assert str(state_of(toy_environment())) == "not set up"


def test_two_setups_at_once_are_refused(folder: Path) -> None:
    folder.parent.mkdir(parents=True)
    with (
        locked(folder.parent / ".toy.lock"),
        pytest.raises(EdgetrackError, match="is being set up by another process"),
    ):
        set_up(toy_environment(), "python3", progress=no_progress, start=Scripted())


def test_the_folder_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGETRACK_ENVIRONMENTS", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert environments_folder() == Path("/data/edgetrack/environments")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/home/one")
    assert environments_folder() == Path("/home/one/.local/share/edgetrack/environments")


def says(version: str) -> Callable[..., Any]:
    return lambda command, **_: SimpleNamespace(returncode=0, stdout=version)


def test_a_python_of_the_right_version_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_python(toy_environment()) == sys.executable
    other = toy_environment(python=">=3.7,<3.9")
    assert find_python(other, Path("/usr/bin/python3.8"), run=says("3.8")) == "/usr/bin/python3.8"
    with pytest.raises(
        UsageError, match=r"--python python3.9 is Python 3.9; environment 'toy' needs Python >=3.7,<3.9"
    ):
        find_python(other, Path("python3.9"), run=says("3.9"))
    with pytest.raises(UsageError, match=r"is no Python that runs"):
        find_python(other, tmp_path / "nothing")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        UsageError, match=r"none of python3.8, python3.7 is on PATH; install one, or give --python PATH"
    ):
        find_python(other)
    found = tmp_path / "python3.7"
    found.touch(mode=0o755)
    assert find_python(other, run=says("3.7")) == str(found)
