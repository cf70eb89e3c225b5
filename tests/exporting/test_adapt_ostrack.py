"""OSTrack from weights and from its own ONNX, written as public exporters write it: the same boxes."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from edgetrack.exporting.pipeline import ExportRequest, export
from edgetrack.exporting.recipe import find_recipe
from edgetrack.exporting.stages import patterns_of
from edgetrack.media import open_source
from edgetrack.models.base import make_network, untrained_tensors
from edgetrack.runtime.session import load
from tests.builders import as_toml

pytestmark = pytest.mark.usefixtures("short_proof")
SMALL = {"search_size": 128, "template_size": 64}
CONFIGURATION = {**SMALL, "elimination": True, "dim": 32, "depth": 11, "heads": 2, "head_channels": 16}
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def small_recipe(folder: Path) -> Path:
    shipped = find_recipe("ostrack_256")
    tables = {
        "schema": 1,
        "name": "small",
        "family": "ostrack",
        "checkpoint": {"file": "small.pth", "key": "net"},
        "untrained": {"multipliers": shipped.untrained.multipliers, "overrides": shipped.untrained.overrides},
        "configuration": CONFIGURATION,
        "procedure": {**shipped.procedure, **SMALL},
        "inputs": {"template": {"source": "z", **IMAGENET}, "search": {"source": "x", **IMAGENET}},
        "outputs": {role: {"source": f"{role}_map"} for role in ("score", "size", "offset")},
    }
    path = folder / "small.toml"
    path.write_text(as_toml(tables))
    return path


def public_onnx(recipe: Path, path: Path) -> torch.nn.Module:
    """Float NCHW, names z, x and *_map: what the authors' forward gives to torch.onnx.export."""
    found = find_recipe(str(recipe))
    network = make_network("ostrack", found.configuration)
    network.load_state_dict(untrained_tensors(network, found.untrained.multipliers, found.untrained.overrides))
    crops = torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 128, 128)
    names = {"input_names": ["z", "x"], "output_names": ["score_map", "size_map", "offset_map"]}
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network.eval(), crops, str(path), dynamo=False, opset_version=15, **names)
    return network


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_checkpoint_and_public_file_give_the_same_boxes(tmp_path: Path, target: str) -> None:
    recipe = small_recipe(tmp_path)
    network = public_onnx(recipe, tmp_path / "small.onnx")
    torch.save({"net": network.state_dict()}, tmp_path / "small.pth")
    ours = export(ExportRequest(str(recipe), target, weights=str(tmp_path / "small.pth"), output=tmp_path / "ours"))
    given = export(ExportRequest(str(recipe), target, onnx=(tmp_path / "small.onnx",), output=tmp_path / "given"))
    assert (ours.parity.reference, given.parity.reference) == ("PyTorch", "the given ONNX")
    with open_source("synthetic:drift?frames=6") as source:
        frames = list(source)
    boxes = []
    for report in (ours, given):
        with load(report.path, threads=1) as tracker:
            tracker.init(frames[0], (100, 80, 60, 40))
            boxes.append([tracker.update(frame).box for frame in frames[1:]])
    np.testing.assert_allclose(*boxes, rtol=0, atol=0.01)


@pytest.mark.parametrize("official", [False, True])
def test_the_attention_s_products_are_those_of_the_stage(tmp_path: Path, official: bool) -> None:
    """By name, in our graph and in a file as public exporters write it: two products and a softmax in each layer."""
    recipe = small_recipe(tmp_path)
    network = public_onnx(recipe, tmp_path / "small.onnx")
    torch.save({"net": network.state_dict()}, tmp_path / "small.pth")
    files, weights = ((tmp_path / "small.onnx",), None) if official else ((), str(tmp_path / "small.pth"))
    export(ExportRequest(str(recipe), "onnx", weights=weights, onnx=files, output=tmp_path / "bundle"))
    (pattern,) = patterns_of(find_recipe("ostrack_256").stages, ("products",), "step")
    nodes = onnx.load(str(tmp_path / "bundle" / "step.onnx")).graph.node
    kept = [node.op_type for node in nodes if re.fullmatch(pattern, node.name)]
    assert (kept.count("MatMul"), kept.count("Softmax"), len(kept)) == (22, 11, 33)
    assert sum(node.op_type == "MatMul" for node in nodes) == 22 + 4 * 11
