"""OSTrack's graph as it ships: `step`, both crops to maps; normalisation in the first kernel, BatchNorms folded."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgetrack.bundle.manifest import TensorInfo
from edgetrack.models.base import GraphModule, Published, shipped, tensors
from edgetrack.models.layers.center_head import DeployedCenterHead, Maps
from edgetrack.models.layers.vit import PixelEmbed, normalised
from edgetrack.models.ostrack.network import OsTrack


class StepGraph(nn.Module):
    """Template crop (s, s, 3) and search crop (S, S, 3), BGR 0..255, to maps."""

    def __init__(self, network: OsTrack) -> None:
        super().__init__()
        self.backbone = network.backbone
        self.embed = PixelEmbed(network.backbone.patch_embed)
        self.head = DeployedCenterHead(network.box_head)

    def forward(self, template: Tensor, search: Tensor) -> Maps:
        z = self.embed(template.unsqueeze(0)) + self.backbone.pos_embed_z
        x = self.embed(search.unsqueeze(0)) + self.backbone.pos_embed_x
        return self.head(self.backbone.features(torch.cat([z, x], dim=1)))


def signature(network: OsTrack) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    """Inputs and outputs of `step`."""
    sizes, cells = network.sizes, network.sizes.search_cells
    crops = tensors("uint8", template=(sizes.template, sizes.template, 3), search=(sizes.search, sizes.search, 3))
    return crops, tensors(score=(1, 1, cells, cells), size=(1, 2, cells, cells), offset=(1, 2, cells, cells))


def deploy(network: OsTrack) -> tuple[GraphModule, ...]:
    """Graph `step` that ships."""
    return (GraphModule("step", "step", shipped(StepGraph(network)), *signature(network)),)


def _published_step(network: OsTrack, template: Tensor, search: Tensor) -> Maps:
    return network(normalised(template.unsqueeze(0)), normalised(search.unsqueeze(0)))


def reference(network: OsTrack) -> tuple[GraphModule, ...]:
    """Graph `step` as published."""
    return (GraphModule("step", "step", Published(network, _published_step), *signature(network)),)
