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
import zipfile
from pathlib import Path

import pytest

from tests.bench.test_gate_check import slowed

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).resolve().parents[1]
ACTION = yaml.safe_load((ROOT / ".github/actions/gate/action.yml").read_text("utf-8"))
EXAMPLE = ROOT / "examples" / "ci"
WORKFLOWS = {
    path.name: yaml.safe_load(path.read_text("utf-8")) for path in sorted((ROOT / ".github/workflows").glob("*.yml"))
}
WORKFLOW = yaml.safe_load((EXAMPLE / ".github/workflows/latency.yml").read_text("utf-8"))
WORKFLOWS["example"] = WORKFLOW


def test_the_example_gives_only_inputs_that_there_are_and_every_required_one() -> None:
    given = WORKFLOW["jobs"]["gate"]["steps"][-1]["with"]
    assert set(given) <= set(ACTION["inputs"])
    assert {name for name, about in ACTION["inputs"].items() if about.get("required")} <= set(given)


def test_nothing_from_outside_is_pasted_into_a_script() -> None:
    steps = [step for found in WORKFLOWS.values() for job in found["jobs"].values() for step in job["steps"]]
    for step in (*ACTION["runs"]["steps"], *steps):
        assert "${{" not in step.get("run", "")


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_may_read_the_code_and_nothing_more(name: str) -> None:
    found = WORKFLOWS[name]
    assert found["permissions"] == {"contents": "read"}
    more = {job: given["permissions"] for job, given in found["jobs"].items() if "permissions" in given}
    # Publishing alone has more: the index believes its token of identity.
    assert more == ({"publish": {"contents": "read", "id-token": "write"}} if name == "release.yml" else {})
    # `on` is read as true by YAML 1.1. With pull_request_target a stranger's change would run with our rights.
    assert "pull_request_target" not in found.get(True, found.get("on"))
    assert all(job["timeout-minutes"] <= 90 for job in found["jobs"].values() if name != "example")


def _git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    done = subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _repository(folder: Path, base: Path, head: Path, change: str | None) -> str:
    """The example as a repository with a runtime of its own, of a base and a head; returns the base's commit.

    Args:
        base, head: wheels of edgetrack, one for each commit, under one name.
        change: what stands in place of `width = 1.0` in the head's recipe.
    """
    shutil.copytree(EXAMPLE, folder)
    (folder / "vendor").mkdir()
    shutil.copy(base, folder / "vendor" / base.name)
    _git(folder, "init", "-q")
    _git(folder, "add", "-A")
    _git(folder, "commit", "-q", "-m", "base")
    commit = _git(folder, "rev-parse", "HEAD")
    shutil.copy(head, folder / "vendor" / base.name)
    recipe = folder / "tracker.toml"
    recipe.write_text(recipe.read_text("utf-8").replace("width = 1.0", change or "width = 1.00"), "utf-8")
    _git(folder, "commit", "-q", "-a", "-m", "change")
    return commit


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


MAX_TIME = "300"
"""Longer than the action's own: a fail needs pairs of processes that agree, 80 to 150 s where nothing disturbs."""


def run_action(folder: Path, base: Path, head: Path, change: str | None = None) -> tuple[int, dict]:
    """Every `run` step in turn, with the inputs in its environment; the last one's exit code, and the report."""
    (folder / "runner").mkdir(parents=True)
    commit = _repository(folder / "repository", base, head, change)
    inputs = {name: about.get("default", "") for name, about in ACTION["inputs"].items()}
    inputs |= WORKFLOW["jobs"]["gate"]["steps"][-1]["with"]
    inputs |= {"base-ref": commit, "max-time": MAX_TIME, "install": f"--no-deps vendor/{base.name}"}
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
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """edgetrack's wheel, and one whose procedures spin for 15 % of each frame's time."""
    folder = tmp_path_factory.mktemp("action")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (plain,) = folder.glob("*.whl")
    slow = folder / "slow" / plain.name
    slow.parent.mkdir()
    with zipfile.ZipFile(plain) as given, zipfile.ZipFile(slow, "w") as made:
        for name in given.namelist():
            data = given.read(name)
            made.writestr(name, slowed(data.decode(), 0.15) if name == "edgetrack/runtime/session.py" else data)
    return {"same": plain, "slower": slow}


@pytest.mark.full
@pytest.mark.timeout(3 * 3600)
def test_an_unchanged_tracker_never_fails_and_one_of_15_percent_more_time_does(
    wheels: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On an idle machine: python -m pytest tests/test_action.py -m full -n 0; half an hour to an hour."""
    found: dict[str, list[str]] = {"same": [], "slower": []}
    for repeat in range(5):
        for case, verdicts in found.items():
            code, report = run_action(tmp_path / f"{case}-{repeat}", wheels["same"], wheels[case])
            (finding,) = report["findings"]
            verdicts.append(finding["verdict"])
            assert code == (finding["verdict"] != "pass")
            with capsys.disabled():
                ratio = f"{finding['value']:.3f} ({finding['low']:.3f} to {finding['high']:.3f})"
                print(f"{case}: {finding['verdict']}, {ratio}, {report['blocks']} blocks, {report['seconds']:.0f} s")
    assert "fail" not in found["same"], found
    assert found["slower"] == ["fail"] * 5, found


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_a_recipe_that_makes_the_network_larger_fails(wheels: dict[str, Path], tmp_path: Path) -> None:
    code, report = run_action(tmp_path / "wider", wheels["same"], wheels["same"], "width = 1.5")
    assert (code, report["findings"][0]["verdict"]) == (1, "fail"), report
