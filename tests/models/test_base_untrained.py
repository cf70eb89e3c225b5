"""The recipe for untrained weights gives the published values, on any machine and in any order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgetrack.models.base import recipe_normal, untrained_tensors

# name, shape, first three values: numbers published with the recipe
CHECK_VALUES = [
    ("neck.BN_x.weight", (384,), (1.0568637, 1.1950727, 0.9248156)),
    ("neck.BN_x.running_var", (384,), (1.0049521, 1.1586971, 1.1418098)),
    ("backbone.conv_1.block.conv.weight", (32, 3, 3, 3), (0.0786603, 0.2140650, 0.0155269)),
    ("backbone.pos_embed_x", (1, 256, 768), (0.1353331, 0.0804343, 0.0063982)),
]


def one(
    name: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32, **options: dict[str, float]
) -> torch.Tensor:
    return untrained_tensors({name: (shape, dtype)}, **options)[name]


@pytest.mark.parametrize(("name", "shape", "first"), CHECK_VALUES)
def test_published_values(name: str, shape: tuple[int, ...], first: tuple[float, ...]) -> None:
    tensor = one(name, shape)
    assert tensor.shape == shape
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    np.testing.assert_allclose(tensor.flatten()[:3].numpy(), first, rtol=0, atol=6e-8 + 5e-8)


def test_published_input() -> None:
    values = recipe_normal("input:search", (1, 3, 256, 256)).astype(np.float32)
    np.testing.assert_allclose(values.flat[:3], (0.9082159, -0.4578134, -0.5355301), rtol=0, atol=1.1e-7)


@pytest.mark.parametrize(
    ("name", "shape", "factor", "shift"),
    [
        ("bn.running_mean", (3,), 0.1, 0),
        ("bn.bias", (3,), 0.1, 0),
        ("norm.gamma", (3,), 0.1, 1),
        ("norm.weight", (3,), 0.1, 1),
        ("head.si", (), 0.1, 0),
        ("scale.weight", (), 0.1, 1),
        ("pos", (1, 4, 9), 0.1, 0),
        ("conv.weight", (1, 4, 9), 1 / 6, 0),
        ("cls_token", (2, 9), 0.1, 0),
        ("track_query", (2, 9), 0.1, 0),
        ("query.weight", (2, 9), 1 / 3, 0),
        ("embed.proj.weight", (2, 9), 1 / 3, 0),
        ("in_proj", (2, 9), 1 / 3, 0),
    ],
)
def test_rules(name: str, shape: tuple[int, ...], factor: float, shift: float) -> None:
    expected = (shift + factor * recipe_normal(name, shape)).astype(np.float32)
    np.testing.assert_allclose(one(name, shape).numpy(), expected, rtol=1e-6)


def test_multipliers_apply_to_suffixes_and_all_of_them() -> None:
    plain = one("a.bn.weight", (4,)).numpy()
    scaled = one("a.bn.weight", (4,), multipliers={"bn.weight": 0.4, "weight": 3, "a.bn": 100, ".bias": 7})
    assert np.array_equal(scaled.numpy(), plain * np.float32(0.4) * np.float32(3))


def test_overrides_fill_whole_names_after_the_multipliers() -> None:
    options = {"multipliers": {"bias": 2.0}, "overrides": {"a.bias": -2.5, "as": 9.0}}
    assert one("a.bias", (2, 2), **options).tolist() == [[-2.5, -2.5], [-2.5, -2.5]]
    assert one("b.bias", (2,), **options).tolist() == one("b.bias", (2,), multipliers={"bias": 2.0}).tolist()


def test_a_module_is_read_and_not_changed() -> None:
    module = torch.nn.BatchNorm1d(3)
    module.num_batches_tracked.fill_(7)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    tensors = untrained_tensors(module)
    assert list(tensors) == list(before)
    assert tensors["num_batches_tracked"] == 7
    assert torch.equal(tensors["weight"], one("weight", (3,)))
    tensors["num_batches_tracked"] += 1
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_integers_and_bools_of_a_spec_are_zero() -> None:
    tensors = untrained_tensors({"n": ((), torch.int64), "mask": ((2,), torch.bool)})
    assert tensors["n"] == 0
    assert tensors["mask"].tolist() == [False, False]
    tensors["mask"][0] = True
    assert tensors["mask"].tolist() == [True, False]


def test_cast_to_the_dtype_last() -> None:
    assert torch.equal(one("w", (3, 3), torch.float16), one("w", (3, 3)).half())


def test_order_does_not_matter_and_torch_randomness_is_untouched() -> None:
    spec = {"a.weight": ((2, 2), torch.float32), "b.weight": ((2, 2), torch.float32)}
    state = torch.get_rng_state()
    forwards, backwards = untrained_tensors(spec), untrained_tensors(dict(reversed(spec.items())))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(forwards[name], backwards[name]) for name in spec)
