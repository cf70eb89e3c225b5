"""The graphs that ship compute what the published network computes, in PyTorch and in the runtimes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgetrack.bundle.manifest import GraphInfo, TensorInfo
from edgetrack.capabilities import backend_of, find_target
from edgetrack.export.parity import count_flops
from edgetrack.export.recipe import find_recipe
from edgetrack.export.targets.base import exporter_of
from edgetrack.models.base import GraphModule
from edgetrack.models.smat import Network, deploy
from edgetrack.models.smat.graphs import FEATURES, MAPS, image_to_nchw, reference
from edgetrack.runtime.backends.base import BackendOptions
from edgetrack.runtime.verify import run_graph

GOLDEN_NAMES = {"score": "score_map", "size": "size_map", "offset": "offset_map"}


@pytest.fixture(scope="module")
def graphs(network: Network) -> dict[str, GraphModule]:
    return {graph.name: graph for graph in deploy(network)}


@pytest.fixture(scope="module")
def bgr(images: dict[str, Tensor]) -> dict[str, Tensor]:
    """The golden inputs as the shipped graphs take them: BGR, 0..255."""
    return {key: image.flip(1) * 255 for key, image in images.items()}


class _TemplateTwin(nn.Module):
    """The shipped template graph behind its image conversion: golden inputs are not whole numbers of 0..255."""

    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, image: Tensor) -> Tensor:
        return self.graph.features(image)


class _StepTwin(_TemplateTwin):
    def forward(self, image: Tensor, features: Tensor) -> tuple[Tensor, ...]:
        return self.graph.maps(image, features)


def twins(graphs: dict[str, GraphModule]) -> tuple[GraphModule, GraphModule]:
    template = TensorInfo(name="template", dtype="float32", shape=(1, 3, 128, 128))
    search = TensorInfo(name="search", dtype="float32", shape=(1, 3, 256, 256))
    return (
        GraphModule("template", "init", _TemplateTwin(graphs["template"].module).eval(), (template,), (FEATURES,)),
        GraphModule("step", "step", _StepTwin(graphs["step"].module).eval(), (search, FEATURES), MAPS),
    )


def assert_golden(found: dict[str, Any], golden: Callable[[str], Any]) -> None:
    smat = golden("smat")
    for name, official in GOLDEN_NAMES.items():
        expected = smat.arrays[f"out/{official}"]
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=smat.meta["tol_abs"], err_msg=name)


def test_shipped_graphs_give_the_official_maps(
    graphs: dict[str, GraphModule], bgr: dict[str, Tensor], golden: Callable[[str], Any]
) -> None:
    template, step = twins(graphs)
    features = template(bgr["template"])["template_features"]
    assert_golden({name: value.numpy() for name, value in step(bgr["search"], features).items()}, golden)


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_exported_graphs_give_the_official_maps(
    graphs: dict[str, GraphModule], bgr: dict[str, Tensor], golden: Callable[[str], Any], tmp_path: Path, target: str
) -> None:
    exporter = exporter_of(find_target(target))(find_recipe("smat"))
    known = {key: image.numpy() for key, image in bgr.items()}
    for twin in twins(graphs):
        file = exporter.convert(twin, tmp_path, opset=17, metadata={"tracker": "smat"})
        info = GraphInfo(name=twin.name, role=twin.role, file=file, inputs=twin.inputs, outputs=twin.outputs)
        graph = backend_of(target)(info, tmp_path / file, BackendOptions(threads=1))
        known |= run_graph(graph, {t.name: known[t.name] for t in twin.inputs})
        graph.close()
    assert_golden(known, golden)


def test_shipped_and_published_graphs_agree_on_images(network: Network, graphs: dict[str, GraphModule]) -> None:
    rng = np.random.default_rng(1)
    crops = [torch.from_numpy(rng.integers(0, 256, (side, side, 3), np.uint8)) for side in (128, 256)]
    maps = []
    for template, step in (tuple(graphs.values()), reference(network)):
        maps.append(step(crops[1], *template(crops[0]).values()))
    for name, published in maps[1].items():
        torch.testing.assert_close(maps[0][name], published, rtol=0, atol=1e-5)


def test_published_template_is_its_cache_and_shipped_one_is_four_times_smaller(
    network: Network, graphs: dict[str, GraphModule]
) -> None:
    published = reference(network)[0].outputs[0]
    assert published.shape == (1, 128, 32, 32)
    assert np.prod(published.shape) == 4 * np.prod(graphs["template"].outputs[0].shape)


def test_graphs_return_what_they_declare(network: Network, graphs: dict[str, GraphModule]) -> None:
    for graph in (*graphs.values(), *reference(network)):
        for info, (name, value) in zip(graph.outputs, graph(*graph.example()).items(), strict=True):
            assert (name, tuple(value.shape), value.dtype) == (info.name, info.shape, torch.float32)


def test_shipped_graphs_need_no_gradient_and_hold_no_norm_layer(graphs: dict[str, GraphModule]) -> None:
    for graph in graphs.values():
        assert not graph.module.training
        assert not any(p.requires_grad for p in graph.module.parameters())
        assert not any(isinstance(m, (nn.BatchNorm2d, nn.GroupNorm)) for m in graph.module.modules())


def test_deploying_leaves_the_network_as_it_is(network: Network) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    deploy(network)
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_step_needs_a_fifth_less_arithmetic_than_published(network: Network, graphs: dict[str, GraphModule]) -> None:
    shipped, published = count_flops(graphs["step"]), count_flops(reference(network)[1])
    assert shipped == pytest.approx(3.746e9, rel=1e-3)
    assert published == pytest.approx(4.598e9, rel=1e-3)


def test_images_keep_their_values() -> None:
    image = torch.arange(24, dtype=torch.uint8).reshape(2, 4, 3)
    tensor = image_to_nchw(image)
    assert tensor.shape == (1, 3, 2, 4)
    assert tensor.dtype == torch.float32
    assert tensor[0, 2, 1, 3] == image[1, 3, 2]
