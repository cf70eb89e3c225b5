"""DASTM: the part that has official numbers against them, the rest against closed forms; its graphs against it."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgetrack.errors import CheckpointError, UsageError
from edgetrack.exporting.recipe import find_recipe
from edgetrack.exporting.weights import fill
from edgetrack.models.base import GraphModule, make_network, recipe_normal, untrained_tensors
from edgetrack.models.dastm import Network, deploy, reference
from edgetrack.models.dastm.graphs import DeployedHead, MemoryRead
from edgetrack.models.dastm.network import PARTS, DynamicAttention, Geometry, Head, Reductions, read_memory
from edgetrack.models.layers.mobileone import MobileOne

TINY: dict[str, Any] = {
    "image_size": 97,
    "cells": 9,
    "width": 0.25,
    "blocks": "1,1,2",
    "dim": 32,
    "head_width": 16,
    "head_depth": 2,
    "gate_reduction": 4,
}


def filled(network: Network) -> Network:
    untrained = find_recipe("dastm").untrained
    network.load_state_dict(untrained_tensors(network, untrained.multipliers, untrained.overrides))
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def tiny() -> Network:
    return filled(Network(**TINY))


def test_shared_parts_have_the_base_trackers_names(shared: Path) -> None:
    lines = (shared / "spec/statedict_stmtrack_googlenet.txt").read_text().splitlines()
    rows = [line.split("\t") for line in lines if line[0] != "#"]
    base = {name: ast.literal_eval(shape) for name, shape, *_ in rows}
    with torch.device("meta"):
        state = {name: tuple(t.shape) for name, t in Network(variant="s3").state_dict().items()}
    # S3's last width is the base's, so that even the necks agree.
    own = {name: shape for name, shape in state.items() if name.startswith(("head.", "neck_"))}
    assert own == {name: shape for name, shape in base.items() if name.startswith(("head.", "neck_"))}
    with torch.device("meta"):
        network = Network()
    assert sum(p.numel() for p in network.parameters()) == 20_670_234


class Official(nn.Module):
    """The head under its official name."""

    def __init__(self) -> None:
        super().__init__()
        self.head = Head(512, 256, 6)


@pytest.fixture(scope="module")
def head(golden: Callable[[str], Any]) -> Head:
    module, meta = Official(), golden("stm_head").meta
    module.load_state_dict(untrained_tensors(module, meta["multipliers"], meta["overrides"]))
    return module.eval().requires_grad_(False).head


@pytest.fixture(scope="module")
def stm_input(golden: Callable[[str], Any]) -> tuple[Tensor, Tensor]:
    meta = golden("stm_head").meta
    found = (recipe_normal(f"input:{key}", tuple(shape)) for key, shape in meta["inputs"].items())
    memory, query = (torch.from_numpy(meta["input_scale"] * values.astype(np.float32)).float() for values in found)
    return memory, query


def test_memory_read_and_head_are_the_official_ones(
    golden: Callable[[str], Any], head: Head, stm_input: tuple[Tensor, Tensor]
) -> None:
    fixture, (memory, query) = golden("stm_head"), stm_input
    tolerance = fixture.meta["tol_abs"]
    joined = torch.cat([read_memory(memory, query), query], dim=1)
    samples = joined.numpy().ravel()[np.linspace(0, joined.numel() - 1, 32).astype(np.int64)]
    np.testing.assert_allclose(samples, fixture.arrays["tap/memory_read(concat)/samples"], rtol=0, atol=1e-4)
    cls, ctr, edges = head(joined)
    for found, name in ((cls, "cls_logit"), (ctr, "ctr_logit")):
        expected = fixture.arrays[f"out/{name}"]
        np.testing.assert_allclose(found.reshape(1, -1, 1), expected, rtol=0, atol=tolerance["logits"])
    points, edges = Geometry(289, 25, 3).points(), edges.permute(0, 2, 3, 1)
    boxes = torch.cat([points - edges[..., :2], points + edges[..., 2:]], dim=-1).reshape(1, -1, 4)
    np.testing.assert_allclose(boxes, fixture.arrays["out/box_xyxy"], rtol=0, atol=tolerance["box"])


def test_shipped_read_and_head_give_the_official_boxes(
    golden: Callable[[str], Any], head: Head, stm_input: tuple[Tensor, Tensor]
) -> None:
    fixture, (memory, query) = golden("stm_head"), stm_input
    geometry = Geometry(289, 25, 5)
    # Three of five memories are there, in other places than the first.
    rows = torch.full((5, 625, 512), 7.0)
    rows[[0, 2, 3]] = memory[0].flatten(2).permute(1, 2, 0)
    read = MemoryRead(geometry, 512)(rows, torch.tensor([[1.0, 0.0, 1.0, 1.0, 0.0]]), query)
    score, boxes = DeployedHead(head, geometry).requires_grad_(False)(torch.cat([read, query], dim=1))
    tolerance = fixture.meta["tol_abs"]
    np.testing.assert_allclose(score.reshape(1, -1, 1), fixture.arrays["out/score"], rtol=0, atol=tolerance["score"])
    pixels = boxes.reshape(1, -1, 4) * 289
    np.testing.assert_allclose(pixels, fixture.arrays["out/box_xyxy"], rtol=0, atol=tolerance["box"])


def published_attention(block: DynamicAttention, x: Tensor) -> tuple[Tensor, Tensor]:
    """The formula of docs/trackers/dastm.md, term by term."""
    mean, most = x.mean(dim=(2, 3)), x.amax(dim=(2, 3))
    logits = block.gate.fc2(torch.relu(block.gate.fc1(mean)))
    weights = torch.exp(logits / block.temperature)
    weights = weights / weights.sum(dim=1, keepdim=True)
    se = x * torch.sigmoid(block.se.fc2(torch.relu(block.se.fc1(mean))))[:, :, None, None]
    pooled = torch.cat([x.mean(3), x.mean(2)], dim=2).unsqueeze(3)
    hidden = block.ca.bn(block.ca.conv(pooled))
    hidden = hidden * torch.clamp(hidden + 3, 0, 6) / 6
    rows = torch.sigmoid(block.ca.conv_h(hidden[:, :, : x.shape[2]]))
    columns = torch.sigmoid(block.ca.conv_w(hidden[:, :, x.shape[2] :])).transpose(2, 3)
    ca = x * rows * columns
    mlp = [block.cbam.fc2(torch.relu(block.cbam.fc1(pool))) for pool in (mean, most)]
    channel = x * torch.sigmoid(mlp[0] + mlp[1])[:, :, None, None]
    places = torch.stack([channel.mean(1), channel.amax(1)], dim=1)
    cbam = channel * torch.sigmoid(block.cbam.spatial(places))
    ways = torch.stack([se, ca, cbam, x], dim=1)
    share = weights if block.mode == "soft" else nn.functional.one_hot(weights.argmax(dim=1), 4).float()
    return (share[:, :, None, None, None] * ways).sum(1), weights


@settings(max_examples=25)
@given(seed=st.integers(0, 500), mode=st.sampled_from(["soft", "hard"]), temperature=st.floats(0.3, 3))
def test_attention_is_the_weighted_sum_of_four_ways(seed: int, mode: Any, temperature: float) -> None:
    torch.manual_seed(seed)
    block = DynamicAttention(16, Reductions(2, 4, 4, 4), temperature=temperature, mode=mode).eval()
    block.requires_grad_(False)
    x = torch.randn(1, 16, 5, 7)
    found, weights = block(x)
    expected, shares = published_attention(block, x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(weights, shares, rtol=1e-5, atol=1e-6)
    assert float(weights.sum()) == pytest.approx(1)


def test_each_way_alone_is_chosen_by_its_logit() -> None:
    block = DynamicAttention(8, Reductions(2, 2, 2, 2), mode="hard").eval().requires_grad_(False)
    x = torch.randn(1, 8, 4, 4, generator=torch.Generator().manual_seed(3))
    found = []
    for index in range(len(PARTS)):
        block.gate.fc2.weight.zero_()
        block.gate.fc2.bias.copy_(torch.eye(4)[index] * 3)
        mixed, weights = block(x)
        assert int(weights.argmax()) == index
        found.append(mixed)
    assert torch.equal(found[PARTS.index("identity")], x)
    assert all(not torch.allclose(a, b) for i, a in enumerate(found) for b in found[:i])


def crops(seed: int, size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (size, size, 3), dtype=torch.uint8, generator=generator)
    target = torch.zeros(size, size)
    target[size // 3 : size // 2, size // 4 : size // 2] = 1
    return image, target


@pytest.fixture(scope="module")
def graphs(tiny: Network) -> tuple[tuple[GraphModule, ...], tuple[GraphModule, ...]]:
    """Shipped and published."""
    torch.set_num_threads(1)
    return deploy(tiny), reference(tiny)


@settings(max_examples=10)
@given(seed=st.integers(0, 1000), marked=st.lists(st.booleans(), min_size=6, max_size=6).filter(any))
def test_shipped_graphs_compute_the_network_and_absent_memories_have_no_say(
    graphs: tuple[tuple[GraphModule, ...], tuple[GraphModule, ...]], seed: int, marked: list[bool]
) -> None:
    image, target = crops(seed, 97)
    (shipped_memory, shipped), (published_memory, published) = graphs
    expected = published_memory(image, target)
    for name, value in shipped_memory(image, target).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)
    memory = torch.randn(6, 81, 32, generator=torch.Generator().manual_seed(seed))
    present = torch.tensor([marked]).float()
    found, official = shipped(image, memory, present), published(image, memory, present)
    other = memory.clone()
    other[[not there for there in marked]] = 9.0
    for name, value in shipped(image, other, present).items():
        assert torch.equal(value, found[name])
        torch.testing.assert_close(value, official[name], rtol=1e-4, atol=1e-5)


def test_image_target_and_each_memory_count(graphs: tuple[tuple[GraphModule, ...], ...]) -> None:
    (memorise, step), (image, target) = graphs[0], crops(1, 97)
    features = memorise(image, target)["features"]
    assert not torch.allclose(memorise(255 - image, target)["features"], features)
    assert not torch.allclose(memorise(image, target.T.contiguous())["features"], features)
    memory = torch.randn(6, 81, 32, generator=torch.Generator().manual_seed(1))
    present = torch.ones(1, 6)
    found = step(image, memory, present)["score"]
    for index in range(6):
        without = present.clone()
        without[0, index] = 0
        assert not torch.allclose(step(image, memory, without)["score"], found)


@pytest.mark.parametrize("changes", [{"normalisation": "imagenet"}, {"gate": "hard"}, {"variant": "s4"}])
def test_other_configurations_ship_the_same_numbers(changes: Any) -> None:
    torch.set_num_threads(1)
    network, (image, target) = filled(Network(**{**TINY, **changes})), crops(2, 97)
    for shipped, published in zip(deploy(network), reference(network), strict=True):
        given_ = [image, *(torch.ones(t.shape) if t.name != "target" else target for t in shipped.inputs[1:])]
        for name, value in shipped(*given_).items():
            torch.testing.assert_close(value, published(*given_)[name], rtol=1e-3, atol=1e-4)


def test_a_huge_distance_is_clamped_not_infinite(tiny: Network) -> None:
    head = deploy(tiny)[1].module.head
    far = head.boxes(torch.full((1, 4, 9, 9), 500.0))
    assert torch.isfinite(far).all()
    assert float(far.max()) == pytest.approx(math.exp(11) * 8 / 97, rel=1e-3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_size": 288},
        {"cells": 24},
        {"cells": 39},
        {"memories": 0},
        {"temperature": 0.0},
        {"gate": "firm"},
        {"spatial_kernel": 6},
        {"gate_reduction": 0},
        {"normalisation": "none"},
        {"head_depth": 0},
        {"blocks": "2,8"},
        {"blocks": "2,8,x"},
        {"variant": "s7"},
        {"widths": 2},
    ],
)
def test_a_network_that_cannot_be_made_names_the_configuration(wrong: Any) -> None:
    with torch.device("meta"), pytest.raises(UsageError, match=r"\[configuration\]"):
        make_network("dastm", wrong)


def checkpoint(path: Path, tensors: dict[str, Tensor]) -> str:
    torch.save(tensors, path)
    return str(path)


def test_both_forms_of_a_checkpoint_give_the_same_boxes(tiny: Network, tmp_path: Path) -> None:
    trained = checkpoint(tmp_path / "trained.pth", tiny.state_dict())
    fused = {name: t for name, t in tiny.state_dict().items() if ".rbr_" not in name}
    for prefix in ("basemodel_m", "basemodel_q"):
        for name, block in tiny.get_submodule(prefix).blocks():  # type: ignore[operator]
            fused[f"{prefix}.{name}.reparam_conv.weight"] = block.affine.weight.float()
            fused[f"{prefix}.{name}.reparam_conv.bias"] = block.affine.bias.float()
    image, target = crops(5, 97)
    found = []
    for weights in (trained, checkpoint(tmp_path / "fused.pth", fused)):
        network = Network(**TINY)
        assert fill(network, find_recipe("dastm"), weights).origin == "custom"
        found.append(deploy(network.eval())[0](image, target)["features"])
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"variant": "s1"}, r"of MobileOne-S1, the recipe says variant = 's0'; set variant = 's1'"),
        ({"head_width": 32}, "head.cls_ctr.conv1.weight"),
        ({"dim": 64}, r"22 misshapen\n.*dab.ca.conv.weight is \(8, 64, 1, 1\) and should be \(8, 16, 1, 1\)"),
    ],
)
def test_a_checkpoint_of_another_configuration_is_named(other: Any, message: str, tmp_path: Path) -> None:
    shape = {"blocks": "1,1,1", "dim": 16, "head_width": 16, "head_depth": 1}
    weights = checkpoint(tmp_path / "other.pth", Network(**{**shape, **other}).state_dict())
    with pytest.raises(CheckpointError, match=message):
        fill(Network(**shape), find_recipe("dastm"), weights)


def test_files_of_other_networks_are_named(tmp_path: Path) -> None:
    trunk = checkpoint(tmp_path / "mobileone.pth", MobileOne(width=0.125, pairs=(1, 1, 1)).state_dict())
    with pytest.raises(CheckpointError, match="MobileOne alone"):
        fill(Network(**TINY), find_recipe("dastm"), trunk)
    base = {"basemodel_q.Conv2d_1a_3x3.conv.weight": torch.zeros(32, 3, 3, 3)}
    with pytest.raises(CheckpointError, match="STMTrack's, with an Inception trunk"):
        fill(Network(**TINY), find_recipe("dastm"), checkpoint(tmp_path / "stmtrack.pth", base))


def test_folding_helpers_are_unit_and_padding() -> None:
    from edgetrack.models.layers.folding import padded_to, to_conv, unit_map

    x = torch.randn(1, 6, 5, 5, generator=torch.Generator().manual_seed(0))
    for groups in (1, 2, 6):
        for kernel in (1, 3):
            assert torch.equal(to_conv(unit_map(6, groups, kernel), groups=groups)(x), x)
    widened = to_conv(padded_to(unit_map(6, 1, 1), 3))
    assert widened.weight.shape[-1] == 3
    assert torch.equal(widened(x), x)


@given(seed=st.integers(0, 500))
@settings(max_examples=20, deadline=None)
def test_the_selected_attention_alone_is_the_hard_gates_map(seed: int) -> None:
    torch.manual_seed(seed)
    hard, select = (DynamicAttention(16, Reductions(2, 4, 4, 4), mode=mode).eval() for mode in ("hard", "select"))
    select.load_state_dict(hard.state_dict())
    x = torch.randn(1, 16, 5, 5)
    mixed, weights = hard(x)
    assert torch.equal(select.weigh(x), weights)
    assert torch.equal(select.attend(PARTS[int(weights.argmax())], x), mixed)


def test_of_equal_weights_the_first_is_taken_alone() -> None:
    block = DynamicAttention(8, Reductions(2, 2, 2, 2), mode="hard").eval().requires_grad_(False)
    block.gate.fc2.weight.zero_()
    block.gate.fc2.bias.copy_(torch.tensor([0.0, 3.0, 3.0, 1.0]))
    x = torch.randn(2, 8, 5, 5)
    assert torch.equal(block(x)[0], block.attend("ca", x))


def test_ablations_are_parts_of_the_block(tiny: Network) -> None:
    x = torch.randn(1, 32, 9, 9)
    found = {}
    for mode in ("none", "se", "ca", "cbam", "static", "random"):
        network = Network(**TINY, gate=mode).eval()
        network.load_state_dict(tiny.state_dict())  # one checkpoint for all
        found[mode] = network.dab(x)[0]
    dab = tiny.dab
    assert torch.equal(found["none"], x)
    for part in ("se", "ca", "cbam"):
        assert torch.equal(found[part], dab.attend(part, x))
    assert torch.equal(found["static"], dab.attend("cbam", dab.attend("ca", dab.attend("se", x))))
    assert any(torch.equal(found["random"], dab.attend(part, x)) for part in PARTS)


def test_a_selecting_gate_learns_as_a_soft_one_does() -> None:
    x = torch.randn(3, 8, 5, 5)
    gradients = []
    for mode in ("soft", "select"):
        torch.manual_seed(1)
        block = DynamicAttention(8, Reductions(2, 2, 2, 2), mode=mode).train()
        block.ca.bn.eval()
        share = block.weigh(x)
        (block._picked(share) * torch.arange(4.0)).sum().backward()
        gradients.append(block.gate.fc1.weight.grad)
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(gradients[0], gradients[1])


def test_a_memory_of_weight_w_is_read_as_its_share_of_the_softmax() -> None:
    geometry, generator = Geometry(97, 3, 3), torch.Generator().manual_seed(0)
    memory = torch.randn(3, 9, 8, generator=generator)
    query = torch.randn(1, 8, 3, 3, generator=generator)
    weights = torch.tensor([1.0, 0.25, 0.0])
    alike = memory[:2].reshape(18, 8) @ query[0].flatten(1) / math.sqrt(8)
    powers = alike.exp() * weights[:2].repeat_interleave(9)[:, None]
    expected = memory[:2].reshape(18, 8).T @ (powers / powers.sum(dim=0))
    present = torch.tensor([[1.0, 1 + math.log(0.25) / 1e4, 0.0]])
    found = MemoryRead(geometry, 8)(memory, present, query)
    torch.testing.assert_close(found[0].flatten(1), expected, rtol=1e-3, atol=1e-3)
    keys = memory[:2].permute(2, 0, 1).reshape(1, 8, 2, 3, 3)
    published = read_memory(keys, query, weights[:2].log())
    torch.testing.assert_close(published[0].flatten(1), expected, rtol=1e-4, atol=1e-5)
