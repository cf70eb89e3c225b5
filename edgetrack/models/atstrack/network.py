"""ATSTrack as its paper describes it: ODTrack with a second token that carries what the words say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from edgetrack.models.atstrack.assembly import assemble
from edgetrack.models.atstrack.attributes import parse_attributes
from edgetrack.models.atstrack.modulation import Modulation
from edgetrack.models.layers.center_head import CenterHead, Maps
from edgetrack.models.layers.clip_text import TextTower
from edgetrack.models.layers.joint_backbone import PATCH, JointBackbone
from edgetrack.models.layers.patches import Sizes
from edgetrack.models.layers.vit import Block


class Description(NamedTuple):
    """What is said of the target: words (A, L, dim), and a mask (A, L) that is 1 for words that are there."""

    words: Tensor
    mask: Tensor


class Found(NamedTuple):
    """What a step returns: maps as of the head, and the state (1, 2, dim): the visual token, the words'."""

    score: Tensor
    size: Tensor
    offset: Tensor
    state: Tensor


class Backbone(JointBackbone):
    """ODTrack's ViT-B/16."""

    def __init__(self, sizes: Sizes, dim: int, depth: int, heads: int) -> None:
        super().__init__(sizes, dim, [Block(dim, heads) for _ in range(depth)])
        self.cls_pos_embed = nn.Parameter(torch.zeros(1, 1, dim))

    def forward(self, templates: Tensor, search: Tensor, visual: Tensor, lingual: Tensor) -> Tensor:
        """Normalised RGB (T, 3, h, w) and (1, 3, H, W), the carried token (1, 1, dim), words' tokens (1, 0 or 1, dim).

        Returns:
            (1, N, dim): the carried token, the words', templates one after another, the search region.
        """
        query = self.cls_token + visual + self.cls_pos_embed
        tokens = torch.cat([query, lingual, self.tokens(templates, search)], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        out: Tensor = self.norm(tokens)
        return out


class AtsTrack(nn.Module):
    """The network; the visual part alone (`attributes=""`) is ODTrack-B384: 243 entries, 92,826,501 parameters.

    Args:
        search_size, template_size: pixels, multiples of 16.
        templates: how many template frames there are at once.
        dim, depth, heads: of the visual transformer.
        head_channels: of the head's first convolutions, a multiple of 8.
        attributes: which of category, appearance, action and location are read; empty for none.
        text_dim, text_depth, text_heads, text_context, vocabulary: of CLIP's tower.
        text_tokens: of a phrase that are read, its start and end included.
        gate_shift, gate_sharpness: of the location's gate, in standard deviations.
    """

    def __init__(
        self,
        *,
        search_size: int = 384,
        template_size: int = 192,
        templates: int = 3,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        head_channels: int = 256,
        attributes: str = "category, appearance, action, location",
        text_dim: int = 512,
        text_depth: int = 12,
        text_heads: int = 8,
        text_context: int = 77,
        vocabulary: int = 49408,
        text_tokens: int = 16,
        gate_shift: float = 1.0,
        gate_sharpness: float = 10.0,
    ) -> None:
        super().__init__()
        if not 3 <= text_tokens <= text_context:
            raise ValueError(f"text_tokens is {text_tokens}, expected 3 to text_context = {text_context}")
        if heads < 1 or dim % heads:
            raise ValueError(f"heads is {heads}, expected a divisor of dim = {dim}")
        if templates < 1:
            raise ValueError(f"templates is {templates}, expected 1 or more")
        self.sizes = Sizes(PATCH, search_size, template_size, templates)
        self.text_tokens = text_tokens
        self.attributes = parse_attributes(attributes)
        self.backbone = Backbone(self.sizes, dim, depth, heads)
        self.box_head = CenterHead(dim, head_channels)
        if self.attributes:
            self.text = TextTower(text_dim, text_depth, text_heads, text_context, vocabulary)
            self.lang_proj = nn.Linear(text_dim, dim)
            self.lang_pos_embed = nn.Parameter(torch.zeros(1, 1, dim))
            self.fgm = Modulation(self.attributes, dim, heads, gate_shift, gate_sharpness)

    @property
    def slots(self) -> int:
        """Tokens of the carried state."""
        return 2 if self.attributes else 1

    def assemble(self, tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
        """Weights of one file or two as this network's state dict; see `edgetrack.models.atstrack.assembly`."""
        return assemble(tensors, source, reads=bool(self.attributes))

    def words(self, ids: Tensor) -> Tensor:
        """Token ids (A, L), padded with 0, to (A, L, dim)."""
        padded = ids.new_zeros(len(ids), self.text.positional_embedding.shape[0])
        padded[:, : ids.shape[1]] = ids
        out: Tensor = self.lang_proj(self.text(padded)[:, : ids.shape[1]])
        return out

    def forward(self, templates: Tensor, search: Tensor, state: Tensor, description: Description | None) -> Found:
        """Normalised RGB: templates (T, 3, 192, 192), search (1, 3, 384, 384); the state before, (1, slots, dim).

        On the first frame the state's visual token is zero and the words' the mean of the words.
        """
        visual, lingual = state[:, :1], state[:, 1:]
        if description is not None:
            lingual = lingual + self.lang_pos_embed
        tokens = self.backbone(templates, search, visual, lingual)
        count = self.backbone.pos_embed_x.shape[1]
        query, x = tokens[:, :1], tokens[:, -count:]
        score, size, offset = self._maps(query, x)
        if description is None:
            return Found(score, size, offset, query)
        z = tokens[:, self.slots : -count]
        latest = z[:, -self.backbone.pos_embed_z.shape[1] :]
        said = self.fgm(*description, {"template": latest, "sequence": z, "search": x})
        return Found(score, size, offset, torch.cat([query, said], dim=1))

    def _maps(self, query: Tensor, x: Tensor) -> Maps:
        weighted = x * torch.matmul(x, query.transpose(1, 2))
        cells = round(x.shape[1] ** 0.5)
        maps: Maps = self.box_head(weighted.transpose(1, 2).reshape(1, -1, cells, cells))
        return maps
