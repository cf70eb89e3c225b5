"""Images to tokens: the patch embedding of vision transformers, as published and on raw pixels."""

from __future__ import annotations

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
        tokens: Tensor = self.proj(image).flatten(2).transpose(1, 2)
        return tokens


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
        tokens: Tensor = self.proj(image.permute(0, 3, 1, 2).float()).flatten(2).transpose(1, 2)
        return tokens


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
