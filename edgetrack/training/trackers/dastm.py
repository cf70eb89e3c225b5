"""DASTM's training (arXiv 2503.16768): memories with their target's place, one searched frame, STMTrack's losses.

The paper states SGD with momentum 0.9, a rate of 0.005 and trunks that train from epoch 5 on; the losses and their
weights, the three memories and the samples are STMTrack's (its released code): assumed to be DASTM's too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetrack.box import Box
from edgetrack.models.dastm.network import Dastm
from edgetrack.models.layers.mobileone import untangled
from edgetrack.runtime.crop import CropMapping, CropRule, Image, crop_warped, find_patch
from edgetrack.training.losses import Losses, corners, is_near, overlaps, weighed
from edgetrack.training.method import Batch, TrainingMethod, inside, to_images

ALPHA, GAMMA = 0.75, 2.0
"""Of the focal loss: what a target's cell counts, and how fast a cell that is right counts less."""
_EPS = 1e-6


class DastmMethod(TrainingMethod):
    """Class (focal), centredness (cross-entropy) and box (-log IoU) of the cells inside the target."""

    templates = 3
    terms: ClassVar[tuple[str, ...]] = ("focal", "centredness", "box")

    def crop(self, frame: Image, around: Box, rule: CropRule) -> tuple[Image, CropMapping]:
        blue, green, red, _ = cv2.mean(frame)
        centre = around.x + (around.w - 1) / 2, around.y + (around.h - 1) / 2
        patch = find_patch(centre, rule.factor * float(np.sqrt(around.w * around.h)), rule.size)
        out = np.empty((rule.size, rule.size, 3), np.uint8)
        crop_warped(frame, patch, (int(blue), int(green), int(red)), out)
        # The middles of the crop's corner pixels are those of the patch, whose pixels are `step` apart.
        scale = (rule.size - 1) / (patch.side * patch.step)
        x, y = (offset + corner * patch.step + 0.5 for offset, corner in zip(patch.offset, patch.corner, strict=True))
        return out, CropMapping(scale, scale, 0.5 - x * scale, 0.5 - y * scale)

    def backbone(self, network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        network = cast(Dastm, network)
        found = {}
        for prefix, trunk in (("basemodel_m", network.basemodel_m), ("basemodel_q", network.basemodel_q)):
            found.update({f"{prefix}.{name}": tensor for name, tensor in untangled(trunk, tensors).items()})
        return found

    def loss(self, network: nn.Module, batch: Batch) -> Losses:
        network = cast(Dastm, network)
        size, points = network.geometry.image, network.geometry.points().to(batch.boxes.device)
        images = self._normalised(network, batch.templates.flatten(0, 2))
        pixels = torch.arange(size, device=points.device) + 0.5
        grid = torch.stack(torch.meshgrid(pixels, pixels, indexing="xy"), dim=-1)
        places = inside(batch.template_boxes.flatten(0, 1) * size, grid).float().unsqueeze(1)
        features, _ = network.memorise(images, places)
        memory = features.reshape(len(batch.positive), -1, *features.shape[1:]).transpose(1, 2)
        cls, centredness, distances = network.search(self._normalised(network, batch.searches[:, 0, 0]), memory)
        return self._terms(cls[:, 0].float(), centredness[:, 0].float(), distances.float(), batch, points, size)

    def _normalised(self, network: Dastm, crops: Tensor) -> Tensor:
        mean, std = (torch.tensor(v, device=crops.device).view(1, 3, 1, 1) for v in network.pixel_statistics())
        return (to_images(crops) * 255 - mean) / std

    def _terms(
        self, cls: Tensor, centredness: Tensor, distances: Tensor, batch: Batch, points: Tensor, size: int
    ) -> Losses:
        # As it is decoded: from the middle of the first pixel to that of the last.
        wanted = torch.cat([batch.boxes[:, 0, :2] * size - 0.5, (batch.boxes[:, 0, 2:] * size - 1).clamp(min=1)], dim=1)
        positive = batch.positive[:, None, None]
        on = inside(wanted, points) & positive
        count = on.sum().clamp(min=1)
        x1, y1, x2, y2 = corners(wanted)[:, :, None, None].unbind(dim=1)
        left, top, right, bottom = points[..., 0] - x1, points[..., 1] - y1, x2 - points[..., 0], y2 - points[..., 1]
        ratio = _balance(left, right) * _balance(top, bottom)
        edges = distances.permute(0, 2, 3, 1)
        boxes = torch.cat([points - edges[..., :2], points + edges[..., 2:]], dim=-1)
        iou, _ = overlaps(boxes, corners(wanted)[:, None, None])
        middling = F.binary_cross_entropy_with_logits(centredness, ratio, reduction="none")
        terms = {
            "focal": _focal(cls, on) / count,
            "centredness": (middling * on).sum() / count,
            "box": (-torch.log(iou.clamp(min=_EPS)) * on).sum() / count,
        }
        with torch.no_grad():
            cells = cls.shape[-1]
            best = (cls.sigmoid() * centredness.sigmoid()).flatten(1).argmax(dim=1)
            middle = ((points - wanted[:, None, None, :2]) ** 2).sum(dim=-1).flatten(1).argmin(dim=1)
            near = is_near(best, middle % cells, middle // cells, cells) & batch.positive
            hit = near.sum() / batch.positive.sum().clamp(min=1)
            mean_iou = (iou * on).sum() / count
        return weighed(terms, self.weights, mean_iou, hit)


def _balance(one: Tensor, other: Tensor) -> Tensor:
    """sqrt(smaller / larger) of two distances, 0 where one is not positive: a factor of the centredness."""
    low, high = torch.minimum(one, other).clamp(min=0), torch.maximum(one, other)
    return torch.sqrt(low / high.clamp(min=_EPS))


def _focal(logits: Tensor, on: Tensor) -> Tensor:
    """Sum of -alpha (1-p)^gamma log p on the target's cells, -(1-alpha) p^gamma log(1-p) elsewhere."""
    p = torch.sigmoid(logits)
    on_target = ALPHA * (1 - p) ** GAMMA * F.softplus(-logits)
    elsewhere = (1 - ALPHA) * p**GAMMA * F.softplus(logits)
    return torch.where(on, on_target, elsewhere).sum()


METHOD = DastmMethod
