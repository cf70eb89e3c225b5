"""ATSTrack's graphs as they ship: `text`, once for a description, and `step`, for every frame.

Derived from the described network by algebra alone: absent words are switched off by a mask, the mean of cosines is one
cosine with a mean, the median is a sorted list times a vector that picks one, and the last block computes only what the
head and the words read. What is switched off is not in the graph; without attributes there is no graph `text`.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetrack.bundle.manifest import TensorInfo
from edgetrack.models.atstrack.network import (
    LOCATION,
    SOURCES,
    SPREAD_EPS,
    STEEPEST,
    AtsTrack,
    CrossAttention,
    Description,
    Modulation,
)
from edgetrack.models.base import GraphModule, Published, shipped, tensors
from edgetrack.models.layers.center_head import DeployedCenterHead
from edgetrack.models.layers.clip_text import DeployedTextTower
from edgetrack.models.layers.vit import Block, PixelEmbed, looked_at, normalised

# Above any cosine: absent words sort behind all others.
BEHIND = 1e4
Signature = tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]


class TextGraph(nn.Module):
    """Token ids of every attribute's phrase, each (1, L), to words (A, L, dim)."""

    def __init__(self, network: AtsTrack) -> None:
        super().__init__()
        self.tower = DeployedTextTower(network.text, network.text_tokens)
        self.proj = network.lang_proj

    def forward(self, *phrases: Tensor) -> Tensor:
        """Phrases in the order of the attributes."""
        return self.proj(self.tower(torch.cat(phrases)))


class Gate(nn.Module):
    """How far the words of the location are borne out by the search region."""

    def __init__(self, published: Modulation) -> None:
        super().__init__()
        self.shift, self.sharpness = published.shift, published.sharpness

    def forward(self, words: Tensor, search: Tensor, mask: Tensor, median: Tensor) -> Tensor:
        """Words (1, L, dim), tokens (1, N, dim), which words there are (1, L), the median's rank (1, L): (1, L)."""
        # The mean over places of a word's cosine is its product with the mean of unit vectors.
        mean = F.normalize(search, dim=-1).mean(dim=1, keepdim=True)
        similarity = (F.normalize(words, dim=-1) * mean).sum(dim=-1)
        ordered = torch.topk(similarity * mask + (1 - mask) * BEHIND, mask.shape[-1], largest=False).values
        count = torch.clamp(mask.sum(dim=-1, keepdim=True), min=1)
        from_mean = (similarity - (similarity * mask).sum(dim=-1, keepdim=True) / count) * mask
        variance = (from_mean * from_mean).sum(dim=-1, keepdim=True) / count
        threshold = (ordered * median).sum(dim=-1, keepdim=True) - self.shift * variance
        slope = torch.clamp(self.sharpness / (torch.sqrt(variance) + SPREAD_EPS), max=STEEPEST)
        return torch.sigmoid(slope * (similarity - threshold))


