"""The published network: names, sizes, and every number that the official code gives with the same weights."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgetrack.models.layers.mobilevit import MixedMobileViTBlock
from edgetrack.models.smat import Network

# Tap in the golden file -> module and which of its calls' output; search passes the stem after the template here.
MODULE_TAPS = {
    "template/backbone.layer_2": ("backbone.layer_2", 0),
    "search/backbone.conv_1": ("backbone.conv_1", 1),
    "search/backbone.layer_1": ("backbone.layer_1", 1),
    "search/backbone.layer_2": ("backbone.layer_2", 1),
    "backbone.layer_3.1.global_rep.0": ("backbone.layer_3.1.global_rep.0", 0),
    "backbone.layer_3.1.global_rep.1": ("backbone.layer_3.1.global_rep.1", 0),
    "backbone.layer_3.1.global_rep.2": ("backbone.layer_3.1.global_rep.2", 0),
    "neck.search": ("neck.BN_x", 0),
    "neck.template": ("neck.BN_z", 0),
    "feature_fusor.pw_corr": ("feature_fusor.pw_corr", 0),
    "feature_fusor": ("feature_fusor", 0),
    "box_head.pre_ssat_cls": ("box_head.pre_ssat_cls", 0),
    "box_head.pre_ssat_reg": ("box_head.pre_ssat_reg", 0),
    "box_head.global_rep_cls": ("box_head.global_rep_cls", 0),
    "box_head.global_rep_reg": ("box_head.global_rep_reg", 0),
}
# Modules that return both: search first, template second.
PAIR_TAPS = {
    f"backbone.layer_{layer}.{side}": (f"backbone.layer_{layer}.1", index)
    for layer in (3, 4)
    for index, side in enumerate(("search", "template"))
}


@pytest.fixture(scope="module")
def recorded(network: Network, images: dict[str, torch.Tensor]) -> Iterator[dict[str, list[Any]]]:
    """Module -> the outputs of its calls, on the golden inputs; under "" the maps."""
    calls: dict[str, list[Any]] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: calls.setdefault(name, []).append(output)

    wanted = {module for module, _ in (*MODULE_TAPS.values(), *PAIR_TAPS.values())}
    hooks = [network.get_submodule(name).register_forward_hook(keep(name)) for name in sorted(wanted)]
    with torch.inference_mode():
        calls[""] = [network(images["template"], images["search"])]
    for hook in hooks:
        hook.remove()
    return calls


def test_has_the_published_number_of_parameters_and_entries() -> None:
    network = Network()
    assert sum(p.numel() for p in network.parameters()) == 3_767_409
    assert len(network.state_dict()) == 371


def test_state_dict_has_the_official_names_and_shapes_in_order(shared: Path) -> None:
    rows = [
        line.split("\t") for line in (shared / "spec/statedict_smat.txt").read_text().splitlines() if line[0] != "#"
    ]
    official = [(name, ast.literal_eval(shape), dtype) for name, shape, dtype, _ in rows]
    state = Network().state_dict()
    assert [(n, tuple(t.shape), str(t.dtype).removeprefix("torch.")) for n, t in state.items()] == official


def test_golden_file_is_of_these_weights(golden: Callable[[str], Any], images: dict[str, torch.Tensor]) -> None:
    meta = golden("smat").meta
    assert meta["multipliers"] == {"neck.BN_z.weight": 0.02, "neck.BN_z.bias": 0.02}
    assert meta["inputs"] == {key: list(image.shape) for key, image in images.items()}


def test_every_golden_tap_is_compared(golden: Callable[[str], Any]) -> None:
    places = {key.rpartition("/")[0] for key in golden("smat").group("tap")}
    assert places == MODULE_TAPS.keys() | PAIR_TAPS.keys()


@pytest.mark.parametrize(("index", "name"), list(enumerate(["score_map", "size_map", "offset_map"])))
def test_maps_are_the_official_ones(
    golden: Callable[[str], Any], recorded: dict[str, list[Any]], index: int, name: str
) -> None:
    smat = golden("smat")
    found = recorded[""][0][index].numpy()
    np.testing.assert_allclose(found, smat.arrays[f"out/{name}"], rtol=0, atol=smat.meta["tol_abs"])


@pytest.mark.parametrize("tap", sorted(MODULE_TAPS | PAIR_TAPS))
def test_every_stage_is_the_official_one(
    golden: Callable[[str], Any], recorded: dict[str, list[Any]], tap: str
) -> None:
    smat = golden("smat")
    if tap in PAIR_TAPS:
        module, index = PAIR_TAPS[tap]
        found = recorded[module][0][index].numpy()
    else:
        module, index = MODULE_TAPS[tap]
        found = recorded[module][index].numpy()
    expected, tolerance = smat.group(f"tap/{tap}"), smat.meta["tol_abs"]
    assert found.shape == tuple(expected["shape"])
    moments = (found.mean(dtype=np.float64), found.std(dtype=np.float64))
    np.testing.assert_allclose(moments, expected["mean_std"], rtol=0, atol=tolerance)
    samples = found.ravel()[np.linspace(0, found.size - 1, 32).astype(np.int64)]
    np.testing.assert_allclose(samples, expected["samples"], rtol=0, atol=tolerance)


def test_forward_is_template_then_step(network: Network, images: dict[str, torch.Tensor]) -> None:
    with torch.inference_mode():
        whole = network(images["template"], images["search"])
        pieces = network.step(images["search"], network.template(images["template"]))
    assert all(torch.equal(a, b) for a, b in zip(whole, pieces, strict=True))


def test_search_and_template_influence_one_another(network: Network) -> None:
    mixed = network.backbone.layer_3[1]
    assert isinstance(mixed, MixedMobileViTBlock)
    generator = torch.Generator().manual_seed(0)
    x, z, other = (torch.randn(1, 256, side, side, generator=generator) for side in (8, 4, 4))
    with torch.inference_mode():
        assert not torch.allclose(mixed(x, z)[0], mixed(x, other)[0])
        assert not torch.allclose(mixed(x, z)[1], mixed(torch.flip(x, (1,)), z)[1])
