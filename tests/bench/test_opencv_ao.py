"""The script that scores OpenCV's trackers as bundles are scored."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

SCRIPT = Path(__file__).resolve().parents[2] / "bench" / "opencv_ao.py"


def test_opencvs_own_tracker_follows_a_square(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scene, square = np.full((120, 160, 3), 90, np.uint8), rng.integers(0, 256, (30, 30, 3), dtype=np.uint8)
    folder = tmp_path / "square" / "img"
    folder.mkdir(parents=True)
    for index in range(6):
        frame = scene.copy()
        frame[40:70, 40 + index : 70 + index] = square
        cv2.imwrite(str(folder / f"{index:04d}.png"), frame)
    rows = "".join(f"{40 + index},40,30,30\n" for index in range(6))
    (tmp_path / "square" / "groundtruth.txt").write_text(rows)
    command = [sys.executable, str(SCRIPT), str(tmp_path), "mil", "--anchors", "3", "--anchor-length", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.fullmatch(
        r"square +AO (0\.\d+|1\.000)  from anchors (0\.\d+|1\.000)\nmil: AO ([\d.]+), from anchors ([\d.]+), "
        r"1 sequences\n",
        done.stdout,
    )
    assert found is not None, done.stdout + done.stderr
    assert float(found[3]) > 0.5
