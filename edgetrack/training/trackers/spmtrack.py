"""SPMTrack's training (CVPR 2025 and its released code): experts, head and tokens, DINOv2 held still.

Two searched frames, the token carried from the first to the second without its gradient. The target's cells are those
that its box touches; their score is to be the IoU of the box that they predict.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetrack.box import Box
from edgetrack.exporting.recipe import Recipe
from edgetrack.models.layers.vit import normalised
from edgetrack.models.spmtrack.network import SpmTrack
from edgetrack.runtime.crop import CropMapping, CropRule, Image, crop_aligned, mean_colour
from edgetrack.runtime.memory import MemorySchedule
from edgetrack.training.losses import Losses, corners, is_near, overlaps, summed, target_cells, weighed
from edgetrack.training.method import Batch, TrainingMethod

_SLACK = 1 - 1e-4
_TRAINED = (".tmoe.", "head.", "track_query", "query_embed", "token_type_embed")


class SpmTrackMethod(TrainingMethod):
    """What the published checkpoint holds is what trains."""

    searches = 2
    terms: ClassVar[tuple[str, ...]] = ("bce", "giou")

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.templates = MemorySchedule.parse(str(recipe.procedure["schedule"])).count

    def crop(self, frame: Image, around: Box, rule: CropRule) -> tuple[Image, CropMapping]:
        out = np.empty((rule.size, rule.size, 3), np.float32)
        mapping = crop_aligned(frame, around, rule.factor, mean_colour(frame), out)
        return np.rint(out).astype(np.uint8), mapping

    def trains(self, name: str) -> bool:
        return any(part in name for part in _TRAINED)

    def backbone(self, network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return cast(SpmTrack, network).assemble(tensors, "the backbone's file")

    def loss(self, network: nn.Module, batch: Batch) -> Losses:
        network = cast(SpmTrack, network)
        cells = network.sizes.template_cells
        z, masks = normalised(batch.templates.flatten(0, 2)), touched_cells(batch.template_boxes.flatten(0, 1), cells)
        state = network.track_query.new_zeros(len(batch.positive), network.track_query.shape[-1])
        found = []
        for frame in range(batch.searches.shape[1]):
            step = network(z, masks.flatten(1), normalised(batch.searches[:, frame, 0]), state)
            found.append(self._frame(step.score, step.boxes, batch.boxes[:, frame], batch.positive))
            state = step.state.detach()
        return summed(found)

    def _frame(self, score: Tensor, boxes: Tensor, wanted: Tensor, positive: Tensor) -> Losses:
        score, boxes = score.float(), boxes.float()
        on = touched_cells(wanted, score.shape[-1]) & positive[:, None, None]
        count = on.sum().clamp(min=1)
        iou, giou = overlaps(boxes, corners(wanted)[:, None, None])
        target = torch.where(on, iou.detach().clamp(0, 1), 0.0)
        bce = F.binary_cross_entropy_with_logits(score, target, reduction="sum") / count
        column, row = target_cells(wanted, score.shape[-1])
        near = is_near(score.flatten(1).argmax(dim=1), column, row, score.shape[-1]) & positive
        terms = {"bce": bce, "giou": ((1 - giou) * on).sum() / count}
        return weighed(terms, self.weights, (iou * on).sum() / count, near.sum() / positive.sum().clamp(min=1))


def touched_cells(boxes: Tensor, cells: int) -> Tensor:
    """The cells that boxes (B, 4), centre and size in 0..1, touch: (B, cells, cells) bool; a box has one at least."""
    x1, y1, x2, y2 = (corners(boxes) * cells).unbind(dim=1)
    along = torch.arange(cells, device=boxes.device)

    def reach(first: Tensor, last: Tensor) -> Tensor:
        low = first.floor().clamp(0, cells - 1)
        high = torch.maximum((last + _SLACK).floor().clamp(max=cells), low + 1)
        return (along >= low[:, None]) & (along < high[:, None])

    return reach(y1, y2)[:, :, None] & reach(x1, x2)[:, None, :]


METHOD = SpmTrackMethod
