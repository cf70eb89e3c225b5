"""ATSTrack's training (arXiv 2507.00454): visual part and language layers, CLIP's tower held still.

The words reach the maps through the token that the next frame reads, so a sample has two searched frames, as ODTrack's
(the base's released code). That gradients flow from the second frame back through the token is assumed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from edgetrack.exporting.recipe import Recipe
from edgetrack.models.atstrack.network import TOWER, AtsTrack, Description, parse_attributes
from edgetrack.models.layers.vit import normalised, with_positions
from edgetrack.runtime.memory import MemorySchedule
from edgetrack.runtime.prompt import Prompt, parse_text, phrases_of
from edgetrack.runtime.trackers.atstrack import clip_tokens, split_sentence
from edgetrack.training.method import Batch, CenterMethod, Words

# What the names of the text tower begin with in CLIP's own file.
_TOWER_STARTS = (
    "positional_embedding",
    "text_projection",
    "logit_scale",
    "transformer.",
    "token_embedding.",
    "ln_final.",
)


class AtsTrackMethod(CenterMethod):
    """Templates as many as the schedule counts, two searched frames, phrases."""

    searches = 2

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.templates = MemorySchedule.parse(str(recipe.procedure["schedule"])).count
        self.attributes = parse_attributes(str(recipe.configuration.get("attributes", "")))
        self.room = int(recipe.configuration.get("text_tokens", 16))
        self.reads_text = bool(self.attributes)

    def read(self, text: str) -> Words:
        ids = np.zeros((len(self.attributes), self.room), np.int64)
        if not self.attributes:
            return ids
        given = parse_text([line for line in text.splitlines() if line.strip()]) or ""
        for name, phrase in phrases_of(given, Prompt(self.attributes, split_sentence)).items():
            tokens = clip_tokens(phrase, self.room, name)
            ids[self.attributes.index(name), : len(tokens)] = tokens
        return ids

    def trains(self, name: str) -> bool:
        return not name.startswith(TOWER)

    def backbone(self, network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        named = {f"{TOWER}{name}" if name.startswith(_TOWER_STARTS) else name: t for name, t in tensors.items()}
        return super().backbone(network, with_positions(named, cast(AtsTrack, network).sizes))

    def maps(self, network: nn.Module, batch: Batch) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        network = cast(AtsTrack, network)
        templates, description, state = normalised(batch.templates.flatten(0, 2)), None, None
        if self.attributes:
            ids = batch.words.flatten(0, 1)
            description = Description(network.words(ids), (ids > 0).float())
        for frame in range(self.searches):
            search = normalised(batch.searches[:, frame, 0])
            if state is None:
                state = _start(len(search), description, network)
            found = network(templates, search, state, description)
            state = found.state
            yield found.score, found.size, found.offset


def _start(batch: int, description: Description | None, network: AtsTrack) -> Tensor:
    """Tokens before the first frame: nothing seen, and the words' mean; where both are one token, that mean."""
    seen = network.backbone.cls_token.new_zeros(batch, 1, network.backbone.cls_token.shape[-1])
    if description is None:
        return seen
    words, mask = (part.reshape(batch, -1, *part.shape[2:]) for part in description)
    said = (words * mask[..., None]).sum(dim=1, keepdim=True) / mask.sum(dim=1)[:, None, None].clamp(min=1)
    return said if network.slots == 1 else torch.cat([seen, said.to(seen.dtype)], dim=1)


METHOD = AtsTrackMethod
