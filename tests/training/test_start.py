"""What a training begins with: numbers of its own, a backbone's file, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from torch import Tensor, nn

from edgetrack.checkpoints import save_safetensors
from edgetrack.errors import CheckpointError, RecipeError, UsageError, WeightsMismatchError
from edgetrack.exporting.recipe import find_recipe, read_recipe
from edgetrack.models.base import make_network, untrained_tensors
from edgetrack.models.layers.vit import resized_grid
from edgetrack.training.method import TrainingMethod, find_method
from edgetrack.training.start import check_start, initialise, start


def test_start_weights_depend_on_the_seed_alone() -> None:
    def made(seed: int) -> nn.Module:
        network = nn.Sequential(nn.Conv2d(64, 128, 3), nn.BatchNorm2d(128))
        initialise(network, {"0.bias": -2.0}, seed)
        return network

    first, again, other = made(0), made(0), made(1)
    assert torch.equal(first[0].weight, again[0].weight)
    assert not torch.equal(first[0].weight, other[0].weight)
    assert first[0].weight.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.02)
    assert (first[0].bias == -2).all()


def test_a_pattern_fills_what_it_fits_and_one_that_fits_nothing_is_named() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    initialise(network, {"*.weight": 0.5}, 0)
    assert all((layer.weight == 0.5).all() and (layer.bias == 0).all() for layer in network)
    with pytest.raises(RecipeError, match=r"'2\.\*', which is no parameter"):
        initialise(network, {"2.*": 1.0}, 0)


def test_every_number_comes_from_the_seed(tiny_recipe: Callable[..., Path]) -> None:
    # Linear maps, embeddings and tokens too: torch's own generator plays no part.
    for name in ("dmtrack", "atstrack", "spmtrack_b", "dastm"):
        recipe = read_recipe(tiny_recipe(name))
        assert recipe.training is not None
        made = []
        for noise in (1, 2):
            torch.manual_seed(noise)
            network = make_network(recipe.family_name, recipe.configuration)
            initialise(network, recipe.training.initial, 0)
            made.append(network.state_dict())
        assert all(torch.equal(value, made[1][key]) for key, value in made[0].items())


@pytest.fixture
def method(tiny_recipe: Callable[..., Path]) -> Callable[[str], TrainingMethod]:
    """method("dmtrack") -> of its small configuration."""
    return lambda name: find_method(read_recipe(tiny_recipe(name)))


def _network(method: TrainingMethod) -> nn.Module:
    return make_network(method.recipe.family_name, method.recipe.configuration)


def _file(path: Path, tensors: dict[str, Tensor]) -> str:
    save_safetensors(tensors, path, {})
    return str(path)


def _classifier(dim: int, prefix: str = "") -> dict[str, Tensor]:
    """An image classifier's tensors, as MAE's file has them: two blocks, positions of 14 x 14 cells and a token."""
    spec = {
        "cls_token": (1, 1, dim),
        "pos_embed": (1, 197, dim),
        "patch_embed.proj.weight": (dim, 3, 16, 16),
        "patch_embed.proj.bias": (dim,),
        "norm.weight": (dim,),
        "norm.bias": (dim,),
        "fc_norm.weight": (dim,),
    }
    for block in range(2):
        for name, out, into in (("attn.qkv", 3, 1), ("attn.proj", 1, 1), ("mlp.fc1", 4, 1), ("mlp.fc2", 1, 4)):
            spec[f"blocks.{block}.{name}.weight"] = (out * dim, into * dim)
            spec[f"blocks.{block}.{name}.bias"] = (out * dim,)
        for norm in ("norm1", "norm2"):
            spec |= {f"blocks.{block}.{norm}.{leaf}": (dim,) for leaf in ("weight", "bias")}
    return untrained_tensors({f"{prefix}{name}": (shape, torch.float32) for name, shape in spec.items()})


@pytest.mark.parametrize("name", ["dmtrack", "atstrack"])
def test_an_image_classifier_is_a_backbone(method: Callable[[str], TrainingMethod], tmp_path: Path, name: str) -> None:
    family = method(name)
    network, file = _network(family), _classifier(64)
    said = start(network, family, 0, None, _file(tmp_path / "mae.safetensors", file))
    assert "tensors from mae.safetensors, sha256 " in said
    assert said.endswith("left out: backbone.fc_norm.weight")
    state = network.state_dict()
    for key, value in file.items():
        if key not in ("fc_norm.weight",):
            assert torch.equal(state[f"backbone.{key}"], value)
    # Positions of both crops: 8 x 8 and 4 x 4 cells.
    assert torch.equal(state["backbone.pos_embed_x"], resized_grid(file["pos_embed"], 8))
    assert torch.equal(state["backbone.pos_embed_z"], resized_grid(file["pos_embed"], 4))


def test_a_whole_tracker_of_one_image_is_dmtracks_base(method: Callable[[str], TrainingMethod], tmp_path: Path) -> None:
    family = method("dmtrack")
    network = _network(family)
    base = {key: value for key, value in untrained_tensors(network).items() if ".adap" not in key}
    start(network, family, 0, None, _file(tmp_path / "ostrack.safetensors", base))
    state = network.state_dict()
    assert all(torch.equal(state[key], value) for key, value in base.items())
    # The adapters begin as nothing.
    assert all((value == 0).all() for key, value in state.items() if key.endswith("adapter_up.weight"))


def test_dinov2_is_spmtracks_backbone(method: Callable[[str], TrainingMethod], tmp_path: Path) -> None:
    family = method("spmtrack_b")
    network, file = _network(family), _classifier(64)
    del file["fc_norm.weight"]
    file["patch_embed.proj.weight"] = torch.ones(64, 3, 14, 14)
    file |= {f"blocks.{n}.{scale}.gamma": torch.full((64,), 0.3) for n in range(2) for scale in ("ls1", "ls2")}
    start(network, family, 0, None, _file(tmp_path / "dinov2.safetensors", file))
    state = network.state_dict()
    assert torch.equal(state["blocks.1.attn.qkv.k.linear.weight"], file["blocks.1.attn.qkv.weight"][64:128])
    assert torch.equal(state["pos_embed"], resized_grid(file["pos_embed"], 8))
    assert (state["blocks.0.ls1.gamma"] == 0.3).all()
    still = [key for key, _ in network.named_parameters() if not family.trains(key)]
    # All that is held still came from the file: another seed changes none of it.
    other = _network(family)
    start(other, family, 1, None, str(tmp_path / "dinov2.safetensors"))
    assert len(still) == 2 * 18 + 5
    assert all(torch.equal(state[key], other.state_dict()[key]) for key in still)
    assert not torch.equal(state["track_query"], other.state_dict()["track_query"])


def test_mobileone_is_the_backbone_of_both_trunks(method: Callable[[str], TrainingMethod], tmp_path: Path) -> None:
    family = method("dastm")
    network = _network(family)
    trunk = untrained_tensors(network.get_submodule("basemodel_q"))
    start(network, family, 0, None, _file(tmp_path / "mobileone.safetensors", trunk))
    state = network.state_dict()
    for key, value in trunk.items():
        assert torch.equal(state[f"basemodel_m.{key}"], value)
        assert torch.equal(state[f"basemodel_q.{key}"], value)


def test_mobilevit_is_smats_backbone_and_clip_comes_in_a_file_of_its_own(
    method: Callable[[str], TrainingMethod], tmp_path: Path
) -> None:
    smat = find_method(find_recipe("smat"))
    network = _network(smat)
    backbone = untrained_tensors(network.get_submodule("backbone")) | {"classifier.weight": torch.ones(2, 2)}
    said = start(network, smat, 0, None, _file(tmp_path / "mobilevitv2.safetensors", backbone))
    assert said.startswith(f"backbone: {len(backbone) - 1} tensors from mobilevitv2.safetensors, sha256")
    assert torch.equal(network.state_dict()["backbone.conv_1.block.conv.weight"], backbone["conv_1.block.conv.weight"])
    family = method("atstrack")
    network = _network(family)
    clip = untrained_tensors(network.get_submodule("text")) | {"visual.proj": torch.ones(2, 2)}
    files = [_file(tmp_path / "mae.safetensors", _classifier(64)), _file(tmp_path / "clip.safetensors", clip)]
    start(network, family, 0, None, ",".join(files))
    state = network.state_dict()
    assert all(torch.equal(state[f"text.{key}"], value) for key, value in clip.items() if key != "visual.proj")
    assert torch.equal(state["backbone.norm.bias"], _classifier(64)["norm.bias"])


def test_what_is_no_start(method: Callable[[str], TrainingMethod], tmp_path: Path) -> None:
    family = method("dmtrack")
    network = _network(family)
    with pytest.raises(UsageError, match=r"leaves \d+ tensors as they start .* give --init-backbone FILE"):
        start(network, family, 0, None, None)
    with pytest.raises(WeightsMismatchError, match=r"proj\.bias has shape \(32,\), the network's has \(64,\)"):
        start(network, family, 0, None, _file(tmp_path / "small.safetensors", _classifier(32)))
    with pytest.raises(WeightsMismatchError, match="holds none of the backbone's tensors; it has: x;"):
        start(network, family, 0, None, _file(tmp_path / "x.safetensors", {"x": torch.zeros(3, 3)}))
    broken = _classifier(64)
    broken["norm.weight"][3] = math.nan
    with pytest.raises(CheckpointError, match=r"norm\.weight"):
        start(network, family, 0, None, _file(tmp_path / "nan.safetensors", broken))
    for init, backbone, says in (("a.pth", "b.pth", "leave one of them out"), ("untrained", None, "leave --init out")):
        with pytest.raises(UsageError, match=says):
            check_start(family.recipe, init, backbone)


def test_a_recipe_that_weighs_other_terms_is_refused() -> None:
    recipe = find_recipe("smat")
    assert recipe.training is not None
    training = msgspec.structs.replace(recipe.training, loss={"focal": 1.0})
    with pytest.raises(UsageError, match="weighs the loss terms focal; expected focal, l1, giou"):
        find_method(msgspec.structs.replace(recipe, training=training))
    with pytest.raises(UsageError, match="its family 'nanotrack' declares no training"):
        find_method(find_recipe("nanotrack_v3"))
