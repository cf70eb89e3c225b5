"""Parts of a pre-norm vision transformer, official parameter names; their linear maps are handed in."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-6
# Far below any logit, far above the lowest half-precision number: exp() of it is exactly zero.
MASKED = -1e4


def layer_norm(dim: int) -> nn.LayerNorm:
    """LayerNorm over a token's channels."""
    return nn.LayerNorm(dim, eps=EPS)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d) + mask) v.

    Written out: exporters and backends know this form, and their own fused one is chosen from it.

    Args:
        query: (B, heads, M, d).
        key, value: (B, heads, N, d).
        mask: added to the logits, broadcast to (B, heads, M, N); `MASKED` where a key is absent.
    """
    logits = torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(-2, -1))
    return torch.matmul(torch.softmax(logits if mask is None else logits + mask, dim=-1), value)


class Attention(nn.Module):
    """Multi-head self-attention.

    Args:
        qkv: (.., dim) to (.., 3 dim): queries, keys, values, each one head after another.
        proj: (.., dim) to (.., dim).
        heads: a divisor of dim.
    """

    def __init__(self, qkv: nn.Module, proj: nn.Module, heads: int) -> None:
        super().__init__()
        if heads < 1:
            raise ValueError(f"heads is {heads}, expected 1 or more")
        self.qkv, self.proj, self.heads = qkv, proj, heads

    def forward(self, tokens: Tensor, mask: Tensor | None = None, first: int = 0) -> Tensor:
        """(B, N, dim) to (B, N - first, dim): all tokens are keys, those from `first` on are queries."""
        batch, count, dim = tokens.shape
        parts = self.qkv(tokens).reshape(batch, count, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        found = attend(parts[0][:, :, first:], parts[1], parts[2], mask)
        out: Tensor = self.proj(found.transpose(1, 2).reshape(batch, count - first, dim))
        return out


class Mlp(nn.Module):
    """Two linear maps, the exact (erf) GELU between them."""

    def __init__(self, fc1: nn.Module, fc2: nn.Module) -> None:
        super().__init__()
        self.fc1, self.fc2 = fc1, fc2

    def forward(self, x: Tensor) -> Tensor:
        """(.., c_in) to (.., c_out)."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """One layer as of ViT: attention, then the feed-forward part, four times as wide; official names."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = layer_norm(dim)
        self.attn = Attention(nn.Linear(dim, 3 * dim), nn.Linear(dim, dim), heads)
        self.norm2 = layer_norm(dim)
        self.mlp = Mlp(nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor, first: int = 0) -> Tensor:
        """Tokens (B, N, dim) to (B, N - first, dim): those from `first` on."""
        x = x[:, first:] + self.attn(self.norm1(x), None, first)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out
