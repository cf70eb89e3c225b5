"""Patches, and the published blocks' shapes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgetrack.models.layers.mobilevit import (
    AttentionBlock,
    ConvLayer,
    DeployedAttention,
    InvertedResidual,
    LinearSelfAttention,
    MixedMobileViTBlock,
    attention_stack,
    deployed_stack,
    fold,
    in_rows,
    normalise,
    place_in_patch,
    unfold,
)
from edgetrack.models.layers.vit import MASKED

HALVES = st.integers(1, 5)


@given(batch=st.integers(1, 2), channels=st.integers(1, 4), rows=HALVES, columns=HALVES)
def test_fold_undoes_unfold(batch: int, channels: int, rows: int, columns: int) -> None:
    x = torch.arange(batch * channels * 4 * rows * columns, dtype=torch.float32)
    x = x.reshape(batch, channels, 2 * rows, 2 * columns)
    assert torch.equal(fold(unfold(x), 2 * rows, 2 * columns), x)


@given(rows=HALVES, columns=HALVES)
def test_unfold_is_a_reshape_and_a_permutation(rows: int, columns: int) -> None:
    x = torch.arange(3 * 4 * rows * columns, dtype=torch.float32).reshape(1, 3, 2 * rows, 2 * columns)
    expected = x.view(1, 3, rows, 2, columns, 2).permute(0, 1, 3, 5, 2, 4).reshape(1, 3, 4, rows * columns)
    assert torch.equal(unfold(x), expected)


@pytest.mark.parametrize(("c_in", "c_out", "stride", "residual"), [(4, 4, 1, True), (4, 4, 2, False), (4, 8, 1, False)])
def test_inverted_residual_adds_its_input_where_shapes_allow(
    c_in: int, c_out: int, stride: int, residual: bool
) -> None:
    block = InvertedResidual(c_in, c_out, stride).eval()
    x = torch.randn(1, c_in, 6, 6, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found, inner = block(x), block.block(x)
    assert found.shape == (1, c_out, 6 // stride, 6 // stride)
    torch.testing.assert_close(found, x + inner if residual else inner)


def test_layer_without_norm_and_activation_is_its_convolution() -> None:
    layer = ConvLayer(2, 3, 3, bias=True, norm=False, act=False)
    x = torch.randn(1, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    assert list(layer.state_dict()) == ["block.conv.weight", "block.conv.bias"]
    assert torch.equal(layer(x), layer.block.conv(x))


def test_self_attention_weighs_keys_over_the_last_axis_only() -> None:
    attention = LinearSelfAttention(4).eval()
    x = torch.randn(1, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = attention(x)
        rows = torch.cat([attention(x[:, :, p : p + 1]) for p in range(3)], dim=2)
        shuffled = attention(x[..., torch.tensor([4, 2, 0, 1, 3])])
    torch.testing.assert_close(whole, rows)
    torch.testing.assert_close(shuffled, whole[..., torch.tensor([4, 2, 0, 1, 3])])


def test_mixed_block_keeps_both_shapes() -> None:
    block = MixedMobileViTBlock(6, 4, 1).eval()
    with torch.inference_mode():
        x, z = block(torch.zeros(1, 6, 8, 6), torch.zeros(1, 6, 4, 2))
    assert (tuple(x.shape), tuple(z.shape)) == ((1, 6, 8, 6), (1, 6, 4, 2))


SIDES = st.sampled_from([2, 4, 6])
GRID = st.tuples(SIDES, SIDES)
SEEDS = st.integers(0, 2**16)


def randomise(module: nn.Module, seed: int) -> nn.Module:
    """Every parameter drawn anew, so that no scale is one and no shift zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3 + 0.2)
    return module.eval().requires_grad_(False)


def maps(dim: int, grids: list[tuple[int, int]], seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed + 1)
    return [torch.randn(1, dim, *grid, generator=generator, dtype=torch.float64) for grid in grids]


def deployed(block: AttentionBlock, grids: list[tuple[int, int]] | None, *, channels_last: bool) -> DeployedAttention:
    found = DeployedAttention(block, grids)
    found.channels_last = channels_last
    return found.double()


