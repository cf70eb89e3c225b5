"""Parts of a pre-norm vision transformer, official parameter names; their linear maps are handed in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# ImageNet, RGB, for values of 0..1.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class Sizes(NamedTuple):
    """Pixels of a patch, of the search region and of a template, and the most templates that a step takes."""

    patch: int
    search: int
    template: int
    templates: int

    @property
    def search_cells(self) -> int:
        """Cells along the search region's side."""
        return self.search // self.patch

    @property
    def template_cells(self) -> int:
        """Cells along a template's side."""
        return self.template // self.patch

    @property
    def template_tokens(self) -> int:
        """Tokens of one template."""
        return self.template_cells**2


class PatchEmbed(nn.Module):
    """A convolution without overlap: (B, 3, H, W) to tokens (B, H W / patch^2, dim), row-major."""

    def __init__(self, patch: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, patch)

    def forward(self, image: Tensor) -> Tensor:
        """Normalised RGB (B, 3, H, W) to (B, N, dim)."""
        return self.proj(image).flatten(2).transpose(1, 2)


class PixelEmbed(nn.Module):
    """The same from BGR values of 0..255: scale, mean, deviation and channel order are in the kernel."""

    def __init__(self, published: PatchEmbed) -> None:
        super().__init__()
        conv = published.proj
        mean, std = torch.tensor(MEAN, dtype=torch.float64), torch.tensor(STD, dtype=torch.float64)
        weight = conv.weight.detach().double() / std.view(1, 3, 1, 1)
        shift = (weight * mean.view(1, 3, 1, 1)).sum(dim=(1, 2, 3))
        bias = torch.zeros_like(shift) if conv.bias is None else conv.bias.detach().double()
        self.proj = nn.Conv2d(3, conv.out_channels, conv.kernel_size[0], conv.stride[0])
        with torch.no_grad():
            self.proj.weight.copy_(weight.flip(1) / 255.0)
            if self.proj.bias is not None:
                self.proj.bias.copy_(bias - shift)

    def forward(self, image: Tensor) -> Tensor:
        """BGR (B, H, W, 3), uint8 or float of 0..255, to (B, N, dim)."""
        return self.proj(image.permute(0, 3, 1, 2).float()).flatten(2).transpose(1, 2)


def normalised(image: Tensor) -> Tensor:
    """BGR (B, H, W, 3), 0..255, to RGB (B, 3, H, W), less ImageNet's mean, by its deviation: as published."""
    rgb = image.permute(0, 3, 1, 2).flip(1).float() / 255.0
    return (rgb - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


def resized_grid(pos_embed: Tensor, cells: int) -> Tensor:
    """Position embeddings of a square grid with a class token in front to those of another grid, without it.

    Args:
        pos_embed: (1, 1 + n * n, dim).
        cells: of the new grid's side.

    Returns:
        (1, cells * cells, dim): bicubic, half-pixel centres, no antialias.
    """
    side = round((pos_embed.shape[1] - 1) ** 0.5)
    grid = pos_embed[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(grid, size=(cells, cells), mode="bicubic", align_corners=False)
    return resized.permute(0, 2, 3, 1).reshape(1, cells * cells, -1)


def with_positions(tensors: Mapping[str, Tensor], sizes: Sizes) -> dict[str, Tensor]:
    """An image classifier's tensors (`pos_embed` of a square grid) and the positions of a tracker's two crops.

    Tensors that have the tracker's positions already are returned as they are.
    """
    found = dict(tensors)
    grid = found.get("pos_embed")
    if grid is not None and grid.ndim == 3 and "pos_embed_x" not in found:
        found["pos_embed_x"] = resized_grid(grid.float(), sizes.search_cells)
        found["pos_embed_z"] = resized_grid(grid.float(), sizes.template_cells)
    return found


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
    return torch.matmul(shares(query, key, mask), value)


def shares(query: Tensor, key: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d) + mask), (B, heads, M, N); arguments as of `attend`."""
    logits = torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(-2, -1))
    return torch.softmax(logits if mask is None else logits + mask, dim=-1)


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
        parts = self.split(tokens)
        found = attend(parts[0][:, :, first:], parts[1], parts[2], mask)
        return self.proj(found.transpose(1, 2).reshape(batch, count - first, dim))

    def split(self, tokens: Tensor) -> Tensor:
        """(B, N, dim) to queries, keys and values, (3, B, heads, N, d)."""
        batch, count, dim = tokens.shape
        return self.qkv(tokens).reshape(batch, count, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)


class Mlp(nn.Module):
    """Two linear maps, the exact (erf) GELU between them."""

    def __init__(self, fc1: nn.Module, fc2: nn.Module) -> None:
        super().__init__()
        self.fc1, self.fc2 = fc1, fc2

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


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
        return x + self.mlp(self.norm2(x))


def looked_at(block: Block, tokens: Tensor, first: int, count: int) -> Tensor:
    """Where `count` tokens from `first` on look in a layer: (B, count, N), mean of the heads, 1 where all look evenly.

    Args:
        block: the layer.
        tokens: (B, N, dim), what it is given.
    """
    query, key, _ = block.attn.split(block.norm1(tokens))
    return shares(query[:, :, first : first + count], key).mean(dim=1) * tokens.shape[1]


PATCH = 16
# Positions of the image classifier that the weights came from; in checkpoints, without use.
CLASSIFIER_POSITIONS = 197


class JointBackbone(nn.Module):
    """Its parameters, by their published names; a tracker says how the layers are run.

    Args:
        sizes: of the crops; the patch is `PATCH`.
        dim: of a token.
        blocks: the layers.
    """

    def __init__(self, sizes: Sizes, dim: int, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, CLASSIFIER_POSITIONS, dim))
        self.pos_embed_z = nn.Parameter(torch.zeros(1, sizes.template_tokens, dim))
        self.pos_embed_x = nn.Parameter(torch.zeros(1, sizes.search_cells**2, dim))
        self.patch_embed = PatchEmbed(PATCH, dim)
        self.blocks = nn.ModuleList(blocks)
        self.norm = layer_norm(dim)

    def tokens(self, templates: Tensor, search: Tensor) -> Tensor:
        """Normalised RGB (B T, 3, h, w), each target's T one after another, and (B, 3, H, W), to (B, N, dim).

        A target's templates come one after another, then its search region.
        """
        z = self.patch_embed(templates) + self.pos_embed_z
        x = self.patch_embed(search) + self.pos_embed_x
        return torch.cat([z.reshape(x.shape[0], -1, z.shape[-1]), x], dim=1)
