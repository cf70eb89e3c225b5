"""CLIP's text tower (Radford et al., ICML 2021), official parameter names, as published and as it ships."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetrack.models.layers.vit import MASKED, Attention

EPS = 1e-5


def quick_gelu(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x), the activation that CLIP was trained with."""
    return x * torch.sigmoid(1.702 * x)


class Mlp(nn.Module):
    """Two linear maps, `quick_gelu` between them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(dim, 4 * dim)
        self.c_proj = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(quick_gelu(self.c_fc(x)))


class Block(nn.Module):
    """One layer: (B, N, dim) to the same shape."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.ln_1 = nn.LayerNorm(dim, eps=EPS)
        self.mlp = Mlp(dim)
        self.ln_2 = nn.LayerNorm(dim, eps=EPS)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`mask` (N, N) is added to the logits."""
        normed = self.ln_1(x)
        found, _ = self.attn(normed, normed, normed, need_weights=False, attn_mask=mask)
        x = x + found
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """The layers, under the name that CLIP gives them."""

    def __init__(self, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList([Block(dim, heads) for _ in range(depth)])

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        for block in self.resblocks:
            x = block(x, mask)
        return x


class TextTower(nn.Module):
    """Token ids to features; ViT-B/32's tower has 150 entries and 63,428,097 parameters.

    Args:
        dim, depth, heads: of the transformer.
        context: tokens of a phrase, padding included.
        vocabulary: how many tokens there are.
    """

    def __init__(self, dim: int, depth: int, heads: int, context: int, vocabulary: int) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.zeros(context, dim))
        self.text_projection = nn.Parameter(torch.zeros(dim, dim))
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.transformer = Transformer(dim, depth, heads)
        self.token_embedding = nn.Embedding(vocabulary, dim)
        self.ln_final = nn.LayerNorm(dim, eps=EPS)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (B, context), padded with 0, to features of every token (B, context, dim)."""
        x = self.token_embedding(ids) + self.positional_embedding
        mask = torch.full((x.shape[1], x.shape[1]), -torch.inf).triu(1)
        return self.ln_final(self.transformer(x, mask))

    def pooled(self, ids: Tensor) -> Tensor:
        """Ids (B, context) to a phrase's one feature (B, dim): the projected end token, which has the largest id."""
        features = self.forward(ids)
        return features[torch.arange(len(ids)), ids.argmax(dim=-1)] @ self.text_projection


class DeployedBlock(nn.Module):
    """A layer whose attention is written out."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        published = block.attn
        qkv = nn.Linear(published.embed_dim, 3 * published.embed_dim)
        with torch.no_grad():
            qkv.weight.copy_(published.in_proj_weight)
            qkv.bias.copy_(published.in_proj_bias)
        self.attn = Attention(qkv, published.out_proj, published.num_heads)
        self.ln_1, self.ln_2, self.mlp = block.ln_1, block.ln_2, block.mlp

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x), mask)
        return x + self.mlp(self.ln_2(x))


class DeployedTextTower(nn.Module):
    """The same for the first `tokens` of a phrase alone.

    No token sees a later one, so what lies behind them changes nothing: exact, and a fifth of the arithmetic with 16.
    """

    mask: Tensor
    positions: Tensor

    def __init__(self, tower: TextTower, tokens: int) -> None:
        super().__init__()
        self.token_embedding, self.ln_final = tower.token_embedding, tower.ln_final
        self.register_buffer("positions", tower.positional_embedding.detach()[:tokens].clone())
        self.register_buffer("mask", torch.full((tokens, tokens), MASKED).triu(1))
        self.blocks = nn.ModuleList([DeployedBlock(cast(Block, block)) for block in tower.transformer.resblocks])

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (B, tokens) to (B, tokens, dim)."""
        x = F.embedding(ids, self.token_embedding.weight) + self.positions
        for block in self.blocks:
            x = block(x, self.mask)
        return self.ln_final(x)
