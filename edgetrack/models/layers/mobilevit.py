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

from edgetrack.models.layers.folding import Affine, after_group_norm, of_layer, to_conv
from edgetrack.models.layers.vit import MASKED

PATCH = 2
HEADS = 4
"""Of standard attention, as in the first MobileViT (arXiv 2110.02178)."""


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

    def received(self, x: Tensor) -> Tensor:
        """The weight of each token in its softmax, (B, dim, P, N) to (B, P, N)."""
        return F.softmax(self.qkv_proj(x)[:, 0], dim=-1)


class StandardSelfAttention(nn.Module):
    """Multi-head attention in the place of the separable one: each token asks all those of its place in the patch."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim % HEADS:
            raise ValueError(f"standard attention over {dim} channels: expected a multiple of its {HEADS} heads")
        self.dim = dim
        self.qkv_proj = ConvLayer(dim, 3 * dim, bias=True, norm=False, act=False)
        self.out_proj = ConvLayer(dim, dim, bias=True, norm=False, act=False)

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (B, heads, P, N, N), rows adding up to one, and values (B, heads, P, N, dim / heads)."""
        batch, _, places, count = x.shape
        parts = self.qkv_proj(x).reshape(batch, 3, HEADS, -1, places, count).permute(1, 0, 2, 4, 5, 3)
        query, key, value = parts.unbind(0)
        return F.softmax(query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5, dim=-1), value

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, P, N) to the same shape; the softmax runs over N."""
        weights, value = self._heads(x)
        return self.out_proj((weights @ value).permute(0, 1, 4, 2, 3).reshape(x.shape))

    def received(self, x: Tensor) -> Tensor:
        """The mean weight of each token over heads and those who ask, (B, dim, P, N) to (B, P, N)."""
        return self._heads(x)[0].mean(dim=(1, 3))


ATTENTIONS: dict[str, type[LinearSelfAttention | StandardSelfAttention]] = {
    "separable": LinearSelfAttention,
    "standard": StandardSelfAttention,
}


class AttentionBlock(nn.Module):
    """Pre-norm self-attention and feed-forward layer, each with a residual; `kind` is one of `ATTENTIONS`."""

    def __init__(self, dim: int, kind: str = "separable") -> None:
        super().__init__()
        self.pre_norm_attn = nn.Sequential(group_norm(dim), ATTENTIONS[kind](dim))
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


def attention_stack(dim: int, blocks: int, kind: str = "separable") -> nn.Sequential:
    """`blocks` attention blocks and a closing GroupNorm."""
    return nn.Sequential(*[AttentionBlock(dim, kind) for _ in range(blocks)], group_norm(dim))


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
    """Search and template pass a local representation each, then attend to one another as one set of tokens.

    Args:
        channels: of the maps.
        dim: of the tokens.
        blocks: of attention.
        mixed: False: search and template attend to themselves alone, by the same weights.
        kind: of attention, see `ATTENTIONS`.
    """

    def __init__(self, channels: int, dim: int, blocks: int, *, mixed: bool = True, kind: str = "separable") -> None:
        super().__init__()
        self.mixed = mixed
        self.local_rep = nn.Sequential(
            ConvLayer(channels, channels, 3, groups=channels),
            ConvLayer(channels, dim, norm=False, act=False),
        )
        self.global_rep = attention_stack(dim, blocks, kind)
        self.conv_proj = ConvLayer(dim, channels, act=False)

    def forward(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Search (B, channels, H, W) and template (B, channels, h, w) to the same shapes."""
        tokens_x, tokens_z = unfold(self.local_rep(x)), unfold(self.local_rep(z))
        if self.mixed:
            tokens = self.global_rep(torch.cat([tokens_x, tokens_z], dim=-1))
            tokens_x, tokens_z = tokens.split([tokens_x.shape[-1], tokens_z.shape[-1]], dim=-1)
        else:
            tokens_x, tokens_z = self.global_rep(tokens_x), self.global_rep(tokens_z)
        return self.conv_proj(fold(tokens_x, *x.shape[-2:])), self.conv_proj(fold(tokens_z, *z.shape[-2:]))

    def look(self, x: Tensor, z: Tensor) -> Tensor:
        """The attention that each place of the search region gets in the last block, (B, H, W).

        1 is what every token would get if all got the same.
        """
        tokens = unfold(self.local_rep(x))
        searched = tokens.shape[-1]
        if self.mixed:
            tokens = torch.cat([tokens, unfold(self.local_rep(z))], dim=-1)
        *before, last, _ = self.global_rep
        for block in before:
            tokens = block(tokens)
        norm, attention = cast(AttentionBlock, last).pre_norm_attn
        weights = cast("LinearSelfAttention | StandardSelfAttention", attention).received(norm(tokens))
        return fold(weights[:, None, :, :searched] * weights.shape[-1], *x.shape[-2:]).squeeze(1)


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
    """Which place of its 2x2 patch each token has, 0 to 3, (N,), for tokens of several (height, width) grids."""
    places = []
    for height, width in grids:
        row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        places.append(((row % PATCH) * PATCH + column % PATCH).flatten())
    return torch.cat(places)


