"""`edgetrack calibrate` as a process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

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