@settings(deadline=None, max_examples=40)
@given(dim=st.integers(1, 6), grids=st.lists(GRID, min_size=1, max_size=3), seed=SEEDS, channels_last=st.booleans())
def test_patched_attention_is_the_published_block_on_unfolded_tokens(
    dim: int, grids: list[tuple[int, int]], seed: int, channels_last: bool
) -> None:
    block = randomise(AttentionBlock(dim), seed)
    images = maps(dim, grids, seed)
    # Rows of two: every grid has an even number of columns, so the maps of several grids lie one below the other.
    attention = deployed(block, grids, channels_last=channels_last)
    found = attention(torch.cat([in_rows(x, 2) for x in images], dim=2)).flatten(2)
    published = block.double()(torch.cat([unfold(x) for x in images], dim=3))
    start = 0
    for grid, patches in zip(grids, published.split([h * w // 4 for h, w in grids], dim=3), strict=True):
        tokens = found[..., start : start + grid[0] * grid[1]]
        torch.testing.assert_close(tokens.reshape(1, dim, *grid), fold(patches, *grid), rtol=1e-6, atol=1e-6)
        start += grid[0] * grid[1]


@settings(deadline=None, max_examples=30)
@given(dim=st.integers(1, 6), count=st.integers(2, 40), seed=SEEDS, channels_last=st.booleans())
def test_plain_attention_is_the_published_block(dim: int, count: int, seed: int, channels_last: bool) -> None:
    block = randomise(AttentionBlock(dim), seed)
    (x,) = maps(dim, [(1, count)], seed)
    found = deployed(block, None, channels_last=channels_last)(x)
    torch.testing.assert_close(found, block.double()(x), rtol=1e-6, atol=1e-6)


def test_stack_leaves_its_closing_norm_to_what_follows() -> None:
    stack = randomise(attention_stack(4, 3), 0)
    assert isinstance(stack, nn.Sequential)
    shipped = deployed_stack(stack).double()
    assert len(shipped) == 3
    (x,) = maps(4, [(1, 9)], 0)
    norm = stack[-1]
    expected = stack.double()(x)
    torch.testing.assert_close(
        normalise(shipped(x)) * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1),
        expected,
        rtol=1e-6,
        atol=1e-6,
    )


@given(grids=st.lists(GRID, min_size=1, max_size=3))
def test_places_are_those_of_unfold(grids: list[tuple[int, int]]) -> None:
    places = place_in_patch(grids)
    assert places.shape == (sum(h * w for h, w in grids),)
    start = 0
    for height, width in grids:
        patches = torch.arange(4).float().view(1, 1, 4, 1).expand(1, 1, 4, height * width // 4)
        expected = fold(patches, height, width).flatten()
        assert torch.equal(places[start : start + height * width].float(), expected)
        start += height * width


def test_masked_tokens_weigh_exactly_nothing_even_in_half_precision() -> None:
    block = DeployedAttention(randomise(AttentionBlock(2), 0), [(2, 2)])
    assert torch.equal(block.mask, torch.where(torch.eye(4) == 1, 0.0, MASKED))
    assert torch.isfinite(torch.tensor(MASKED).half())
    assert torch.exp(torch.tensor(MASKED + 100)) == 0


@settings(deadline=None)
@given(dim=st.integers(1, 5), height=st.integers(1, 6), width=st.integers(2, 6), shift=st.floats(-50, 50), seed=SEEDS)
def test_normalise_is_group_norm_without_scale_and_shift(
    dim: int, height: int, width: int, shift: float, seed: int
) -> None:
    (x,) = maps(dim, [(height, width)], seed)
    x = x + shift
    torch.testing.assert_close(normalise(x), nn.functional.group_norm(x, 1, eps=1e-5), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_normalise_of_a_constant_is_zero_not_nan(value: float) -> None:
    assert torch.equal(normalise(torch.full((1, 2, 3, 4), value)), torch.zeros(1, 2, 3, 4))


def test_rows_of_another_length_keep_the_order() -> None:
    x = torch.arange(24.0).reshape(1, 2, 3, 4)
    assert in_rows(x, 6).shape == (1, 2, 2, 6)
    assert torch.equal(in_rows(x, 6).flatten(), x.flatten())
    assert in_rows(x, 4) is x