class DeployedBlock(nn.Module):
    """An attention block as it ships.

    Tokens are (1, C, rows, columns), N = rows * columns of them: all search positions in row-major order, then all
    template positions, cut into rows as long as the search map's, so that joining and parting the two moves no memory.
    Scale and shift of both GroupNorms go into the convolutions behind them.

    Args:
        block: the published block.
        grids: (height, width) of each grid of tokens whose 2x2 patches matter; None where all tokens share one softmax.
        looks: whether `forward` also returns what each place of the first grid gets, as `MixedMobileViTBlock.look`.
    """

    def __init__(self, block: AttentionBlock, grids: Sequence[tuple[int, int]] | None, *, looks: bool = False) -> None:
        super().__init__()
        norm, attention = block.pre_norm_attn
        self.project(after_group_norm(of_layer(cast(ConvLayer, attention.qkv_proj)), cast(nn.GroupNorm, norm)))
        self.out = to_conv(of_layer(cast(ConvLayer, attention.out_proj)))
        ffn_norm, widen, _, narrow = block.pre_norm_ffn
        self.widen = to_conv(after_group_norm(of_layer(widen), cast(nn.GroupNorm, ffn_norm)))
        self.narrow = to_conv(of_layer(narrow))
        self.grids, self.looks = grids, looks

    def project(self, qkv: Affine) -> None:
        """Make the convolutions for queries, keys and values out of the merged one."""
        raise NotImplementedError

    def attend(self, normed: Tensor) -> tuple[Tensor, Tensor]:
        """What `out` takes, shaped as the tokens, and the weight of each token in its softmax (any, N)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        found, scores = self.attend(normalise(x))
        x = x + self.out(found)
        x = x + self.narrow(torch.relu(self.widen(normalise(x))))
        return (x, self._look(scores)) if self.looks else x

    def _look(self, scores: Tensor) -> Tensor:
        """Scores in 4 softmaxes, (places, N) with zeros or (1, N), to (1, height, width)."""
        height, width = cast("Sequence[tuple[int, int]]", self.grids)[0]
        got = scores.sum(dim=0, keepdim=True)[:, : height * width] * (scores.shape[1] / PATCH**2)
        return got.reshape(1, height, width)


class DeployedAttention(DeployedBlock):
    """Separable attention: nothing is unfolded, split or re-laid.

    Two rewrites, exact up to rounding (proof and figures: docs/decisions/0001-smat-graphs.md, 0021-integer-steps.md):

    * The softmax runs over the tokens that share a place in the 2x2 patch. Instead of gathering them (unfold), the four
      softmaxes run over all tokens with a mask; everything else in the block is per token and needs no order.
    * Weights of a softmax sum to one, so context = sum_n s_n (K x_n + b) = K (sum_n s_n x_n) + b: keys are computed for
      four (or one) pooled vectors instead of for every token, a seventh of the block's arithmetic.

    Attributes:
        channels_last: the form for engines that keep maps so (docs/decisions/0021-integer-steps.md). Tokens are pooled,
            and keys are handed out by place, as rows of channels, which a map is there already. Where channels come
            first, keys reach their tokens by a product with the one-hot places.
    """

    place: Tensor
    places: Tensor
    mask: Tensor

    def __init__(self, block: AttentionBlock, grids: Sequence[tuple[int, int]] | None, *, looks: bool = False) -> None:
        super().__init__(block, grids, looks=looks)
        self.channels_last = False
        if grids is not None:
            place = place_in_patch(grids)
            self.register_buffer("place", place)
            self.register_buffer("places", nn.functional.one_hot(place, PATCH**2).T.float())
            self.register_buffer("mask", (self.places - 1) * -MASKED)

    def project(self, qkv: Affine) -> None:
        dim = qkv.weight.shape[1]
        self.query = to_conv(qkv.rows(0, 1))
        self.value = to_conv(qkv.rows(1 + dim, 1 + 2 * dim))
        self.key = to_conv(qkv.rows(1, 1 + dim))

    def attend(self, normed: Tensor) -> tuple[Tensor, Tensor]:
        count = normed.shape[2] * normed.shape[3]
        logits = self.query(normed).reshape(1, count)
        scores = torch.softmax(logits if self.grids is None else logits + self.mask, dim=-1)
        gate = self._gate_of_rows(normed, scores) if self.channels_last else self._gate_of_planes(normed, scores)
        return torch.relu(self.value(normed)) * gate, scores

    def _gate_of_planes(self, normed: Tensor, scores: Tensor) -> Tensor:
        dim = normed.shape[1]
        pooled = torch.matmul(normed.reshape(dim, -1), scores.T)
        gate: Tensor = self.key(pooled.reshape(1, dim, 1, -1))
        return gate if self.grids is None else torch.matmul(gate.reshape(dim, -1), self.places).reshape(normed.shape)

    def _gate_of_rows(self, normed: Tensor, scores: Tensor) -> Tensor:
        dim, rows, columns = normed.shape[1:]
        pooled = torch.matmul(scores, normed.permute(0, 2, 3, 1).reshape(-1, dim))
        keys = F.linear(pooled, self.key.weight.flatten(1), self.key.bias)
        gate = keys.reshape(1, 1, 1, dim) if self.grids is None else keys[self.place].reshape(1, rows, columns, dim)
        return gate.permute(0, 3, 1, 2)


class DeployedStandardAttention(DeployedBlock):
    """Multi-head attention: tokens are gathered by their place in the 2x2 patch, by reshapes, and put back."""

    def project(self, qkv: Affine) -> None:
        dim = qkv.weight.shape[1]
        query, scale = qkv.rows(0, dim), (dim // HEADS) ** -0.5
        self.query = to_conv(Affine(query.weight * scale, query.bias * scale))
        self.key, self.value = to_conv(qkv.rows(dim, 2 * dim)), to_conv(qkv.rows(2 * dim, 3 * dim))

    def attend(self, normed: Tensor) -> tuple[Tensor, Tensor]:
        query, key, value = (self._by_place(layer(normed)) for layer in (self.query, self.key, self.value))
        weights = torch.softmax(torch.matmul(query.transpose(2, 3), key), dim=-1)
        found = self._in_order(torch.matmul(value, weights.transpose(2, 3)))
        got = self._in_order(weights.mean(dim=(1, 2))[:, None, None, :]) if self.looks else found
        return found.reshape(normed.shape), got.reshape(-1, normed.shape[2] * normed.shape[3])

    def _by_place(self, x: Tensor) -> Tensor:
        """(1, C, rows, columns) to (places, heads, C / heads, N / places)."""
        dim, tokens = x.shape[1], x.reshape(x.shape[1], -1)
        if self.grids is None:
            return tokens.reshape(1, HEADS, dim // HEADS, -1)
        parts, start = [], 0
        for height, width in self.grids:
            part = tokens[:, start : start + height * width]
            part = part.reshape(dim, height // PATCH, PATCH, width // PATCH, PATCH).permute(2, 4, 0, 1, 3)
            parts.append(part.reshape(PATCH**2, HEADS, dim // HEADS, -1))
            start += height * width
        return torch.cat(parts, dim=3)

    def _in_order(self, x: Tensor) -> Tensor:
        """(places, heads, C / heads, N / places) to (1, C, N)."""
        dim = x.shape[1] * x.shape[2]
        if self.grids is None:
            return x.reshape(1, dim, -1)
        parts, start = [], 0
        for height, width in self.grids:
            count = height * width // PATCH**2
            part = x[..., start : start + count].reshape(PATCH, PATCH, dim, height // PATCH, width // PATCH)
            parts.append(part.permute(2, 3, 0, 4, 1).reshape(1, dim, -1))
            start += count
        return torch.cat(parts, dim=2)


DEPLOYED: dict[type[nn.Module], type[DeployedBlock]] = {
    LinearSelfAttention: DeployedAttention,
    StandardSelfAttention: DeployedStandardAttention,
}


def deployed_stack(
    stack: nn.Sequential, grids: Sequence[tuple[int, int]] | None = None, *, looks: bool = False
) -> nn.Sequential:
    """The blocks of a published stack, without its closing GroupNorm; with `looks` the last one returns two tensors."""
    blocks = [b for b in stack if isinstance(b, AttentionBlock)]
    return nn.Sequential(
        *[DEPLOYED[type(block.pre_norm_attn[1])](block, grids, looks=looks and block is blocks[-1]) for block in blocks]
    )
