"""ATSTrack as its paper describes it: ODTrack with a second token that carries what the words say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetrack.errors import CheckpointError
from edgetrack.models.layers.center_head import CenterHead, Maps
from edgetrack.models.layers.clip_text import TextTower
from edgetrack.models.layers.vit import MASKED, PATCH, Block, JointBackbone, Sizes, attend, layer_norm, looked_at

# Attribute -> the visual tokens it is modulated by: the latest template's, all templates', or the search region's.
SOURCES = {"category": "template", "appearance": "template", "action": "sequence", "location": "search"}


def parse_attributes(text: str) -> tuple[str, ...]:
    """`category, action` as names in the order of the paper; empty for a network without language.

    Raises:
        ValueError: there is no such attribute, or one is named twice.
    """
    names = [name.strip() for name in text.split(",")] if text.strip() else []
    unknown = [name for name in names if name not in SOURCES]
    if unknown or len(set(names)) < len(names):
        raise ValueError(
            f"attributes is {text!r}, expected some of {', '.join(SOURCES)}, each once with commas between them, or an "
            "empty text for none"
        )
    return tuple(name for name in SOURCES if name in names)


LOCATION = "location"
# Of the gate: a spread of zero must not divide, and the steepest slope.
SPREAD_EPS = 1e-6
STEEPEST = 1e3


class CrossAttention(nn.Module):
    """What tokens find in those of the other kind: words in visual tokens, or the visual token in words.

    Those that ask are normalised first.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm = layer_norm(dim)
        self.q, self.k, self.v = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)
        self.heads = heads

    def forward(self, asking: Tensor, asked: Tensor, mask: Tensor | None = None) -> Tensor:
        """(1, M, dim) and (1, N, dim) to (1, M, dim), which is added to those that ask; `mask` (1, N) is 1 for keys."""
        absent = None if mask is None else ((1 - mask) * MASKED)[:, None, None]
        query, key, value = self.q(self.norm(asking)), self.k(asked), self.v(asked)
        found = attend(self._split(query), self._split(key), self._split(value), absent)
        return self.proj(found.transpose(1, 2).reshape(asking.shape))

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(1, x.shape[1], self.heads, -1).transpose(1, 2)


class Modulation(nn.Module):
    """Fine-grained modulation: what is seen tells what of the words holds, attribute by attribute.

    Args:
        attributes: the ones that are switched on.
        dim, heads: of the attentions.
        modulation: whether words ask the visual tokens of their attribute; without, they stay as the text tower says.
        ablation: whether the location's words are weighted by the gate; without, they count like the others.
        shift: variances by which the gate's threshold lies below the median.
        sharpness: the gate's slope in standard deviations.
    """

    def __init__(
        self,
        attributes: Sequence[str],
        dim: int,
        heads: int,
        *,
        modulation: bool = True,
        ablation: bool = True,
        shift: float = 1.0,
        sharpness: float = 10.0,
    ) -> None:
        super().__init__()
        self.attributes = tuple(attributes)
        self.modulation, self.gated = modulation, ablation and LOCATION in self.attributes
        self.shift, self.sharpness = shift, sharpness
        for source in dict.fromkeys(SOURCES[name] for name in attributes if modulation):
            self.add_module(source, CrossAttention(dim, heads))

    def attention(self, source: str) -> nn.Module:
        """The attention of one source."""
        return self.get_submodule(source)

    def forward(self, language: Tensor, mask: Tensor, visual: Mapping[str, Tensor]) -> Tensor:
        """The words that are there, modulated and weighted, (1, M, dim).

        Args:
            language: (A, L, dim), a row for each attribute.
            mask: (A, L): 1 for a word that is there.
            visual: source -> tokens (1, N, dim).
        """
        found = []
        for name, row, there in zip(self.attributes, language, mask, strict=True):
            words, tokens = row[there > 0].unsqueeze(0), visual[SOURCES[name]]
            if self.modulation and words.shape[1]:
                words = words + self.attention(SOURCES[name])(words, tokens)
            if self.gated and name == LOCATION and words.shape[1]:
                words = self.gate(words[0], tokens[0])[:, None] * words
            found.append(words)
        return torch.cat(found, dim=1)

    def gate(self, words: Tensor, search: Tensor) -> Tensor:
        """How far the search region's tokens (N, dim) bear out each word (M, dim) of the location: (M,), 0..1."""
        similarity = (F.normalize(search, dim=-1) @ F.normalize(words, dim=-1).T).mean(dim=0)
        variance = similarity.var(unbiased=False)
        threshold = similarity.median() - self.shift * variance
        slope = torch.clamp(self.sharpness / (variance.sqrt() + SPREAD_EPS), max=STEEPEST)
        return torch.sigmoid(slope * (similarity - threshold))


