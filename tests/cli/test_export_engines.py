"""Engines for two generations of cards, built by the command on a machine without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgetrack.bundle import open_bundle, read_json
from edgetrack.quantization.calibration import Part, find_set, make_set, to_toml
from edgetrack.runtime.verify import LAYERS_FILE, LayerReport

pytest.importorskip("tensorrt_rtx", reason="TENSORRT-RTX ABSENT: pip install 'edgetrack[tensorrt]'")
pytestmark = pytest.mark.long
CARDS = ("8.6", "8.9")


@pytest.fixture
def few_crops(tmp_path: Path) -> Path:
    """A calibration set of four crops of built-in scenes."""
    (part,) = find_set("synthetic").parts
    path = tmp_path / "few.toml"
    path.write_text(to_toml(make_set("few", (Part(dataset=part.dataset, items=part.items[:4]),))), "utf-8")
    return path


def export(folder: Path, crops: Path, tracker: str, precision: str) -> Path:
    command = [sys.executable, "-m", "edgetrack", "export", tracker, "--target", "tensorrt", "--precision", precision]
    options = ["--calib", str(crops), "--compute-capability", ",".join(CARDS), "--json"]
    environment = {**os.environ, "EDGETRACK_CACHE": "off"}
    done = subprocess.run(
        [*command, *options], cwd=folder, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / json.loads(done.stdout)["bundle"]


@pytest.mark.parametrize("tracker", [pytest.param("smat", marks=pytest.mark.full), "nanotrack_v2"])
def test_engines_of_every_precision_for_cards_that_are_not_here(tracker: str, few_crops: Path, tmp_path: Path) -> None:
    packed = {}
    for precision in ("fp32", "fp16", "int8"):
        with open_bundle(export(tmp_path, few_crops, tracker, precision)) as bundle:
            engines = [engine for graph in bundle.manifest.graphs for engine in graph.engines]
            report = read_json(bundle.path(LAYERS_FILE), LayerReport)
            packed[precision] = sum(bundle.manifest.files[engine["file"]].size for engine in engines)
        assert [engine["capability"] for engine in engines] == [*CARDS] * len(report.graphs)
        types = report.graphs["step"].precisions()
        assert bool(types.get("half")) is (precision == "fp16")
        assert bool(types.get("int8")) is (precision == "int8")
        kinds = report.graphs["step"].types()
        assert kinds.get("quantize", 0) == types.get("int8", 0)
    assert packed["fp16"] < packed["fp32"]
    # As the bundle holds them: the plan itself is source text of kernels for the most part (docs/tensorrt.md), and
    # NanoTrack has so few weights, 0.33 M, that INT8's additional kernels outweigh what it saves on them.
    assert (packed["int8"] < packed["fp16"]) is (tracker == "smat")
