"""SPMTrack's graph computed as published: the baseline that every export is held against."""

from __future__ import annotations

from torch import Tensor, nn

from edgetrack.models.base import GraphModule
from edgetrack.models.layers.patches import normalised
from edgetrack.models.spmtrack.graphs import signature
from edgetrack.models.spmtrack.network import Found, SpmTrack


class _Step(nn.Module):
    def __init__(self, network: SpmTrack) -> None:
        super().__init__()
        self.network = network

    def forward(self, search: Tensor, templates: Tensor, masks: Tensor, state: Tensor) -> Found:
        found: Found = self.network(normalised(templates), masks, normalised(search.unsqueeze(0)), state)
        return found


def reference(network: SpmTrack) -> tuple[GraphModule, ...]:
    """Graph `step` on the published modules."""
    return (GraphModule("step", "step", _Step(network.eval()).eval(), *signature(network)),)
