"""The OSTrack family's centre head: three towers of convolutions, as published and as it ships."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgetrack.models.layers.folding import to_tower

SCORE_MIN = 1e-4
TOWERS = {"ctr": 1, "offset": 2, "size": 2}
Maps = tuple[Tensor, Tensor, Tensor]


def _layer(c_in: int, c_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, padding=1), nn.BatchNorm2d(c_out, eps=1e-5), nn.ReLU())


def _bounded(logits: Tensor) -> Tensor:
    return torch.clamp(torch.sigmoid(logits), SCORE_MIN, 1 - SCORE_MIN)


class CenterHead(nn.Module):
    """Features (B, dim, F, F) to score, size and offset; official names.

    Args:
        dim: channels of the features.
        channels: of the first convolutions; each further one has half as many.
    """

    def __init__(self, dim: int, channels: int) -> None:
        super().__init__()
        widths = (dim, channels, channels // 2, channels // 4, channels // 8)
        for name, outputs in TOWERS.items():
            for stage in range(4):
                self.add_module(f"conv{stage + 1}_{name}", _layer(widths[stage], widths[stage + 1]))
            self.add_module(f"conv5_{name}", nn.Conv2d(widths[4], outputs, 1))

    def tower(self, name: str) -> tuple[nn.Module, ...]:
        """The five stages of one tower, in order."""
        return tuple(self.get_submodule(f"conv{stage}_{name}") for stage in range(1, 6))

    def forward(self, features: Tensor) -> Maps:
        """Score (B, 1, F, F) and size (B, 2, F, F) in 1e-4..1-1e-4, offset (B, 2, F, F) in cells."""
        maps = {}
        for name in TOWERS:
            found = features
            for stage in self.tower(name):
                found = stage(found)
            maps[name] = found
        return _bounded(maps["ctr"]), _bounded(maps["size"]), maps["offset"]


class DeployedCenterHead(nn.Module):
    """The same with BatchNorms folded."""

    def __init__(self, head: CenterHead) -> None:
        super().__init__()
        self.score, self.size, self.offset = (to_tower(head.tower(name)) for name in ("ctr", "size", "offset"))

    def forward(self, features: Tensor) -> Maps:
        return _bounded(self.score(features)), _bounded(self.size(features)), self.offset(features)
