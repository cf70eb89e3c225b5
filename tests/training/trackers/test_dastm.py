from __future__ import annotations

import math

import pytest
import torch

from edgetrack.exporting.recipe import find_recipe
from edgetrack.training.method import Batch, find_method, inside
from edgetrack.training.trackers.dastm import ALPHA, DastmMethod


def _points() -> torch.Tensor:
    """3 x 3 cells at 8, 16 and 24 pixels of a crop of 32."""
    along = torch.tensor([8.0, 16.0, 24.0])
    rows, columns = torch.meshgrid(along, along, indexing="ij")
    return torch.stack([columns, rows], dim=-1)


def _batch(x1: float, y1: float, w: float, h: float, positive: bool = True) -> Batch:
    """A target of w x h pixels whose first pixel is (x1, y1), in a crop of 32."""
    box = torch.tensor([[[(x1 + w / 2) / 32, (y1 + h / 2) / 32, w / 32, h / 32]]])
    none = torch.zeros(1, 0)
    return Batch(none, none, none, box, torch.tensor([positive]), none)


def test_the_loss_by_hand() -> None:
    method = find_method(find_recipe("dastm"))
    assert isinstance(method, DastmMethod)
    # Pixels 6 to 20 by 10 to 22: the cells at (8, 16) and (16, 16). Each predicts 8 pixels to every side.
    cls, centredness, distances = torch.zeros(1, 3, 3), torch.zeros(1, 3, 3), torch.full((1, 4, 3, 3), 8.0)
    losses = method._terms(cls, centredness, distances, _batch(6, 10, 15, 13), _points(), 32)
    # Logit 0 is p = 1/2: alpha / 4 ln 2 on the two cells, (1 - alpha) / 4 ln 2 on the seven others, by two.
    focal = (2 * ALPHA + 7 * (1 - ALPHA)) * 0.25 * math.log(2) / 2
    assert losses.terms["focal"].item() == pytest.approx(focal, rel=1e-5)
    # Cross-entropy of p = 1/2 is ln 2 whatever the target.
    assert losses.terms["centredness"].item() == pytest.approx(math.log(2), rel=1e-5)
    # As decoded, a box of pixels 6..20 reaches from 6 to 20: 14 x 12. The boxes, 0..16 and 8..24 wide, cover 10 and 12.
    overlaps = [width * 12 / (16 * 16 + 14 * 12 - width * 12) for width in (10, 12)]
    assert losses.terms["box"].item() == pytest.approx(-sum(map(math.log, overlaps)) / 2, rel=1e-5)
    assert losses.iou.item() == pytest.approx(sum(overlaps) / 2, rel=1e-5)
    assert losses.total.item() == pytest.approx(
        losses.terms["focal"] + losses.terms["centredness"] + 3 * losses.terms["box"]
    )
    nothing = method._terms(cls, centredness, distances, _batch(6, 10, 15, 13, positive=False), _points(), 32)
    assert nothing.terms["box"].item() == nothing.terms["centredness"].item() == 0
    assert nothing.terms["focal"].item() == pytest.approx(9 * (1 - ALPHA) * 0.25 * math.log(2), rel=1e-5)


def test_centredness_is_one_in_the_middle() -> None:
    method = find_method(find_recipe("dastm"))
    assert isinstance(method, DastmMethod)
    # Pixels 12..20 around the cell at (16, 16), which is the middle: a high logit there costs nothing.
    centredness = torch.full((1, 3, 3), -9.0)
    centredness[0, 1, 1] = 30.0
    terms = method._terms(
        torch.zeros(1, 3, 3), centredness, torch.ones(1, 4, 3, 3), _batch(12, 12, 9, 9), _points(), 32
    )
    assert terms.terms["centredness"].item() == pytest.approx(0, abs=1e-6)


def test_a_target_between_the_cells_has_the_nearest() -> None:
    found = inside(torch.tensor([[11.0, 20.5, 2.0, 2.0], [16.0, 16.0, 17.0, 2.0]]), _points())
    assert found[0].nonzero().tolist() == [[2, 0]]
    assert found[1].nonzero().tolist() == [[1, 0], [1, 1], [1, 2]]
