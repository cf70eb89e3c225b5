"""The gate with real processes: a head and a base that run different code."""

from __future__ import annotations

import sys
import sysconfig
import time
from pathlib import Path

import pytest

import edgetrack
from edgetrack.gate.budget import Budget
from edgetrack.gate.check import check
from edgetrack.gate.options import Options, Surroundings

BUDGET = Budget(schema=1, name="mine", limits={"size_mb": 1.0}, regressions={"track_p50_ratio": 1e6})


@pytest.fixture
def base_python(tmp_path):
    """The Python of an environment with a copy of this edgetrack whose version differs."""
    import shutil
    import subprocess

    package = Path(edgetrack.__file__).parent
    source = tmp_path / "source"
    shutil.copytree(package, source / "edgetrack", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("bench", "export_recipes"):
        (source / name).symlink_to(package.parent / name)
    file = source / "edgetrack" / "__init__.py"
    file.write_text(file.read_text("utf-8").replace(edgetrack.__version__, "0.0.1"), "utf-8")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "env")], check=True)
    (packages,) = (tmp_path / "env").glob("lib/python*/site-packages")
    (packages / "base.pth").write_text(f"{source}\n{sysconfig.get_path('purelib')}\n")
    return tmp_path / "env" / "bin" / "python"


def test_each_side_runs_its_own_code_in_processes_of_its_own(make_bundle, base_python, source):
    bundle = str(make_bundle("a"))
    steps = []
    around = Surroundings(progress=steps.append, evaluating=lambda what, done, total: None, clock=time.monotonic)
    options = Options(
        budget=BUDGET,
        bundle=bundle,
        baseline=bundle,
        baseline_python=base_python,
        threads=1,
        source=source,
        max_time_s=0.5,
    )
    found = check(options, around)
    assert found.candidate.code.version == edgetrack.__version__
    assert found.baseline.code.version == "0.0.1"
    assert found.baseline.code.digest != found.candidate.code.digest
    assert not any("the same bundle" in note for note in found.notes)
    assert found.blocks >= 1
    assert all(min(turn) > 0 for turn in found.samples_ms.baseline.track)
    assert steps[0] == "loading the candidate, process 1"
