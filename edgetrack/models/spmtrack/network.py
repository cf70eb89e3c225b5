"""SPMTrack as published: DINOv2 with expert maps, one token that carries the target from frame to frame."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetrack.errors import CheckpointError
from edgetrack.models.layers.vit import Attention, Mlp, PatchEmbed, Sizes, layer_norm, resized_grid


class Experts(nn.Module):
    """sum_e r_e(x) B_e A x, with r the softmax over all experts of a route per token: all of them always run."""

    def __init__(self, c_in: int, c_out: int, rank: int, count: int) -> None:
        super().__init__()
        self.compress_expert = nn.Parameter(torch.zeros(rank, c_in))
        self.routed_experts = nn.ParameterList([nn.Parameter(torch.zeros(c_out, rank)) for _ in range(count)])
        self.expert_route = nn.Linear(c_in, count, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        route = torch.softmax(self.expert_route(x), dim=-1)
        compressed = torch.matmul(x, self.compress_expert.T)
        total = torch.zeros(())
        for index, expert in enumerate(self.routed_experts):
            total = total + route[..., index : index + 1] * torch.matmul(compressed, expert.T)
        return total

    def each(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What each expert makes of tokens (.., c_in), (.., experts, c_out), and its weight, (.., experts)."""
        compressed = torch.matmul(x, self.compress_expert.T)
        made = torch.stack([torch.matmul(compressed, expert.T) for expert in self.routed_experts], dim=-2)
        return made, torch.softmax(self.expert_route(x), dim=-1)


class ExpertLinear(nn.Module):
    """W x + b + s experts(x).

    Args:
        rank, count: of the experts.
        scale: s = alpha / rank.
    """

    def __init__(self, c_in: int, c_out: int, rank: int, count: int, scale: float) -> None:
        super().__init__()
        self.linear = nn.Linear(c_in, c_out)
        self.tmoe = Experts(c_in, c_out, rank, count)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.scale * self.tmoe(x)


PATCH = 14
MakeLinear = Callable[[int, int], nn.Module]


class Found(NamedTuple):
    """What a step returns: score logits (B, F, F), boxes (B, F, F, 4) x1, y1, x2, y2 in 0..1, state (B, dim)."""

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
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * value)


