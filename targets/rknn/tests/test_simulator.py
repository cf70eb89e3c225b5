"""rknn-toolkit2, where it is set up: what it builds, simulated from ONNX and record alone, beside ONNX Runtime."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from edgetrack_rknn.backend import RknnGraph
from edgetrack_rknn.exporter import RknnExporter, RknnOptions
from rknn_graphs import fed, tiny
from test_backend import INFO

from edgetrack.errors import BundleIntegrityError
from edgetrack.exporting.recipe import find_recipe
from edgetrack.exporting.targets.base import Lowering
from edgetrack.runtime.backends.base import BackendOptions
from edgetrack.runtime.verify import run_graph

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("toolkit")]


def built(
    folder: Path, precision: str, platform: str = "rk3588", kept: tuple[str, ...] = (), algorithm: str = "normal"
) -> Path:
    path = folder / "step.onnx"
    onnx.save(tiny(), str(path))
    exporter = RknnExporter(find_recipe("nanotrack_v2"), RknnOptions(platform=platform, quantized_algorithm=algorithm))
    samples = [fed(seed) for seed in range(8)] if precision == "int8" else []
    assert exporter.lower(path, Lowering(precision, samples, kept=kept)) == ()
    assert [one.name for one in exporter.files(path)] == ["step.onnx", "step.rknn", "step.rknn.json"]
    return path


def simulated(path: Path) -> np.ndarray:
    graph = RknnGraph(INFO, path, BackendOptions())
    try:
        return run_graph(graph, fed(3))["out"]
    finally:
        graph.close()


def reference(path: Path) -> np.ndarray:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, fed(3))[0]


@pytest.mark.parametrize("platform", ["rk3588", "rk3576", "rk3566"])
def test_fp16_is_onnx_to_half_precision(tmp_path: Path, platform: str) -> None:
    path = built(tmp_path, "fp16", platform)
    assert (tmp_path / "step.rknn").read_bytes()[:4] == b"RKNN"
    wanted = reference(path)
    assert 0 < np.abs(simulated(path) - wanted).max() < 2e-3 * np.abs(wanted).max()


def test_int8_is_simulated_from_the_record_of_its_ranges(tmp_path: Path) -> None:
    path = built(tmp_path, "int8", "rv1106")
    wanted, found = reference(path), simulated(path)
    # A step of INT8 is 1/255 of the range; a handful of layers add up.
    assert 2e-3 < np.abs(found - wanted).max() / np.abs(wanted).max() < 0.1
    record = json.loads((tmp_path / "step.rknn.json").read_bytes())
    seen = np.stack([fed(seed)["features"] for seed in range(8)])
    assert record["ranges"]["features"] == [[pytest.approx(seen.min())], [pytest.approx(seen.max())]]
    record["ranges"] = {
        name: [[value / 4 for value in side] for side in both] if name.startswith("out") else both
        for name, both in record["ranges"].items()
    }
    (tmp_path / "step.rknn.json").write_text(json.dumps(record))
    assert np.abs(simulated(path)).max() < np.abs(found).max() / 3


@pytest.mark.parametrize("algorithm", ["kl_divergence", "mmse"])
def test_ranges_of_other_algorithms_are_simulated_from_the_record(tmp_path: Path, algorithm: str) -> None:
    """The toolkit refuses ranges that are given to it where it is told to find them by anything but extremes."""
    path = built(tmp_path, "int8", kept=("/norm/.*",), algorithm=algorithm)
    wanted, found = reference(path), simulated(path)
    assert 0 < np.abs(found - wanted).max() / np.abs(wanted).max() < 0.1
    assert json.loads((tmp_path / "step.rknn.json").read_bytes())["algorithm"] == algorithm


def test_kept_nodes_stay_in_fp16(tmp_path: Path) -> None:
    path = built(tmp_path, "int8", kept=("/Conv", "/Add", "/norm/.*"))
    mixed, wanted = simulated(path), reference(path)
    assert np.abs(mixed - wanted).max() < np.abs(simulated(built(tmp_path, "int8")) - wanted).max() / 2


def test_record_of_another_graph_is_refused(tmp_path: Path) -> None:
    path = built(tmp_path, "int8")
    record = json.loads((tmp_path / "step.rknn.json").read_bytes())
    record["ranges"]["no tensor"] = [[0.0], [1.0]]
    (tmp_path / "step.rknn.json").write_text(json.dumps(record))
    with pytest.raises(BundleIntegrityError, match=r"not those whose ranges are on record \(no tensor\)"):
        simulated(path)


def test_onnx_that_the_toolkit_does_not_take_is_refused(tmp_path: Path) -> None:
    path = built(tmp_path, "fp16")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(BundleIntegrityError):
        simulated(path)