class Description(NamedTuple):
    """What is said of B targets: words (B A, L, dim), and a mask (B A, L) that is 1 for words that are there."""

    words: Tensor
    mask: Tensor


class Found(NamedTuple):
    """What a step returns: maps as of the head, the state (B, slots, dim), and where its tokens looked.

    `looked` (B, slots, F, F) is None where the network is not asked for it.
    """

    score: Tensor
    size: Tensor
    offset: Tensor
    state: Tensor
    looked: Tensor | None


class Backbone(JointBackbone):
    """ODTrack's ViT-B/16."""

    def __init__(self, sizes: Sizes, dim: int, depth: int, heads: int) -> None:
        super().__init__(sizes, dim, [Block(dim, heads) for _ in range(depth)])
        self.cls_pos_embed = nn.Parameter(torch.zeros(1, 1, dim))

    def forward(self, templates: Tensor, search: Tensor, visual: Tensor, lingual: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised RGB (B T, 3, h, w) and (B, 3, H, W), carried tokens (B, 1, dim), words' tokens (B, 0 or 1, dim).

        Returns:
            (B, N, dim): the carried token, the words', templates one after another, the search region; and what the
            last layer made them of.
        """
        query = self.cls_token + visual + self.cls_pos_embed
        tokens = before = torch.cat([query, lingual, self.tokens(templates, search)], dim=1)
        for block in self.blocks:
            before, tokens = tokens, block(tokens)
        return self.norm(tokens), before


TOWER = "text."
# Top-level names of the text tower in CLIP's own file, and of what lies beside it there.
_CLIP_TEXT = ("positional_embedding", "text_projection", "logit_scale", "transformer.", "token_embedding.", "ln_final.")
_CLIP_REST = ("visual.", "input_resolution", "context_length", "vocab_size")


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
        modulation: whether the words ask what is seen (VFM); without, they stay as the text tower says.
        ablation: whether the location's words are weighted by a gate (LFA).
        gate_shift, gate_sharpness: of that gate, in variances and in standard deviations.
        fusion: how the visual token and the words are handed on: `concatenation`, side by side, or `attention`, one
            token: the visual one that has asked the words.
        attention_maps: whether a step also returns where these tokens looked in the last layer.
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
        modulation: bool = True,
        ablation: bool = True,
        gate_shift: float = 1.0,
        gate_sharpness: float = 10.0,
        fusion: Literal["concatenation", "attention"] = "concatenation",
        attention_maps: bool = False,
    ) -> None:
        super().__init__()
        if fusion not in ("concatenation", "attention"):
            raise ValueError(f"fusion is {fusion!r}, expected concatenation or attention")
        if not 3 <= text_tokens <= text_context:
            raise ValueError(f"text_tokens is {text_tokens}, expected 3 to text_context = {text_context}")
        if heads < 1 or dim % heads:
            raise ValueError(f"heads is {heads}, expected a divisor of dim = {dim}")
        if templates < 1:
            raise ValueError(f"templates is {templates}, expected 1 or more")
        self.sizes = Sizes(PATCH, search_size, template_size, templates)
        self.text_tokens = text_tokens
        self.attributes = parse_attributes(attributes)
        self.slots = 2 if self.attributes and fusion == "concatenation" else 1
        self.attention_maps = attention_maps
        self.backbone = Backbone(self.sizes, dim, depth, heads)
        self.box_head = CenterHead(dim, head_channels)
        if self.attributes:
            self.text = TextTower(text_dim, text_depth, text_heads, text_context, vocabulary)
            self.lang_proj = nn.Linear(text_dim, dim)
            if self.slots == 2:
                self.lang_pos_embed = nn.Parameter(torch.zeros(1, 1, dim))
            else:
                self.lang_attn = CrossAttention(dim, heads)
            self.fgm = Modulation(
                self.attributes,
                dim,
                heads,
                modulation=modulation,
                ablation=ablation,
                shift=gate_shift,
                sharpness=gate_sharpness,
            )

    def assemble(self, tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
        """Weights of one file or two as this network's state dict; CLIP's names are taken as they are in its file.

        What belongs to attributes or to a modulation that is switched off is left out, so that a checkpoint of the
        whole network gives the ablation without it.

        Raises:
            CheckpointError: the file is ODTrack's, which has no language part, or the text tower is missing.
        """
        state: dict[str, Tensor] = {}
        off: tuple[str, ...] = (TOWER, "fgm.", "lang_")
        if self.attributes:
            off = tuple(f"fgm.{source}." for source in SOURCES.values() if not hasattr(self.fgm, source))
        for name, tensor in tensors.items():
            key = f"{TOWER}{name}" if name.startswith(_CLIP_TEXT) else name
            if not name.startswith(_CLIP_REST) and not key.startswith(off):
                state[key] = tensor
        if self.attributes and "backbone.cls_pos_embed" in state:
            _require_language(state, source)
        return state

    def words(self, ids: Tensor) -> Tensor:
        """Token ids (A, L), padded with 0, to (A, L, dim)."""
        padded = ids.new_zeros(len(ids), self.text.positional_embedding.shape[0])
        padded[:, : ids.shape[1]] = ids
        return self.lang_proj(self.text(padded)[:, : ids.shape[1]])

    def forward(self, templates: Tensor, search: Tensor, state: Tensor, description: Description | None) -> Found:
        """Normalised RGB: templates (B T, 3, 192, 192), search (B, 3, 384, 384); the state before, (B, slots, dim).

        On the first frame the state's visual token is zero and the words' the mean of the words; where both are one
        token, it is that mean.
        """
        visual, lingual = state[:, :1], state[:, 1:]
        if self.slots == 2:
            lingual = lingual + self.lang_pos_embed
        tokens, before = self.backbone(templates, search, visual, lingual)
        count = self.backbone.pos_embed_x.shape[1]
        query, x = tokens[:, :1], tokens[:, -count:]
        maps = self._maps(query, x)
        looked = None
        if self.attention_maps:
            everywhere = looked_at(cast(Block, self.backbone.blocks[-1]), before, 0, self.slots)
            looked = everywhere[..., -count:].reshape(-1, self.slots, *maps[0].shape[-2:])
        if description is None:
            return Found(*maps, query, looked)
        z = tokens[:, self.slots : -count]
        latest = z[:, -self.backbone.pos_embed_z.shape[1] :]
        visible = {"template": latest, "sequence": z, "search": x}
        words, mask = (part.reshape(len(x), -1, *part.shape[1:]) for part in description)
        said = [
            self.fgm(words[n], mask[n], {source: tokens[n : n + 1] for source, tokens in visible.items()})
            for n in range(len(x))
        ]
        handed_on = [self._handed_on(query[n : n + 1], found) for n, found in enumerate(said)]
        return Found(*maps, torch.cat(handed_on), looked)

    def _handed_on(self, query: Tensor, words: Tensor) -> Tensor:
        """The visual token (1, 1, dim) and the words (1, M, dim) as the next state, (1, slots, dim)."""
        if self.slots == 1:
            return query + self.lang_attn(query, words)
        return torch.cat([query, words.sum(dim=1, keepdim=True) / max(words.shape[1], 1)], dim=1)

    def _maps(self, query: Tensor, x: Tensor) -> Maps:
        weighted = x * torch.matmul(x, query.transpose(1, 2))
        cells = round(x.shape[1] ** 0.5)
        return self.box_head(weighted.transpose(1, 2).reshape(x.shape[0], -1, cells, cells))


def _require_language(state: Mapping[str, Tensor], source: str) -> None:
    parts = {prefix: any(name.startswith(prefix) for name in state) for prefix in (TOWER, "fgm.", "lang_")}
    if not parts["fgm."] and not parts["lang_"]:
        raise CheckpointError(
            f"{source} holds ODTrack's tensors alone, without ATSTrack's language part (fgm.*, lang_*); give a "
            'checkpoint of ATSTrack, or set attributes = "" in a copy of the recipe for the tracker without language'
        )
    if not parts[TOWER]:
        raise CheckpointError(
            f"{source} holds no text tower; give CLIP's file too, with a comma between them: "
            "--weights atstrack.pth.tar,clip-vit-b-32.pt (its state_dict, not the TorchScript archive)"
        )
