"""ATSTrack: its parts against the official numbers of ODTrack and CLIP, its graphs against the described network."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from edgetrack.errors import CheckpointError, UsageError
from edgetrack.models.atstrack import Network, deploy, reference
from edgetrack.models.atstrack.graphs import Gate
from edgetrack.models.atstrack.network import SOURCES, Modulation
from edgetrack.models.base import make_network, recipe_normal, untrained_tensors
from edgetrack.models.layers.clip_text import DeployedTextTower, TextTower
from edgetrack.models.layers.vit import MEAN, STD

MAPS = ("score_map", "size_map", "offset_map", "track_query")
TINY: dict[str, Any] = {
    "search_size": 64,
    "template_size": 32,
    "dim": 32,
    "depth": 2,
    "heads": 2,
    "head_channels": 16,
    "text_dim": 16,
    "text_depth": 2,
    "text_heads": 2,
    "vocabulary": 300,
    "text_tokens": 6,
}


def filled(network: Any, multipliers: dict[str, float] | None = None) -> Any:
    network.load_state_dict(untrained_tensors(network, multipliers))
    return network.eval().requires_grad_(False)


def image(key: str, size: int) -> Tensor:
    return torch.from_numpy(recipe_normal(f"input:{key}", (1, 3, size, size))).float()


def pixels(images: Tensor) -> Tensor:
    """(.., 3, H, W) normalised RGB as (.., H, W, 3) BGR 0..255."""
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return ((images * std + mean) * 255).flip(-3).movedim(-3, -1)


def official(path: Path) -> list[tuple[str, tuple[int, ...], str]]:
    rows = [line.split("\t") for line in path.read_text().splitlines() if line[0] != "#"]
    return [(name, ast.literal_eval(shape), dtype) for name, shape, dtype, *_ in rows]


def entries(module: torch.nn.Module) -> list[tuple[str, tuple[int, ...], str]]:
    return [(n, tuple(t.shape), str(t.dtype).removeprefix("torch.")) for n, t in module.state_dict().items()]


def test_the_visual_part_is_odtrack_by_name_and_shape(shared: Path) -> None:
    with torch.device("meta"):
        network, whole = Network(attributes=""), Network()
    assert entries(network) == official(shared / "spec/statedict_odtrack_b384.txt")
    assert sum(p.numel() for p in network.parameters()) == 92_826_501
    assert set(network.state_dict()) < set(whole.state_dict())


def test_the_text_tower_is_clip_by_name_and_shape(shared: Path) -> None:
    with torch.device("meta"):
        tower = Network().text
    assert sorted(entries(tower)) == sorted(official(shared / "spec/statedict_clip_b32_text.txt"))
    assert sum(p.numel() for p in tower.parameters()) == 63_428_097


@pytest.mark.full
def test_two_steps_are_the_official_ones(golden: Callable[[str], Any]) -> None:
    odtrack = golden("odtrack_b384")
    network = filled(Network(attributes=""), odtrack.meta["multipliers"])
    (step,) = deploy(network)
    templates = torch.cat([image(f"template_{i}", 192) for i in range(3)])
    described = shipped = torch.zeros(1, 1, 768)
    for index in (1, 2):
        search = image(f"search_{index}", 384)
        found = network(templates, search, described, None)
        ours = step(pixels(search)[0], pixels(templates), shipped)
        described, shipped = found.state, ours["next_tokens"]
        for name, value, own in zip(MAPS, found[:4], ours.values(), strict=True):
            expected = odtrack.arrays[f"out/ce_off/step{index}/{name}"]
            atol = odtrack.meta["tol_abs"]
            np.testing.assert_allclose(value, expected, rtol=0, atol=atol, err_msg=name)
            np.testing.assert_allclose(own, expected, rtol=0, atol=atol, err_msg=name)


def test_text_features_are_the_official_ones(golden: Callable[[str], Any]) -> None:
    clip = golden("clip_b32_text")
    tower = filled(TextTower(512, 12, 8, 77, 49408))
    ids = torch.from_numpy(clip.arrays["in/token_ids"])
    expected, atol = clip.arrays["out/token_features_first_12_positions_every_8th_channel"], clip.meta["tol_abs"]
    np.testing.assert_allclose(tower.pooled(ids), clip.arrays["out/pooled"], rtol=0, atol=atol)
    np.testing.assert_allclose(tower(ids)[:, :12, ::8], expected, rtol=0, atol=atol)
    with torch.inference_mode():
        short = DeployedTextTower(tower, 16)(ids[:, :16].int())
    np.testing.assert_allclose(short[:, :12, ::8], expected, rtol=0, atol=atol)


def inputs(step: Any, text: Any | None, lengths: tuple[int, ...]) -> list[Tensor]:
    """Images from names, a carried state, and phrases of so many tokens."""
    rng = np.random.default_rng(len(lengths))
    by_name: dict[str, Tensor] = {}
    for info in step.inputs:
        if info.dtype == "uint8":
            by_name[info.name] = torch.from_numpy(rng.integers(0, 256, info.shape, np.uint8))
    by_name["tokens"] = torch.from_numpy(rng.standard_normal(step.inputs[2].shape).astype(np.float32))
    if text is not None:
        rows = [torch.zeros(t.shape, dtype=torch.int32) for t in text.inputs]
        mask = torch.zeros(len(rows), rows[0].shape[1])
        for index, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            row[0, :length] = torch.from_numpy(rng.integers(1, 300, length).astype(np.int32))
            mask[index, :length] = 1
        median = torch.zeros(1, rows[0].shape[1])
        median[0, max(lengths[-1] - 1, 0) // 2] = 1
        by_name |= {"language": text(*rows)["language"], "mask": mask, "median": median}
    return [by_name[info.name] for info in step.inputs]


CHOICES = [
    ("category, appearance, action, location", (4, 3, 6, 5)),
    ("category, appearance, action, location", (4, 0, 0, 6)),
    ("category, appearance, action, location", (3, 4, 5, 0)),
    ("location", (3,)),
    ("action", (4,)),
    ("appearance", (6,)),
    ("location, category", (3, 4)),
    ("", ()),
]
ALL = ", ".join(SOURCES)
SWITCHES: list[dict[str, Any]] = [
    {"modulation": False},
    {"ablation": False},
    {"modulation": False, "ablation": False},
    {"fusion": "attention"},
    {"fusion": "attention", "modulation": False},
    {"attention_maps": True},
    {"attention_maps": True, "fusion": "attention"},
]


def attributes_and_switches() -> list[Any]:
    plain = [pytest.param(attributes, lengths, {}) for attributes, lengths in CHOICES]
    return [
        *plain,
        *(pytest.param(ALL, (4, 3, 0, 6), s) for s in SWITCHES),
        pytest.param("", (), {"attention_maps": True}),
    ]


@pytest.mark.parametrize(("attributes", "lengths", "switches"), attributes_and_switches())
def test_shipped_graphs_are_the_described_network(
    attributes: str, lengths: tuple[int, ...], switches: dict[str, Any]
) -> None:
    network = filled(Network(**TINY, attributes=attributes, **switches))
    shipped, described = ({g.name: g for g in make(network)} for make in (deploy, reference))
    assert {n: (g.inputs, g.outputs) for n, g in shipped.items()} == {
        n: (g.inputs, g.outputs) for n, g in described.items()
    }
    assert ("text" in shipped) == bool(attributes)
    given = inputs(shipped["step"], shipped.get("text"), lengths)
    expected = described["step"](*given)
    for name, value in shipped["step"](*given).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=2e-5, err_msg=name)
    if attributes:
        ids = [torch.randint(1, 300, t.shape, dtype=torch.int32) for t in shipped["text"].inputs]
        texts = [graphs["text"](*ids)["language"] for graphs in (shipped, described)]
        np.testing.assert_allclose(texts[0], texts[1], rtol=1e-4, atol=1e-5)


def test_an_attribute_that_is_off_is_not_in_the_graphs() -> None:
    kept = filled(Network(**TINY, attributes="category, action"))
    names = set(kept.state_dict())
    assert not any(name.startswith("fgm.search") for name in names)
    assert any(name.startswith("fgm.sequence") for name in names)
    text, step = (dict.fromkeys(t.name for t in graph.inputs) for graph in sorted(deploy(kept), key=lambda g: g.role))
    assert list(text) == ["category", "action"]
    assert "median" not in step


@pytest.mark.parametrize(
    ("switches", "gone"),
    [
        ({"modulation": False}, "fgm."),
        ({"ablation": False}, "median"),
        ({"fusion": "attention"}, "lang_pos_embed"),
        ({}, "lang_attn"),
    ],
)
def test_a_switch_that_is_off_is_not_in_the_network(switches: dict[str, Any], gone: str) -> None:
    network = Network(**TINY, **switches)
    names = [*network.state_dict(), *(t.name for graph in deploy(network) for t in graph.inputs)]
    assert not any(name.startswith(gone) for name in names)
    whole = Network(**TINY, fusion="attention"), Network(**TINY)
    assert any(name.startswith(gone) for made in whole for name in made.state_dict()) or gone == "median"


def test_switches_change_what_is_handed_on() -> None:
    """On the same weights, and in the words' token alone: the frame's maps are made before the words are read."""
    whole = filled(Network(**TINY))
    given = inputs(deploy(whole)[1], deploy(whole)[0], (4, 3, 6, 5))
    expected = deploy(whole)[1](*given)
    for switches in ({"modulation": False}, {"ablation": False}):
        network = Network(**TINY, **switches)
        network.load_state_dict(network.assemble(whole.state_dict(), "file"))
        graph = deploy(network)[1]
        names = [t.name for t in deploy(whole)[1].inputs]
        found = graph(
            *(tensor for name, tensor in zip(names, given, strict=True) if name in {t.name for t in graph.inputs})
        )
        assert (found["next_tokens"] - expected["next_tokens"])[0, 1].abs().max() > 1e-4, switches
        for name in ("score", "size", "offset"):
            np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-6)


def test_without_modulation_and_ablation_the_words_stay_as_they_were_said() -> None:
    network = filled(Network(**TINY, modulation=False, ablation=False))
    text, step = deploy(network)
    given = dict(zip((t.name for t in step.inputs), inputs(step, text, (4, 3, 6, 5)), strict=True))
    said = given["language"][given["mask"] > 0].mean(dim=0)
    np.testing.assert_allclose(step(*given.values())["next_tokens"][0, 1], said, rtol=0, atol=1e-5)


def test_where_tokens_look_is_the_softmax_of_the_last_layer() -> None:
    """Computed apart, head by head, in float64 from the published layer's own weights."""
    network = filled(Network(**TINY, attributes="", attention_maps=True))
    step = deploy(network)[0]
    given = inputs(step, None, ())
    given[2] = given[2] * 5
    found = step(*given)["attention_token"]
    seen: list[Tensor] = []
    last = network.backbone.blocks[-1]
    handle = last.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    reference(network)[0](*given)
    handle.remove()
    tokens = last.norm1(seen[0])[0].double()
    weight, bias = last.attn.qkv.weight.double(), last.attn.qkv.bias.double()
    query, key, _ = (tokens @ weight.T + bias).chunk(3, dim=-1)
    heads, d = last.attn.heads, query.shape[-1] // last.attn.heads
    shares = [
        torch.softmax(query[0, h * d : (h + 1) * d] @ key[:, h * d : (h + 1) * d].T / d**0.5, dim=0)
        for h in range(heads)
    ]
    mean = torch.stack(shares).mean(dim=0)
    expected = mean[-found.numel() :].reshape(found.shape) * len(mean)
    assert float(expected.max() - expected.min()) > 0.1
    np.testing.assert_allclose(found, expected.detach(), rtol=1e-4, atol=1e-4)


