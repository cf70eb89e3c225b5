"""The graphs that ship compute what the published networks compute, in PyTorch and in the runtimes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from edgetrack.bundle.manifest import GraphInfo
from edgetrack.capabilities import backend_of, find_target
from edgetrack.exporting.parity import count_flops
from edgetrack.exporting.recipe import find_recipe
from edgetrack.exporting.targets.base import exporter_of
from edgetrack.models.base import find_model
from edgetrack.runtime.backends.base import BackendOptions
from edgetrack.runtime.verify import run_graph

TRACKERS = ["nanotrack_v2", "nanotrack_v3"]
# Multiply-accumulates of the folded step; v3's further merge saves 2.5 million.
STEP_MMAC = {"nanotrack_v2": 76.86, "nanotrack_v3": 100.64}

each_tracker = pytest.mark.parametrize("tracker", TRACKERS)


@pytest.fixture(scope="session")
def crops(images: dict[str, Tensor]) -> dict[str, Tensor]:
    """The golden inputs as the shipped graphs take them: uint8 (H, W, 3)."""
    return {key: image[0].permute(1, 2, 0).to(torch.uint8).contiguous() for key, image in images.items()}


def assert_golden(found: dict[str, Any], reference: Any) -> None:
    cls, loc, limit = (np.asarray(found["cls"]), np.asarray(found["loc"]), reference.meta["tolerance"])
    expected = reference.arrays
    np.testing.assert_allclose(cls, expected["out/output1_cls_logits"], rtol=0, atol=limit["cls_logits"])
    np.testing.assert_allclose(np.exp(loc), expected["out/output2_loc"], rtol=0, atol=limit["loc"])


@each_tracker
@pytest.mark.parametrize("form", ["deploy", "reference"])
def test_graphs_give_the_official_maps(
    crops: dict[str, Tensor],
    official_network: Callable[..., nn.Module],
    golden: Callable[[str], Any],
    tracker: str,
    form: str,
) -> None:
    template, step = getattr(find_model(tracker), form)(official_network(tracker))
    maps = step(crops["search"], *template(crops["template"]).values())
    assert_golden({name: value.numpy() for name, value in maps.items()}, golden(tracker))


@each_tracker
@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_exported_graphs_give_the_official_maps(
    crops: dict[str, Tensor],
    official_network: Callable[..., nn.Module],
    golden: Callable[[str], Any],
    tmp_path: Path,
    tracker: str,
    target: str,
) -> None:
    exporter = exporter_of(find_target(target))(find_recipe(tracker))
    known: dict[str, Any] = {key: crop.numpy() for key, crop in crops.items()}
    for module in find_model(tracker).deploy(official_network(tracker)):
        file = exporter.convert(module, tmp_path, opset=17, metadata={"tracker": tracker})
        info = GraphInfo(name=module.name, role=module.role, file=file, inputs=module.inputs, outputs=module.outputs)
        graph = backend_of(target)(info, tmp_path / file, BackendOptions(threads=1))
        known |= run_graph(graph, {t.name: known[t.name] for t in module.inputs})
        graph.close()
    assert_golden(known, golden(tracker))


@each_tracker
def test_shipped_and_published_graphs_agree_on_images(
    untrained_network: Callable[..., nn.Module], tracker: str
) -> None:
    rng, model, network = np.random.default_rng(1), find_model(tracker), untrained_network(tracker)
    crops = [torch.from_numpy(rng.integers(0, 256, (side, side, 3), np.uint8)) for side in (127, 255)]
    found, published = (
        step(crops[1], *template(crops[0]).values())
        for template, step in (model.deploy(network), model.reference(network))
    )
    for name, value in published.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-5)


@each_tracker
def test_graphs_return_what_they_declare(untrained_network: Callable[..., nn.Module], tracker: str) -> None:
    model, network = find_model(tracker), untrained_network(tracker)
    for graph in (*model.deploy(network), *model.reference(network)):
        for info, (name, value) in zip(graph.outputs, graph(*graph.example()).items(), strict=True):
            assert (name, tuple(value.shape), value.dtype) == (info.name, info.shape, torch.float32)


@each_tracker
def test_shipped_graphs_need_no_gradient_and_hold_no_norm_layer(
    untrained_network: Callable[..., nn.Module], tracker: str
) -> None:
    for graph in find_model(tracker).deploy(untrained_network(tracker)):
        assert not graph.module.training
        assert not any(p.requires_grad for p in graph.module.parameters())
        assert not any(isinstance(m, nn.BatchNorm2d) for m in graph.module.modules())


@each_tracker
def test_deploying_leaves_the_network_as_it_is(untrained_network: Callable[..., nn.Module], tracker: str) -> None:
    network = untrained_network(tracker)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    find_model(tracker).deploy(network)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@each_tracker
def test_step_has_the_arithmetic_of_the_folded_correlation(
    untrained_network: Callable[..., nn.Module], tracker: str
) -> None:
    _, step = find_model(tracker).deploy(untrained_network(tracker))
    assert count_flops(step) / 2e6 == pytest.approx(STEP_MMAC[tracker], rel=1e-3)


@each_tracker
def test_every_convolution_of_the_shipped_onnx_has_constant_weights(
    untrained_network: Callable[..., nn.Module], tmp_path: Path, tracker: str
) -> None:
    from edgetrack.exporting.recipe import find_recipe
    from edgetrack.exporting.targets.onnx import OnnxExporter

    _, step = find_model(tracker).deploy(untrained_network(tracker))
    exporter = OnnxExporter(find_recipe(tracker))
    model = onnx.load(str(tmp_path / exporter.convert(step, tmp_path, opset=17, metadata={})))
    constants = {tensor.name for tensor in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) > 40
    assert all(node.input[1] in constants for node in convolutions)
    assert "Exp" not in {node.op_type for node in model.graph.node}
