"""OSTrack as published: a ViT-B/16 on the tokens of template and search region, candidates eliminated on the way.

Source: arXiv 2203.11991, botaoye/OSTrack; docs/trackers/ostrack.md says what was held against the official class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgetrack.models.layers.center_head import CenterHead, Maps
from edgetrack.models.layers.vit import PATCH, Block, JointBackbone, Sizes, shares

LAYERS, SHARE = (3, 6, 9), 0.7
"""Layers behind whose attention candidates go, and the share that stays each time."""


def centre_token(cells: int) -> int:
    """The template's token that ranks the candidates: the one left and above of the grid's middle."""
    return (cells // 2 - 1) * cells + cells // 2 - 1


class EliminatingBlock(Block):
    """A layer that lets the candidates go which the template's middle looks at least."""

    def forward(self, tokens: Tensor, index: Tensor, keep: int, row: int) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Run the layer.

        Args:
            tokens: (B, T + S, dim), template first.
            index: (B, S), the place of each search token in the whole search region.
            keep: how many of the S stay.
            row: the template's token whose attention, mean of the heads, ranks them.

        Returns:
            (B, T + keep, dim), and the places that stayed, best first.
        """
        count = tokens.shape[1] - index.shape[1]
        query, key, value = self.attn.split(self.norm1(tokens))
        weights = shares(query, key)
        found = torch.matmul(weights, value).transpose(1, 2).reshape(tokens.shape)
        tokens = tokens + self.attn.proj(found)
        order = torch.topk(weights[:, :, row, count:].mean(dim=1), keep, dim=1).indices
        kept = torch.gather(tokens[:, count:], 1, order.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
        tokens = torch.cat([tokens[:, :count], kept], dim=1)
        return tokens + self.mlp(self.norm2(tokens)), torch.gather(index, 1, order)


class Backbone(JointBackbone):
    """Template and search region to the search region's features; eliminated places are zero."""

    def __init__(self, sizes: Sizes, dim: int, blocks: Sequence[nn.Module], *, elimination: bool) -> None:
        super().__init__(sizes, dim, blocks)
        self.sizes, self.elimination = sizes, elimination

    def forward(self, template: Tensor, search: Tensor) -> Tensor:
        """Normalised RGB (B, 3, h, w) and (B, 3, H, W) to (B, dim, F, F)."""
        return self.features(self.tokens(template, search))

    def features(self, tokens: Tensor) -> Tensor:
        """(B, T + S, dim) to (B, dim, F, F)."""
        total, count = self.sizes.search_cells**2, self.sizes.template_tokens
        index = torch.arange(total, device=tokens.device).expand(tokens.shape[0], -1)
        row = centre_token(self.sizes.template_cells)
        last = len(self.blocks) - 1
        for number, block in enumerate(self.blocks):
            if isinstance(block, EliminatingBlock):
                tokens, index = block(tokens, index, math.ceil(SHARE * index.shape[1]), row)
            else:
                # Behind the last layer nobody reads the template's tokens.
                tokens = block(tokens, count if number == last else 0)
        if tokens.shape[1] > index.shape[1]:
            tokens = tokens[:, count:]
        tokens = self.norm(tokens)
        if self.elimination:
            places = index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1])
            whole = torch.zeros(tokens.shape[0], total, tokens.shape[-1], dtype=tokens.dtype, device=tokens.device)
            tokens = whole.scatter(1, places, tokens)
        cells = self.sizes.search_cells
        return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, cells, cells)


class OsTrack(nn.Module):
    """The published network, official parameter names.

    Args:
        search_size, template_size: pixels, multiples of 16.
        elimination: whether candidates are eliminated, as the configurations `vitb_*_ce_*` do.
        dim, depth, heads: of the transformer; dim is a multiple of heads.
        head_channels: of the head's first convolutions, a multiple of 8.
    """

    def __init__(
        self,
        *,
        search_size: int = 256,
        template_size: int = 128,
        elimination: bool = True,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        head_channels: int = 256,
    ) -> None:
        super().__init__()
        self.sizes = Sizes(PATCH, search_size, template_size, 1)
        blocks = [
            (EliminatingBlock if elimination and layer in LAYERS else Block)(dim, heads) for layer in range(depth)
        ]
        self.backbone = Backbone(self.sizes, dim, blocks, elimination=elimination)
        self.box_head = CenterHead(dim, head_channels)

    def forward(self, template: Tensor, search: Tensor) -> Maps:
        """Normalised RGB (B, 3, h, w) and (B, 3, H, W) to score, size and offset, see `CenterHead`."""
        return self.box_head(self.backbone(template, search))
