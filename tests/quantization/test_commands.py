"""`edgetrack calibrate` and `export --precision` as processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from edgetrack.bundle import open_bundle
from edgetrack.quantization.sensitivity import REPORT_FILE

CLIP = "synthetic:drift?frames=10&size=320x240"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgetrack", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def test_a_set_is_collected_shown_and_never_overwritten(exported: Callable[..., Path], tmp_path: Path) -> None:
    bundle, path = exported("onnx", tracker="nanotrack_v2"), tmp_path / "mine.toml"
    made = run("calibrate", "collect", str(bundle), CLIP, "-o", str(path), "--calib-size", "6")
    assert made.returncode == 0, made.stderr
    assert "6 crops of 1 clips" in made.stdout
    shown = run("calibrate", "show", str(path))
    assert "mine: 6 crops" in shown.stdout
    assert "nanotrack_v2, untrained weights" in shown.stdout
    again = run("calibrate", "collect", str(bundle), CLIP, "-o", str(path))
    assert (again.returncode, "--overwrite replaces it" in again.stderr) == (2, True)


def test_int8_with_accuracy_control_from_end_to_end(exported: Callable[..., Path], tmp_path: Path) -> None:
    bundle, path, output = exported("onnx", tracker="nanotrack_v2"), tmp_path / "few.toml", tmp_path / "int8"
    assert run("calibrate", "collect", str(bundle), CLIP, "-o", str(path), "--calib-size", "4").returncode == 0
    wish = ("export", "nanotrack_v2", "--target", "onnx", "--precision", "int8", "--weights", "untrained")
    control = ("--max-drop", "100", "--val", CLIP, "--anchors", "3", "--anchor-length", "3")
    made = run(*wish, "--calib", str(path), *control, "-o", str(output))
    assert made.returncode == 0, made.stderr
    assert "int8 against fp32 on" in made.stderr
    with open_bundle(output) as opened:
        found = json.loads(opened.path(REPORT_FILE).read_bytes())
    assert (found["precision"], found["met"], found["max_drop"]) == ("int8", True, 1.0)
    assert "calibration" in run("inspect", str(output)).stdout


def test_wishes_that_do_not_fit_are_refused_before_anything_is_done() -> None:
    export = ("export", "nanotrack_v2", "--target", "onnx")
    for wish, said in (
        (("--max-drop", "1", "--val", CLIP), "precisions below fp32"),
        (("--precision", "int8", "--max-drop", "1"), "both --max-drop POINTS and --val"),
        (("--precision", "int8", "--max-drop", "1", "--val", CLIP, "--on-drop", "cry"), "expected revert or fail"),
        (("--precision", "int8", "--calib-method", "kl"), "not offered"),
        (("--precision", "int8", "--keep", "nose"), "stage 'nose' is not known"),
        (
            (
                "--precision",
                "int4",
            ),
            "precision 'int4' is not supported",
        ),
    ):
        done = run(*export, *wish)
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr
