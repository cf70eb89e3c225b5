"""DMTrack's three adapters as published: over time, between the modalities, shallow and deep."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgetrack.models.layers.vit import Mlp

RANK = 8
TEMPORAL_RANK = 12


class ShallowAdapter(nn.Module):
    """Three linear maps without an activation: what one modality's tokens tell the other's."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.adapter_down = nn.Linear(dim, RANK)
        self.adapter_up = nn.Linear(RANK, dim)
        self.adapter_mid = nn.Linear(RANK, RANK)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, dim) to the same shape."""
        out: Tensor = self.adapter_up(self.adapter_mid(self.adapter_down(tokens)))
        return out


class TemporalAdapter(nn.Module):
    """A filter over the template frames, each place and channel for itself, in a narrow space."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.adapter_down = nn.Linear(dim, TEMPORAL_RANK)
        self.adapter_up = nn.Linear(TEMPORAL_RANK, dim)
        self.adapter_mid = nn.Conv1d(TEMPORAL_RANK, TEMPORAL_RANK, 3, padding=1, groups=TEMPORAL_RANK)

    def forward(self, tokens: Tensor, frames: int, search: int) -> Tensor:
        """Tokens (1, N, dim) of `frames` templates and then `search` places to the same shape."""
        down = self.adapter_down(tokens)
        z, x = down.split([down.shape[1] - search, search], dim=1)
        over_time = z.reshape(frames, -1, TEMPORAL_RANK).permute(1, 2, 0)
        filtered = self.adapter_mid(over_time).permute(2, 0, 1).reshape(z.shape)
        out: Tensor = self.adapter_up(torch.cat([z + filtered, x], dim=1))
        return out


class DeepAdapter(nn.Module):
    """Each token asks itself and its counterpart in the other modality: attention of one query over two keys."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.adapter_down = nn.Linear(dim, RANK)
        self.adapter_up = nn.Linear(RANK, dim)
        self.cross_attn_0_to_1 = nn.MultiheadAttention(RANK, RANK, batch_first=True)
        self.cross_attn_1_to_0 = nn.MultiheadAttention(RANK, RANK, batch_first=True)
        judge = Mlp(nn.Linear(2 * RANK, RANK), nn.Linear(RANK, RANK))
        self.relation_judger = nn.Sequential(judge, nn.Softmax(dim=-1))
        self.k_noise = nn.Embedding(2, RANK)
        self.v_noise = nn.Embedding(2, RANK)

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Both modalities' tokens (1, N, dim) to what is added to each."""
        a, b = self.adapter_down(a), self.adapter_down(b)
        return self._direction(a, b, 0, self.cross_attn_0_to_1), self._direction(b, a, 1, self.cross_attn_1_to_0)

    def _direction(self, own: Tensor, other: Tensor, index: int, attention: nn.MultiheadAttention) -> Tensor:
        own, other = own.reshape(-1, 1, RANK), other.reshape(-1, 1, RANK)
        relation = self.relation_judger(torch.cat([own, other], dim=-1))
        keys = torch.cat([own + self.k_noise.weight[index], own * relation], dim=1)
        values = torch.cat([own + self.v_noise.weight[index], other], dim=1)
        found, _ = attention(own, keys, values, need_weights=False)
        out: Tensor = self.adapter_up(found.reshape(1, -1, RANK))
        return out
