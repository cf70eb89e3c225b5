"""`edgetrack calibrate` as a process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.builders import write_scripted

CLIP = "synthetic:drift?frames=10&size=320x240"


def test_a_set_is_collected_shown_and_never_overwritten(run, exported: Callable[..., Path], tmp_path: Path) -> None:
    bundle, path = exported("onnx", tracker="nanotrack_v2"), tmp_path / "mine.toml"
    made = run("calibrate", "collect", str(bundle), CLIP, "-o", str(path), "--calib-size", "6")
    assert made.returncode == 0, made.stderr
    assert "6 crops of 1 clips" in made.stdout
    shown = run("calibrate", "show", str(path))
    assert "mine: 6 crops" in shown.stdout
    assert "nanotrack_v2, untrained weights" in shown.stdout
    again = run("calibrate", "collect", str(bundle), CLIP, "-o", str(path))
    assert (again.returncode, "--overwrite replaces it" in again.stderr) == (2, True)


@pytest.fixture
def leaving(tmp_path: Path) -> Path:
    """Two sequences of 40 frames; the target stands still, and is gone from frame 20 on."""
    for name in ("a", "b"):
        folder = tmp_path / "data" / name / "img"
        folder.mkdir(parents=True)
        for index in range(40):
            cv2.imwrite(str(folder / f"{index:04d}.png"), np.full((48, 64, 3), 90, np.uint8))
        rows = ["20,16,16,16"] * 20 + ["nan,nan,nan,nan"] * 20
        (tmp_path / "data" / name / "groundtruth.txt").write_text("\n".join(rows) + "\n")
    return tmp_path / "data"


def test_a_bundle_is_calibrated_and_its_copy_flags_what_the_source_does_not(run, leaving: Path, tmp_path: Path) -> None:
    # One worker tracks both, so that the script goes on: 19 frames on target, 20 off, twice. It stands still.
    scores = ([0.9] * 19 + [0.3] * 20) * 2
    bundle, output = write_scripted(tmp_path / "plain", score=scores, offset=1.0), tmp_path / "calibrated"
    options = ("--false-alarms", "10%", "--runs", str(tmp_path / "runs"))
    made = run("calibrate", "lost", str(bundle), str(leaving), "-o", str(output), *options)
    assert made.returncode == 0, made.stderr
    assert "note: " not in made.stderr
    assert "2 sequences, 78 frames, 40 of them off target" in made.stdout
    shown = json.loads(run("calibrate", "lost", str(bundle), str(leaving), *options, "--json").stdout)
    # The middle between log-odds of 0.3 and 0.9: (log(3/7) + log 9) / 2, where a score of 0.9 is not below 0.9.
    assert shown["model"]["threshold"] == pytest.approx(1 / (1 + (7 / 27) ** 0.5), abs=1e-3)
    assert shown["model"]["recall"] == 1
    flags = []
    for one in (bundle, output):
        found = run("eval", str(one), str(leaving), "-o", str(tmp_path / f"eval-{one.name}"), "--json")
        flags.append(json.loads(found.stdout)["results"][0]["flag"])
    assert [(flag["recall"], flag["false_alarms"]) for flag in flags] == [(0, 0), (1, 0)]
    assert [(flag["noticed"], flag["losses"]) for flag in flags] == [(0, 2), (2, 2)]


def test_a_threshold_that_misses_losses_elsewhere_is_written_with_a_note(run, leaving: Path, tmp_path: Path) -> None:
    # Of the second sequence's losses only one in four scores as low as all of the first one's.
    scores = [*[0.9] * 19, *[0.3] * 20, *[0.9] * 19, *[0.3] * 5, *[0.85] * 15]
    bundle, output = write_scripted(tmp_path / "plain", score=scores, offset=1.0), tmp_path / "calibrated"
    options = ("--false-alarms", "10%", "--runs", str(tmp_path / "runs"))
    made = run("calibrate", "lost", str(bundle), str(leaving), "-o", str(output), *options)
    assert (made.returncode, output.exists()) == (0, True), made.stderr
    assert "note: the threshold misses losses: recall 0.250 on sequences that it was not found on" in made.stderr


def test_a_score_that_does_not_separate_is_refused_and_nothing_is_written(run, leaving: Path, tmp_path: Path) -> None:
    bundle, output = write_scripted(tmp_path / "plain", score=0.5, offset=1.0), tmp_path / "calibrated"
    options = ("--false-alarms", "10%", "--runs", str(tmp_path / "runs"))
    made = run("calibrate", "lost", str(bundle), str(leaving), "-o", str(output), *options)
    assert made.returncode == 1
    assert "the score does not separate: AUROC 0.500 by score" in made.stderr
    assert not output.exists()
    few = run("calibrate", "lost", str(bundle), str(leaving), *options, "--sequences", "a")
    assert (few.returncode, "20 frames of 1 sequences are off target" in few.stderr) == (2, True)


def test_a_set_is_dumped_in_a_tools_format_and_never_over_something_else(
    run, exported_tiny: Callable[..., Path], tmp_path: Path
) -> None:
    command = ["calibrate", "dump", str(exported_tiny("smat", "onnx")), CLIP, "-o", str(tmp_path / "out")]
    made = run(*command, "--format", "rknn", "--calib-size", "3")
    assert made.returncode == 0, made.stderr
    assert "step: 3 samples of search float32[1, 3, 128, 128]" in made.stdout
    assert len((tmp_path / "out" / "step" / "dataset.txt").read_text().splitlines()) == 3
    again = run(*command)
    assert (again.returncode, "--overwrite replaces an earlier dump" in again.stderr) == (2, True)
