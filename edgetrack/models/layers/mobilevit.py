"""MobileViTv2 building blocks as SMAT uses them (docs/trackers/smat.md): ReLU everywhere, official parameter names.

These are the reference: they compute what the published code computes in the way it computes it (im2col patches,
one q/k/v projection that is split afterwards). What ships is derived from them, see `DeployedAttention`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetrack.models.layers.folding import after_group_norm, of_layer, to_conv
from edgetrack.models.layers.vit import MASKED

PATCH = 2


class ConvLayer(nn.Module):
    """Convolution, optional BatchNorm, optional ReLU; padding (k-1)/2."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        norm: bool = True,
        act: bool = True,
    ) -> None:
        super().__init__()
        self.block = nn.Sequential()
        conv = nn.Conv2d(c_in, c_out, kernel, stride, (kernel - 1) // 2, groups=groups, bias=bias)
        self.block.add_module("conv", conv)
        if norm:
            self.block.add_module("norm", nn.BatchNorm2d(c_out, eps=1e-5))
        if act:
            self.block.add_module("act", nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class InvertedResidual(nn.Module):
    """MobileNetV2's block, expansion 2; adds its input where shape allows."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        hidden = 2 * c_in
        self.residual = stride == 1 and c_in == c_out
        self.block = nn.Sequential()
        self.block.add_module("exp_1x1", ConvLayer(c_in, hidden))
        self.block.add_module("conv_3x3", ConvLayer(hidden, hidden, 3, stride=stride, groups=hidden))
        self.block.add_module("red_1x1", ConvLayer(hidden, c_out, act=False))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block(x)
        return x + out if self.residual else out


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with one group: statistics over the channels *and* all positions of a tensor."""
    return nn.GroupNorm(1, channels, eps=1e-5)


class LinearSelfAttention(nn.Module):
    """Separable self-attention: one query weight per token, context = weighted sum of keys, gating the values."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.qkv_proj = ConvLayer(dim, 1 + 2 * dim, bias=True, norm=False, act=False)
        self.out_proj = ConvLayer(dim, dim, bias=True, norm=False, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, P, N) to the same shape; the softmax runs over N."""
        query, key, value = torch.split(self.qkv_proj(x), [1, self.dim, self.dim], dim=1)
        scores = F.softmax(query, dim=-1)
        context = (key * scores).sum(dim=-1, keepdim=True)
        return self.out_proj(F.relu(value) * context.expand_as(value))


class SeparableAttentionBlock(nn.Module):
    """Pre-norm separable self-attention and feed-forward layer, each with a residual."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.pre_norm_attn = nn.Sequential(group_norm(dim), LinearSelfAttention(dim))
        # Places 2 and 4 hold dropouts in the published module; they are inactive and carry no parameters.
        self.pre_norm_ffn = nn.Sequential(
            group_norm(dim),
            ConvLayer(dim, 2 * dim, bias=True, norm=False),
            nn.Identity(),
            ConvLayer(2 * dim, dim, bias=True, norm=False, act=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.pre_norm_attn(x)
        return x + self.pre_norm_ffn(x)


def attention_stack(dim: int, blocks: int) -> nn.Sequential:
    """`blocks` separable attention blocks and a closing GroupNorm."""
    return nn.Sequential(*[SeparableAttentionBlock(dim) for _ in range(blocks)], group_norm(dim))


def unfold(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, C, 4, HW/4): place in the 2x2 patch, patch (row-major), by im2col as published."""
    batch, channels, height, width = x.shape
    columns = F.unfold(x, kernel_size=PATCH, stride=PATCH)
    return columns.reshape(batch, channels, PATCH * PATCH, (height // PATCH) * (width // PATCH))


def fold(patches: Tensor, height: int, width: int) -> Tensor:
    """Inverse of `unfold`."""
    batch, channels, places, count = patches.shape
    columns = patches.reshape(batch, channels * places, count)
    return F.fold(columns, output_size=(height, width), kernel_size=PATCH, stride=PATCH)


class MixedMobileViTBlock(nn.Module):
    """Search and template pass a local representation each, then attend to one another as one set of tokens."""

    def __init__(self, channels: int, dim: int, blocks: int) -> None:
        super().__init__()
        self.local_rep = nn.Sequential(
            ConvLayer(channels, channels, 3, groups=channels),
            ConvLayer(channels, dim, norm=False, act=False),
        )
        self.global_rep = attention_stack(dim, blocks)
        self.conv_proj = ConvLayer(dim, channels, act=False)

    def forward(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Search (B, channels, H, W) and template (B, channels, h, w) to the same shapes."""
        x, z = self.local_rep(x), self.local_rep(z)
        (height, width), (z_height, z_width) = x.shape[-2:], z.shape[-2:]
        tokens_x, tokens_z = unfold(x), unfold(z)
        tokens = self.global_rep(torch.cat([tokens_x, tokens_z], dim=-1))
        tokens_x, tokens_z = tokens.split([tokens_x.shape[-1], tokens_z.shape[-1]], dim=-1)
        return self.conv_proj(fold(tokens_x, height, width)), self.conv_proj(fold(tokens_z, z_height, z_width))


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
    """One separable attention block as it ships: nothing is unfolded, split or re-laid.

    Tokens are (1, C, rows, columns), N = rows * columns of them: all search positions in row-major order, then all
    template positions, cut into rows as long as the search map's, so that joining and parting the two moves no memory.
    Three rewrites, exact up to rounding (proof and figures: docs/decisions/0001-smat-graphs.md):

    * The softmax runs over the tokens that share a place in the 2x2 patch. Instead of gathering them (unfold), the four
      softmaxes run over all tokens with a mask; everything else in the block is per token and needs no order.
    * Weights of a softmax sum to one, so context = sum_n s_n (K x_n + b) = K (sum_n s_n x_n) + b: keys are computed for
      four (or one) pooled vectors instead of for every token, a seventh of the block's arithmetic.
    * Scale and shift of both GroupNorms go into the convolutions behind them.

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
        self.widen = to_conv(after_group_norm(of_layer(widen), cast(nn.GroupNorm, ffn_norm)))
        self.narrow = to_conv(of_layer(narrow))
        self.patched = grids is not None
        if grids is not None:
            places = place_in_patch(grids)
            self.register_buffer("places", places)
            self.register_buffer("mask", (places - 1) * -MASKED)

    def forward(self, x: Tensor) -> Tensor:
        normed = normalise(x)
        dim, count = x.shape[1], x.shape[2] * x.shape[3]
        logits = self.query(normed).reshape(1, count)
        scores = torch.softmax(logits + self.mask if self.patched else logits, dim=-1)
        pooled = torch.matmul(normed.reshape(dim, count), scores.T)
        gate = self.key(pooled.reshape(1, dim, 1, -1))
        if self.patched:
            gate = torch.matmul(gate.reshape(dim, -1), self.places).reshape(x.shape)
        x = x + self.out(torch.relu(self.value(normed)) * gate)
        return x + self.narrow(torch.relu(self.widen(normalise(x))))


def deployed_stack(stack: nn.Sequential, grids: Sequence[tuple[int, int]] | None = None) -> nn.Sequential:
    """The blocks of a published stack, without its closing GroupNorm."""
    blocks = [b for b in stack if isinstance(b, SeparableAttentionBlock)]
    return nn.Sequential(*[DeployedAttention(block, grids) for block in blocks])
