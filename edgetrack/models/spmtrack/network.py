"""SPMTrack as published: DINOv2 with expert maps, one token that carries the target from frame to frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetrack.models.layers.patches import PatchEmbed, Sizes
from edgetrack.models.layers.vit import Attention, Mlp, layer_norm
from edgetrack.models.spmtrack.assembly import Trunk, assemble
from edgetrack.models.spmtrack.experts import ExpertLinear

PATCH = 14
MakeLinear = Callable[[int, int], nn.Module]


class Found(NamedTuple):
    """What a step returns: score logits (1, F, F), boxes (1, F, F, 4) x1, y1, x2, y2 in 0..1, state (1, dim)."""

    score: Tensor
    boxes: Tensor
    state: Tensor


class Qkv(nn.Module):
    """Queries, keys and values from a map each."""

    def __init__(self, dim: int, linear: MakeLinear) -> None:
        super().__init__()
        self.q, self.k, self.v = linear(dim, dim), linear(dim, dim), linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(.., dim) to (.., 3 dim)."""
        return torch.cat([self.q(x), self.k(x), self.v(x)], dim=-1)


class SwiGlu(nn.Module):
    """The gated feed-forward layer of the largest model; the hidden width is two thirds of 4 dim, in steps of 8."""

    def __init__(self, dim: int, linear: MakeLinear) -> None:
        super().__init__()
        hidden = (8 * dim // 3 + 7) // 8 * 8
        self.w12, self.w3 = linear(dim, 2 * hidden), linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(.., dim) to the same shape."""
        gate, value = self.w12(x).chunk(2, dim=-1)
        out: Tensor = self.w3(F.silu(gate) * value)
        return out


class LayerScale(nn.Module):
    """A factor for each channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """(.., dim) to the same shape."""
        return x * self.gamma


class Block(nn.Module):
    """One transformer layer, (1, N, dim) to the same shape."""

    def __init__(self, dim: int, heads: int, mlp: str, linear: MakeLinear) -> None:
        super().__init__()
        self.norm1 = layer_norm(dim)
        self.attn = Attention(Qkv(dim, linear), linear(dim, dim), heads)
        self.ls1 = LayerScale(dim)
        self.norm2 = layer_norm(dim)
        self.mlp = SwiGlu(dim, linear) if mlp == "swiglu" else Mlp(linear(dim, 4 * dim), linear(4 * dim, dim))
        self.ls2 = LayerScale(dim)

    def forward(self, x: Tensor) -> Tensor:
        """All tokens to all tokens."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        out: Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return out


class Tower(nn.Module):
    """Three linear maps with GELU between them."""

    def __init__(self, dim: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, outputs)])

    def forward(self, x: Tensor) -> Tensor:
        """(.., dim) to (.., outputs)."""
        first, second, last = self.layers
        out: Tensor = last(F.gelu(second(F.gelu(first(x)))))
        return out


class Head(nn.Module):
    """Score and box of each cell."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.cls_mlp, self.reg_mlp = Tower(dim, 1), Tower(dim, 4)

    def forward(self, features: Tensor, query: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Cells (1, F * F, dim), query (1, 1, dim) and cells' centres (F, F, 2) to logits and boxes."""
        cells = points.shape[0]
        weighted = features * torch.matmul(features, query.transpose(1, 2))
        sides = torch.sigmoid(self.reg_mlp(weighted)).reshape(1, cells, cells, 4)
        boxes = torch.cat([points - sides[..., :2], points + sides[..., 2:]], dim=-1)
        return self.cls_mlp(weighted).reshape(1, cells, cells), boxes


def cell_centres(cells: int) -> Tensor:
    """(cells, cells, 2): x and y of each cell's centre, 0..1."""
    along = (torch.arange(cells) + 0.5) / cells
    rows, columns = torch.meshgrid(along, along, indexing="ij")
    return torch.stack([columns, rows], dim=-1)


class SpmTrack(nn.Module):
    """The published network; B has 668 state-dict entries and 115,330,565 parameters.

    Args:
        search_size, template_size: pixels, multiples of 14.
        templates: how many template frames there are at once.
        dim, depth, heads: of the transformer. B is 768, 12, 12; L 1024, 24, 16; G 1536, 40, 24.
        mlp: `gelu`, or `swiglu` for G.
        rank, experts: of the expert maps.
        alpha: the experts' outputs are multiplied by alpha / rank, or by alpha / sqrt(rank) with `rsexpert`.
    """

    def __init__(
        self,
        *,
        search_size: int = 378,
        template_size: int = 196,
        templates: int = 3,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        mlp: Literal["gelu", "swiglu"] = "gelu",
        rank: int = 64,
        experts: int = 4,
        alpha: int = 64,
        rsexpert: bool = False,
    ) -> None:
        super().__init__()
        if mlp not in ("gelu", "swiglu"):
            raise ValueError(f"mlp is {mlp!r}, expected gelu or swiglu")
        self.sizes = Sizes(PATCH, search_size, template_size, templates)
        self.alpha, self.rsexpert = alpha, rsexpert
        scale = alpha / (rank**0.5 if rsexpert else rank)

        def linear(c_in: int, c_out: int) -> nn.Module:
            return ExpertLinear(c_in, c_out, rank, experts, scale)

        self.pos_embed = nn.Parameter(torch.zeros(1, self.sizes.search_cells**2, dim))
        self.track_query = nn.Parameter(torch.zeros(1, dim))
        self.query_embed = nn.Parameter(torch.zeros(1, dim))
        self.token_type_embed = nn.Parameter(torch.zeros(3, dim))
        self.patch_embed = PatchEmbed(PATCH, dim)
        self.blocks = nn.ModuleList([Block(dim, heads, mlp, linear) for _ in range(depth)])
        self.norm = layer_norm(dim)
        self.head = Head(dim)

    def assemble(self, tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
        """Published files as this network's state dict; see `edgetrack.models.spmtrack.assembly`."""
        trunk = Trunk(self.pos_embed.shape[-1], len(self.blocks))
        return assemble(tensors, source, trunk, self.sizes.search_cells, self.alpha, self.rsexpert)

    def template_positions(self) -> Tensor:
        """(1, n, dim): the top left window of the search region's positions, not resized."""
        cells, window = self.sizes.search_cells, self.sizes.template_cells
        grid = self.pos_embed.reshape(1, cells, cells, -1)[:, :window, :window]
        return grid.reshape(1, window * window, -1)

    def forward(self, templates: Tensor, masks: Tensor, search: Tensor, state: Tensor) -> Found:
        """Normalised RGB: templates (T, 3, 196, 196), search (1, 3, 378, 378); masks (T, 196), 1 on the target's cells.

        `state` (1, dim) is the one before, zeros on the first frame.
        """
        kinds = self.token_type_embed[masks.long()]
        z = self.patch_embed(templates) + self.template_positions() + kinds
        x = self.patch_embed(search) + self.pos_embed + self.token_type_embed[2]
        query = (state + self.track_query + self.query_embed).unsqueeze(0)
        tokens = torch.cat([query, z.reshape(1, -1, z.shape[-1]), x], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        query, features = tokens[:, :1], tokens[:, -x.shape[1] :]
        score, boxes = self.head(features, query, cell_centres(self.sizes.search_cells))
        return Found(score, boxes, query[:, 0])
