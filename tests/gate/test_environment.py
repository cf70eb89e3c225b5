"""Which edgetrack an environment runs, and the gate with real processes: two builds that run different code."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import edgetrack
from edgetrack.benchmark.run import Environment
from edgetrack.errors import UsageError
from edgetrack.gate.budget import Budget, GateConfig
from edgetrack.gate.check import check
from edgetrack.gate.environment import code_of, own_code, own_starter

BUDGET = Budget(schema=1, name="mine", limits={"size_mb": 1.0}, regressions={"track_p50_ratio": 1e6})


@pytest.fixture
def base_python(tmp_path):
    """The Python of an environment with a copy of this edgetrack whose version differs."""
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
    options = GateConfig(
        budget=BUDGET,
        bundle=bundle,
        baseline=bundle,
        baseline_python=base_python,
        threads=1,
        source=source,
        max_time_s=0.5,
    )
    found = check(options, Environment(progress=lambda what, step, total: steps.append(what)))
    assert found.candidate.code.version == edgetrack.__version__
    assert found.baseline.code.version == "0.0.1"
    assert found.baseline.code.digest != found.candidate.code.digest
    assert not any("the same bundle" in note for note in found.notes)
    assert found.blocks >= 1
    assert all(min(turn) > 0 for turn in found.samples_ms.baseline.track)
    assert steps[0].startswith("loading the candidate, process 1")


@pytest.fixture
def environment(tmp_path):
    """environment("text") is the Python of an environment whose edgetrack is that text and nothing else."""

    def make(text):
        folder = tmp_path / "other"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        (packages,) = folder.glob("lib/python*/site-packages")
        (packages / "edgetrack").mkdir()
        (packages / "edgetrack" / "__init__.py").write_text(text)
        return folder / "bin" / "python"

    return make


def test_another_python_says_which_edgetrack_it_has(environment):
    other = code_of(environment('__version__ = "9.9"\n'))
    assert other.version == "9.9"
    assert other.digest != own_code().digest
    assert code_of(Path(sys.executable)) == own_code()


def test_a_folder_called_edgetrack_does_not_decide_which_one_runs(tmp_path, monkeypatch):
    (tmp_path / "edgetrack").mkdir()
    (tmp_path / "edgetrack" / "__init__.py").write_text('__version__ = "0"\n')
    monkeypatch.chdir(tmp_path)
    assert code_of(Path(sys.executable)) == own_code()


def test_a_python_that_is_none_or_lacks_edgetrack_is_a_usage_error(environment, tmp_path):
    with pytest.raises(UsageError, match="cannot be run"):
        code_of(tmp_path / "none")
    with pytest.raises(UsageError, match="cannot import edgetrack"):
        code_of(environment("raise ImportError('broken')\n"))


def test_a_worker_that_would_run_other_code_is_refused():
    with pytest.raises(UsageError, match="another edgetrack"):
        own_starter(code_of(Path(sys.executable)).__class__(version="0", digest="0"))
