from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.box import Box
from edgetrack.exporting.recipe import find_recipe
from edgetrack.runtime.crop import rasterised
from edgetrack.training.method import find_method
from edgetrack.training.trackers.spmtrack import SpmTrackMethod, touched_cells

CELLS = 8
middle, side = st.floats(0.1, 0.9), st.floats(0.02, 0.9)


@given(middle, middle, side, side)
def test_cells_are_those_that_the_runtime_marks(cx: float, cy: float, w: float, h: float) -> None:
    # float32 as the loss has it, so that both round alike at a cell's border.
    box = torch.tensor([[cx, cy, w, h]])
    x1, y1, x2, y2 = (float(v) * CELLS for v in (*(box[0, :2] - box[0, 2:] / 2), *(box[0, :2] + box[0, 2:] / 2)))
    expected = rasterised(Box(x1, y1, x2 - x1, y2 - y1), CELLS, CELLS)
    marked = torch.zeros(CELLS, CELLS, dtype=torch.bool)
    marked[expected.y1 : expected.y2, expected.x1 : expected.x2] = True
    found = touched_cells(box, CELLS)[0]
    near = [abs(v - round(v)) < 1e-3 for v in (x1, y1, x2, y2)]
    assert any(near) or torch.equal(found, marked)


def test_the_loss_by_hand() -> None:
    method = find_method(find_recipe("spmtrack_b"))
    assert isinstance(method, SpmTrackMethod)
    # A box over the two cells at the left of the upper row of 2 x 2; every cell predicts the box's left half.
    wanted = torch.tensor([[0.5, 0.2, 0.8, 0.3]])
    boxes = torch.tensor([0.1, 0.05, 0.5, 0.35]).expand(1, 2, 2, 4)
    score = torch.tensor([[[1.0, 0.0], [-1.0, -2.0]]], requires_grad=True)
    losses = method._frame(score, boxes, wanted, torch.tensor([True]))

    def cross_entropy(logit: float, target: float) -> float:
        p = 1 / (1 + math.exp(-logit))
        return -target * math.log(p) - (1 - target) * math.log(1 - p)

    # IoU 1/2 on both cells; hull and union are the box: generalised IoU 1/2 too. Sums over the number of target cells.
    bce = cross_entropy(1, 0.5) + cross_entropy(0, 0.5) + cross_entropy(-1, 0) + cross_entropy(-2, 0)
    assert losses.terms["bce"].item() == pytest.approx(bce / 2, rel=1e-5)
    assert losses.terms["giou"].item() == pytest.approx(0.5, rel=1e-5)
    assert losses.total.item() == pytest.approx(bce / 2 + 0.5, rel=1e-5)
    assert (losses.iou.item(), losses.hit.item()) == (pytest.approx(0.5), 1.0)
    nothing = method._frame(score, boxes, wanted, torch.tensor([False]))
    assert nothing.terms["giou"].item() == 0
    assert nothing.terms["bce"].item() == pytest.approx(sum(cross_entropy(z, 0) for z in (1, 0, -1, -2)), rel=1e-5)