class DeployedModulation(nn.Module):
    """All attributes of one source ask at once; absent words are weighted with 0."""

    def __init__(self, published: Modulation) -> None:
        super().__init__()
        names = published.attributes
        self.sources = [
            (source, sum(SOURCES[name] == source for name in names))
            for source in dict.fromkeys(SOURCES[name] for name in names)
        ]
        self.modulation = published.modulation
        for source, _ in self.sources if published.modulation else ():
            self.add_module(source, cast(CrossAttention, published.attention(source)))
        self.gate = Gate(published) if published.gated else None

    def forward(
        self, language: Tensor, mask: Tensor, median: Tensor | None, visual: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """As the described modulation; `median` (1, L) is 1 at the rank of the location's median.

        Returns:
            All words (1, A L, dim), and by how much each counts (1, A L), 0 for those that are not there.
        """
        shape, start, parts = language.shape, 0, []
        weights = mask
        for source, rows in self.sources:
            words = language[start : start + rows].reshape(1, rows * shape[1], shape[2])
            if self.modulation:
                words = words + self.get_submodule(source)(words, visual[source])
            if self.gate is not None and source == SOURCES[LOCATION]:
                there = mask[start : start + rows]
                weights = torch.cat(
                    [mask[:start], there * self.gate(words, visual[source], there, cast(Tensor, median))]
                )
            parts.append(words)
            start += rows
        return torch.cat(parts, dim=1), weights.reshape(1, -1)


class StepGraph(nn.Module):
    """Crops (BGR, 0..255), the carried tokens and the words to maps and the next tokens."""

    position_z: Tensor
    position_x: Tensor
    offsets: Tensor

    def __init__(self, network: AtsTrack) -> None:
        super().__init__()
        backbone, self.sizes, self.slots = network.backbone, network.sizes, network.slots
        self.embed = PixelEmbed(backbone.patch_embed)
        self.register_buffer("position_z", backbone.pos_embed_z.detach())
        self.register_buffer("position_x", backbone.pos_embed_x.detach())
        offsets = [(backbone.cls_token + backbone.cls_pos_embed).detach()]
        if network.slots == 2:
            offsets.append(network.lang_pos_embed.detach())
        self.register_buffer("offsets", torch.cat(offsets, dim=1))
        self.blocks, self.norm = backbone.blocks, backbone.norm
        self.head = DeployedCenterHead(network.box_head)
        self.fgm = DeployedModulation(network.fgm) if network.attributes else None
        self.lang_attn = network.lang_attn if network.attributes and network.slots == 1 else None
        self.first = _first_read(network)
        self.attention_maps = network.attention_maps

    def forward(self, search: Tensor, templates: Tensor, carried: Tensor, *said: Tensor) -> tuple[Tensor, ...]:
        """(S, S, 3), (T, s, s, 3), (1, slots, dim); words (A, L, dim), mask (A, L), median."""
        sizes, count = self.sizes, self.sizes.templates * self.sizes.template_tokens
        z = self.embed(templates) + self.position_z
        x = self.embed(search.unsqueeze(0)) + self.position_x
        # Templates in front, so that the last block can leave out what nothing reads; attention does not see the order.
        tokens = torch.cat([z.reshape(1, count, -1), carried + self.offsets, x], dim=1)
        for block in self.blocks[:-1]:
            tokens = block(tokens)
        last = cast(Block, self.blocks[-1])
        looked: tuple[Tensor, ...] = ()
        if self.attention_maps:
            everywhere = looked_at(last, tokens, count, self.slots)[:, :, count + self.slots :]
            looked = everywhere.reshape(self.slots, 1, sizes.search_cells, sizes.search_cells).unbind()
        tokens = self.norm(last(tokens, self.first))
        left = count - self.first
        query, x = tokens[:, left : left + 1], tokens[:, left + self.slots :]
        weighted = x * torch.matmul(x, query.transpose(1, 2))
        maps = self.head(weighted.transpose(1, 2).reshape(1, -1, sizes.search_cells, sizes.search_cells))
        if self.fgm is None:
            return (*maps, query, *looked)
        z = tokens[:, :left]
        visual = {"template": z[:, -sizes.template_tokens :] if left else z, "sequence": z, "search": x}
        words, weights = self.fgm(said[0], said[1], said[2] if len(said) > 2 else None, visual)
        there = said[1].reshape(1, -1)
        if self.lang_attn is not None:
            return (*maps, query + self.lang_attn(query, words * weights.unsqueeze(-1), there), *looked)
        mean = torch.matmul(weights.unsqueeze(1), words) / torch.clamp(there.sum(), min=1)
        return (*maps, torch.cat([query, mean], dim=1), *looked)


def _first_read(network: AtsTrack) -> int:
    """The first template token whose features are read after the last block; all of them are keys in it."""
    count, each = network.sizes.templates, network.sizes.template_tokens
    sources = {SOURCES[name] for name in network.attributes if network.fgm.modulation}
    if "sequence" in sources:
        return 0
    return (count - 1) * each if "template" in sources else count * each


def signatures(network: AtsTrack) -> dict[str, Signature]:
    """Inputs and outputs of `text`, where there is language, and of `step`."""
    sizes, attributes = network.sizes, network.attributes
    cells, dim = sizes.search_cells, network.backbone.norm.weight.shape[0]
    words = (max(len(attributes), 1), network.text_tokens)
    templates = (sizes.templates, sizes.template, sizes.template, 3)
    step = [
        *tensors("uint8", search=(sizes.search, sizes.search, 3), templates=templates),
        *tensors(tokens=(1, network.slots, dim)),
    ]
    if attributes:
        step += tensors(language=(*words, dim), mask=words)
    if attributes and network.fgm.gated:
        step += tensors(median=(1, network.text_tokens))
    looked = (("token",), ("visual", "language"))[network.slots - 1] if network.attention_maps else ()
    maps = tensors(
        score=(1, 1, cells, cells),
        size=(1, 2, cells, cells),
        offset=(1, 2, cells, cells),
        next_tokens=(1, network.slots, dim),
        **{f"attention_{name}": (1, cells, cells) for name in looked},
    )
    found: dict[str, Signature] = {}
    if attributes:
        phrases = dict.fromkeys(attributes, (1, network.text_tokens))
        found["text"] = (tensors("int32", **phrases), tensors(language=(*words, dim)))
    found["step"] = (tuple(step), maps)
    return found


def deploy(network: AtsTrack) -> tuple[GraphModule, ...]:
    """The graphs that ship."""
    return tuple(
        GraphModule("step", "step", shipped(StepGraph(network)), *sides)
        if name == "step"
        else GraphModule(name, "init", shipped(TextGraph(network)), *sides)
        for name, sides in signatures(network).items()
    )


def _published_text(network: AtsTrack, *phrases: Tensor) -> Tensor:
    return network.words(torch.cat(phrases))


def _published_step(
    network: AtsTrack, search: Tensor, templates: Tensor, state: Tensor, *said: Tensor
) -> tuple[Tensor, ...]:
    description = None
    if said:
        words, mask = said[:2]
        # Nothing is marked where the arithmetic of full phrases is counted.
        description = Description(words, mask if mask.any() else torch.ones_like(mask))
    *maps, looked = network(normalised(templates), normalised(search.unsqueeze(0)), state, description)
    return (*maps, *(() if looked is None else looked.transpose(0, 1)))


def reference(network: AtsTrack) -> tuple[GraphModule, ...]:
    """Graphs `text` (where there is language) and `step` on the described modules."""
    return tuple(
        GraphModule("step", "step", Published(network, _published_step), *sides)
        if name == "step"
        else GraphModule(name, "init", Published(network, _published_text), *sides)
        for name, sides in signatures(network).items()
    )
