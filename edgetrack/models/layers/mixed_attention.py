"""Separable attention as it ships: the published block rearranged so that nothing is unfolded, split or re-laid.

Tokens are (1, C, rows, columns), N = rows * columns of them: all search positions in row-major order, then all template
positions, cut into rows as long as the search map's, so that joining and parting the two moves no memory. Three
rewrites, exact up to rounding (proof and figures: docs/decisions/0001-smat-graphs.md):

* The softmax runs over the tokens that share a place in the 2x2 patch. Instead of gathering them (unfold), the four
  softmaxes run over all tokens with a mask; everything else in the block is per token and needs no order.
* Weights of a softmax sum to one, so context = sum_n s_n (K x_n + b) = K (sum_n s_n x_n) + b: keys are computed for
  four (or one) pooled vectors instead of for every token, a seventh of the block's arithmetic.
* Scale and shift of both GroupNorms go into the convolutions behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from edgetrack.models.layers.folding import after_group_norm, of_layer, to_conv
from edgetrack.models.layers.mobilevit import PATCH, ConvLayer, LinearSelfAttention, SeparableAttentionBlock

# Far below any logit, far above the lowest half-precision number: exp() of it is exactly zero.
MASKED = -1e4


def normalise(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Zero mean and unit variance over the whole tensor: GroupNorm with one group, without scale and shift.

    Written out, because backends recognise and fuse this form; measured in docs/decisions/0001-smat-graphs.md.
    """
    centred = x - x.mean(dim=(1, 2, 3), keepdim=True)
    variance = (centred * centred).mean(dim=(1, 2, 3), keepdim=True)
    return centred / torch.sqrt(variance + eps)


def in_rows(x: Tensor, width: int) -> Tensor:
    """The positions of a map (1, C, H, W) in the same order, in rows of another length: (1, C, HW / width, width)."""
    return x if x.shape[3] == width else x.reshape(1, x.shape[1], -1, width)


def place_in_patch(grids: Sequence[tuple[int, int]]) -> Tensor:
    """Which place of its 2x2 patch each token has, one-hot (4, N), for tokens of several (height, width) grids."""
    rows = []
    for height, width in grids:
        row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        place = (row % PATCH) * PATCH + column % PATCH
        rows.append(nn.functional.one_hot(place.flatten(), PATCH * PATCH))
    return torch.cat(rows).T.float()


class DeployedAttention(nn.Module):
    """One separable attention block on tokens (1, dim, rows, columns).

    Args:
        block: the published block.
        grids: (height, width) of each grid of tokens whose 2x2 patches matter; None where all tokens share one softmax.
    """

    places: Tensor
    mask: Tensor

    def __init__(self, block: SeparableAttentionBlock, grids: Sequence[tuple[int, int]] | None) -> None:
        super().__init__()
        norm, attention = block.pre_norm_attn[0], cast(LinearSelfAttention, block.pre_norm_attn[1])
        dim = attention.dim
        qkv = after_group_norm(of_layer(attention.qkv_proj), cast(nn.GroupNorm, norm))
        self.query = to_conv(qkv.rows(0, 1))
        self.value = to_conv(qkv.rows(1 + dim, 1 + 2 * dim))
        self.key = to_conv(qkv.rows(1, 1 + dim))
        self.out = to_conv(of_layer(attention.out_proj))
        ffn_norm, widen, _, narrow = block.pre_norm_ffn
        self.widen = to_conv(after_group_norm(of_layer(cast(ConvLayer, widen)), cast(nn.GroupNorm, ffn_norm)))
        self.narrow = to_conv(of_layer(cast(ConvLayer, narrow)))
        self.patched = grids is not None
        if grids is not None:
            places = place_in_patch(grids)
            self.register_buffer("places", places)
            self.register_buffer("mask", (places - 1) * -MASKED)

    def forward(self, x: Tensor) -> Tensor:
        """(1, dim, rows, columns) to the same shape."""
        normed = normalise(x)
        dim, count = x.shape[1], x.shape[2] * x.shape[3]
        logits = self.query(normed).reshape(1, count)
        scores = torch.softmax(logits + self.mask if self.patched else logits, dim=-1)
        pooled = torch.matmul(normed.reshape(dim, count), scores.T)
        gate = self.key(pooled.reshape(1, dim, 1, -1))
        if self.patched:
            gate = torch.matmul(gate.reshape(dim, -1), self.places).reshape(x.shape)
        x = x + self.out(torch.relu(self.value(normed)) * gate)
        out: Tensor = x + self.narrow(torch.relu(self.widen(normalise(x))))
        return out


def deployed_stack(stack: nn.Sequential, grids: Sequence[tuple[int, int]] | None = None) -> nn.Sequential:
    """The blocks of a published stack, without its closing GroupNorm."""
    blocks = [b for b in stack if isinstance(b, SeparableAttentionBlock)]
    return nn.Sequential(*[DeployedAttention(block, grids) for block in blocks])
