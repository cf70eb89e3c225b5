"""`edgetrack target setup`: printed commands, what --yes runs, and targets that need none."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgetrack.cli.main import app
from edgetrack.environments.setup import EnvironmentState, state_of
from tests.toy import NUMPY, toy_environment

ROW = """
from edgetrack.capabilities import Target
from tests.toy import toy_environment

TARGET = Target(
    name={name!r}, backend="", exporter=None, packages=(), extra="", precisions=("fp32",), about="a toy",
    quantizer="toy_engine", environment=toy_environment(name={name!r}),
)
"""


@pytest.fixture
def targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy: EnvironmentState) -> None:
    """Targets `toy`, which is set up, and `bare`, which is not."""
    for name in ("toy", "bare"):
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[edgetrack.targets]\n{name} = {name}_row:TARGET\n")
        (tmp_path / f"{name}_row.py").write_text(ROW.format(name=name))
    monkeypatch.syspath_prepend(str(tmp_path))


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["target", *arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.usefixtures("targets")
def test_the_commands_are_printed_and_none_is_run() -> None:
    code, text, remark = run("setup", "bare")
    state = state_of(toy_environment(name="bare"))
    own = str(state.folder / "bin/python")
    commands = [shlex.split(line) for line in text.splitlines()]
    assert (code, commands[0]) == (0, [sys.executable, "-I", "-m", "venv", "--clear", str(state.folder)])
    assert [command[-1] for command in commands[1:]] == [
        f"numpy=={NUMPY}",
        "toy_engine==1.0",
        "import numpy, toy_engine",
    ]
    assert {command[0] for command in commands[1:]} == {own}
    assert "--no-deps" in commands[1]
    assert "not set up; nothing was run" in remark
    assert not state.folder.exists()


@pytest.mark.usefixtures("targets")
def test_what_is_done_is_said_and_not_done_again() -> None:
    code, text, remark = run("setup", "toy")
    assert (code, [line[:8] for line in text.splitlines()]) == (0, ["# done: "] * 4)
    assert remark.strip().endswith("toy: ready")
    code, text, _ = run("setup", "toy", "--yes")
    assert (code, text.strip().endswith(f"toy: ready, numpy {NUMPY}, toy_engine 1.0")) == (0, True)


@pytest.mark.usefixtures("targets")
def test_a_row_knows_the_state_of_its_environment() -> None:
    from edgetrack.capabilities import find_target
    from edgetrack.errors import BackendMissingError

    toy, bare = find_target("toy"), find_target("bare")
    assert (toy.installed, toy.versions()) == (True, {"numpy": NUMPY, "toy_engine": "1.0"})
    assert toy.quantizer_version() == "1.0"
    assert (bare.installed, bare.install_command) == (False, "edgetrack target setup bare")
    assert (toy.environment_state(), bare.environment_state()) == ("ready", "not set up")
    with pytest.raises(BackendMissingError, match="INT8 needs toy_engine; type: edgetrack target setup bare"):
        bare.quantizer_version()


def test_a_target_without_an_environment_says_so() -> None:
    code, text, _ = run("setup", "fake")
    assert (code, text) == (0, "target 'fake' needs no environment of its own; it is installed\n")


@pytest.mark.usefixtures("targets")
def test_a_setup_that_fails_ends_with_1_and_its_reason(tmp_path: Path) -> None:
    folder = tmp_path / "file"
    folder.touch()
    environ = {**os.environ, "EDGETRACK_ENVIRONMENTS": str(folder), "PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}
    command = [sys.executable, "-m", "edgetrack", "target", "setup", "bare", "--yes"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot be made" in done.stderr
    assert "set EDGETRACK_ENVIRONMENTS to another folder" in done.stderr


def test_lists_show_the_state() -> None:
    result = CliRunner().invoke(app, ["list", "--targets", "--json"])
    assert {row["environment"] for row in json.loads(result.stdout)["items"]} == {None}
