"""Every verb on a system that lacks what Windows lacks, and every verb whose output finds no room."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.builders import pack_parts, write_pack, write_scripted
from tests.report.conftest import benchmark, contestant, write

CLIP = "synthetic:drift?frames=4&size=96x64"
Edgetrack = Callable[..., "subprocess.CompletedProcess[str]"]

# Runs in every Python that is started, workers included. asyncio's own modules for Unix may keep what they need.
HIDE = """
import builtins, os, sys
given = builtins.__import__
def hiding(name, globals=None, *rest, **more):
    if name in ("fcntl", "resource", "pwd", "grp", "termios"):
        if (globals or {}).get("__name__", "").split(".")[0] in ("edgetrack", "filelock"):
            raise ImportError(f"No module named {name!r}", name=name)
    return given(name, globals, *rest, **more)
builtins.__import__ = hiding
for name in ("sched_getaffinity", "sched_setaffinity", "getloadavg", "geteuid", "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC",
             "O_DIRECTORY"):
    if hasattr(os, name):
        delattr(os, name)
"""


@pytest.fixture
def elsewhere(tmp_path: Path) -> Edgetrack:
    """Run `edgetrack ARGUMENTS...` in tmp_path where the modules and functions of `HIDE` are missing."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(HIDE)
    paths = [str(tmp_path / "site"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "EDGETRACK_CACHE": "off"}

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "edgetrack", *map(str, arguments)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.mark.parametrize(
    "verb",
    [
        ["doctor", "--json"],
        ["list", "--targets"],
        ["list", "--devices"],
        ["inspect", "a"],
        ["track", "a", CLIP, "-o", "boxes.csv", "--video", "boxes.avi"],
        ["bench", "a", "--no-reference", "--duration", "0", "--iterations", "2", "--rounds", "1", "--warmup", "0",
         "--source", CLIP],
        ["check", "a", "--baseline", "a", "--budget", "budget.toml", "--max-time", "1"],
        ["eval", "a", CLIP, "--jobs", "2", "-o", "runs"],
        ["compare", "a", "b", "--dataset", CLIP, "-o", "compared"],
        ["report", "bench.json"],
        ["pack", "a", "-o", "a.zip"],
        ["calibrate", "collect", "a", CLIP, "-o", "set.toml", "--calib-size", "2"],
        ["train", "smat", "--data", "pack.tar", "--out", "trained", "--phase", "64:1", "--batch", "2", "--threads", "1",
         "--workers", "0", "--held-out", "0", "--device", "cpu", "--precision", "fp32"],
        pytest.param(
            ["export", "nanotrack_v2", "--weights", "untrained", "--target", "onnx"],
            marks=pytest.mark.full,
            id="export",
        ),
    ],
    ids=lambda verb: " ".join(verb[:2]),
)  # fmt: skip
def test_what_windows_lacks_no_verb_needs(elsewhere: Edgetrack, tmp_path: Path, verb: list[str]) -> None:
    write_scripted(tmp_path / "a")
    write_scripted(tmp_path / "b")
    (tmp_path / "budget.toml").write_text(
        f'schema = 1\nname = "sizes"\n[measure]\nsource = "{CLIP}"\n[limits]\ntrack_p50_ms = 1e6\nsize_mb = 9\n'
    )
    if verb[0] == "report":
        write(tmp_path / "bench.json", benchmark(contestant("smat-openvino-fp32", 20.0)))
    if verb[0] == "train":
        write_pack(tmp_path / "pack.tar", *pack_parts())
    done = elsewhere(*verb)
    assert done.returncode in (0, 1) if verb[0] == "check" else done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    if verb[0] == "doctor":
        assert json.loads(done.stdout)["machine"]["usable_cores"] >= 1
    if verb[0] == "export":
        verified = elsewhere("verify", "nanotrack_v2-onnx-fp32")
        assert (verified.returncode, "Traceback" in verified.stderr) == (0, False), verified.stderr
    if verb[0] == "track":
        again = elsewhere(*verb, "--overwrite")
        assert (again.returncode, (tmp_path / "boxes.csv").read_text().count("\n")) == (0, 5)
        assert not list(tmp_path.glob("*.partial*"))
