"""DASTM's graphs computed as the network states them: all branches, whole maps, as many memories as there are."""

from __future__ import annotations

from torch import Tensor, nn

from edgetrack.models.base import GraphModule
from edgetrack.models.dastm.graphs import signatures
from edgetrack.models.dastm.network import Dastm, Found


class _Memory(nn.Module):
    def __init__(self, network: Dastm) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        features, gates = self.network.memorise(self.network.normalised(image), target[None, None])
        return features[0].flatten(1).transpose(0, 1), gates


class _Step(nn.Module):
    def __init__(self, network: Dastm) -> None:
        super().__init__()
        self.network = network

    def forward(self, search: Tensor, memory: Tensor, present: Tensor) -> Found:
        # Nothing is marked where the arithmetic of a full memory is counted.
        held = memory[present[0] > 0] if present.any() else memory
        cells = self.network.geometry.cells
        keys = held.permute(2, 0, 1).reshape(1, -1, held.shape[0], cells, cells)
        found = self.network(self.network.normalised(search), keys)
        return Found(found.score, found.boxes / self.network.geometry.image)


def reference(network: Dastm) -> tuple[GraphModule, ...]:
    """Graphs `memory` and `step` on the network's own modules."""
    network, sides = network.eval(), signatures(network)
    modules = {"memory": _Memory(network), "step": _Step(network)}
    return tuple(GraphModule(name, "step", module.eval(), *sides[name]) for name, module in modules.items())
