"""Fine-grained modulation: each attribute's words look at the part of the video that they speak of.

The paper gives the roles; the layers are assumed, since no code is published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetrack.models.atstrack.attributes import SOURCES
from edgetrack.models.layers.vit import attend, layer_norm

LOCATION = "location"
# Of the gate: a spread of zero must not divide, and the steepest slope.
SPREAD_EPS = 1e-6
STEEPEST = 1e3


class CrossAttention(nn.Module):
    """What words find in visual tokens; the words are normalised first, the visual tokens come normalised."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm = layer_norm(dim)
        self.q, self.k, self.v = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)
        self.heads = heads

    def forward(self, words: Tensor, visual: Tensor) -> Tensor:
        """Words (1, M, dim) and visual tokens (1, N, dim) to what is added to the words."""
        found = attend(self._split(self.q(self.norm(words))), self._split(self.k(visual)), self._split(self.v(visual)))
        out: Tensor = self.proj(found.transpose(1, 2).reshape(words.shape))
        return out

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(1, x.shape[1], self.heads, -1).transpose(1, 2)


class Modulation(nn.Module):
    """An attention for each source of visual tokens that one of the attributes looks at.

    Args:
        attributes: the ones that are switched on.
        dim, heads: of the attention.
        shift: the gate's threshold is the median less so many standard deviations.
        sharpness: the gate's slope in standard deviations.
    """

    def __init__(self, attributes: Sequence[str], dim: int, heads: int, shift: float, sharpness: float) -> None:
        super().__init__()
        self.attributes = tuple(attributes)
        self.shift, self.sharpness = shift, sharpness
        for source in dict.fromkeys(SOURCES[name] for name in attributes):
            self.add_module(source, CrossAttention(dim, heads))

    def attention(self, source: str) -> nn.Module:
        """The attention of one source."""
        return self.get_submodule(source)

    def forward(self, language: Tensor, mask: Tensor, visual: Mapping[str, Tensor]) -> Tensor:
        """What the words say together, (1, 1, dim).

        Args:
            language: (A, L, dim), a row for each attribute.
            mask: (A, L): 1 for a word that is there.
            visual: source -> tokens (1, N, dim).
        """
        total, count = language.new_zeros(language.shape[-1]), 0
        for name, row, there in zip(self.attributes, language, mask, strict=True):
            words = row[there > 0].unsqueeze(0)
            if not words.shape[1]:
                continue
            tokens = visual[SOURCES[name]]
            words = words + self.attention(SOURCES[name])(words, tokens)
            weight = self.gate(words[0], tokens[0]) if name == LOCATION else words.new_ones(words.shape[1])
            total = total + (weight[:, None] * words[0]).sum(dim=0)
            count += words.shape[1]
        return total.reshape(1, 1, -1) / max(count, 1)

    def gate(self, words: Tensor, search: Tensor) -> Tensor:
        """How far the search region's tokens (N, dim) bear out each word (M, dim) of the location: (M,), 0..1."""
        similarity = (F.normalize(search, dim=-1) @ F.normalize(words, dim=-1).T).mean(dim=0)
        spread = similarity.std(unbiased=False)
        threshold = similarity.median() - self.shift * spread
        slope = torch.clamp(self.sharpness / (spread + SPREAD_EPS), max=STEEPEST)
        return torch.sigmoid(slope * (similarity - threshold))
