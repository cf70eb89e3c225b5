"""SPMTrack against every number of the official code, its shipped graph, and its weights from two files."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from edgetrack.errors import CheckpointError, UsageError, WeightsMismatchError
from edgetrack.exporting.recipe import find_recipe
from edgetrack.exporting.weights import fill
from edgetrack.models.base import make_network, recipe_normal, untrained_tensors
from edgetrack.models.layers.vit import MEAN, STD
from edgetrack.models.spmtrack import Network, deploy, reference
from edgetrack.models.spmtrack.graphs import StackedExperts
from edgetrack.models.spmtrack.network import ExpertLinear, Experts

OUTPUTS = {"score": "score_map", "boxes": "boxes", "next_token": "track_query"}
TINY = {"search_size": 56, "template_size": 28, "dim": 32, "depth": 2, "heads": 2, "rank": 8}


def pixels(image: Tensor) -> Tensor:
    """(.., 3, H, W) normalised RGB as (.., H, W, 3) BGR 0..255."""
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return ((image * std + mean) * 255).flip(-3).movedim(-3, -1)


def official_state(shared: Path, name: str) -> list[tuple[str, tuple[int, ...]]]:
    lines = (shared / "spec" / name).read_text().splitlines()
    rows = [line.split("\t") for line in lines if line[0] != "#"]
    return [(row[0], ast.literal_eval(row[1])) for row in rows]


def test_state_dict_has_the_official_names_and_shapes_in_order(shared: Path) -> None:
    with torch.device("meta"):
        network = Network()
    found = [(name, tuple(tensor.shape)) for name, tensor in network.state_dict().items()]
    assert found == official_state(shared, "statedict_spmtrack_b.txt")
    assert len(found) == 668
    assert sum(p.numel() for p in network.parameters()) == 115_330_565


@pytest.mark.parametrize(
    ("configuration", "millions"),
    [
        ({"dim": 1024, "depth": 24, "heads": 16}, 379.6),
        ({"dim": 1536, "depth": 40, "heads": 24, "mlp": "swiglu"}, 1339.5),
    ],
    ids=["L", "G"],
)
def test_larger_ones_have_the_published_sizes(configuration: dict[str, Any], millions: float) -> None:
    with torch.device("meta"):
        network = make_network("spmtrack_b", configuration)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)


@pytest.mark.full
def test_both_steps_are_the_official_ones_published_and_shipped(golden: Callable[[str], Any]) -> None:
    spmtrack = golden("spmtrack_b")

    def image(key: str, size: int) -> Tensor:
        return torch.from_numpy(recipe_normal(f"input:{key}", (1, 3, size, size))).float()

    network = Network()
    network.load_state_dict(untrained_tensors(network, spmtrack.meta["multipliers"]))
    network.eval().requires_grad_(False)
    templates = torch.cat([image(f"template_{i}", 196) for i in range(3)])
    masks = torch.zeros(3, 14, 14)
    for mask, (x1, y1, x2, y2) in zip(masks, spmtrack.arrays["in/mask_rects"], strict=True):
        mask[y1:y2, x1:x2] = 1
    (step,) = deploy(network)
    state = carried = torch.zeros(1, 768)
    for index in (1, 2):
        search = image(f"search_{index}", 378)
        with torch.inference_mode():
            published = network(templates, masks.reshape(3, -1), search, state)
        shipped = step(pixels(search)[0], pixels(templates), masks.reshape(3, -1), carried)
        state, carried = published.state, shipped["next_token"]
        for found, (name, official) in zip(published, OUTPUTS.items(), strict=True):
            expected, atol = spmtrack.arrays[f"out/step{index}/{official}"], spmtrack.meta["tol_abs"][official]
            np.testing.assert_allclose(found, expected, rtol=0, atol=atol)
            np.testing.assert_allclose(shipped[name], expected, rtol=0, atol=atol)


@pytest.mark.parametrize("mlp", ["gelu", "swiglu"])
@pytest.mark.parametrize("rsexpert", [False, True])
@pytest.mark.parametrize("routes", [False, True])
def test_shipped_and_published_graphs_agree(mlp: str, rsexpert: bool, routes: bool) -> None:
    network = Network(**TINY, mlp=mlp, alpha=4, rsexpert=rsexpert, routes=routes)
    network.load_state_dict(untrained_tensors(network))
    network.eval().requires_grad_(False)
    (shipped,), (published,) = deploy(network), reference(network)
    generator = torch.Generator().manual_seed(1)
    inputs = [255 * torch.rand(t.shape, generator=generator) for t in shipped.inputs[:2]]
    inputs += [torch.randint(0, 2, shipped.inputs[2].shape, generator=generator).float(), torch.randn(1, 32)]
    found, expected = shipped(*inputs), published(*inputs)
    assert ("routes" in found) == routes
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-4)


def test_routes_are_the_mean_weights_of_each_router() -> None:
    """Held against what each router is given in the published network, in float64, one token at a time."""
    network = Network(**TINY, routes=True)
    network.load_state_dict(untrained_tensors(network))
    network.eval().requires_grad_(False)
    seen: dict[str, Tensor] = {}
    for name, module in network.named_modules():
        if isinstance(module, Experts):
            module.register_forward_pre_hook(lambda module, args, name=name: seen.__setitem__(name, args[0]))
    generator = torch.Generator().manual_seed(3)
    (step,) = reference(network)
    inputs = [255 * torch.rand(t.shape, generator=generator) for t in step.inputs[:2]]
    found = step(*inputs, torch.ones(step.inputs[2].shape), torch.randn(1, 32, generator=generator))["routes"]
    assert found.shape == (2, 6, 4)
    np.testing.assert_allclose(found.sum(dim=-1), 1, rtol=0, atol=1e-5)
    names = ("attn.qkv.q", "attn.qkv.k", "attn.qkv.v", "attn.proj", "mlp.fc1", "mlp.fc2")
    for layer in range(2):
        for index, name in enumerate(names):
            module = network.get_submodule(f"blocks.{layer}.{name}.tmoe")
            # The query is the first token, the search region's sixteen are the last.
            tokens = torch.cat([seen[f"blocks.{layer}.{name}.tmoe"][0, at] for at in (slice(1), slice(-16, None))])
            logits = tokens.double() @ module.expert_route.weight.double().T
            powers = torch.exp(logits)
            expected = (powers / powers.sum(dim=-1, keepdim=True)).mean(dim=0)
            np.testing.assert_allclose(found[layer, index], expected, rtol=1e-4, atol=1e-5)


def test_stacked_experts_are_the_experts_side_by_side() -> None:
    maps = [ExpertLinear(6, width, 3, 4, 0.5) for width in (5, 2)]
    for index, map_ in enumerate(maps):
        torch.manual_seed(index)
        for parameter in map_.parameters():
            torch.nn.init.normal_(parameter)
    x = torch.randn(2, 7, 6, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(StackedExperts(maps)(x), torch.cat([map_(x) for map_ in maps], dim=-1))
    gain = torch.tensor([2.0, -1.0, 0.5, 0.0, 3.0])
    torch.testing.assert_close(StackedExperts(maps[:1], gain)(x), maps[0](x) * gain)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, dict[str, Tensor]]:
    """What was trained, DINOv2's part with a class token and 3x3 positions, and the whole state dict of 4x4."""
    state = untrained_tensors(Network(**TINY))
    trained = {n: t for n, t in state.items() if "tmoe" in n or n.startswith(("head", "t", "query"))}
    trained |= {"expert_alpha": torch.tensor(64), "use_rsexpert": torch.tensor(False)}
    dino = {n.replace(".linear", ""): t for n, t in state.items() if n not in trained and ".qkv." not in n}
    for block in range(2):
        for leaf in ("weight", "bias"):
            parts = [state[f"blocks.{block}.attn.qkv.{part}.linear.{leaf}"] for part in "qkv"]
            dino[f"blocks.{block}.attn.qkv.{leaf}"] = torch.cat(parts)
    dino |= {"cls_token": torch.zeros(1, 1, 32), "mask_token": torch.zeros(1, 32), "pos_embed": torch.ones(1, 10, 32)}
    save_file(trained, tmp_path / "model.bin")
    torch.save(dino, tmp_path / "dinov2.pth")
    return tmp_path / "model.bin", tmp_path / "dinov2.pth", state | {"pos_embed": torch.ones(1, 16, 32)}