def test_every_word_and_every_attribute_matters() -> None:
    network = filled(Network(**TINY))
    text, step = sorted(deploy(network), key=lambda graph: graph.role)
    given = inputs(step, text, (4, 3, 6, 5))
    whole = step(*given)["next_tokens"]
    language, mask = 3, 4
    for row in range(4):
        fewer = [t.clone() for t in given]
        fewer[mask][row] = 0
        assert (step(*fewer)["next_tokens"] - whole)[0, 1].abs().max() > 1e-4, row
        # What lies behind a phrase's end is not read.
        behind = [t.clone() for t in given]
        behind[language][given[mask] == 0] = 9.0
        np.testing.assert_allclose(step(*behind)["next_tokens"], whole, rtol=0, atol=1e-5)


def test_what_was_said_reaches_the_next_frame() -> None:
    network = filled(Network(**TINY))
    text, step = sorted(deploy(network), key=lambda graph: graph.role)
    given = inputs(step, text, (4, 3, 6, 5))
    changed = [t.clone() for t in given]
    # Not by a constant, which a normalisation takes away.
    changed[2][0, 1, ::2] += 1
    assert (step(*given)["score"] - step(*changed)["score"]).abs().max() > 1e-4


@given(count=st.integers(1, 6), seed=st.integers(0, 2**16), shift=st.sampled_from([0.0, 1.0, 2.5]))
def test_the_gate_is_one_over_words_that_are_there(count: int, seed: int, shift: float) -> None:
    """The shipped gate, by mask and sorted list, is the described one on the words alone."""
    rng = np.random.default_rng(seed)
    published = Modulation(("location",), 8, 2, shift=shift)
    words, search = (torch.from_numpy(rng.standard_normal((1, n, 8)).astype(np.float32)) for n in (6, 9))
    mask, median = torch.zeros(1, 6), torch.zeros(1, 6)
    mask[0, :count], median[0, (count - 1) // 2] = 1, 1
    expected = published.gate(words[0, :count], search[0])
    found = Gate(published)(words, search, mask, median)[0, :count]
    if count > 1:
        np.testing.assert_allclose(found, expected, atol=2e-3)
        # A word less like the region than the threshold is let through by less than a half.
        assert bool((expected > 0.5).any())
    assert bool(((found >= 0) & (found <= 1)).all())


def test_unlike_words_are_held_back() -> None:
    """Closed form: similarities 1, 1, 1 and -1 have median 1 and variance 3/4: a threshold of 1/4."""
    published = Modulation(("location",), 4, 1)
    search = torch.tensor([[1.0, 0, 0, 0]])
    words = torch.tensor([[1.0, 0, 0, 0], [2.0, 0, 0, 0], [3.0, 0, 0, 0], [-1.0, 0, 0, 0]])
    expected = 1 / (1 + np.exp(-10 / (3**0.5 / 2) * (np.array([1, 1, 1, -1]) - 0.25)))
    np.testing.assert_allclose(published.gate(words, search), expected, atol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"attributes": "category, colour"},
        {"attributes": "action, action"},
        {"text_tokens": 2},
        {"text_tokens": 99},
        {"templates": 0},
        {"heads": 5},
        {"layers": 3},
        {"fusion": "sum"},
    ],
)
def test_configurations_that_cannot_be_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"the recipe's \[configuration\]"):
        make_network("atstrack", {**TINY, **wrong})


