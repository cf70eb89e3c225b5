"""The suite passes on sound targets, ours and the page's, and finds what is wrong with those that have a fault."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.pages import ROOT, install_page

PLUGIN = ("-p", "edgetrack.conformance.plugin", "-p", "no:edgetrack", "-p", "no:randomly", "-p", "no:cacheprovider")
Verdicts = dict[str, dict[str, str]]


def conformance(folder: Path, *arguments: str, path: tuple[Path, ...] = ()) -> Verdicts:
    """Target and precision -> check -> `passed`, `failed` with its message, or `skipped`."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT))),
        "EDGETRACK_CACHE": str(folder / "cache"),
        "TMPDIR": str(folder),
        "OMP_NUM_THREADS": "1",
    }
    report = folder / "report.xml"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *PLUGIN, "-q", f"--junitxml={report}", *arguments],
        cwd=folder,
        env={name: value for name, value in environment.items() if not name.startswith("PYTEST_")},
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert report.exists(), done.stdout + done.stderr
    found: Verdicts = {}
    for one in ElementTree.parse(report).iter("testcase"):
        check, _, ident = one.get("name", "").rstrip("]").partition("[")
        said = [child for child in one if child.tag in ("failure", "error", "skipped")]
        verdict = f"{said[0].tag}: {said[0].get('message')}" if said else "passed"
        found.setdefault(ident.partition("-")[0], {})[f"{check}[{ident}]"] = verdict
    return found


def not_passed(verdicts: dict[str, str]) -> dict[str, str]:
    return {check: verdict for check, verdict in verdicts.items() if verdict != "passed"}


@pytest.fixture(scope="module")
def site(made_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """The targets of the page, the tracker of the other page, and targets with faults."""

    def make(folder: Path) -> None:
        for page in ("targets", "plugins"):
            install_page(ROOT / "docs" / f"{page}.md", folder.with_name(f"source-{page}"), folder)
        source = (ROOT / "tests" / "conformance" / "faulty.py").read_text("utf-8")
        (folder / "faulty.py").write_text(source, "utf-8")
        info = folder / "faulty-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1.0\n")
        rows = "".join(f"{fault.lower()} = faulty:ROW_{fault}\n" for fault in FAULTS)
        (info / "entry_points.txt").write_text(f"[edgetrack.targets]\n{rows}")

    return made_once("conformance-site", make)


FAULTS = (
    "IgnoresDamage",
    "FillsIn",
    "Wrong",
    "WrongElsewhere",
    "ChangesInputs",
    "ReplacesBuffers",
    "AnyShape",
    "AnyOption",
    "MissingPackage",
    "LeavesProcess",
    "Nameless",
)
# What needs minutes and finds none of these faults.
QUICK = "not tracks and not bench and not pytorch"


@pytest.mark.full
@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_our_targets_conform(tmp_path: Path, target: str) -> None:
    precisions = ("--edgetrack-precision=fp32", "--edgetrack-precision=int8")
    found = conformance(tmp_path, "--edgetrack-target", target, *precisions)[target]
    assert (len(found), not_passed(found)) == (25, {})


@pytest.mark.full
def test_the_target_of_the_page_conforms(tmp_path: Path, site: Path) -> None:
    found = conformance(tmp_path, "--edgetrack-target=evaluator", "--edgetrack-tracker=cosine", path=(site,))
    assert not_passed(found["evaluator"]) == {}
    assert len(found["evaluator"]) == 13


@pytest.mark.full
def test_every_fault_is_found(tmp_path: Path, site: Path) -> None:
    targets = [f"--edgetrack-target={fault.lower()}" for fault in FAULTS]
    found = conformance(tmp_path, *targets, "--edgetrack-tracker=cosine", "-k", QUICK, path=(site,))
    sys.path.insert(0, str(site))
    try:
        from faulty import FOUND
    finally:
        sys.path.remove(str(site))
    assert set(FOUND) == set(FAULTS)
    failed = {fault: not_passed(found[fault.lower()]) for fault in FAULTS}
    named = {fault: {check.partition("[")[0] for check in verdicts} for fault, verdicts in failed.items()}
    # Without a bundle every check fails that needs one.
    assert "there is no bundle: ParityError" in str(failed["Wrong"])
    assert named["Wrong"] > FOUND["Wrong"]
    assert {fault: checks for fault, checks in named.items() if fault != "Wrong" and checks != FOUND[fault]} == {}, (
        failed
    )
