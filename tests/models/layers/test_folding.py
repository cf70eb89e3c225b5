"""The algebra of folding against the plain computation, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgetrack.models.layers.folding import (
    Affine,
    after_batch_norm,
    after_group_norm,
    before_padded,
    chain,
    of_conv,
    of_layer,
    to_conv,
)
from edgetrack.models.layers.mobilevit import ConvLayer

CHANNELS = st.integers(1, 6)
SIDES = st.integers(1, 7)
SEEDS = st.integers(0, 2**16)
few = settings(deadline=None, max_examples=40)


class Draw:
    """Random float64 tensors, maps and norms."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def tensor(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def affine(self, c_in: int, c_out: int, kernel: int = 1) -> Affine:
        return Affine(self.tensor(c_out, c_in, kernel, kernel), self.tensor(c_out))

    def batch_norm(self, channels: int) -> nn.BatchNorm2d:
        norm = nn.BatchNorm2d(channels, eps=1e-3).double().eval()
        with torch.no_grad():
            for value in (norm.weight, norm.bias, norm.running_mean):
                value.copy_(self.tensor(channels))
            norm.running_var.copy_(self.tensor(channels).abs() + 0.1)
        return norm

    def group_norm(self, channels: int) -> nn.GroupNorm:
        norm = nn.GroupNorm(1, channels).double()
        with torch.no_grad():
            norm.weight.copy_(self.tensor(channels))
            norm.bias.copy_(self.tensor(channels))
        return norm


def apply(map_: Affine, x: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
    return F.conv2d(x, map_.weight, map_.bias, stride, padding=map_.weight.shape[-1] // 2, groups=groups)


def assert_equal(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9, check_dtype=True)


@few
@given(c_in=CHANNELS, middle=CHANNELS, c_out=CHANNELS, side=SIDES, seed=SEEDS)
def test_chain_is_both_maps_in_turn(c_in: int, middle: int, c_out: int, side: int, seed: int) -> None:
    draw = Draw(seed)
    first, second, x = draw.affine(c_in, middle), draw.affine(middle, c_out), draw.tensor(1, c_in, side, 2)
    assert_equal(apply(chain(first, second), x), apply(second, apply(first, x)))


@few
@given(
    c_in=CHANNELS,
    middle=CHANNELS,
    c_out=CHANNELS,
    kernel=st.sampled_from([1, 3, 5]),
    height=SIDES,
    width=SIDES,
    seed=SEEDS,
)
def test_pointwise_before_padded_is_exact_at_the_border_too(
    c_in: int, middle: int, c_out: int, kernel: int, height: int, width: int, seed: int
) -> None:
    draw = Draw(seed)
    pointwise, padded = draw.affine(c_in, middle), draw.affine(middle, c_out, kernel)
    x = draw.tensor(1, c_in, height, width)
    merged, bias = before_padded(pointwise, padded, height, width)
    assert bias.shape == (1, c_out, height, width)
    assert_equal(apply(merged, x) + bias, apply(padded, apply(pointwise, x)))


def test_bias_before_padding_reaches_the_corner_through_fewer_taps() -> None:
    ones = Affine(torch.ones(1, 1, 3, 3, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    shift = Affine(torch.ones(1, 1, 1, 1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
    _, bias = before_padded(shift, ones, 3, 3)
    assert bias[0, 0].tolist() == [[4, 6, 4], [6, 9, 6], [4, 6, 4]]


@few
@given(channels=CHANNELS, c_out=CHANNELS, height=SIDES, width=st.integers(2, 7), seed=SEEDS)
def test_after_group_norm_keeps_only_the_statistics_outside(
    channels: int, c_out: int, height: int, width: int, seed: int
) -> None:
    draw = Draw(seed)
    norm, map_, x = draw.group_norm(channels), draw.affine(channels, c_out), draw.tensor(1, channels, height, width)
    statistics = F.group_norm(x, 1, eps=norm.eps)
    assert_equal(apply(after_group_norm(map_, norm), statistics), apply(map_, norm(x)).detach())


@few
@given(c_in=CHANNELS, c_out=CHANNELS, kernel=st.sampled_from([1, 3]), side=SIDES, seed=SEEDS)
def test_after_batch_norm_is_the_norm_in_evaluation_mode(
    c_in: int, c_out: int, kernel: int, side: int, seed: int
) -> None:
    draw = Draw(seed)
    map_, norm, x = draw.affine(c_in, c_out, kernel), draw.batch_norm(c_out), draw.tensor(2, c_in, side, side)
    assert_equal(apply(after_batch_norm(map_, norm), x), norm(apply(map_, x)).detach())


@few
@given(channels=CHANNELS, stride=st.sampled_from([1, 2]), side=SIDES, seed=SEEDS)
def test_depthwise_layer_folds_with_its_norm(channels: int, stride: int, side: int, seed: int) -> None:
    draw = Draw(seed)
    layer = ConvLayer(channels, channels, 3, stride=stride, groups=channels, act=False).double().eval()
    layer.block.norm = draw.batch_norm(channels)
    x = draw.tensor(1, channels, side, side)
    assert_equal(apply(of_layer(layer), x, stride, groups=channels), layer(x).detach())


@few
@given(c_in=CHANNELS, c_out=CHANNELS, kernel=st.sampled_from([1, 3]), side=SIDES, seed=SEEDS)
def test_convolution_to_map_and_back_is_the_same(c_in: int, c_out: int, kernel: int, side: int, seed: int) -> None:
    conv = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2)
    x = Draw(seed).tensor(1, c_in, side, side).float()
    back = to_conv(of_conv(conv))
    assert torch.equal(back.weight, conv.weight)
    assert torch.equal(back.bias, conv.bias)
    assert torch.equal(back(x), conv(x))


def test_map_of_a_convolution_without_bias_has_a_zero_one() -> None:
    assert of_conv(nn.Conv2d(2, 3, 1, bias=False)).bias.tolist() == [0, 0, 0]


def test_rows_are_the_map_to_some_channels() -> None:
    map_ = Draw(0).affine(3, 5)
    x = Draw(1).tensor(1, 3, 2, 2)
    assert_equal(apply(map_.rows(1, 4), x), apply(map_, x)[:, 1:4])


def test_only_a_pointwise_kernel_is_a_matrix() -> None:
    with pytest.raises(ValueError, match=r"\(3, 3\) kernel is not a matrix"):
        _ = Draw(0).affine(2, 2, 3).matrix


def test_norm_without_running_statistics_cannot_be_folded() -> None:
    norm = nn.BatchNorm2d(2, track_running_stats=False)
    with pytest.raises(ValueError, match="without running statistics"):
        after_batch_norm(Draw(0).affine(2, 2), norm)


def test_layer_without_convolution_cannot_be_folded() -> None:
    with pytest.raises(ValueError, match="no convolution"):
        of_layer(nn.Sequential(nn.ReLU()))
