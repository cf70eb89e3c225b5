"""ATSTrack's graphs computed as described: the baseline that every export is held against."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgetrack.models.atstrack.graphs import signatures
from edgetrack.models.atstrack.network import AtsTrack, Description, Found
from edgetrack.models.base import GraphModule
from edgetrack.models.layers.patches import normalised


class _Text(nn.Module):
    def __init__(self, network: AtsTrack) -> None:
        super().__init__()
        self.network = network

    def forward(self, *phrases: Tensor) -> Tensor:
        return self.network.words(torch.cat(phrases))


class _Step(nn.Module):
    def __init__(self, network: AtsTrack) -> None:
        super().__init__()
        self.network = network

    def forward(self, search: Tensor, templates: Tensor, state: Tensor, *said: Tensor) -> Found:
        description = None
        if said:
            words, mask = said[:2]
            # Nothing is marked where the arithmetic of full phrases is counted.
            description = Description(words, mask if mask.any() else torch.ones_like(mask))
        found: Found = self.network(normalised(templates), normalised(search.unsqueeze(0)), state, description)
        return found


def reference(network: AtsTrack) -> tuple[GraphModule, ...]:
    """Graphs `text` (where there is language) and `step` on the described modules."""
    network.eval()
    modules = {"text": _Text(network), "step": _Step(network)}
    return tuple(
        GraphModule(name, "step" if name == "step" else "init", modules[name].eval(), inputs, outputs)
        for name, (inputs, outputs) in signatures(network).items()
    )
