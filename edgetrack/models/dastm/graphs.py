"""DASTM's graphs as they ship: `memory` encodes a frame with its target, `step` searches one.

Where one attention is chosen for each frame (`select`, `random`), `memory` returns the map before attention, and `se`,
`ca` and `cbam` are small graphs of their own, of which the runtime runs the chosen one.

Derived from the network by algebra alone: trunks re-parameterised, and only the middle of their last maps computed;
pixel statistics in the first kernel; BatchNorms, the head's scale and its shift in the last convolutions; features as
rows of cells, so that the memory read is two matrix products; absent memories switched off by a mask, exactly. Boxes
leave it as fractions of the crop, so that one tolerance suits them and the scores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from edgetrack.bundle.manifest import TensorInfo
from edgetrack.models.base import GraphModule, Published, shipped, tensors
from edgetrack.models.dastm.network import (
    ATTENTIONS,
    CHOOSING,
    GATED,
    PARTS,
    STRIDE,
    Adjustor,
    Dastm,
    DynamicAttention,
    Found,
    Geometry,
    Head,
    Scores,
    Tower,
)
from edgetrack.models.layers.folding import Affine, after_batch_norm, of_conv, to_conv
from edgetrack.models.layers.mobileone import DeployedMobileOne, MobileOne
from edgetrack.models.layers.vit import MASKED

LARGEST_EXPONENT = 11.0
"""Distances of e^11 cells and more are clamped: exp() of half-precision numbers overflows there."""


class Encoder(nn.Module):
    """A crop (S, S, 3), BGR of 0..255, to features (1, dim, F, F)."""

    mean: Tensor

    def __init__(self, network: Dastm, trunk: MobileOne, neck: Adjustor) -> None:
        super().__init__()
        mean, std = (torch.tensor(values[::-1], dtype=torch.float64) for values in network.pixel_statistics())
        # The mean stays a subtraction: behind it, the padding's zero is that of the published network.
        self.register_buffer("mean", mean.view(1, 3, 1, 1).float())
        stem = trunk.stage0.affine
        scaled = Affine(stem.weight.flip(1) / std.view(1, 3, 1, 1), stem.bias)
        self.trunk = DeployedMobileOne(trunk, network.geometry.crop, scaled)
        self.neck = neck.adjustor

    def forward(self, image: Tensor, hint: Tensor | None = None) -> Tensor:
        """uint8 or float; `hint` is added behind stage 0."""
        pixels = image.permute(2, 0, 1).unsqueeze(0).float() - self.mean
        return self.neck(self.trunk(pixels, hint))


def _cells(features: Tensor) -> Tensor:
    """(1, dim, F, F) to (F * F, dim), row-major cells."""
    return features[0].flatten(1).transpose(0, 1)


def _memory_outputs(dab: DynamicAttention, encoded: Tensor) -> tuple[Tensor, ...] | Tensor:
    """What the mode remembers of a map (1, dim, F, F): see `signatures`."""
    if dab.mode == "random":
        return encoded
    if dab.mode == "select":
        return encoded, dab.weigh(encoded)
    features, weights = dab(encoded)
    return (_cells(features), weights) if dab.mode in GATED else _cells(features)


class MemoryGraph(nn.Module):
    """A crop and the target's place in it to what is remembered of the frame."""

    def __init__(self, network: Dastm) -> None:
        super().__init__()
        trunk = network.basemodel_m
        self.target_map = trunk.proj_fg_bg_label_map
        self.encoder = Encoder(network, trunk, network.neck_m)
        self.dab = network.dab

    def forward(self, image: Tensor, target: Tensor) -> tuple[Tensor, ...] | Tensor:
        """(S, S, 3) and (S, S) to features (F * F, dim), or the map (1, dim, F, F), and the gate's weights (1, 4)."""
        return _memory_outputs(self.dab, self.encoder(image, self.target_map(target[None, None])))


class AttentionGraph(nn.Module):
    """A map (1, dim, F, F) to one attention's form of it as features (F * F, dim)."""

    def __init__(self, dab: DynamicAttention, part: str) -> None:
        super().__init__()
        self.dab, self.part = dab, part

    def forward(self, encoded: Tensor) -> Tensor:
        """To features (F * F, dim), row-major cells."""
        return _cells(self.dab.attend(self.part, encoded))


class MemoryRead(nn.Module):
    """What each of the query's cells finds in all memories, by similarity."""

    def __init__(self, geometry: Geometry, dim: int) -> None:
        super().__init__()
        self.geometry, self.scale = geometry, 1 / math.sqrt(dim)

    def forward(self, memory: Tensor, present: Tensor, query: Tensor) -> Tensor:
        """Memory (T, F * F, dim), `present` (1, T), query (1, dim, F, F) to (1, dim, F, F)."""
        cells, count = self.geometry.cells**2, self.geometry.memories
        keys = memory.reshape(count * cells, -1)
        asked = query[0].flatten(1).transpose(0, 1) * self.scale
        absent = ((1 - present) * MASKED).unsqueeze(-1).expand(1, count, cells).reshape(1, count * cells)
        weights = torch.softmax(torch.matmul(asked, keys.transpose(0, 1)) + absent, dim=-1)
        return torch.matmul(weights, keys).transpose(0, 1).reshape(query.shape)