def test_weights_come_from_the_two_published_files(files: tuple[Path, Path, dict[str, Tensor]]) -> None:
    trained, dino, expected = files
    network, recipe = Network(**TINY), find_recipe("spmtrack_b")
    info = fill(network, recipe, f"{trained},{dino}")
    assert info.origin == "custom"
    assert info.file == "model.bin, dinov2.pth"
    assert info.note.count("sha256") == 2
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], msg=name)


def test_weights_come_from_a_merged_file(files: tuple[Path, Path, dict[str, Tensor]], tmp_path: Path) -> None:
    network = Network(**TINY)
    save_file(files[2], tmp_path / "merged.safetensors")
    fill(network, find_recipe("spmtrack_b"), str(tmp_path / "merged.safetensors"))
    assert all(torch.equal(tensor, files[2][name]) for name, tensor in network.state_dict().items())


def test_half_of_the_weights_names_the_other_half(files: tuple[Path, Path, dict[str, Tensor]]) -> None:
    with pytest.raises(CheckpointError, match="dinov2_vitb14_pretrain"):
        fill(Network(**TINY), find_recipe("spmtrack_b"), str(files[0]))
    with pytest.raises(WeightsMismatchError, match="missing"):
        fill(Network(**TINY), find_recipe("spmtrack_b"), str(files[1]))


