"""DASTM's dynamic attention block: a gate weighs channel, coordinate and combined attention of a map.

The paper (arXiv 2503.16768) states the gate, its temperature and the three attentions; widths, reductions and the
fourth way, which leaves the map as it is, are assumed.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PARTS = ("se", "ca", "cbam", "identity")
Mode = Literal["soft", "hard"]


class Reductions(NamedTuple):
    """By how much the hidden widths are smaller than the map's channels, and the least width of `coordinate`."""

    gate: int = 16
    squeeze: int = 16
    coordinate: int = 32
    combined: int = 16
    least: int = 8


def _hidden(channels: int, reduction: int, least: int = 1) -> int:
    if reduction < 1:
        raise ValueError(f"a reduction is {reduction}, expected 1 or more")
    return max(least, channels // reduction)


class Perceptron(nn.Module):
    """Two linear maps, ReLU between them."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(inputs, hidden), nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs) to (B, outputs)."""
        out: Tensor = self.fc2(torch.relu(self.fc1(x)))
        return out


class CoordinateAttention(nn.Module):
    """A gate for each channel and row, times one for each channel and column (Hou et al., CVPR 2021)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(channels, hidden, 1), nn.BatchNorm2d(hidden, eps=1e-5)
        self.conv_h, self.conv_w = nn.Conv2d(hidden, channels, 1), nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) to (B, C, H, 1) and (B, C, 1, W), 0..1."""
        rows, columns = x.mean(dim=3, keepdim=True), x.mean(dim=2, keepdim=True).transpose(2, 3)
        hidden = F.hardswish(self.bn(self.conv(torch.cat([rows, columns], dim=2))))
        above, beside = hidden[:, :, : x.shape[2]], hidden[:, :, x.shape[2] :].transpose(2, 3)
        return torch.sigmoid(self.conv_h(above)), torch.sigmoid(self.conv_w(beside))


class CombinedAttention(nn.Module):
    """CBAM's two gates, of channels and then of places (Woo et al., ECCV 2018)."""

    def __init__(self, channels: int, hidden: int, kernel: int) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"spatial_kernel is {kernel}, expected an odd number")
        self.fc1, self.fc2 = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        self.spatial = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        mean, most = (self.fc2(torch.relu(self.fc1(pooled))) for pooled in (x.mean(dim=(2, 3)), x.amax(dim=(2, 3))))
        x = x * torch.sigmoid(mean + most)[:, :, None, None]
        planes = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.spatial(planes))


class DynamicAttention(nn.Module):
    """A map to the weighted sum of its three attended forms and itself.

    Args:
        channels: of the map.
        reductions: of the hidden layers.
        kernel: of CBAM's spatial convolution.
        temperature: the gate's logits are divided by it; above 0.
        mode: `soft` mixes all by their weights; `hard` takes the one with the largest.
    """

    def __init__(
        self,
        channels: int,
        reductions: Reductions,
        *,
        kernel: int = 7,
        temperature: float = 1.0,
        mode: Mode = "soft",
    ) -> None:
        super().__init__()
        if not 0 < temperature < float("inf"):
            raise ValueError(f"temperature is {temperature}, expected a number above 0")
        if mode not in ("soft", "hard"):
            raise ValueError(f"gate is {mode!r}, expected soft or hard")
        self.temperature, self.mode = temperature, mode
        self.gate = Perceptron(channels, _hidden(channels, reductions.gate), len(PARTS))
        self.se = Perceptron(channels, _hidden(channels, reductions.squeeze), channels)
        self.ca = CoordinateAttention(channels, _hidden(channels, reductions.coordinate, reductions.least))
        self.cbam = CombinedAttention(channels, _hidden(channels, reductions.combined), kernel)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) to the same shape and the gate's weights (B, 4), which add up to 1, in the order of `PARTS`."""
        mean = x.mean(dim=(2, 3))
        weights = torch.softmax(self.gate(mean) / self.temperature, dim=1)
        share = weights if self.mode == "soft" else _largest(weights)
        se, ca, cbam, identity = (share[:, index, None, None, None] for index in range(len(PARTS)))
        rows, columns = self.ca(x)
        channel = torch.sigmoid(self.se(mean))[:, :, None, None]
        # Three of the four are the map times something: one product in place of three.
        mixed = x * (se * channel + ca * (rows * columns) + identity) + cbam * self.cbam(x)
        return mixed, weights


def _largest(weights: Tensor) -> Tensor:
    """1 at the largest weight, 0 elsewhere, without an argmax; equal ones share."""
    best = (weights >= weights.amax(dim=1, keepdim=True)).to(weights.dtype)
    return best / best.sum(dim=1, keepdim=True)
