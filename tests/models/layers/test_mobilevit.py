"""Patches, and the published blocks' shapes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.models.layers.mobilevit import (
    ConvLayer,
    InvertedResidual,
    LinearSelfAttention,
    MixedMobileViTBlock,
    fold,
    unfold,
)

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
