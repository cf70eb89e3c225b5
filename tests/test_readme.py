"""README and CONTRIBUTING tell the truth: every command in them is run, every link leads somewhere."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text("utf-8")


def _blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, flags=re.DOTALL)


def _commands(program: str) -> list[list[str]]:
    lines = [line for block in _blocks("bash") for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith(f"{program} ")]


def _environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path}


@pytest.mark.timeout(1800)  # a benchmark is among them, and the machine may be busy
def test_every_edgetrack_command_works_in_the_order_given(tmp_path: Path) -> None:
    commands = _commands("edgetrack")
    assert len(commands) >= 8
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=tmp_path,
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, (command, done.stderr)
    frames = "from edgetrack.media import load_scene\nframe, next_frame = map(load_scene('drift').frame, (0, 1))\n"
    (example,) = _blocks("python")
    subprocess.run([sys.executable, "-c", frames + example], cwd=tmp_path, check=True, timeout=120)


@pytest.mark.full  # installs PyTorch
@pytest.mark.timeout(5400)
def test_a_newcomer_follows_it_line_by_line(tmp_path: Path) -> None:
    """In a clone of what is committed, with an environment of its own for each line that installs."""
    subprocess.run(["git", "clone", "--quiet", ROOT, tmp_path / "checkout"], check=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "EDGETRACK"))}
    lines = [line for block in _blocks("bash") for line in block.splitlines()]
    installs = [shlex.split(line, comments=True) for line in lines if line.startswith("pip install ")]
    exporter, *devices = installs
    started = time.monotonic()

    def run(place: Path, command: list[str]) -> None:
        # Typed in the checkout; the path finds this environment's programs and the system's.
        path = f"{place / 'bin'}{os.pathsep}{os.defpath}"
        own = shutil.which(command[0], path=path) or command[0]
        done = subprocess.run(
            [own, *command[1:]],
            cwd=tmp_path / "checkout",
            env={**kept, "PATH": path, "EDGETRACK_CACHE": "off"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        print(f"{time.monotonic() - started:6.0f} s  {shlex.join(command)}")

    subprocess.run([sys.executable, "-m", "venv", tmp_path / "exporter"], check=True)
    for command in (exporter, *_commands("edgetrack")):
        run(tmp_path / "exporter", command)
    frames = "from edgetrack.media import load_scene\nframe, next_frame = map(load_scene('drift').frame, (0, 1))\n"
    run(tmp_path / "exporter", ["python", "-c", frames + _blocks("python")[0]])
    run(tmp_path / "exporter", shlex.split("edgetrack export smat --target onnx"))
    for number, command in enumerate(devices):
        started = time.monotonic()
        subprocess.run([sys.executable, "-m", "venv", tmp_path / f"device{number}"], check=True)
        run(tmp_path / f"device{number}", command)
        target = "onnx" if "onnx" in command[2] else "openvino"
        run(tmp_path / f"device{number}", ["edgetrack", "track", f"smat-{target}-fp32", "synthetic:drift"])


def test_a_contributors_walk_throughs_work(tmp_path: Path) -> None:
    tracker, target = _blocks("bash", CONTRIBUTING)
    # The target's commands are those of the page that tests/test_plugins_targets.py builds, installs and runs.
    assert target in (ROOT / "docs" / "targets.md").read_text("utf-8")
    shutil.copytree(ROOT / "export_recipes", tmp_path / "export_recipes")
    (tmp_path / "edgetrack").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m edgetrack "$@"\n')
    (tmp_path / "edgetrack").chmod(0o755)
    environment = {**_environment(), "PYTHONPATH": str(ROOT)}
    environment["PATH"] = f"{tmp_path}{os.pathsep}{environment['PATH']}"
    command = ["bash", "-euo", "pipefail", "-c", tracker]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "boxes.csv").read_text().splitlines()) == 6


@pytest.mark.parametrize("command", _commands("make"), ids=" ".join)
def test_every_make_target_exists_and_its_edgetrack_commands_parse(command: list[str]) -> None:
    plan = subprocess.run(
        [*command, "--dry-run"], cwd=ROOT, env=_environment(), capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert ".venv/bin/" in plan


def test_every_link_leads_to_a_file() -> None:
    for page in (README, CONTRIBUTING):
        links = re.findall(r"\]\(([^)#]+)[^)]*\)", page)
        assert links
        for link in links:
            assert (ROOT / link).exists(), link
    for page in (ROOT / "docs").rglob("*.md"):
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
            # The site makes that page from the commands.
            assert link.endswith("reference/cli.md") or (page.parent / link).exists(), (page.name, link)


def test_what_the_default_weights_are_is_said_beside_both_figures() -> None:
    """On sequences that were looked at while training, and on ten others that were never shown."""
    for page in ("README.md", "docs/weights.md"):
        text = " ".join((ROOT / page).read_text("utf-8").split())
        assert re.search(r"0\.50?6|0\.51", text), page
        assert re.search(r"0\.329|0\.33", text), page
    assert "they will lose targets in your videos" in " ".join((ROOT / "README.md").read_text("utf-8").split())


def test_closed_loops_are_not_claimed_to_1e_4() -> None:
    changes = " ".join((ROOT / "CHANGELOG.md").read_text("utf-8").split())
    assert "in the open loop boxes equal the official ones to 1e-4 px" in changes
    assert "a run may split where a crop's corner falls on a rounding tie" in changes
