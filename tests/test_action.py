"""The composite action, step by step, on the example repository: what a runner would do, without the runner."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).resolve().parents[1]
ACTION = yaml.safe_load((ROOT / ".github/actions/gate/action.yml").read_text("utf-8"))
EXAMPLE = ROOT / "examples" / "ci"
WORKFLOW = yaml.safe_load((EXAMPLE / ".github/workflows/latency.yml").read_text("utf-8"))


def test_the_example_gives_only_inputs_that_there_are_and_every_required_one() -> None:
    given = WORKFLOW["jobs"]["gate"]["steps"][-1]["with"]
    assert set(given) <= set(ACTION["inputs"])
    assert {name for name, about in ACTION["inputs"].items() if about.get("required")} <= set(given)


def test_nothing_from_outside_is_pasted_into_a_script() -> None:
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step.get("run", "")


def _git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    done = subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _repository(folder: Path, change: str | None) -> str:
    """The example as a repository whose head differs from its base by the change; returns the base's commit."""
    shutil.copytree(EXAMPLE, folder)
    _git(folder, "init", "-q")
    _git(folder, "add", "-A")
    _git(folder, "commit", "-q", "-m", "base")
    base = _git(folder, "rev-parse", "HEAD")
    recipe = folder / "tracker.toml"
    recipe.write_text(recipe.read_text("utf-8").replace("width = 0.5", change or "width = 0.50"), "utf-8")
    _git(folder, "commit", "-q", "-a", "-m", "change")
    return base


def _python(folder: Path) -> Path:
    """A `python` whose virtual environments see this one's packages, so that pip need not fetch gigabytes."""
    (folder / "bin").mkdir()
    program = folder / "bin" / "python"
    packages = sysconfig.get_path("purelib")
    lines = [
        "#!/bin/sh",
        f'{shlex.quote(sys.executable)} "$@" || exit',
        f'for site in "$3"/lib/python*/site-packages; do echo {shlex.quote(packages)} > "$site/seen.pth"; done',
    ]
    program.write_text("\n".join(lines) + "\n")
    program.chmod(0o755)
    return program.parent


def run_action(folder: Path, change: str | None, max_time: str) -> tuple[int, dict]:
    """Every `run` step in turn, with the inputs in its environment; the last one's exit code, and the report."""
    (folder / "runner").mkdir(parents=True)
    base = _repository(folder / "repository", change)
    wheel = next(folder.parent.glob("*.whl"))
    inputs = {name: about.get("default", "") for name, about in ACTION["inputs"].items()}
    inputs |= WORKFLOW["jobs"]["gate"]["steps"][-1]["with"]
    inputs |= {"base-ref": base, "max-time": max_time, "install": f"--no-deps {wheel}"}
    common = {
        **os.environ,
        "PATH": f"{_python(folder)}{os.pathsep}{os.environ['PATH']}",
        "RUNNER_TEMP": str(folder / "runner"),
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
        "EDGETRACK_CACHE": "off",
    }
    common.pop("PYTHONPATH", None)
    code = 0
    for step in ACTION["runs"]["steps"]:
        if "run" not in step:
            continue
        names = {key: re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", r"\1", text) for key, text in step["env"].items()}
        environment = {**common, **{key: inputs[name] for key, name in names.items()}}
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=folder / "repository",
            env=environment,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        code = done.returncode
        last = step is [one for one in ACTION["runs"]["steps"] if "run" in one][-1]
        assert last or code == 0, done.stderr
    report = folder / "repository" / "latency.json"
    assert (folder / "repository" / "latency.xml").is_file()
    assert r"track\_p50\_ratio" in (folder / "summary.md").read_text("utf-8")
    return code, json.loads(report.read_text("utf-8"))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with edgetrack's wheel."""
    folder = tmp_path_factory.mktemp("action")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=120,
    )
    return folder


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_an_unchanged_tracker_never_fails_and_a_slower_one_does(workplace: Path) -> None:
    for repeat in range(5):
        _, same = run_action(workplace / f"same-{repeat}", None, "60")
        assert same["findings"][0]["verdict"] != "fail", same
        code, slower = run_action(workplace / f"slower-{repeat}", "width = 0.75", "60")
        assert (code, slower["findings"][0]["verdict"]) == (1, "fail"), slower
