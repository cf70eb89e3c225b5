"""MobileOne against the official numbers, and its re-parameterised form against the trained one."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetrack.models.base import recipe_normal, untrained_tensors
from edgetrack.models.layers.mobileone import (
    DeployedBlock,
    DeployedMobileOne,
    MobileOne,
    MobileOneBlock,
    untangled,
)


def listed(shared: Path, form: str) -> list[tuple[str, tuple[int, ...], str]]:
    lines = (shared / f"spec/statedict_mobileone_s0_trunk_{form}.txt").read_text().splitlines()
    rows = [line.split("\t") for line in lines if line[0] != "#"]
    return [(name, ast.literal_eval(shape), dtype) for name, shape, dtype, *_ in rows]


def filled(trunk: torch.nn.Module, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    for name, value in trunk.state_dict().items():
        if value.is_floating_point():
            drawn = torch.randn(value.shape, generator=generator) * 0.3
            value.copy_(drawn.abs() + 0.5 if name.endswith("running_var") else drawn)
    return trunk.eval().requires_grad_(False)


def small(**changes: Any) -> MobileOne:
    return filled(MobileOne(**{"width": 0.125, "pairs": (1, 2, 3), **changes}))


@pytest.fixture(scope="module")
def official(golden: Callable[[str], Any]) -> MobileOne:
    trunk = MobileOne("s0", stride_3=2)
    trunk.load_state_dict(untrained_tensors(trunk, golden("mobileone_s0").meta["multipliers"]))
    return trunk.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.from_numpy(recipe_normal("input:mobileone", (1, 3, 97, 97))).float()


@pytest.mark.parametrize("stride", [1, 2])
def test_trained_form_has_the_official_names_in_order(shared: Path, stride: int) -> None:
    with torch.device("meta"):
        trunk = MobileOne("s0", stride_3=stride)
    found = [(n, tuple(t.shape), str(t.dtype).removeprefix("torch.")) for n, t in trunk.state_dict().items()]
    assert found == listed(shared, "train")


def test_every_stage_is_the_official_one(
    golden: Callable[[str], Any], official: MobileOne, image: torch.Tensor
) -> None:
    fixture, x = golden("mobileone_s0"), image
    for stage in ("stage0", "stage1", "stage2", "stage3"):
        x = official.get_submodule(stage)(x)
        expected = fixture.group(f"tap/{stage}")
        assert tuple(x.shape) == tuple(expected["shape"])
        samples = x.numpy().ravel()[np.linspace(0, x.numel() - 1, 32).astype(np.int64)]
        np.testing.assert_allclose(samples, expected["samples"], rtol=0, atol=fixture.meta["tol_abs"])
    np.testing.assert_allclose(x, fixture.arrays["out/stage3"], rtol=0, atol=fixture.meta["tol_abs"])


def test_the_merged_network_gives_the_official_map(
    golden: Callable[[str], Any], official: MobileOne, image: torch.Tensor
) -> None:
    fixture, deployed = golden("mobileone_s0"), DeployedMobileOne(official).eval()
    with torch.inference_mode():
        np.testing.assert_allclose(deployed(image), fixture.arrays["out/stage3"], atol=fixture.meta["tol_abs"], rtol=0)
    blocks = dict(official.blocks())
    for name in ("stage2.0", "stage2.1"):
        merged = blocks[name].affine
        for tensor, leaf in ((merged.weight, "weight"), (merged.bias, "bias")):
            expected = fixture.arrays[f"fused/{name}.reparam_conv.{leaf}"]
            np.testing.assert_allclose(tensor, expected, rtol=0, atol=1e-6)


def test_a_published_fused_file_becomes_the_trained_form(
    shared: Path, golden: Callable[[str], Any], official: MobileOne, image: torch.Tensor
) -> None:
    merged = {name: block.affine for name, block in official.blocks()}
    fused = {
        f"{name}.reparam_conv.{leaf}": getattr(map_, leaf).float()
        for name, map_ in merged.items()
        for leaf in ("weight", "bias")
    }
    assert [(n, tuple(t.shape), "float32") for n, t in fused.items()] == listed(shared, "fused")
    again = MobileOne("s0", stride_3=2)
    again.load_state_dict(untangled(again, fused))
    with torch.inference_mode():
        found = again.eval()(image)
    fixture = golden("mobileone_s0")
    np.testing.assert_allclose(found, fixture.arrays["out/stage3"], rtol=0, atol=fixture.meta["tol_abs"])


@settings(max_examples=20)
@given(
    seed=st.integers(0, 1000),
    kernel=st.sampled_from([1, 3]),
    stride=st.sampled_from([1, 2]),
    branches=st.integers(1, 3),
    depthwise=st.booleans(),
    same=st.booleans(),
    gated=st.booleans(),
)
def test_a_block_and_its_one_convolution_agree(
    seed: int, kernel: int, stride: int, branches: int, depthwise: bool, same: bool, gated: bool
) -> None:
    c_out = 4 if depthwise or same else 6
    skip = c_out == 4 and stride == 1
    block = filled(
        MobileOneBlock(
            4, c_out, kernel, stride=stride, groups=4 if depthwise else 1, branches=branches, skip=skip, gated=gated
        ),
        seed,
    )
    x = torch.randn(2, 4, 7, 6, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(DeployedBlock(block)(x), block(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", ["s0", "s1", "s4"])
@pytest.mark.parametrize("crop", [0, 1, 4, 5])
def test_the_middle_alone_is_the_middle_of_the_whole(variant: str, crop: int) -> None:
    trunk = small(variant=variant)
    x = torch.randn(1, 3, 81, 81, generator=torch.Generator().manual_seed(1))
    hint = torch.randn(1, trunk.channels[0], 41, 41, generator=torch.Generator().manual_seed(2))
    expected, deployed = trunk(x, hint), DeployedMobileOne(trunk, crop)
    # Three blocks of stage 3 and one of stage 2 can do without padding; a gate reads the whole map: none can before it.
    assert deployed.cut == (crop if variant == "s4" else max(0, crop - 4))
    torch.testing.assert_close(
        deployed(x, hint), expected[:, :, crop : 11 - crop, crop : 11 - crop], rtol=1e-4, atol=1e-5
    )


def test_variants_have_their_published_sizes() -> None:
    # Fused parameters of stages 0 to 3 (MobileOne's paper, Table 2).
    expected = {"s0": 0.79e6, "s1": 2.82e6, "s2": 4.44e6, "s3": 6.45e6}
    for variant, count in expected.items():
        with torch.device("meta"):
            trunk = MobileOne(variant)
        weights = [block.rbr_conv[0].conv.weight for _, block in trunk.blocks()]
        assert sum(w.numel() + w.shape[0] for w in weights) == pytest.approx(count, rel=0.01)


@pytest.mark.parametrize("changes", [{"variant": "s9"}, {"width": 0.0}, {"pairs": (1, 2)}, {"pairs": (1, 0, 2)}])
def test_what_no_variant_has_is_refused(changes: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        MobileOne(**changes)