class Boxes(nn.Module):
    """Logarithms of distances in cells (1, 4, F, F) to corners (1, F, F, 4) as fractions of the crop."""

    points: Tensor

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        self.cell = STRIDE / geometry.image
        self.register_buffer("points", geometry.points() / geometry.image)

    def forward(self, logarithms: Tensor) -> Tensor:
        """x1, y1, x2, y2."""
        edges = torch.exp(torch.clamp(logarithms, max=LARGEST_EXPONENT)).permute(0, 2, 3, 1) * self.cell
        return torch.cat([self.points - edges[..., :2], self.points + edges[..., 2:]], dim=-1)


def _folded(*scores: Scores) -> Affine:
    """1x1 convolutions with their BatchNorms, one after another along the output."""
    maps = [after_batch_norm(of_conv(score.conv), score.bn) for score in scores]
    return Affine(torch.cat([map_.weight for map_ in maps]), torch.cat([map_.bias for map_ in maps]))


def _tower(tower: Tower, last: Affine) -> nn.Sequential:
    """A tower and the 1x1 convolution behind it."""
    return nn.Sequential(tower.conv1, *tower.conv_layers.children(), to_conv(last))


class DeployedHead(nn.Module):
    """Features (1, 2 dim, F, F) to score and boxes."""

    def __init__(self, head: Head, geometry: Geometry) -> None:
        super().__init__()
        self.cls = _tower(head.cls_ctr, _folded(head.cls_score, head.ctr_score))
        offsets, scale = _folded(head.reg_offsets), head.si.detach().double()
        self.reg = _tower(head.reg, Affine(offsets.weight * scale, offsets.bias * scale + head.bi.detach().double()))
        self.boxes = Boxes(geometry)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Score (1, F, F) in 0..1, boxes (1, F, F, 4) as fractions of the crop."""
        both = torch.sigmoid(self.cls(features))
        return both[:, 0] * both[:, 1], self.boxes(self.reg(features))


class StepGraph(nn.Module):
    """A search crop and the memory to score and boxes."""

    def __init__(self, network: Dastm) -> None:
        super().__init__()
        self.encoder = Encoder(network, network.basemodel_q, network.neck_q)
        self.read = MemoryRead(network.geometry, network.neck_q.adjustor.out_channels)
        self.head = DeployedHead(network.head, network.geometry)

    def forward(self, search: Tensor, memory: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """(S, S, 3), (T, F * F, dim) and (1, T), 1 for each memory that there is, less where it fades, else 0."""
        query = self.encoder(search)
        found = self.head(torch.cat([self.read(memory, present, query), query], dim=1))
        return cast("tuple[Tensor, Tensor]", found)


def signatures(network: Dastm) -> dict[str, tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]]:
    """Inputs and outputs of the graphs, in the order in which a frame runs them."""
    size, cells, memories = network.geometry
    dim, mode = network.neck_q.adjustor.out_channels, network.dab.mode
    code = (cells * cells, dim)
    image, search = tensors("uint8", image=(size, size, 3), search=(size, size, 3))
    encoded, features = tensors(map=(1, dim, cells, cells), features=code)
    gates = tensors(gates=(1, len(PARTS))) if mode in GATED else ()
    choosing = mode in CHOOSING
    return {
        "memory": ((image, *tensors(target=(size, size))), (encoded if choosing else features, *gates)),
        **{part: ((encoded,), (features,)) for part in ATTENTIONS if choosing},
        "step": (
            (search, *tensors(memory=(memories, *code), present=(1, memories))),
            tensors(score=(1, cells, cells), boxes=(1, cells, cells, 4)),
        ),
    }


def _graphs(network: Dastm, modules: Mapping[str, nn.Module]) -> tuple[GraphModule, ...]:
    return tuple(
        GraphModule(name, "choice" if name in ATTENTIONS else "step", modules[name], *sides)
        for name, sides in signatures(network).items()
    )


def deploy(network: Dastm) -> tuple[GraphModule, ...]:
    """Graphs that ship."""
    parts = {part: shipped(AttentionGraph(network.dab, part)) for part in ATTENTIONS}
    return _graphs(network, {"memory": shipped(MemoryGraph(network)), "step": shipped(StepGraph(network)), **parts})


def _published_memory(network: Dastm, image: Tensor, target: Tensor) -> tuple[Tensor, ...] | Tensor:
    return _memory_outputs(network.dab, network.encode(network.normalised(image), target[None, None]))


def _published_attention(network: Dastm, encoded: Tensor, *, part: str) -> Tensor:
    return _cells(network.dab.attend(part, encoded))


def _published_step(network: Dastm, search: Tensor, memory: Tensor, present: Tensor) -> Found:
    # Nothing is marked where the arithmetic of a full memory is counted.
    held = memory[present[0] > 0] if present.any() else memory
    faded = (1 - present[present > 0]) * MASKED if present.any() else None
    cells = network.geometry.cells
    keys = held.permute(2, 0, 1).reshape(1, -1, held.shape[0], cells, cells)
    found = network(network.normalised(search), keys, faded)
    return Found(found.score, found.boxes / network.geometry.image)


def reference(network: Dastm) -> tuple[GraphModule, ...]:
    """The same graphs as the network states them: all branches, whole maps, no absent memories."""
    parts = {part: Published(network, partial(_published_attention, part=part)) for part in ATTENTIONS}
    memory, step = (Published(network, run) for run in (_published_memory, _published_step))
    return _graphs(network, {"memory": memory, "step": step, **parts})
