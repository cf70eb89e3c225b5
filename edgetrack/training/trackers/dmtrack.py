"""DMTrack's training: its adapters alone, on a frozen tracker of one image (arXiv 2508.01592 and the released code)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, cast

from torch import Tensor, nn

from edgetrack.exporting.recipe import Recipe
from edgetrack.models.dmtrack.network import DmTrack
from edgetrack.models.layers.vit import normalised, with_positions
from edgetrack.runtime.memory import MemorySchedule
from edgetrack.training.method import Batch, CenterMethod


class DmTrackMethod(CenterMethod):
    """Templates as many as the schedule counts; the centre head's loss, the head itself held still."""

    images: ClassVar[int] = 2

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.templates = MemorySchedule.parse(str(recipe.procedure["schedule"])).count

    def trains(self, name: str) -> bool:
        return ".adap" in name

    def backbone(self, network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return super().backbone(network, with_positions(tensors, cast(DmTrack, network).sizes))

    def maps(self, network: nn.Module, batch: Batch) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        z = normalised(batch.templates.flatten(0, 2))
        yield network(z.reshape(-1, 2, *z.shape[1:]), normalised(batch.searches.flatten(0, 2)))


METHOD = DmTrackMethod
