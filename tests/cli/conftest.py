"""Running the installed command as a user does: a process of its own, in a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from edgetrack.cli.main import app
from tests.benchmark.conftest import make_bundle, scripted
from tests.evaluation.conftest import plain_dataset, write_images, write_rows
from tests.toy import toy

__all__ = ["make_bundle", "plain_dataset", "scripted", "toy", "write_images", "write_rows"]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory, exported: Callable[..., Path]) -> Path:
    """A folder with one bundle of the default weights under out/, shared by the tests that only read it."""
    folder = tmp_path_factory.mktemp("workplace")
    bundle = exported("openvino", "default")
    shutil.copytree(bundle, folder / "out" / bundle.name)
    return folder


@pytest.fixture
def run(workplace: Path) -> Run:
    """Run `edgetrack ARGUMENTS...` in the workplace, or in `cwd`."""

    def call(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return _run(list(arguments), cwd or workplace)

    return call


@pytest.fixture
def inside(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The same in this process, for what a process of its own would add nothing to but a second of imports."""

    def call(*arguments: str, cwd: Path | None = None) -> Result:
        folder = cwd or workplace
        monkeypatch.chdir(folder)
        monkeypatch.setenv("EDGETRACK_CACHE", str(folder / "cache"))
        return CliRunner().invoke(app, list(arguments))

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
