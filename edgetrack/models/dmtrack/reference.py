"""DMTrack's graph computed as published: as many template frames as there are, each modality for itself."""

from __future__ import annotations

from torch import Tensor, nn

from edgetrack.models.base import GraphModule
from edgetrack.models.dmtrack.graphs import signature
from edgetrack.models.dmtrack.network import DmTrack
from edgetrack.models.layers.center_head import Maps
from edgetrack.models.layers.patches import normalised


class _Step(nn.Module):
    def __init__(self, network: DmTrack) -> None:
        super().__init__()
        self.network = network

    def forward(self, search: Tensor, templates: Tensor, present: Tensor) -> Maps:
        # Nothing is marked where the arithmetic of a full memory is counted.
        held = templates[: int(present.sum()) or templates.shape[0]]
        crops = normalised(held.flatten(0, 1))
        maps: Maps = self.network(crops.reshape(-1, 2, *crops.shape[1:]), normalised(search))
        return maps


def reference(network: DmTrack) -> tuple[GraphModule, ...]:
    """Graph `step` on the published modules."""
    return (GraphModule("step", "step", _Step(network.eval()).eval(), *signature(network)),)