def test_attributes_keep_the_papers_order() -> None:
    assert Network(**TINY, attributes="location,category").attributes == ("category", "location")
    assert Network(**TINY).attributes == tuple(SOURCES)


def clip_file(network: Any) -> dict[str, Tensor]:
    """The tensors of CLIP's file: the tower under CLIP's names, and what lies beside it."""
    tower = {n.removeprefix("text."): t for n, t in network.state_dict().items() if n.startswith("text.")}
    return {**tower, "visual.proj": torch.zeros(2, 2), "context_length": torch.tensor(77)}


def test_weights_come_in_one_file_or_two() -> None:
    network = filled(Network(**TINY))
    state = network.state_dict()
    rest = {name: t for name, t in state.items() if not name.startswith("text.")}
    for tensors in (state, {**rest, **clip_file(network)}):
        assembled = network.assemble(tensors, "files")
        assert assembled.keys() == state.keys()
        assert all(torch.equal(assembled[name], state[name]) for name in state)


def test_a_network_without_language_takes_the_visual_part_of_any_checkpoint() -> None:
    network, mute = filled(Network(**TINY)), Network(**TINY, attributes="")
    assert mute.assemble(network.state_dict(), "file").keys() == mute.state_dict().keys()


def test_checkpoints_of_other_variants_are_named() -> None:
    network = filled(Network(**TINY))
    visual = filled(Network(**TINY, attributes="")).state_dict()
    with pytest.raises(CheckpointError, match=r"ODTrack's tensors alone.*attributes = \"\""):
        network.assemble(visual, "ODTrack_ep0300.pth.tar")
    without_tower = {name: t for name, t in network.state_dict().items() if not name.startswith("text.")}
    with pytest.raises(CheckpointError, match="no text tower"):
        network.assemble(without_tower, "file")
