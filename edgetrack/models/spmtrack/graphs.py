"""SPMTrack's graph as it ships: `step`, from crops and the carried state to scores, boxes and the next state.

Derived from the published network by algebra alone: image normalisation and layer scales are in the weights, all
products of one input are one (`StackedExperts`), the kinds of template tokens are a sum with a mask, and the last block
computes only the query's and the search region's tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetrack.bundle.manifest import TensorInfo
from edgetrack.models.base import GraphModule, Published, shipped, tensors
from edgetrack.models.layers.vit import Attention, Mlp, PixelEmbed, Sizes, normalised
from edgetrack.models.spmtrack.network import (
    Block,
    ExpertLinear,
    Experts,
    Qkv,
    SpmTrack,
    SwiGlu,
    cell_centres,
)


class StackedExperts(nn.Module):
    """Several expert maps of one input side by side: one product for all W, A and R, one for each map's experts.

    h = A x, u = [r_0 h | r_1 h | ..], y = W x + b + [B_0 | B_1 | ..] u: exact. It cannot be merged into W, since r
    depends on the token.

    Args:
        maps: of the same input, rank and number of experts; the outputs follow one another.
        gain: (c_out,), by which the outputs of each map are multiplied; None for 1.
    """

    def __init__(self, maps: Sequence[ExpertLinear], gain: Tensor | None = None) -> None:
        super().__init__()
        experts = [map_.tmoe for map_ in maps]
        self.rank, self.count = experts[0].compress_expert.shape[0], len(experts[0].routed_experts)
        self.outputs = sum(map_.linear.out_features for map_ in maps)
        self.members = len(maps)
        factor = torch.ones(()) if gain is None else gain.detach()[:, None]
        parts = [map_.linear.weight.detach() * factor for map_ in maps]
        parts += [expert.compress_expert.detach() for expert in experts]
        parts += [expert.expert_route.weight.detach() for expert in experts]
        bias = [map_.linear.bias.detach() * factor.reshape(-1) for map_ in maps]
        stacked = torch.cat(parts)
        self.stacked = nn.Linear(stacked.shape[1], stacked.shape[0])
        zeros = torch.zeros(stacked.shape[0] - self.outputs)
        with torch.no_grad():
            self.stacked.weight.copy_(stacked)
            self.stacked.bias.copy_(torch.cat([*bias, zeros]))
        joined = [torch.cat(list(map_.tmoe.routed_experts), dim=1).detach() * factor * map_.scale for map_ in maps]
        self.experts = nn.ParameterList([nn.Parameter(matrix.contiguous()) for matrix in joined])
        self.route: Tensor | None = None
        """Weights of the experts in the last call, (B, N, maps, experts)."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, c_in) to (B, N, all outputs)."""
        found = self.stacked(x)
        leading, width = found.shape[:2], self.members * self.rank
        out = found[..., : self.outputs]
        compressed = found[..., self.outputs : self.outputs + width].reshape(*leading, self.members, 1, self.rank)
        route = torch.softmax(found[..., self.outputs + width :].reshape(*leading, self.members, self.count), dim=-1)
        self.route = route
        mixed = (route.unsqueeze(-1) * compressed).reshape(*leading, self.members, self.count * self.rank)
        added = [F.linear(mixed[:, :, i], cast(Tensor, matrix)) for i, matrix in enumerate(self.experts)]
        return out + (added[0] if self.members == 1 else torch.cat(added, dim=-1))


def _stacked(*maps: nn.Module, gain: Tensor | None = None) -> StackedExperts:
    return StackedExperts([cast(ExpertLinear, map_) for map_ in maps], gain)


class DeployedSwiGlu(nn.Module):
    """The gated feed-forward layer on stacked maps."""

    def __init__(self, published: SwiGlu, gain: Tensor) -> None:
        super().__init__()
        self.w12, self.w3 = _stacked(published.w12), _stacked(published.w3, gain=gain)

    def forward(self, x: Tensor) -> Tensor:
        both = self.w12(x)
        half = both.shape[-1] // 2
        return self.w3(F.silu(both[..., :half]) * both[..., half:])


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
        return x + self.mlp(self.norm2(x))

    def routes(self, count: int) -> Tensor:
        """How each map weighed its experts in the last call, mean of the last `count` tokens: (1, maps, experts)."""
        maps = [module for module in self.modules() if isinstance(module, StackedExperts)]
        return torch.cat([cast(Tensor, map_.route)[:, -count:].mean(dim=1) for map_ in maps], dim=1)


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
        self.routes = network.routes

    def forward(self, search: Tensor, templates: Tensor, masks: Tensor, state: Tensor) -> tuple[Tensor, ...]:
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
        if not self.routes:
            return score, boxes, query[:, 0]
        # Those of the tokens that the last layer still has.
        routes = [cast(DeployedBlock, block).routes(tokens.shape[1]) for block in self.blocks]
        return score, boxes, query[:, 0], torch.cat(routes)


def signature(network: SpmTrack) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    """Inputs and outputs of `step`."""
    sizes: Sizes = network.sizes
    cells, dim = sizes.search_cells, network.pos_embed.shape[-1]
    inputs = tensors(
        search=(sizes.search, sizes.search, 3),
        templates=(sizes.templates, sizes.template, sizes.template, 3),
        masks=(sizes.templates, sizes.template_cells**2),
        token=(1, dim),
    )
    outputs = tensors(score=(1, cells, cells), boxes=(1, cells, cells, 4), next_token=(1, dim))
    if network.routes:
        layers = experts(network)
        outputs += tensors(routes=(len(layers), len(MAPS), len(layers[0]["q"].routed_experts)))
    return inputs, outputs


MAPS = ("q", "k", "v", "proj", "mlp in", "mlp out")


def experts(network: SpmTrack) -> list[dict[str, Experts]]:
    """The experts of each layer, by the map that they belong to, in the order in which they run."""
    layers = [[module for module in block.modules() if isinstance(module, Experts)] for block in network.blocks]
    return [dict(zip(MAPS, layer, strict=True)) for layer in layers]


def deploy(network: SpmTrack) -> tuple[GraphModule, ...]:
    """Graph `step` that ships."""
    return (GraphModule("step", "step", shipped(StepGraph(network)), *signature(network)),)


def _published_step(
    network: SpmTrack, search: Tensor, templates: Tensor, masks: Tensor, state: Tensor
) -> tuple[Tensor, ...]:
    logits: list[Tensor] = []
    with ExitStack() as stack:
        for module in (module for layer in experts(network) for module in layer.values() if network.routes):
            hook = module.expert_route.register_forward_hook(lambda module, given, found: logits.append(found))
            stack.callback(hook.remove)
        found = network(normalised(templates), masks, normalised(search.unsqueeze(0)), state)
    if not network.routes:
        return tuple(found)
    # Of the query and the search region, as in the graph that ships: its last layer computes no others to the end.
    count = network.pos_embed.shape[1]
    weights = [torch.softmax(torch.cat([one[:, :1], one[:, -count:]], dim=1), dim=-1).mean(dim=1) for one in logits]
    return (*found, torch.stack(weights).reshape(len(network.blocks), -1, weights[0].shape[-1]))


def reference(network: SpmTrack) -> tuple[GraphModule, ...]:
    """Graph `step` on the published modules."""
    return (GraphModule("step", "step", Published(network, _published_step), *signature(network)),)