class LayerScale(nn.Module):
    """A factor for each channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """One transformer layer, (B, N, dim) to the same shape."""

    def __init__(self, dim: int, heads: int, mlp: str, linear: MakeLinear) -> None:
        super().__init__()
        self.norm1 = layer_norm(dim)
        self.attn = Attention(Qkv(dim, linear), linear(dim, dim), heads)
        self.ls1 = LayerScale(dim)
        self.norm2 = layer_norm(dim)
        self.mlp = SwiGlu(dim, linear) if mlp == "swiglu" else Mlp(linear(dim, 4 * dim), linear(4 * dim, dim))
        self.ls2 = LayerScale(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class Tower(nn.Module):
    """Three linear maps with GELU between them."""

    def __init__(self, dim: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, outputs)])

    def forward(self, x: Tensor) -> Tensor:
        first, second, last = self.layers
        return last(F.gelu(second(F.gelu(first(x)))))


class Head(nn.Module):
    """Score and box of each cell."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.cls_mlp, self.reg_mlp = Tower(dim, 1), Tower(dim, 4)

    def forward(self, features: Tensor, query: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Cells (B, F * F, dim), query (B, 1, dim) and cells' centres (F, F, 2) to logits and boxes."""
        cells = points.shape[0]
        weighted = features * torch.matmul(features, query.transpose(1, 2))
        sides = torch.sigmoid(self.reg_mlp(weighted)).reshape(-1, cells, cells, 4)
        boxes = torch.cat([points - sides[..., :2], points + sides[..., 2:]], dim=-1)
        return self.cls_mlp(weighted).reshape(-1, cells, cells), boxes


def cell_centres(cells: int) -> Tensor:
    """(cells, cells, 2): x and y of each cell's centre, 0..1."""
    along = (torch.arange(cells) + 0.5) / cells
    rows, columns = torch.meshgrid(along, along, indexing="ij")
    return torch.stack([columns, rows], dim=-1)


# In DINOv2's file; the tracker has no class token and masks nothing.
_UNUSED = ("cls_token", "mask_token")
_QKV = re.compile(r"(blocks\.\d+\.attn\.qkv)\.(weight|bias)")
_BLOCK = re.compile(r"blocks\.(\d+)\.")
_MAP = re.compile(r"(blocks\.\d+\.(?:attn\.proj|mlp\.(?:fc1|fc2|w12|w3)))\.(weight|bias)")


class Trunk(NamedTuple):
    """Width and layers of a transformer."""

    dim: int
    depth: int


PUBLISHED = {"B": Trunk(768, 12), "L": Trunk(1024, 24), "G": Trunk(1536, 40)}


class SpmTrack(nn.Module):
    """The published network; B has 668 state-dict entries and 115,330,565 parameters.

    Args:
        search_size, template_size: pixels, multiples of 14.
        templates: how many template frames there are at once.
        dim, depth, heads: of the transformer. B is 768, 12, 12; L 1024, 24, 16; G 1536, 40, 24.
        mlp: `gelu`, or `swiglu` for G.
        rank, experts: of the expert maps.
        alpha: the experts' outputs are multiplied by alpha / rank, or by alpha / sqrt(rank) with `rsexpert`.
        routes: whether a step also returns how the routers weigh their experts.
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
        routes: bool = False,
    ) -> None:
        super().__init__()
        if mlp not in ("gelu", "swiglu"):
            raise ValueError(f"mlp is {mlp!r}, expected gelu or swiglu")
        self.sizes = Sizes(PATCH, search_size, template_size, templates)
        self.alpha, self.rsexpert, self.routes = alpha, rsexpert, routes
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
        """The state dict from the tensors of the published file and DINOv2's, or of a merged file, which has its names.

        Raises:
            CheckpointError: the weights are of another variant, the experts were trained with another scale, or
                DINOv2's part is not there.
        """
        _check_trunk(tensors, Trunk(self.pos_embed.shape[-1], len(self.blocks)), source)
        state: dict[str, Tensor] = {}
        cells = self.sizes.search_cells
        scale = {"expert_alpha": self.alpha, "use_rsexpert": self.rsexpert}
        for name, tensor in tensors.items():
            if name in scale:
                _check_scale(name, tensor, scale[name], source)
            elif match := _QKV.fullmatch(name):
                prefix, leaf = match.groups()
                parts = tensor.chunk(3)
                state.update(
                    {f"{prefix}.{part}.linear.{leaf}": t.clone() for part, t in zip("qkv", parts, strict=False)}
                )
            elif match := _MAP.fullmatch(name):
                state[f"{match[1]}.linear.{match[2]}"] = tensor
            elif name == "pos_embed" and tensor.ndim == 3 and tensor.shape[1] != cells * cells:
                state[name] = resized_grid(tensor.float(), cells)
            elif name not in _UNUSED:
                state[name] = tensor
        if "track_query" in state and "norm.weight" not in state:
            raise CheckpointError(
                f"{source} holds only what SPMTrack trained; the rest is DINOv2's: give both files with a comma "
                "between them, --weights model.bin,dinov2_vitb14_pretrain.pth"
            )
        return state

    def template_positions(self) -> Tensor:
        """(1, n, dim): the top left window of the search region's positions, not resized."""
        cells, window = self.sizes.search_cells, self.sizes.template_cells
        grid = self.pos_embed.reshape(1, cells, cells, -1)[:, :window, :window]
        return grid.reshape(1, window * window, -1)

    def forward(self, templates: Tensor, masks: Tensor, search: Tensor, state: Tensor) -> Found:
        """Normalised RGB: templates (B T, 3, 196, 196), search (B, 3, 378, 378); masks (B T, 196), 1 on target cells.

        `state` (B, dim) is the one before, zeros on the first frame.
        """
        kinds = self.token_type_embed[masks.long()]
        z = self.patch_embed(templates) + self.template_positions() + kinds
        x = self.patch_embed(search) + self.pos_embed + self.token_type_embed[2]
        query = (state + self.track_query + self.query_embed).unsqueeze(1)
        tokens = torch.cat([query, z.reshape(x.shape[0], -1, z.shape[-1]), x], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        query, features = tokens[:, :1], tokens[:, -x.shape[1] :]
        score, boxes = self.head(features, query, cell_centres(self.sizes.search_cells))
        return Found(score, boxes, query[:, 0])


def _check_trunk(tensors: Mapping[str, Tensor], expected: Trunk, source: str) -> None:
    """Name the variant that the weights are of, where it is another one."""
    blocks = [int(match[1]) for name in tensors if (match := _BLOCK.match(name))]
    if "track_query" not in tensors or not blocks:
        return
    found = Trunk(tensors["track_query"].shape[-1], max(blocks) + 1)
    if found != expected:
        variant = next((f", which is SPMTrack-{name}" for name, trunk in PUBLISHED.items() if trunk == found), "")
        raise CheckpointError(
            f"{source} is of dim {found.dim} and depth {found.depth}{variant}; the recipe's network has dim "
            f"{expected.dim} and depth {expected.depth}; set dim, depth and heads in a copy of the recipe, "
            "[configuration], and export that file"
        )


def _check_scale(name: str, tensor: Tensor, expected: int, source: str) -> None:
    if tensor.numel() != 1 or tensor.item() != expected:
        found = tensor.item() if tensor.numel() == 1 else f"of shape {tuple(tensor.shape)}"
        key = {"expert_alpha": "alpha", "use_rsexpert": "rsexpert"}[name]
        raise CheckpointError(
            f"{source}: {name} is {found}, the recipe expects {expected}; set {key} in the recipe's [configuration] "
            "to what the weights were trained with"
        )
