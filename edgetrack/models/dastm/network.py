"""DASTM (arXiv 2503.16768), reimplemented: no official code or weights exist (docs/trackers/dastm.md).

A memory encoder with a dynamic attention block, a query encoder, a memory read and an anchor-free head: STMTrack's
network (arXiv 2104.00324) on MobileOne trunks. What the paper leaves open is assumed; the recipe says what.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from edgetrack.models.dastm.assembly import assemble
from edgetrack.models.dastm.attention import DynamicAttention, Mode, Reductions
from edgetrack.models.layers.mobileone import MobileOne
from edgetrack.models.layers.patches import MEAN, STD

STRIDE = 8
Normalisation = Literal["symmetric", "imagenet"]


class Geometry(NamedTuple):
    """Sizes in pixels of a crop and in cells of what is searched.

    Attributes:
        image: side of a crop, 8 n + 1.
        cells: of the middle of the trunk's map, along a side.
        memories: frames that are read at once.
    """

    image: int
    cells: int
    memories: int

    @property
    def crop(self) -> int:
        """Cells of the trunk's map that are left out at each side."""
        return ((self.image - 1) // STRIDE + 1 - self.cells) // 2

    def check(self) -> None:
        """Raise ValueError where the cells are not the middle of the map."""
        whole = (self.image - 1) // STRIDE + 1
        if self.image % STRIDE != 1 or not 2 <= self.cells <= whole or (whole - self.cells) % 2 or self.memories < 1:
            raise ValueError(
                f"image_size {self.image}, cells {self.cells}, memories {self.memories}: expected a multiple of "
                f"{STRIDE} plus 1, an even number of cells less than the {whole} of its map or all, and 1 or more"
            )

    def points(self) -> Tensor:
        """(cells, cells, 2): x and y of each cell's centre in pixels of the crop."""
        along = torch.arange(self.cells) * float(STRIDE) + self.crop * STRIDE
        rows, columns = torch.meshgrid(along, along, indexing="ij")
        return torch.stack([columns, rows], dim=-1)


class Adjustor(nn.Module):
    """The trunk's channels to the tracker's."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.adjustor = nn.Conv2d(c_in, c_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, F, F) to (B, c_out, F, F)."""
        out: Tensor = self.adjustor(x)
        return out


class MemoryTrunk(MobileOne):
    """MobileOne that also sees where the target is: a map of 1 on it and 0 elsewhere, behind stage 0."""

    def __init__(self, variant: str, width: float, pairs: tuple[int, ...]) -> None:
        super().__init__(variant, width=width, pairs=pairs)
        self.proj_fg_bg_label_map = nn.Conv2d(1, self.channels[0], 3, 2, 1, bias=False)


class Scores(nn.Module):
    """A 1x1 convolution and a BatchNorm."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(c_in, c_out, 1), nn.BatchNorm2d(c_out, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, F, F) to (B, c_out, F, F)."""
        out: Tensor = self.bn(self.conv(x))
        return out


class Tower(nn.Module):
    """3x3 convolutions with ReLU between them."""

    def __init__(self, c_in: int, width: int, further: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, width, 3, padding=1)
        layers: list[nn.Module] = []
        for _ in range(further):
            layers += [nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)]
        self.conv_layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, F, F) to (B, width, F, F)."""
        out: Tensor = self.conv_layers(self.conv1(x))
        return out


class Head(nn.Module):
    """Logits of class and centredness, and distances to the box's edges, of every cell.

    Args:
        dim: channels of the query's features; the head's input has twice as many.
        width, further: of the towers.
    """

    def __init__(self, dim: int, width: int, further: int) -> None:
        super().__init__()
        self.bi, self.si = nn.Parameter(torch.zeros(())), nn.Parameter(torch.ones(()))
        self.cls_ctr, self.reg = Tower(2 * dim, width, further), Tower(2 * dim, width, further)
        self.cls_score, self.ctr_score, self.reg_offsets = Scores(width, 1), Scores(width, 1), Scores(width, 4)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 2 dim, F, F) to class (B, 1, F, F), centredness (B, 1, F, F), left, top, right, bottom (B, 4, F, F)."""
        found, edges = self.cls_ctr(features), self.reg(features)
        distances = torch.exp(self.si * self.reg_offsets(edges) + self.bi) * STRIDE
        return self.cls_score(found), self.ctr_score(found), distances


def read_memory(memory: Tensor, query: Tensor) -> Tensor:
    """What each of the query's cells finds: memory (B, C, T, F, F), query (B, C, F, F) to (B, C, F, F)."""
    keys, asked = memory.flatten(2), query.flatten(2)
    weights = torch.softmax(torch.matmul(keys.transpose(1, 2), asked) / math.sqrt(keys.shape[1]), dim=1)
    return torch.matmul(keys, weights).reshape(query.shape)


