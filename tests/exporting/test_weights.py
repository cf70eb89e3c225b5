"""Where a network's weights come from, and which are refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import safetensors.torch
import torch

from edgetrack.bundle import open_bundle
from edgetrack.errors import BackendMissingError, CheckpointError, UnknownNameError, UsageError, WeightsMismatchError
from edgetrack.exporting.recipe import find_recipe
from edgetrack.exporting.weights import fill
from edgetrack.models.base import make_network, untrained_tensors
from edgetrack.models.smat import Network

RECIPE = find_recipe("smat")


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    return untrained_tensors(Network())


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    def write(content: object) -> Path:
        path = tmp_path / "weights.pth.tar"
        torch.save(content, path)
        return path

    return write


def test_untrained_weights_are_the_recipes() -> None:
    network = Network()
    info = fill(network, RECIPE, "untrained")
    assert (info.origin, info.sha256, info.file) == ("untrained", None, None)
    expected = untrained_tensors(network, RECIPE.untrained.multipliers, RECIPE.untrained.overrides)
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())
    assert torch.equal(network.box_head.conv4_size.bias, torch.full((2,), -2.0))


def test_default_weights_are_the_file_that_ships() -> None:
    network, stated = Network(), RECIPE.require_default()
    info = fill(network, RECIPE, "default")
    data = stated.path.read_bytes()
    assert len(data) < 8e6
    assert (info.origin, info.file, info.note) == ("trained-here", stated.file, stated.note)
    assert info.sha256 == stated.sha256 == hashlib.sha256(data).hexdigest()
    tensors = safetensors.torch.load(data)
    assert all(torch.equal(value, tensors[name].to(value.dtype)) for name, value in network.state_dict().items())
    assert {t.dtype for name, t in tensors.items() if name.endswith(("weight", "bias"))} == {torch.float16}


def test_default_weights_that_were_changed_are_refused() -> None:
    stated = msgspec.structs.replace(RECIPE.require_default(), sha256="0" * 64)
    with pytest.raises(CheckpointError, match=r"the recipe states 0000.*reinstall edgetrack-weights-smat"):
        fill(Network(), msgspec.structs.replace(RECIPE, default_weights=stated), "default")


def test_default_weights_that_are_not_installed_are_asked_for_by_name() -> None:
    absent = msgspec.structs.replace(RECIPE.require_default(), package="edgetrack-weights-nowhere")
    with pytest.raises(BackendMissingError, match=r"pip install edgetrack-weights-nowhere .*--weights .*untrained"):
        fill(Network(), msgspec.structs.replace(RECIPE, default_weights=absent), "default")


def test_without_a_wish_weights_are_the_default_ones_where_there_are_some() -> None:
    none = msgspec.structs.replace(RECIPE, default_weights=None)
    assert [recipe.choose_weights(None) for recipe in (RECIPE, none)] == ["default", "untrained"]
    assert [none.choose_weights(wish) for wish in ("untrained", "a/b.pth")] == ["untrained", "a/b.pth"]
    with pytest.raises(UsageError, match=r"no weights of tracker 'smat' ship .* MobileViTv2_Track_ep0300\.pth\.tar"):
        none.choose_weights("default")
    with pytest.raises(UnknownNameError, match="did you mean 'untrained'"):
        none.choose_weights("untraind")


def test_own_checkpoint_is_custom_with_its_hash(save: Callable[..., Path], tensors: dict[str, torch.Tensor]) -> None:
    path, network = save({"net": tensors, "epoch": 3}), Network()
    info = fill(network, RECIPE, str(path))
    assert (info.origin, info.file) == ("custom", "weights.pth.tar")
    assert info.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert torch.equal(network.neck.BN_x.weight, tensors["neck.BN_x.weight"])


def test_checkpoint_of_a_known_hash_is_official(save: Callable[..., Path], tensors: dict[str, torch.Tensor]) -> None:
    path = save({"net": tensors})
    known = (hashlib.sha256(path.read_bytes()).hexdigest(),)
    checkpoint = msgspec.structs.replace(RECIPE.checkpoint, official_sha256=known)
    assert fill(Network(), msgspec.structs.replace(RECIPE, checkpoint=checkpoint), str(path)).origin == "official"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_checkpoint_with_a_number_that_is_none_is_refused(
    save: Callable[..., Path], tensors: dict[str, torch.Tensor], bad: float
) -> None:
    spoilt = tensors["neck.BN_x.weight"].clone()
    spoilt[7] = bad
    path = save({"net": tensors | {"neck.BN_x.weight": spoilt}})
    with pytest.raises(CheckpointError, match=r"NaN or infinite values in 1 of 371 tensors: neck\.BN_x\.weight \(1 of"):
        fill(Network(), RECIPE, str(path))


def test_checkpoint_of_another_network_is_refused(save: Callable[..., Path]) -> None:
    path = save({"net": torch.nn.Linear(2, 2).state_dict()})
    with pytest.raises(WeightsMismatchError, match=r"338 missing, 2 unexpected"):
        fill(Network(), RECIPE, str(path))


def test_tensors_that_the_recipe_calls_unused_are_left_out_and_no_others(
    save: Callable[..., Path], tensors: dict[str, torch.Tensor]
) -> None:
    checkpoint = msgspec.structs.replace(RECIPE.checkpoint, unused=("spare.",))
    recipe = msgspec.structs.replace(RECIPE, checkpoint=checkpoint)
    spare, network = {"spare.weight": torch.full((2, 2), float("nan"))}, Network()
    fill(network, recipe, str(save({"net": tensors | spare})))
    assert torch.equal(network.neck.BN_x.weight, tensors["neck.BN_x.weight"])
    with pytest.raises(WeightsMismatchError, match=r"1 unexpected.*\n.*spares\.weight"):
        fill(Network(), recipe, str(save({"net": tensors | {"spares.weight": torch.ones(2)}})))
    partial = {name: value for name, value in tensors.items() if name != "neck.BN_x.weight"}
    with pytest.raises(WeightsMismatchError, match="1 missing"):
        fill(Network(), recipe, str(save({"net": partial | spare})))


@pytest.mark.parametrize("tracker", ["nanotrack_v2", "nanotrack_v3"])
def test_official_nanotrack_files_load_apart_from_their_neck(shared: Path, tracker: str) -> None:
    recipe = find_recipe(tracker)
    path = shared / "data" / "peers" / "nanotrack" / recipe.checkpoint.file
    if not path.is_file():
        pytest.skip(f"REFERENCE FILES ABSENT: no file {path}")
    assert fill(make_network(tracker, {}), recipe, str(path)).origin == "official"
    strict = msgspec.structs.replace(recipe, checkpoint=msgspec.structs.replace(recipe.checkpoint, unused=()))
    with pytest.raises(WeightsMismatchError, match=r"5 unexpected\n  unexpected: neck\.downsample"):
        fill(make_network(tracker, {}), strict, str(path))


@pytest.mark.parametrize(
    ("prefix", "note"),
    [
        ("module.", "prefix 'module.' left out"),
        ("_orig_mod.", "prefix '_orig_mod.' left out"),
        ("model.module.net._orig_mod.", "prefix 'model.module.net._orig_mod.' left out"),
    ],
)
@pytest.mark.parametrize("key", ["", "model", "state_dict", "ema"])
def test_wrapped_weights_are_loaded_whole_and_it_is_said(
    save: Callable[..., Path], tensors: dict[str, torch.Tensor], prefix: str, note: str, key: str
) -> None:
    wrapped, network = {f"{prefix}{name}": tensor for name, tensor in tensors.items()}, Network()
    info = fill(network, RECIPE, str(save({key: wrapped, "epoch": 3} if key else wrapped)))
    found = f"tensors found under '{key}'; " if key else ""
    assert info.note == f"a checkpoint of the official format, given by the user; {found}{note}"
    assert all(torch.equal(value, tensors[name]) for name, value in network.state_dict().items())


def test_prefixes_of_some_names_and_inside_names(save: Callable[..., Path], tensors: dict[str, torch.Tensor]) -> None:
    wrapped = {
        f"module.{n}" if i % 2 else n.replace("neck.", "neck._orig_mod."): t for i, (n, t) in enumerate(tensors.items())
    }
    network = Network()
    fill(network, RECIPE, str(save(wrapped)))
    assert all(torch.equal(value, tensors[name]) for name, value in network.state_dict().items())


def test_two_copies_of_a_tensor_are_refused(save: Callable[..., Path], tensors: dict[str, torch.Tensor]) -> None:
    both = {f"model.{name}": tensor for name, tensor in tensors.items()} | tensors
    with pytest.raises(WeightsMismatchError, match=r"model\.\S+ and \S+ are the same tensor"):
        fill(Network(), RECIPE, str(save(both)))


def test_weights_without_batch_counters_load(save: Callable[..., Path], tensors: dict[str, torch.Tensor]) -> None:
    bare = {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    assert len(bare) < len(tensors)
    assert fill(Network(), RECIPE, str(save(bare))).origin == "custom"


@pytest.mark.parametrize(
    ("given", "asked"), [("nanotrack_v3", "nanotrack_v2"), ("nanotrack_v2", "nanotrack_v3"), ("nanotrack_v3", "smat")]
)
def test_weights_of_another_tracker_are_recognised(save: Callable[..., Path], given: str, asked: str) -> None:
    other = find_recipe(given)
    path = save({f"module.{n}": t for n, t in untrained_tensors(make_network(given, other.configuration)).items()})
    recipe = find_recipe(asked)
    with pytest.raises(WeightsMismatchError) as caught:
        fill(make_network(asked, recipe.configuration), recipe, str(path))
    assert str(caught.value) == (
        f"weights.pth.tar: this looks like the weights of {given}, not of {asked}; type '{given}' as the tracker"
    )


def test_missing_file_is_refused() -> None:
    with pytest.raises(CheckpointError, match="there is no such file"):
        fill(Network(), RECIPE, "absent.pth")


def test_bundle_of_untrained_weights_says_so(exported: Callable[..., Path]) -> None:
    with open_bundle(exported("onnx")) as bundle:
        weights = bundle.manifest.weights
    assert (weights.origin, weights.sha256) == ("untrained", None)
    assert "tracks nothing" in weights.note


def test_bundle_of_trained_weights_says_which(
    exported: Callable[..., Path], pilot_weights: Path, golden: Callable[[str], object]
) -> None:
    with open_bundle(exported("onnx", str(pilot_weights))) as bundle:
        weights = bundle.manifest.weights
    assert (weights.origin, weights.file) == ("custom", pilot_weights.name)
    assert weights.sha256 == golden("seq_smat_pilot").meta["sha256"]
