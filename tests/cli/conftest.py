"""Running the installed command as a user does: a process of its own, in a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.benchmark.conftest import make_bundle, scripted
from tests.evaluation.conftest import plain_dataset, write_images, write_rows

__all__ = ["make_bundle", "plain_dataset", "scripted", "write_images", "write_rows"]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory, made_once: Callable[..., Path]) -> Path:
    """A folder with one exported bundle under out/, shared by the tests that only read it."""

    def export(folder: Path) -> None:
        unfinished = tmp_path_factory.mktemp("workplace")
        done = _run(["export", "smat", "--target", "openvino"], unfinished)
        assert done.returncode == 0, done.stderr
        unfinished.rename(folder)

    made = made_once("workplace", export)
    return Path(shutil.copytree(made / "out", tmp_path_factory.mktemp("workplace") / "out")).parent


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
