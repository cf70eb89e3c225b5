"""Targets of other packages: docs/targets.md as it stands, built, installed, set up and run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgetrack.environments import PipStep, PythonEnvironment
from edgetrack.environments.setup import set_up
from edgetrack.presentation.progress import no_progress
from tests.pages import ROOT, install_page, page_files, run_edgetrack
from tests.toy import offline, with_our_pip, write_host_wheel

PAGE = ROOT / "docs" / "targets.md"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH with the page's targets, and the tracker of the page about trackers."""
    target = tmp_path_factory.mktemp("site")
    for page in (PAGE, PAGE.with_name("plugins.md")):
        install_page(page, tmp_path_factory.mktemp("source"), target)
    return target


@pytest.fixture
def wheels(tmp_path: Path) -> Iterator[None]:
    """What the page's environment pins, as wheels that bring what is installed here; no network."""
    for name, version in (("numpy", "1.26.4"), ("protobuf", "4.25.4"), ("onnx", "1.17.0")):
        write_host_wheel(tmp_path, name, version)
    with offline(tmp_path, tmp_path / "environments"):
        yield


def test_page_holds_the_files_it_speaks_of() -> None:
    assert list(page_files(PAGE)) == [
        "evaluator/pyproject.toml",
        "evaluator/evaluator_target/__init__.py",
        "evaluator/evaluator_target/backend.py",
        "evaluator/evaluator_target/exporter.py",
        "pinned/pyproject.toml",
        "pinned/pinned_target/__init__.py",
        "pinned/pinned_target/worker.py",
        "pinned/pinned_target/backend.py",
        "pinned/pinned_target/exporter.py",
    ]


def test_target_of_the_page_is_listed_exported_verified_and_measured(site: Path, tmp_path: Path) -> None:
    listed = json.loads(run_edgetrack(site, tmp_path, "list", "--targets", "--json"))["items"]
    assert "evaluator" in {row["target"] for row in listed}
    run_edgetrack(site, tmp_path, "export", "cosine", "--target", "evaluator", "--note", "a second opinion")
    name = "cosine-evaluator-fp32"
    assert b"a second opinion" in (tmp_path / "out" / name / "step.onnx").read_bytes()
    assert json.loads((tmp_path / "out" / name / "parity.json").read_bytes())["proven"] == "evaluator"
    assert json.loads(run_edgetrack(site, tmp_path, "verify", name, "--json"))["ok"]
    short = ["--no-reference", "--duration", "1s", "--iterations", "2", "--rounds", "2", "--warmup", "0", "--json"]
    (result,) = json.loads(run_edgetrack(site, tmp_path, "bench", name, *short))["results"]
    assert (result["target"], result["latency_ms"]["track"]["p50"] > 0) == ("evaluator", True)


@pytest.mark.full
@pytest.mark.usefixtures("wheels")
def test_target_with_an_environment_says_what_to_type_and_works_when_that_was_typed(site: Path, tmp_path: Path) -> None:
    export = ("export", "cosine", "--target", "pinned")
    assert "edgetrack target setup pinned" in run_edgetrack(site, tmp_path, *export, code=3)
    printed = run_edgetrack(site, tmp_path, "target", "setup", "pinned").splitlines()
    assert [line.split()[-1].strip("'") for line in printed[1:]] == [
        "protobuf==4.25.4",
        "onnx==1.17.0",
        "onnx.reference",
    ]
    assert not (tmp_path / "environments").exists()
    # As --yes does, but for pip, which the environment borrows.
    text = page_files(PAGE)["pinned/pinned_target/__init__.py"]
    declared: dict[str, PythonEnvironment] = {"PipStep": PipStep}  # type: ignore[dict-item]
    exec(text, declared)  # type: ignore[arg-type]
    assert set_up(declared["ENVIRONMENT"], sys.executable, progress=no_progress, start=with_our_pip).ready
    run_edgetrack(site, tmp_path, *export)
    name = "cosine-pinned-fp32"
    manifest = json.loads((tmp_path / "out" / name / "manifest.json").read_bytes())
    assert json.loads((tmp_path / "out" / name / "parity.json").read_bytes())["proven"] == "pinned"
    assert {"numpy", "protobuf", "onnx"} <= set(manifest["tools"])
    assert json.loads(run_edgetrack(site, tmp_path, "verify", name, "--json"))["ok"]
    listed = json.loads(run_edgetrack(site, tmp_path, "list", "--targets", "--json"))["items"]
    assert {row["target"]: row["environment"] for row in listed}["pinned"] == "ready"
