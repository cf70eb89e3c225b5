"""DMTrack against every number of the official code, and its shipped graph against the published network."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from edgetrack.errors import CheckpointError, UsageError, WeightsMismatchError
from edgetrack.exporting.recipe import find_recipe
from edgetrack.exporting.weights import fill
from edgetrack.models.base import make_network, recipe_normal, untrained_tensors
from edgetrack.models.dmtrack import Network, deploy, reference
from edgetrack.models.layers.vit import MEAN, STD

MAPS = {"score": "score_map", "size": "size_map", "offset": "offset_map"}
TINY = {"search_size": 64, "template_size": 32, "dim": 32, "depth": 3, "heads": 2, "head_channels": 16}


def filled(network: Network, multipliers: dict[str, float]) -> Network:
    network.load_state_dict(untrained_tensors(network, multipliers))
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def network(golden: Callable[[str], Any]) -> Network:
    return filled(Network(), golden("dmtrack").meta["multipliers"])


@pytest.fixture(scope="module")
def crops() -> tuple[Tensor, Tensor]:
    """Golden templates (4, 2, 3, 128, 128) and search (2, 3, 256, 256), normalised RGB."""

    def image(key: str, size: int) -> Tensor:
        return torch.from_numpy(recipe_normal(f"input:{key}", (1, 6, size, size))).float().reshape(2, 3, size, size)

    return torch.stack([image(f"template_{i}", 128) for i in range(4)]), image("search", 256)


def pixels(image: Tensor) -> Tensor:
    """(.., 3, H, W) normalised RGB as (.., H, W, 3) BGR 0..255."""
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return ((image * std + mean) * 255).flip(-3).movedim(-3, -1)


def present(count: int, room: int = 4) -> Tensor:
    return (torch.arange(room) < count).float().unsqueeze(0)


@pytest.fixture(scope="module")
def recorded(network: Network, crops: tuple[Tensor, Tensor]) -> Iterator[dict[str, list[Any]]]:
    """Module -> the outputs of its calls with three templates; under "" the maps."""
    calls: dict[str, list[Any]] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: calls.setdefault(name, []).append(output)

    names = [f"backbone.blocks.0.{a}" for a in ("adap_tem1", "adap_tem2", "adap_t", "adap2_t")]
    names += [f"backbone.blocks.{i}" for i in (0, 5, 11)]
    hooks = [network.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    with torch.inference_mode():
        calls[""] = [network(crops[0][:3], crops[1])]
    for hook in hooks:
        hook.remove()
    return calls


def test_state_dict_has_the_official_names_and_shapes_in_order(shared: Path) -> None:
    lines = (shared / "spec/statedict_dmtrack.txt").read_text().splitlines()
    rows = [line.split("\t") for line in lines if line[0] != "#"]
    official = [(name, ast.literal_eval(shape), dtype) for name, shape, dtype, *_ in rows]
    with torch.device("meta"):
        network = Network()
    found = [(n, tuple(t.shape), str(t.dtype).removeprefix("torch.")) for n, t in network.state_dict().items()]
    assert found == official
    assert len(found) == 674
    assert sum(p.numel() for p in network.parameters()) == 93_304_965


def test_maps_and_stages_are_the_official_ones(golden: Callable[[str], Any], recorded: dict[str, list[Any]]) -> None:
    dmtrack = golden("dmtrack")
    block = "backbone.blocks.0"
    taps = {
        "blocks.0.adap_tem1": recorded[f"{block}.adap_tem1"][0],
        "blocks.0.adap_tem2": recorded[f"{block}.adap_tem2"][0],
        "blocks.0.adap_t(call 1: from X to RGB, call 2: from RGB to X)": recorded[f"{block}.adap_t"][0],
        "blocks.0.adap_t(call 1: from X to RGB, call 2: from RGB to X)#2": recorded[f"{block}.adap_t"][1],
        "blocks.0.adap2_t.for_rgb": recorded[f"{block}.adap2_t"][0][0],
        "blocks.0.adap2_t.for_x": recorded[f"{block}.adap2_t"][0][1],
    }
    for index in (0, 5, 11):
        taps[f"blocks.{index}.rgb"], taps[f"blocks.{index}.x"] = recorded[f"backbone.blocks.{index}"][0]
    for tap, tensor in taps.items():
        expected, found = dmtrack.group(f"tap/{tap}"), tensor.numpy()
        assert found.shape == tuple(expected["shape"]), tap
        samples = found.ravel()[np.linspace(0, found.size - 1, 32).astype(np.int64)]
        np.testing.assert_allclose(samples, expected["samples"], rtol=1e-5, atol=2e-5, err_msg=tap)
    for found, name in zip(recorded[""][0], MAPS.values(), strict=True):
        np.testing.assert_allclose(found, dmtrack.arrays[f"out/T3/{name}"], rtol=0, atol=dmtrack.meta["tol_abs"])


@pytest.mark.parametrize("count", [1, 4])
def test_shipped_graph_gives_the_official_maps(
    network: Network, crops: tuple[Tensor, Tensor], golden: Callable[[str], Any], count: int
) -> None:
    (step,) = deploy(network)
    found = step(pixels(crops[1]), pixels(crops[0]), present(count))
    for name, official in MAPS.items():
        expected = golden("dmtrack").arrays[f"out/T{count}/{official}"]
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=golden("dmtrack").meta["tol_abs"], err_msg=name)


@pytest.fixture(scope="module")
def tiny() -> Network:
    return filled(Network(**TINY), {"adap_tem1.adapter_up.weight": 0.1, "adap_tem2.adapter_up.weight": 0.1})


def adapters(network: torch.nn.Module) -> int:
    return sum(p.numel() for name, p in network.named_parameters() if ".adap" in name)


def test_what_is_trained_are_the_adapters() -> None:
    with torch.device("meta"):
        assert adapters(Network()) == 786_432
        assert adapters(Network(temporal="shared")) == 786_432 - 12 * adapters_over_time()
        assert adapters(Network(temporal="none")) == 786_432 - 24 * adapters_over_time()
        assert adapters(Network(beside_mlp="none")) < adapters(Network(beside_mlp="shallow")) < 786_432


def adapters_over_time() -> int:
    """768 to 12, a filter of three taps over each of the 12, and back: all with biases."""
    return 768 * 12 + 12 + 12 * 3 + 12 + 12 * 768 + 768


ABLATIONS = [
    {"temporal": "none"},
    {"temporal": "shared"},
    {"templates": 1},
    {"beside_mlp": "none"},
    {"beside_mlp": "shallow"},
    {"beside_attention": "deep"},
    {"beside_attention": "deep", "beside_mlp": "shallow"},
    {"temporal": "none", "beside_attention": "none", "beside_mlp": "none"},
]


@pytest.mark.parametrize("changes", ABLATIONS, ids=lambda changes: "-".join(map(str, changes.values())))
def test_each_ablation_ships_as_published_and_is_another_network(changes: dict[str, Any]) -> None:
    network = filled(Network(**{**TINY, **changes}), {"adapter_up.weight": 0.5})
    room = network.sizes.templates
    generator = torch.Generator().manual_seed(1)
    search = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8, generator=generator)
    templates = torch.randint(0, 256, (room, 2, 32, 32, 3), dtype=torch.uint8, generator=generator)
    (shipped,), (published,) = deploy(network), reference(network)
    for count in {1, room}:
        found, expected = (graph(search, templates, present(count, room)) for graph in (shipped, published))
        for name, value in found.items():
            torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=2e-5)
    full = filled(Network(**TINY), {"adapter_up.weight": 0.5})
    if room == full.sizes.templates:
        (whole,) = deploy(full)
        assert not torch.allclose(whole(search, templates, present(4))["offset"], found["offset"], atol=1e-4)
    else:
        # One template, and the filter over time sees its own frame alone.
        assert [tuple(t.shape) for t in shipped.inputs] == [(2, 64, 64, 3), (1, 2, 32, 32, 3), (1, 1)]


@pytest.mark.parametrize("wrong", [{"temporal": "both"}, {"beside_attention": "SA"}, {"beside_mlp": ""}])
def test_an_unknown_ablation_names_what_there_is(wrong: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=r"expected (separate, shared, none|shallow, deep, none).*\[configuration\]"):
        make_network("dmtrack", {**TINY, **wrong})


@given(count=st.integers(1, 4), seed=st.integers(0, 1000))
def test_absent_templates_have_no_say(tiny: Network, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    search, templates = (
        torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        for shape in ((2, 64, 64, 3), (4, 2, 32, 32, 3))
    )
    (shipped,), (published,) = deploy(tiny), reference(tiny)
    found, expected = (graph(search, templates, present(count)) for graph in (shipped, published))
    other = templates.clone()
    other[count:] = 255 - other[count:]
    for name, value in shipped(search, other, present(count)).items():
        assert torch.equal(value, found[name])
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=2e-5)


def test_each_modality_and_each_template_counts(tiny: Network) -> None:
    generator = torch.Generator().manual_seed(0)
    search = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8, generator=generator)
    templates = torch.randint(0, 256, (4, 2, 32, 32, 3), dtype=torch.uint8, generator=generator)
    (step,) = deploy(tiny)
    found = step(search, templates, present(4))["offset"]
    for modality in (0, 1):
        changed = search.clone()
        changed[modality] = 0
        assert not torch.allclose(step(changed, templates, present(4))["offset"], found)
        for index in range(4):
            other = templates.clone()
            other[index, modality] = 0
            assert not torch.allclose(step(search, other, present(4))["offset"], found)


def test_a_network_that_cannot_be_made_names_the_configuration() -> None:
    with pytest.raises(UsageError, match=r"heads.*\[configuration\]"):
        make_network("dmtrack", {"heads": 0})
    with pytest.raises(UsageError, match=r"width = 3"):
        make_network("dmtrack", {"width": 3})


def test_checkpoints_of_other_variants_are_named(tiny: Network, tmp_path: Path) -> None:
    single = {name: tensor for name, tensor in tiny.state_dict().items() if ".adap" not in name}
    torch.save({"net": single}, tmp_path / "ostrack.pth.tar")
    with pytest.raises(CheckpointError, match=r"one image a frame.*RGB-T, RGB-E or RGB-D"):
        fill(tiny, find_recipe("dmtrack"), str(tmp_path / "ostrack.pth.tar"))
    larger = tiny.state_dict() | {"backbone.pos_embed_x": torch.zeros(1, 1, tiny.backbone.pos_embed_x.shape[-1])}
    torch.save({"net": larger}, tmp_path / "larger.pth.tar")
    with pytest.raises(WeightsMismatchError, match=r"1 misshapen\s+misshapen: backbone.pos_embed_x is \(1, 1,"):
        fill(tiny, find_recipe("dmtrack"), str(tmp_path / "larger.pth.tar"))
