"""NanoTrack's backbone: MobileNetV3-small cut at stride 16, official parameter names."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class BlockPlan(NamedTuple):
    """One inverted residual: `hidden` channels inside, `squeeze` in its channel gate (0: it has none)."""

    kernel: int
    hidden: int
    c_out: int
    squeeze: int
    swish: bool
    stride: int


STEM = 16
BLOCKS = (
    BlockPlan(3, 16, 16, 8, swish=False, stride=2),
    BlockPlan(3, 72, 24, 0, swish=False, stride=2),
    BlockPlan(3, 88, 24, 0, swish=False, stride=1),
    BlockPlan(5, 96, 40, 24, swish=True, stride=2),
    BlockPlan(5, 240, 40, 64, swish=True, stride=1),
    BlockPlan(5, 240, 40, 64, swish=True, stride=1),
    BlockPlan(5, 120, 48, 32, swish=True, stride=1),
    BlockPlan(5, 144, 48, 40, swish=True, stride=1),
)
# The ImageNet network has stride 2 here.
WIDER_BLOCK = BlockPlan(5, 288, 96, 72, swish=True, stride=1)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Every normalisation of the network."""
    return nn.BatchNorm2d(channels, eps=1e-5)


class SqueezeExcite(nn.Module):
    """A gate for each channel from the global mean; a hard sigmoid, unlike the head's."""

    def __init__(self, channels: int, squeeze: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(channels, squeeze), nn.ReLU(), nn.Linear(squeeze, channels), nn.Hardsigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        gate: Tensor = self.fc(x.mean(dim=(2, 3)))
        return x * gate[:, :, None, None]


class InvertedResidual(nn.Module):
    """Expand (where `hidden` differs from `c_in`), filter, gate, project; adds its input where shape allows.

    The gate comes before the activation in blocks that expand and after it in the one that does not.
    """

    def __init__(self, c_in: int, plan: BlockPlan) -> None:
        super().__init__()
        kernel, hidden, c_out, squeeze, swish, stride = plan
        self.expands = hidden != c_in
        self.residual = stride == 1 and c_in == c_out
        gate = SqueezeExcite(hidden, squeeze) if squeeze else nn.Identity()
        act = nn.Hardswish if swish else nn.ReLU
        depthwise = nn.Conv2d(hidden, hidden, kernel, stride, (kernel - 1) // 2, groups=hidden, bias=False)
        filter_ = [depthwise, batch_norm(hidden)]
        project = [nn.Conv2d(hidden, c_out, 1, bias=False), batch_norm(c_out)]
        if self.expands:
            expand = [nn.Conv2d(c_in, hidden, 1, bias=False), batch_norm(hidden), act()]
            self.conv = nn.Sequential(*expand, *filter_, gate, act(), *project)
        else:
            self.conv = nn.Sequential(*filter_, act(), gate, *project)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) to (B, c_out, H/stride, W/stride)."""
        out: Tensor = self.conv(x)
        return x + out if self.residual else out


class Backbone(nn.Module):
    """BGR 0..255 to features at stride 16; one set of weights for template and search region."""

    def __init__(self, blocks: tuple[BlockPlan, ...]) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, STEM, 3, 2, 1, bias=False), batch_norm(STEM), nn.Hardswish())
        inputs = [STEM, *(plan.c_out for plan in blocks[:-1])]
        bodies = [InvertedResidual(c_in, plan) for c_in, plan in zip(inputs, blocks, strict=True)]
        self.features = nn.Sequential(stem, *bodies)
        self.channels = blocks[-1].c_out

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, channels, H/16, W/16), rounded up."""
        out: Tensor = self.features(image)
        return out


def centre(features: Tensor, size: int) -> Tensor:
    """The middle `size` x `size` of (B, C, H, W)."""
    top, left = ((length - size) // 2 for length in features.shape[2:])
    return features[:, :, top : top + size, left : left + size]


def pad_one(features: Tensor) -> Tensor:
    """One row and column of zeros on every side."""
    return torch.nn.functional.pad(features, (1, 1, 1, 1))
