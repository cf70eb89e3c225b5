"""The graphs that ship compute what the published network computes, in PyTorch and in the runtimes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgetrack.bundle import open_bundle
from edgetrack.bundle.manifest import GraphInfo, TensorInfo
from edgetrack.capabilities import backend_of, find_target
from edgetrack.errors import UsageError
from edgetrack.exporting.parity import count_flops
from edgetrack.exporting.recipe import find_recipe
from edgetrack.exporting.targets.base import exporter_of
from edgetrack.media import open_source
from edgetrack.models.base import GraphModule, make_network, untrained_tensors
from edgetrack.models.smat import Network, deploy, deploy_channels_last
from edgetrack.models.smat.graphs import image_to_nchw, reference
from edgetrack.runtime.backends.base import BackendOptions
from edgetrack.runtime.session import load
from edgetrack.runtime.verify import run_graph
from tests.builders import TINY as TINY_TABLES

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
    features, maps = graphs["template"].outputs, graphs["step"].outputs
    return (
        GraphModule("template", "init", _TemplateTwin(graphs["template"].module).eval(), (template,), features),
        GraphModule("step", "step", _StepTwin(graphs["step"].module).eval(), (search, *features), maps),
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
    network: Network, bgr: dict[str, Tensor], golden: Callable[[str], Any], tmp_path: Path, target: str
) -> None:
    shipped = deploy_channels_last if find_target(target).channels_last else deploy
    graphs = {graph.name: graph for graph in shipped(network)}
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


TINY: dict[str, Any] = TINY_TABLES["smat"]["configuration"]
ABLATIONS: list[dict[str, Any]] = [
    {},
    {"fusion": "layer_3"},
    {"fusion": "layer_4"},
    {"fusion": "none"},
    {"correlation": "plain"},
    {"correlation": "depthwise"},
    {"head": "convolutional"},
    {"attention": "standard"},
    {"attention": "standard", "fusion": "layer_4", "head": "convolutional", "correlation": "depthwise"},
]


def name_of(change: dict[str, Any]) -> str:
    return "-".join(map(str, change.values())) or "published"


def tiny(**change: Any) -> Network:
    network = Network(**TINY, **change)
    network.load_state_dict(untrained_tensors(network, {"neck.BN_z.weight": 0.02, "neck.BN_z.bias": 0.02}))
    return network.eval().requires_grad_(False)


def on_noise(graphs: tuple[GraphModule, ...]) -> dict[str, Tensor]:
    """The outputs of `step` on two crops of noise."""
    rng = np.random.default_rng(2)
    template, search = (torch.from_numpy(rng.integers(0, 256, graph.inputs[0].shape, np.uint8)) for graph in graphs)
    return graphs[1](search, *graphs[0](template).values())


@pytest.mark.parametrize("change", ABLATIONS, ids=name_of)
def test_ablations_ship_what_they_are(change: dict[str, Any]) -> None:
    """Maps of the shipped graphs and of the described network; the ones of attention too."""
    network = tiny(**change, attention_maps=True)
    found, described = on_noise(deploy(network)), on_noise(reference(network))
    assert list(found) == ["score", "size", "offset", "attention_16x16", "attention_8x8"]
    for name, value in described.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5, msg=name)
    plain = on_noise(deploy(tiny(**change)))
    assert all(torch.equal(plain[name], found[name]) for name in ("score", "size", "offset"))
    for name, value in on_noise(deploy_channels_last(network)).items():
        torch.testing.assert_close(value, found[name], rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("change", ABLATIONS, ids=name_of)
def test_ablations_export_prove_parity_and_run(exported_tiny: Callable[..., Path], change: dict[str, Any]) -> None:
    bundle = exported_tiny("smat", "onnx", attention_maps=True, **change)
    assert json.loads((bundle / "parity.json").read_text())["comparisons"]
    parameters = sum(parameter.numel() for parameter in tiny(**change).parameters())
    assert open_bundle(bundle).manifest.weights.parameters == parameters
    with open_source("synthetic:drift?frames=4") as source, load(bundle, threads=1) as tracker:
        first, *frames = source
        tracker.init(first, (source.ground_truth or [])[0])
        results = [tracker.update(frame) for frame in frames]
    assert all(result.score > 0 for result in results)
    assert [look.weights.shape for look in results[-1].attention] == [(16, 16), (8, 8)]


@pytest.mark.parametrize("kind", ["separable", "standard"])
@pytest.mark.parametrize("fusion", ["both", "none"])
def test_maps_of_attention_add_up(kind: str, fusion: str) -> None:
    """1 is an even share: alone, the search region's tokens share all; mixed, the template's take theirs."""
    maps = on_noise(deploy(tiny(attention=kind, fusion=fusion, attention_maps=True)))
    for name in ("attention_16x16", "attention_8x8"):
        assert (maps[name] >= 0).all()
        if fusion == "none":
            assert float(maps[name].mean()) == pytest.approx(1, rel=1e-4)
        else:
            # A quarter as many tokens as the search region's are the template's.
            assert 0.5 < float(maps[name].mean()) < 1.25


def test_a_template_that_is_not_mixed_is_encoded_once() -> None:
    """What `step` is handed goes as far as the fusion lets it, and the later, the less is left to compute."""
    shipped = {fusion: deploy(tiny(fusion=fusion)) for fusion in ("both", "layer_3", "layer_4", "none")}
    kept = {fusion: graphs[0].outputs[0].shape for fusion, graphs in shipped.items()}
    assert kept["both"] == kept["layer_3"] == (1, 32, 4, 16)
    assert kept["layer_4"] == kept["none"] == (1, 48, 2, 8)
    flops = {fusion: count_flops(graphs[1]) for fusion, graphs in shipped.items()}
    assert flops["none"] < flops["layer_4"] < flops["both"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fusion": "layer_5"}, "fusion is 'layer_5', expected one of both, layer_3, layer_4, none"),
        ({"correlation": "cross"}, "correlation is 'cross', expected one of gated, plain, depthwise"),
        ({"head": "corner"}, "head is 'corner', expected one of attention, convolutional"),
        ({"attention": "linear"}, "attention is 'linear', expected one of separable, standard"),
        ({"search_size": 250}, "search_size is 250, expected a multiple of 32"),
        ({"search_size": 256, "template_size": 96}, "must be a multiple of 16 x search_size"),
        ({"width": 0.3}, "width is 0.3, expected a multiple of 0.125"),
    ],
)
def test_what_cannot_be_made_is_said(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        make_network("smat", change)


@pytest.mark.parametrize(
    ("change", "count"),
    [
        ({}, 3_767_409),
        ({"fusion": "none"}, 3_767_409),
        ({"correlation": "plain"}, 3_759_089),
        ({"correlation": "depthwise"}, 3_800_049),
        ({"head": "convolutional"}, 4_104_299),
        ({"attention": "standard"}, 4_045_925),
    ],
)
def test_parameters_of_the_ablations(change: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in Network(**change).parameters()) == count
