"""The loss of centre heads: focal on the score map, l1 and generalised IoU on the box at the target's cell.

score is (B, 1, F, F) in 0..1, size (B, 2, F, F) in fractions of the crop, offset (B, 2, F, F) in cells; target boxes
are (B, 4): centre x, centre y, width, height in fractions of the crop, centres inside it. Formulae: SMAT (arXiv
2309.03979) Eq. 4; Gaussian and focal loss as in CenterNet (arXiv 1904.07850), which has them from CornerNet
(1808.01244).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

MIN_OVERLAP = 0.7
SCORE_MIN = 1e-4
_EPS = 1e-7


class Losses(NamedTuple):
    """Scalars: the weighted sum, its terms before weighting, the mean IoU of the boxes, and the share of samples whose
    highest score lies within one cell of the target's. The last two carry no gradient."""

    total: Tensor
    terms: dict[str, Tensor]
    iou: Tensor
    hit: Tensor

    def named(self) -> dict[str, float]:
        """All of them by name, the sum as `total`."""
        every = {"total": self.total, **self.terms, "iou": self.iou, "hit": self.hit}
        values = torch.stack([value.detach().float() for value in every.values()]).tolist()  # one transfer from a GPU
        return dict(zip(every, values, strict=True))


def weighed(terms: dict[str, Tensor], weights: Mapping[str, float], iou: Tensor, hit: Tensor) -> Losses:
    """The losses of terms and their weights."""
    total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
    return Losses(total, terms, iou.detach(), hit.detach())


def summed(frames: Sequence[Losses]) -> Losses:
    """Those of all searched frames: terms are added, IoU and hits averaged."""
    if len(frames) == 1:
        return frames[0]
    total, iou, hit = (torch.stack([getattr(found, name) for found in frames]) for name in ("total", "iou", "hit"))
    terms = {name: torch.stack([found.terms[name] for found in frames]).sum() for name in frames[0].terms}
    return Losses(total.sum(), terms, iou.mean(), hit.mean())


def is_near(cell: Tensor, column: Tensor, row: Tensor, cells: int) -> Tensor:
    """Whether cells (B,), counted row by row, lie within one column and row of others, (B,) bool."""
    return ((cell % cells - column).abs() <= 1) & ((cell // cells - row).abs() <= 1)


def target_cells(boxes: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """Column and row (B,) of the cell that holds each box's centre."""
    places = (boxes[:, :2] * cells).floor().long().clamp(0, cells - 1)
    return places[:, 0], places[:, 1]


def gaussian_radius(size: Tensor) -> Tensor:
    """Radius in cells (B,), whole and at least 0, of the Gaussian of boxes with sizes (B, 2) in cells.

    CornerNet asks how far both corners may move outwards with an overlap of 0.7 left, (w + 2r)(h + 2r) = wh / 0.7; the
    published root lacks the division by the leading coefficient 4 x 0.7, and trackers are trained with that: kept.
    """
    around, area = size.sum(dim=1), size.prod(dim=1)
    root = torch.sqrt((MIN_OVERLAP * around) ** 2 + 4 * MIN_OVERLAP * (1 - MIN_OVERLAP) * area)
    return (root - MIN_OVERLAP * around).floor().clamp(min=0)


def gaussian_target(boxes: Tensor, positive: Tensor, cells: int) -> Tensor:
    """Score targets (B, F, F): 1 at the target's cell, a Gaussian of a sixth of 2r + 1 within r, 0 elsewhere.

    Args:
        boxes: (B, 4).
        positive: (B,) bool; False gives zeros.
        cells: F.
    """
    column, row = target_cells(boxes, cells)
    radius = gaussian_radius(boxes[:, 2:] * cells).view(-1, 1, 1)
    line = torch.arange(cells, device=boxes.device)
    dx, dy = line.view(1, 1, -1) - column.view(-1, 1, 1), line.view(1, -1, 1) - row.view(-1, 1, 1)
    sigma = (2 * radius + 1) / 6
    value = torch.exp(-(dx * dx + dy * dy) / (2 * sigma * sigma))
    inside = (dx.abs() <= radius) & (dy.abs() <= radius) & positive.view(-1, 1, 1)
    return value * inside


def focal_loss(score: Tensor, target: Tensor) -> Tensor:
    """Sum of -(1-p)^2 log p where the target is 1, -(1-t)^4 p^2 log(1-p) elsewhere, over the number of ones (>= 1).

    Args:
        score: p, (B, F, F), strictly between 0 and 1.
        target: t, (B, F, F).
    """
    one = target == 1
    at_target = -((1 - score) ** 2) * torch.log(score)
    elsewhere = -((1 - target) ** 4) * score**2 * torch.log(1 - score)
    return torch.where(one, at_target, elsewhere).sum() / one.sum().clamp(min=1)


def boxes_at(size: Tensor, offset: Tensor, column: Tensor, row: Tensor) -> Tensor:
    """The boxes (B, 4) that the maps predict at one cell each; centre and size in fractions of the crop."""
    cells, batch = size.shape[-1], torch.arange(size.shape[0], device=size.device)
    shift = offset[batch, :, row, column]
    centre = (torch.stack([column, row], dim=1) + shift) / cells
    return torch.cat([centre, size[batch, :, row, column]], dim=1)


def corners(boxes: Tensor) -> Tensor:
    """Centre and size (B, 4) to x1, y1, x2, y2."""
    half = 0.5 * boxes[:, 2:]
    return torch.cat([boxes[:, :2] - half, boxes[:, :2] + half], dim=1)


def overlaps(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU (0..1) and generalised IoU (-1..1; arXiv 1902.09630) of corner boxes (.., 4), each (..)."""
    area_a, area_b = ((c[..., 2:] - c[..., :2]).prod(dim=-1) for c in (a, b))
    common = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(dim=-1)
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(dim=-1)
    union = area_a + area_b - common
    iou = common / union.clamp(min=_EPS)
    return iou, iou - (hull - union) / hull.clamp(min=_EPS)


def tracking_loss(
    maps: tuple[Tensor, Tensor, Tensor], boxes: Tensor, positive: Tensor, weights: Mapping[str, float]
) -> Losses:
    """The loss of a batch; a sample that is not positive has a score target of zero and no box loss.

    Args:
        maps: score, size, offset.
        boxes: (B, 4) targets.
        positive: (B,) bool.
        weights: of the terms focal, l1 and giou.
    """
    score, size, offset = (m.float() for m in maps)
    # In bfloat16 the network's own limit of 1 - 1e-4 is 1, whose logarithm the loss cannot bear.
    score = score.clamp(SCORE_MIN, 1 - SCORE_MIN)
    cells = score.shape[-1]
    column, row = target_cells(boxes, cells)
    focal = focal_loss(score[:, 0], gaussian_target(boxes, positive, cells))
    found, wanted = corners(boxes_at(size, offset, column, row)), corners(boxes)
    iou, giou = overlaps(found, wanted)
    count = positive.sum().clamp(min=1)
    l1_term = ((found - wanted).abs().mean(dim=1) * positive).sum() / count
    giou_term = ((1 - giou) * positive).sum() / count
    with torch.no_grad():
        hit = (is_near(score[:, 0].flatten(1).argmax(dim=1), column, row, cells) & positive).sum() / count
        mean_iou = (iou * positive).sum() / count
    return weighed({"focal": focal, "l1": l1_term, "giou": giou_term}, weights, mean_iou, hit)
