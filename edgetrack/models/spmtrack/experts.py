"""SPMTrack's linear map with a soft mixture of low-rank experts: as published, and as it ships."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Experts(nn.Module):
    """sum_e r_e(x) B_e A x, with r the softmax over all experts of a route per token: all of them always run."""

    def __init__(self, c_in: int, c_out: int, rank: int, count: int) -> None:
        super().__init__()
        self.compress_expert = nn.Parameter(torch.zeros(rank, c_in))
        self.routed_experts = nn.ParameterList([nn.Parameter(torch.zeros(c_out, rank)) for _ in range(count)])
        self.expert_route = nn.Linear(c_in, count, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(.., c_in) to (.., c_out)."""
        route = torch.softmax(self.expert_route(x), dim=-1)
        compressed = torch.matmul(x, self.compress_expert.T)
        total = torch.zeros(())
        for index, expert in enumerate(self.routed_experts):
            total = total + route[..., index : index + 1] * torch.matmul(compressed, expert.T)
        return total


class ExpertLinear(nn.Module):
    """W x + b + s experts(x).

    Args:
        rank, count: of the experts.
        scale: s = alpha / rank.
    """

    def __init__(self, c_in: int, c_out: int, rank: int, count: int, scale: float) -> None:
        super().__init__()
        self.linear = nn.Linear(c_in, c_out)
        self.tmoe = Experts(c_in, c_out, rank, count)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """(.., c_in) to (.., c_out)."""
        out: Tensor = self.linear(x) + self.scale * self.tmoe(x)
        return out


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

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, c_in) to (B, N, all outputs)."""
        found = self.stacked(x)
        leading, width = found.shape[:2], self.members * self.rank
        out = found[..., : self.outputs]
        compressed = found[..., self.outputs : self.outputs + width].reshape(*leading, self.members, 1, self.rank)
        route = torch.softmax(found[..., self.outputs + width :].reshape(*leading, self.members, self.count), dim=-1)
        mixed = (route.unsqueeze(-1) * compressed).reshape(*leading, self.members, self.count * self.rank)
        added = [F.linear(mixed[:, :, i], cast(Tensor, matrix)) for i, matrix in enumerate(self.experts)]
        total: Tensor = out + (added[0] if self.members == 1 else torch.cat(added, dim=-1))
        return total