class Found(NamedTuple):
    """What a search returns: score (1, F, F) in 0..1, boxes (1, F, F, 4) x1, y1, x2, y2 in pixels of the crop."""

    score: Tensor
    boxes: Tensor


class Dastm(nn.Module):
    """The network; with the defaults 20.7 million parameters as it is trained, 15.8 as it ships.

    Args:
        image_size, cells, memories: see `Geometry`.
        variant, width, blocks: the trunk, see `MobileOne`; `blocks` as `2,8,10`.
        dim: channels of features.
        head_width, head_depth: channels and 3x3 convolutions of a tower.
        normalisation: of pixels: `symmetric` to -1..1, or by ImageNet's mean and deviation.
        gate, temperature, spatial_kernel: of the attention block, see `DynamicAttention`.
        gate_reduction, se_reduction, ca_reduction, cbam_reduction: see `Reductions`.
    """

    def __init__(
        self,
        *,
        image_size: int = 289,
        cells: int = 25,
        memories: int = 6,
        variant: str = "s0",
        width: float = 1.0,
        blocks: str = "2,8,10",
        dim: int = 512,
        head_width: int = 256,
        head_depth: int = 7,
        normalisation: Normalisation = "symmetric",
        gate: Mode = "soft",
        temperature: float = 1.0,
        spatial_kernel: int = 7,
        gate_reduction: int = 16,
        se_reduction: int = 16,
        ca_reduction: int = 32,
        cbam_reduction: int = 16,
    ) -> None:
        super().__init__()
        if normalisation not in ("symmetric", "imagenet"):
            raise ValueError(f"normalisation is {normalisation!r}, expected symmetric or imagenet")
        if head_depth < 1:
            raise ValueError(f"head_depth is {head_depth}, expected 1 or more")
        self.geometry, self.normalisation, self.variant = Geometry(image_size, cells, memories), normalisation, variant
        self.geometry.check()
        pairs = tuple(int(count) for count in blocks.split(","))
        reductions = Reductions(gate_reduction, se_reduction, ca_reduction, cbam_reduction)
        self.basemodel_m = MemoryTrunk(variant, width, pairs)
        self.basemodel_q = MobileOne(variant, width=width, pairs=pairs)
        channels = self.basemodel_q.channels[-1]
        self.neck_m, self.neck_q = Adjustor(channels, dim), Adjustor(channels, dim)
        self.dab = DynamicAttention(dim, reductions, kernel=spatial_kernel, temperature=temperature, mode=gate)
        self.head = Head(dim, head_width, head_depth - 1)

    def assemble(self, tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
        """A checkpoint's tensors as this network's state dict; see `edgetrack.models.dastm.assembly`."""
        return assemble(
            self.variant, {"basemodel_m": self.basemodel_m, "basemodel_q": self.basemodel_q}, tensors, source
        )

    def pixel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation of RGB values of 0..255."""
        if self.normalisation == "imagenet":
            return tuple(255 * value for value in MEAN), tuple(255 * value for value in STD)
        return (127.5,) * 3, (127.5,) * 3

    def normalised(self, image: Tensor) -> Tensor:
        """BGR (H, W, 3) of 0..255 to normalised RGB (1, 3, H, W)."""
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in self.pixel_statistics())
        return (image.permute(2, 0, 1).flip(0).unsqueeze(0).float() - mean) / std

    def _middle(self, features: Tensor) -> Tensor:
        crop = self.geometry.crop
        return features[:, :, crop : features.shape[2] - crop, crop : features.shape[3] - crop]

    def memorise(self, image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Image (B, 3, S, S), map of the target (B, 1, S, S) to features (B, dim, F, F) and gate weights (B, 4)."""
        trunk = self.basemodel_m
        features: tuple[Tensor, Tensor] = self.dab(
            self.neck_m(self._middle(trunk(image, trunk.proj_fg_bg_label_map(target))))
        )
        return features

    def forward(self, image: Tensor, memory: Tensor) -> Found:
        """Image (1, 3, S, S) and features (1, dim, T, F, F) to scores and boxes."""
        query = self.neck_q(self._middle(self.basemodel_q(image)))
        cls, ctr, distances = self.head(torch.cat([read_memory(memory, query), query], dim=1))
        points, edges = self.geometry.points(), distances.permute(0, 2, 3, 1)
        boxes = torch.cat([points - edges[..., :2], points + edges[..., 2:]], dim=-1)
        return Found((torch.sigmoid(cls) * torch.sigmoid(ctr))[:, 0], boxes)
