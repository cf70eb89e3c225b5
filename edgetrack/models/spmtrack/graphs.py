"""SPMTrack's graph as it ships: `step`, from crops and the carried state to scores, boxes and the next state.

Derived from the published network by algebra alone: image normalisation and layer scales are in the weights, all
products of one input are one (`StackedExperts`), the kinds of template tokens are a sum with a mask, and the last block
computes only the query's and the search region's tokens.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetrack.bundle.manifest import TensorInfo
from edgetrack.models.base import GraphModule
from edgetrack.models.layers.patches import PixelEmbed, Sizes
from edgetrack.models.layers.vit import Attention, Mlp
from edgetrack.models.spmtrack.experts import ExpertLinear, StackedExperts
from edgetrack.models.spmtrack.network import Block, Qkv, SpmTrack, SwiGlu, cell_centres


def _stacked(*maps: nn.Module, gain: Tensor | None = None) -> StackedExperts:
    return StackedExperts([cast(ExpertLinear, map_) for map_ in maps], gain)


class DeployedSwiGlu(nn.Module):
    """The gated feed-forward layer on stacked maps."""

    def __init__(self, published: SwiGlu, gain: Tensor) -> None:
        super().__init__()
        self.w12, self.w3 = _stacked(published.w12), _stacked(published.w3, gain=gain)

    def forward(self, x: Tensor) -> Tensor:
        """(1, N, dim) to the same shape."""
        both = self.w12(x)
        half = both.shape[-1] // 2
        out: Tensor = self.w3(F.silu(both[..., :half]) * both[..., half:])
        return out


class DeployedBlock(nn.Module):
    """A block on stacked maps."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        qkv, attention, mlp = cast(Qkv, block.attn.qkv), block.attn, block.mlp
        self.norm1, self.norm2 = block.norm1, block.norm2
        proj = _stacked(attention.proj, gain=block.ls1.gamma)
        self.attn = Attention(_stacked(qkv.q, qkv.k, qkv.v), proj, attention.heads)
        self.mlp: nn.Module
        if isinstance(mlp, SwiGlu):
            self.mlp = DeployedSwiGlu(mlp, block.ls2.gamma)
        else:
            self.mlp = Mlp(_stacked(mlp.fc1), _stacked(mlp.fc2, gain=block.ls2.gamma))

    def forward(self, x: Tensor, first: int) -> Tensor:
        """Tokens (1, N, dim) to (1, N - first, dim): those from `first` on."""
        x = x[:, first:] + self.attn(self.norm1(x), None, first)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class StepGraph(nn.Module):
    """Crops (float, 0..255, BGR), the templates' masks and the state to scores, boxes and the next state."""

    position_z: Tensor
    position_x: Tensor
    target: Tensor
    query: Tensor
    points: Tensor

    def __init__(self, network: SpmTrack) -> None:
        super().__init__()
        background, target, search = network.token_type_embed.detach()
        self.sizes = network.sizes
        self.embed = PixelEmbed(network.patch_embed)
        self.register_buffer("position_z", network.template_positions().detach() + background)
        self.register_buffer("position_x", network.pos_embed.detach() + search)
        self.register_buffer("target", target - background)
        self.register_buffer("query", (network.track_query + network.query_embed).detach())
        self.register_buffer("points", cell_centres(network.sizes.search_cells))
        self.blocks = nn.ModuleList([DeployedBlock(cast(Block, block)) for block in network.blocks])
        self.norm, self.head = network.norm, network.head

    def forward(self, search: Tensor, templates: Tensor, masks: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(S, S, 3), (T, s, s, 3), (T, n) and (1, dim) to logits (1, F, F), boxes (1, F, F, 4) and (1, dim)."""
        z = self.embed(templates) + self.position_z + masks.unsqueeze(-1) * self.target
        count = masks.shape[0] * masks.shape[1]
        x = self.embed(search.unsqueeze(0)) + self.position_x
        # The published order has the query in front; attention does not see the order.
        tokens = torch.cat([z.reshape(1, count, -1), (state + self.query).unsqueeze(0), x], dim=1)
        last = len(self.blocks) - 1
        for index, block in enumerate(self.blocks):
            tokens = block(tokens, count if index == last else 0)
        tokens = self.norm(tokens)
        query, features = tokens[:, :1], tokens[:, 1:]
        score, boxes = self.head(features, query, self.points)
        return score, boxes, query[:, 0]


def signature(network: SpmTrack) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    """Inputs and outputs of `step`."""
    sizes: Sizes = network.sizes
    cells, dim = sizes.search_cells, network.pos_embed.shape[-1]
    inputs = {
        "search": (sizes.search, sizes.search, 3),
        "templates": (sizes.templates, sizes.template, sizes.template, 3),
        "masks": (sizes.templates, sizes.template_cells**2),
        "token": (1, dim),
    }
    outputs = {"score": (1, cells, cells), "boxes": (1, cells, cells, 4), "next_token": (1, dim)}
    infos = [
        tuple(TensorInfo(name=name, dtype="float32", shape=shape) for name, shape in side.items())
        for side in (inputs, outputs)
    ]
    return infos[0], infos[1]


def deploy(network: SpmTrack) -> tuple[GraphModule, ...]:
    """Graph `step` that ships, in evaluation mode, without gradients."""
    step = StepGraph(network)
    step.eval().requires_grad_(False)
    return (GraphModule("step", "step", step, *signature(network)),)