def test_experts_of_another_scale_are_refused(files: tuple[Path, Path, dict[str, Tensor]]) -> None:
    with pytest.raises(CheckpointError, match=r"expert_alpha is 64, the recipe expects 32; set alpha"):
        fill(Network(**TINY, alpha=32), find_recipe("spmtrack_b"), f"{files[0]},{files[1]}")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"dim": 64}, r"dim 64 and depth 2; the recipe's network has dim 32 and depth 2; set dim, depth and heads"),
        ({"depth": 3}, r"dim 32 and depth 3; the recipe's"),
    ],
)
def test_weights_of_another_variant_are_named(other: dict[str, Any], message: str, tmp_path: Path) -> None:
    save_file(untrained_tensors(Network(**{**TINY, **other})), tmp_path / "other.bin")
    with pytest.raises(CheckpointError, match=message):
        fill(Network(**TINY), find_recipe("spmtrack_b"), str(tmp_path / "other.bin"))


def test_a_published_variant_is_called_by_its_name() -> None:
    large = {"track_query": torch.zeros(1, 1024), "blocks.23.norm1.weight": torch.zeros(1024)}
    with torch.device("meta"):
        published = Network()
    with pytest.raises(CheckpointError, match="which is SPMTrack-L; the recipe's network has dim 768 and depth 12"):
        published.assemble(large, "model.bin")


def test_one_file_trackers_take_one_file(files: tuple[Path, Path, dict[str, Tensor]]) -> None:
    with pytest.raises(CheckpointError, match="one file"):
        fill(torch.nn.Linear(1, 1), find_recipe("smat"), f"{files[1]},{files[1]}")


def test_an_unknown_feed_forward_layer_is_refused() -> None:
    with pytest.raises(UsageError, match="gelu or swiglu"):
        make_network("spmtrack_b", {"mlp": "relu"})


def test_published_checkpoint_holds_what_the_network_lacks_otherwise(shared: Path) -> None:
    whole = dict(official_state(shared, "statedict_spmtrack_b.txt"))
    trained = dict(official_state(shared, "statedict_spmtrack_b_checkpoint.txt"))
    assert set(trained) - set(whole) == {"expert_alpha", "use_rsexpert"}
    assert not [n for n in set(whole) - set(trained) if "tmoe" in n or n.startswith("head")]
