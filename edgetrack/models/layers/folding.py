"""Algebra on affine maps: what can be computed once, before a graph ships, is computed here, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Affine(NamedTuple):
    """A convolution's weight (c_out, c_in / groups, k, k) and bias (c_out,), float64."""

    weight: Tensor
    bias: Tensor

    def rows(self, start: int, stop: int) -> Affine:
        """The map to some of the output channels."""
        return Affine(self.weight[start:stop], self.bias[start:stop])

    @property
    def matrix(self) -> Tensor:
        """(c_out, c_in) of a 1x1 convolution."""
        if self.weight.shape[2:] != (1, 1):
            raise ValueError(f"a {tuple(self.weight.shape[2:])} kernel is not a matrix")
        return self.weight[:, :, 0, 0]


def of_conv(conv: nn.Conv2d) -> Affine:
    """A convolution as an affine map."""
    weight = conv.weight.detach().double()
    bias = torch.zeros(weight.shape[0], dtype=torch.float64) if conv.bias is None else conv.bias.detach().double()
    return Affine(weight, bias)


def after_batch_norm(map_: Affine, norm: nn.BatchNorm2d) -> Affine:
    """The map followed by a BatchNorm in evaluation mode."""
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("a BatchNorm without running statistics cannot be folded")
    scale = norm.weight.detach().double() / torch.sqrt(norm.running_var.double() + norm.eps)
    bias = (map_.bias - norm.running_mean.double()) * scale + norm.bias.detach().double()
    return Affine(map_.weight * scale.view(-1, 1, 1, 1), bias)


def of_layer(layer: nn.Module) -> Affine:
    """Convolution and BatchNorm of a layer, its `block` where it has one, without its activation."""
    map_: Affine | None = None
    for module in getattr(layer, "block", layer).children():
        if isinstance(module, nn.Conv2d):
            map_ = of_conv(module)
        elif isinstance(module, nn.BatchNorm2d) and map_ is not None:
            map_ = after_batch_norm(map_, module)
    if map_ is None:
        raise ValueError("the layer holds no convolution")
    return map_


def after_group_norm(map_: Affine, norm: nn.GroupNorm) -> Affine:
    """A 1x1 map that also does the scale and shift of the GroupNorm before it (not its statistics)."""
    gain, shift = norm.weight.detach().double(), norm.bias.detach().double()
    return Affine(map_.weight * gain.view(1, -1, 1, 1), map_.bias + map_.matrix @ shift)


def chain(first: Affine, second: Affine) -> Affine:
    """Two 1x1 maps, nothing between them, as one."""
    return Affine((second.matrix @ first.matrix)[:, :, None, None], second.matrix @ first.bias + second.bias)


def before_padded(pointwise: Affine, padded: Affine, height: int, width: int) -> tuple[Affine, Tensor]:
    """A 1x1 map and the zero-padded convolution after it, as one.

    At the border the padding is zero *after* the 1x1 map, so its bias reaches the result through fewer taps there:
    the merged bias is a map, not a vector.

    Returns:
        The merged convolution without bias, and its bias (1, c_out, height, width).
    """
    weight = torch.einsum("omkl,mi->oikl", padded.weight, pointwise.matrix)
    constant = pointwise.bias.view(1, -1, 1, 1).expand(1, -1, height, width)
    bias = F.conv2d(constant, padded.weight, padded.bias, padding=padded.weight.shape[-1] // 2)
    return Affine(weight, torch.zeros_like(padded.bias)), bias


def padded_to(map_: Affine, kernel: int) -> Affine:
    """The same map with a larger odd kernel, zero around the old one; for an input padded that much more."""
    margin = (kernel - map_.weight.shape[-1]) // 2
    return Affine(F.pad(map_.weight, (margin, margin, margin, margin)), map_.bias)


def unit_map(channels: int, groups: int, kernel: int) -> Affine:
    """The map that changes nothing, as a convolution with an odd kernel."""
    inputs = channels // groups
    weight = torch.zeros(channels, inputs, kernel, kernel, dtype=torch.float64)
    weight[torch.arange(channels), torch.arange(channels) % inputs, kernel // 2, kernel // 2] = 1
    return Affine(weight, torch.zeros(channels, dtype=torch.float64))


def to_conv(
    map_: Affine, *, stride: int = 1, groups: int = 1, bias: bool = True, padding: int | None = None
) -> nn.Conv2d:
    """The map as a float32 convolution, with padding (k-1)/2 unless another is given."""
    c_out, c_in, kernel, _ = map_.weight.shape
    pad = (kernel - 1) // 2 if padding is None else padding
    conv = nn.Conv2d(c_in * groups, c_out, kernel, stride, pad, groups=groups, bias=bias)
    with torch.no_grad():
        conv.weight.copy_(map_.weight)
        if conv.bias is not None:
            conv.bias.copy_(map_.bias)
    return conv


def to_tower(stages: Sequence[nn.Module]) -> nn.Sequential:
    """Convolutions with BatchNorm and ReLU, then a bare one, with the BatchNorms folded."""
    layers: list[nn.Module] = []
    for stage in stages[:-1]:
        layers += [to_conv(of_layer(stage)), nn.ReLU()]
    return nn.Sequential(*layers, to_conv(of_conv(cast(nn.Conv2d, stages[-1]))))
