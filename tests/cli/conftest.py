"""Running the installed command as a user does: a process of its own, in a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one exported bundle under out/, shared by the tests that only read it."""
    folder = tmp_path_factory.mktemp("workplace")
    done = _run(["export", "smat", "--target", "openvino"], folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def run(workplace: Path) -> Run:
    """Run `edgetrack ARGUMENTS...` in the workplace, or in `cwd`."""

    def call(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return _run(list(arguments), cwd or workplace)

    return call


def _run(arguments: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONWARNINGS": "default", "EDGETRACK_CACHE": str(cwd / "cache")}
    return subprocess.run(
        [sys.executable, "-m", "edgetrack", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
