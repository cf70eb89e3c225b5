"""The published networks: names, sizes, and every number that the official code gives with the same weights."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgetrack.exporting.recipe import find_recipe
from edgetrack.models.base import make_network

TRACKERS = {"nanotrack_v2": 334_078, "nanotrack_v3": 541_446}
OUTPUTS = ("template_feat", "search_feat", "output1_cls_logits", "output2_loc")

each_tracker = pytest.mark.parametrize("tracker", sorted(TRACKERS))


@torch.inference_mode()
def outputs(network: nn.Module, images: dict[str, Tensor]) -> dict[str, np.ndarray]:
    cls, loc = network(images["template"], images["search"])
    values = (network.template(images["template"]), network.backbone(images["search"]), cls, loc.exp())
    return {name: value.numpy() for name, value in zip(OUTPUTS, values, strict=True)}


@each_tracker
def test_has_the_number_of_parameters_that_are_used(tracker: str) -> None:
    assert sum(p.numel() for p in make_network(tracker, {}).parameters()) == TRACKERS[tracker]


@each_tracker
def test_state_dict_has_the_official_names_and_shapes_in_order(shared: Path, tracker: str) -> None:
    lines = (shared / f"spec/statedict_{tracker}.txt").read_text().splitlines()
    rows = [line.split("\t")[:3] for line in lines if line[0] != "#" and not line.startswith("neck.")]
    official = [(name, ast.literal_eval(shape), dtype) for name, shape, dtype in rows]
    state = make_network(tracker, {}).state_dict()
    assert [(n, tuple(t.shape), str(t.dtype).removeprefix("torch.")) for n, t in state.items()] == official


@each_tracker
def test_golden_weights_are_those_of_the_recipe(golden: Callable[[str], Any], tracker: str) -> None:
    meta, recipe = golden(tracker).meta, find_recipe(tracker)
    assert meta["recipe"]["multipliers"] == recipe.untrained.multipliers
    assert meta["weights"][recipe.checkpoint.file] in recipe.checkpoint.official_sha256


@each_tracker
def test_golden_inputs_are_these(golden: Callable[[str], Any], images: dict[str, Tensor], tracker: str) -> None:
    first = golden(tracker).meta["input_first_values"]
    for key, image in images.items():
        assert image.flatten()[:4].tolist() == first[key]


@each_tracker
def test_untrained_network_gives_the_official_outputs(
    golden: Callable[[str], Any], images: dict[str, Tensor], untrained_network: Callable[..., nn.Module], tracker: str
) -> None:
    reference = golden(tracker)
    for name, found in outputs(untrained_network(tracker), images).items():
        expected = reference.arrays[f"recipe_out/{name}"]
        limit = reference.meta["recipe"]["tolerance_relative"] * np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=limit, err_msg=name)


@each_tracker
def test_trained_network_gives_the_official_outputs(
    golden: Callable[[str], Any], images: dict[str, Tensor], official_network: Callable[..., nn.Module], tracker: str
) -> None:
    reference, kinds = golden(tracker), ("features", "features", "cls_logits", "loc")
    found = outputs(official_network(tracker), images)
    for name, kind in zip(OUTPUTS, kinds, strict=True):
        limit = reference.meta["tolerance"][kind]
        np.testing.assert_allclose(found[name], reference.arrays[f"out/{name}"], rtol=0, atol=limit, err_msg=name)


def taps_of(reference: Any, place: str) -> dict[str, np.ndarray]:
    """Module -> 32 samples of its output."""
    group = reference.group(f"tap/{place}")
    return {name.removesuffix("/samples"): values for name, values in group.items() if name.endswith("/samples")}


@each_tracker
@pytest.mark.parametrize("place", ["template", "step"])
def test_every_stage_gives_the_official_numbers(
    golden: Callable[[str], Any],
    images: dict[str, Tensor],
    official_network: Callable[..., nn.Module],
    tracker: str,
    place: str,
) -> None:
    network, taps, seen = official_network(tracker), taps_of(golden(tracker), place), {}
    handles = [
        network.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.__setitem__(name, output)
        )
        for name in taps
    ]
    with torch.inference_mode():
        z = network.template(images["template"])
        if place == "step":
            network.step(images["search"], z)
    for handle in handles:
        handle.remove()
    assert len(taps) >= 9
    for name, expected in taps.items():
        values = seen[name].flatten()
        found = values[np.linspace(0, len(values) - 1, 32).astype(np.int64)].numpy()
        np.testing.assert_allclose(
            found, expected, rtol=0, atol=golden(tracker).meta["tolerance"]["taps"], err_msg=name
        )
