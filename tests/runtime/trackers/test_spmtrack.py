"""SPMTrack's decoding against the official one, and what its routers report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from edgetrack.box import Box
from edgetrack.cli.main import app
from edgetrack.media import open_source
from edgetrack.runtime.crop import CropMapping
from edgetrack.runtime.decode import CellChooser, hann_closed
from edgetrack.runtime.session import load
from edgetrack.runtime.trackers.spmtrack import MAPS, choose_box
from tests.builders import as_toml, tiny_tables

SCENE = "synthetic:drift?frames=4&size=160x120"


@pytest.mark.parametrize("case", [f"case{i}" for i in range(5)])
def test_decoded_boxes_are_the_official_ones(golden: Callable[[str], Any], case: str) -> None:
    decode = golden("decode_spmtrack")
    window, fixture = hann_closed(27).astype(np.float32), decode.group(case)
    np.testing.assert_allclose(window, decode.arrays["window27"], rtol=0, atol=1e-6)
    chooser = CellChooser(window, influence=0.45, dtype=np.float32)
    score, found = choose_box(fixture["score_logits"], fixture["boxes_norm_xyxy"], chooser)
    assert score == pytest.approx(float(fixture["confidence"][0]), abs=1e-6)
    in_crop = Box(*(378 * value for value in found))
    np.testing.assert_allclose(in_crop.xyxy, fixture["box_in_crop_px"][0], rtol=0, atol=1e-3)
    mapped = CropMapping(*fixture["adjusted_params"].ravel().tolist()).to_frame(in_crop)
    np.testing.assert_allclose(mapped.xyxy, fixture["box_in_frame_unclipped"], rtol=0, atol=1e-3)


@pytest.fixture
def routed(made_once: Callable[..., Path], tmp_path: Path) -> Path:
    """A tiny bundle that reports its routes."""
    from edgetrack.exporting.pipeline import ExportRequest, export

    tables = tiny_tables("spmtrack_b", {})
    tables["configuration"]["routes"] = True
    recipe = tmp_path / "spmtrack_b.toml"
    recipe.write_text(as_toml(tables))

    def make(output: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("edgetrack.exporting.parity.DEFAULT_SOURCES", ("synthetic:drift?frames=2",))
            patch.setattr("edgetrack.exporting.parity.MOMENTS", (1,))
            export(ExportRequest(str(recipe), "onnx", output=output))

    return made_once("routed/spmtrack_b-onnx-fp32", make)


def test_every_frame_reports_how_the_routers_weigh(routed: Path, exported_tiny: Callable[..., Path]) -> None:
    frames = list(open_source(SCENE))
    boxes = []
    for bundle in (routed, exported_tiny("spmtrack_b", "onnx")):
        with load(bundle, threads=1) as tracker:
            tracker.init(frames[0], (60, 40, 30, 30))
            found = [tracker.update(frame) for frame in frames[1:]]
        boxes.append([result.box for result in found])
        gates = found[0].diagnostics
        assert list(gates) == ([f"layer {n} {name}" for n in (1, 2) for name in MAPS] if bundle == routed else [])
        assert all(sum(parts.values()) == pytest.approx(1, abs=1e-5) for parts in gates.values())
        assert all(list(parts) == [f"expert {n}" for n in range(1, 5)] for parts in gates.values())
        if gates:
            assert found[0].diagnostics != found[1].diagnostics
    np.testing.assert_allclose(boxes[0], boxes[1], rtol=0, atol=1e-3)


def test_eval_keeps_the_course_of_each_router_and_the_report_draws_it(routed: Path, tmp_path: Path) -> None:
    record, page = tmp_path / "routes.json", tmp_path / "page.html"
    said = CliRunner().invoke(app, ["eval", str(routed), SCENE, "--threads", "1", "-o", str(record)])
    assert said.exit_code == 0, said.output
    assert "12 gates over 3 frames, layer 1 q to layer 2 mlp out" in " ".join(said.output.split())
    (sequence,) = json.loads(record.read_text())["results"][0]["sequences"]
    course = sequence["diagnostics"]["layer 2 proj"]["course"]
    assert list(course) == [f"expert {n}" for n in range(1, 5)]
    assert all(len(values) == 3 for values in course.values())
    made = CliRunner().invoke(app, ["report", str(record), "-o", str(page)])
    assert made.exit_code == 0, made.output
    assert "What the trackers weighed" in page.read_text()
    assert "layer 2 proj, frames" in page.read_text()
