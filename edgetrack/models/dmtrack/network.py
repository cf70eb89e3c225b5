"""DMTrack as published: OSTrack's ViT-B/16 on two modalities, weights shared, adapters in every block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from edgetrack.errors import CheckpointError
from edgetrack.models.layers.center_head import CenterHead, Maps
from edgetrack.models.layers.vit import PATCH, Attention, JointBackbone, Mlp, Sizes, layer_norm

RANK = 8
TEMPORAL_RANK = 12


TEMPORAL = ("separate", "shared", "none")
"""One temporal adapter a modality, as published; one for both; none."""
ADAPTERS = ("shallow", "deep", "none")
"""What may stand beside the attention and beside the MLP of a block; published: shallow, then deep."""


class ShallowAdapter(nn.Module):
    """Three linear maps without an activation: what one modality's tokens tell the other's."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.adapter_down = nn.Linear(dim, RANK)
        self.adapter_up = nn.Linear(RANK, dim)
        self.adapter_mid = nn.Linear(RANK, RANK)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.adapter_up(self.adapter_mid(self.adapter_down(tokens)))

    def exchange(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Both modalities' tokens (B, N, dim) to what is added to each."""
        for_a, for_b = self(b), self(a)
        return for_a, for_b


class TemporalAdapter(nn.Module):
    """A filter over the template frames, each place and channel for itself, in a narrow space."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.adapter_down = nn.Linear(dim, TEMPORAL_RANK)
        self.adapter_up = nn.Linear(TEMPORAL_RANK, dim)
        self.adapter_mid = nn.Conv1d(TEMPORAL_RANK, TEMPORAL_RANK, 3, padding=1, groups=TEMPORAL_RANK)

    def forward(self, tokens: Tensor, frames: int, search: int) -> Tensor:
        """Tokens (B, N, dim) of `frames` templates and then `search` places to the same shape."""
        down = self.adapter_down(tokens)
        z, x = down.split([down.shape[1] - search, search], dim=1)
        places = z.shape[1] // frames
        over_time = z.reshape(-1, frames, places, TEMPORAL_RANK).permute(0, 2, 3, 1).flatten(0, 1)
        filtered = self.adapter_mid(over_time).reshape(-1, places, TEMPORAL_RANK, frames)
        filtered = filtered.permute(0, 3, 1, 2).reshape(z.shape)
        return self.adapter_up(torch.cat([z + filtered, x], dim=1))


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
        """Both modalities' tokens (B, N, dim) to what is added to each."""
        a, b = self.adapter_down(a), self.adapter_down(b)
        return self._direction(a, b, 0, self.cross_attn_0_to_1), self._direction(b, a, 1, self.cross_attn_1_to_0)

    def exchange(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """The same under the name that both adapters have."""
        found: tuple[Tensor, Tensor] = self(a, b)
        return found

    def _direction(self, own: Tensor, other: Tensor, index: int, attention: nn.MultiheadAttention) -> Tensor:
        shape = own.shape
        own, other = own.reshape(-1, 1, RANK), other.reshape(-1, 1, RANK)
        relation = self.relation_judger(torch.cat([own, other], dim=-1))
        keys = torch.cat([own + self.k_noise.weight[index], own * relation], dim=1)
        values = torch.cat([own + self.v_noise.weight[index], other], dim=1)
        found, _ = attention(own, keys, values, need_weights=False)
        return self.adapter_up(found.reshape(shape))


def _between(kind: str, dim: int) -> ShallowAdapter | DeepAdapter | None:
    if kind not in ADAPTERS:
        raise ValueError(f"adapter {kind!r}: expected {', '.join(ADAPTERS)}")
    if kind == "none":
        return None
    return ShallowAdapter(dim) if kind == "shallow" else DeepAdapter(dim)


class Block(nn.Module):
    """One transformer layer for both modalities: (a, b), each (B, N, dim), to the same shapes.

    Args:
        dim, heads: see `DmTrack`.
        temporal, beside_attention, beside_mlp: see `DmTrack`.
    """

    def __init__(self, dim: int, heads: int, temporal: str, beside_attention: str, beside_mlp: str) -> None:
        super().__init__()
        if temporal not in TEMPORAL:
            raise ValueError(f"temporal {temporal!r}: expected {', '.join(TEMPORAL)}")
        self.norm1 = layer_norm(dim)
        self.attn = Attention(nn.Linear(dim, 3 * dim), nn.Linear(dim, dim), heads)
        self.norm2 = layer_norm(dim)
        self.mlp = Mlp(nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim))
        self.adap_t = _between(beside_attention, dim)
        self.adap2_t = _between(beside_mlp, dim)
        self.adap_tem1 = TemporalAdapter(dim) if temporal != "none" else None
        self.adap_tem2 = TemporalAdapter(dim) if temporal == "separate" else None

    @property
    def over_time(self) -> tuple[TemporalAdapter, TemporalAdapter] | None:
        """The temporal adapters of both modalities, which may be one."""
        first = self.adap_tem1
        return None if first is None else (first, self.adap_tem2 or first)

    def forward(self, a: Tensor, b: Tensor, frames: int, search: int) -> tuple[Tensor, Tensor]:
        """`frames` templates' tokens, then `search` places."""
        if (pair := self.over_time) is not None:
            a, b = a + pair[0](a, frames, search), b + pair[1](b, frames, search)
        na, nb = self.norm1(a), self.norm1(b)
        a, b = _added((a + self.attn(na), b + self.attn(nb)), self.adap_t, na, nb)
        ma, mb = self.norm2(a), self.norm2(b)
        return _added((a + self.mlp(ma), b + self.mlp(mb)), self.adap2_t, ma, mb)


def _added(
    streams: tuple[Tensor, Tensor], adapter: ShallowAdapter | DeepAdapter | None, a: Tensor, b: Tensor
) -> tuple[Tensor, Tensor]:
    if adapter is None:
        return streams
    for_a, for_b = adapter.exchange(a, b)
    return streams[0] + for_a, streams[1] + for_b


class Backbone(JointBackbone):
    """Images of both modalities to the sum of their search features."""

    def __init__(self, sizes: Sizes, dim: int, blocks: Sequence[Block]) -> None:
        super().__init__(sizes, dim, blocks)

    def forward(self, templates: Tensor, search: Tensor) -> Tensor:
        """(B T, 2, 3, h, w) and (2 B, 3, H, W), normalised RGB, colour before X in each pair, to (B, dim, F, F)."""
        a, b = (self.tokens(templates[:, modality], search[modality::2]) for modality in (0, 1))
        count, frames = self.pos_embed_x.shape[1], templates.shape[0] // a.shape[0]
        for block in self.blocks:
            a, b = block(a, b, frames, count)
        features = self.norm(a) + self.norm(b)
        cells = round(count**0.5)
        return cast(Tensor, features[:, -count:].transpose(1, 2).reshape(a.shape[0], -1, cells, cells))


class DmTrack(nn.Module):
    """The published network: 674 state-dict entries, 93,304,965 parameters.

    Args:
        search_size, template_size: pixels, multiples of 16.
        templates: the most template frames at once; 4 for the paper's uniform choice of 3 intervals and the first.
        dim, depth, heads: of the transformer; dim is a multiple of heads.
        head_channels: of the head's first convolutions, a multiple of 8.
        temporal: adapters over time, one of `TEMPORAL`.
        beside_attention, beside_mlp: adapters between the modalities, one of `ADAPTERS` each.

    Other adapters than the published ones are the paper's ablations; they have parameters, and need weights, of their
    own. Of the published network 786,432 parameters are trained, its adapters.
    """

    def __init__(
        self,
        *,
        search_size: int = 256,
        template_size: int = 128,
        templates: int = 4,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        head_channels: int = 256,
        temporal: str = "separate",
        beside_attention: str = "shallow",
        beside_mlp: str = "deep",
    ) -> None:
        super().__init__()
        self.sizes = Sizes(PATCH, search_size, template_size, templates)
        blocks = [Block(dim, heads, temporal, beside_attention, beside_mlp) for _ in range(depth)]
        self.backbone = Backbone(self.sizes, dim, blocks)
        self.box_head = CenterHead(dim, head_channels)

    def assemble(self, tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
        """The state dict is the file's tensors as they are.

        Raises:
            CheckpointError: they are those of a tracker of one image a frame, without the adapters.
        """
        if "backbone.pos_embed_x" in tensors and not any(".adap" in name for name in tensors):
            raise CheckpointError(
                f"{source} is of a tracker of one image a frame (OSTrack's tensors, without DMTrack's adapters adap*); "
                "give DMTrack's checkpoint for RGB-T, RGB-E or RGB-D, or --weights untrained"
            )
        return dict(tensors)

    def forward(self, templates: Tensor, search: Tensor) -> Maps:
        """Template crops (B T, 2, 3, 128, 128) and search crops (2 B, 3, 256, 256), normalised RGB, colour before X.

        Returns:
            score (B, 1, 16, 16) and size (B, 2, 16, 16) in 1e-4..1-1e-4, size as fractions of the crop; offset
            (B, 2, 16, 16) in cells.
        """
        return self.box_head(self.backbone(templates, search))
