from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.training.losses import (
    boxes_at,
    corners,
    focal_loss,
    gaussian_radius,
    gaussian_target,
    overlaps,
    target_cells,
    tracking_loss,
)

WEIGHTS = {"focal": 1.0, "l1": 5.0, "giou": 2.0}


@pytest.mark.parametrize(
    ("size", "radius"),
    # sqrt((0.7 (w + h))^2 + 0.84 w h) - 0.7 (w + h): 1.09, 0.90, 4.37, 0.27
    [((4, 4), 1), ((8, 2), 0), ((16, 16), 4), ((1, 1), 0)],
)
def test_radius_of_the_gaussian(size: tuple[int, int], radius: int) -> None:
    assert gaussian_radius(torch.tensor([size]).float()).tolist() == [radius]


def test_gaussian_target_by_hand() -> None:
    # 8 cells; a box of 4x4 cells has radius 1 and sigma 1/2: exp(-2) beside the centre, exp(-4) at the diagonal.
    target = gaussian_target(torch.tensor([[0.3, 0.7, 0.5, 0.5]]), torch.tensor([True]), 8)
    expected = torch.zeros(8, 8)
    side, diagonal = math.exp(-2), math.exp(-4)
    expected[4:7, 1:4] = torch.tensor([[diagonal, side, diagonal], [side, 1, side], [diagonal, side, diagonal]])
    torch.testing.assert_close(target[0], expected)
    assert gaussian_target(torch.tensor([[0.3, 0.7, 0.5, 0.5]]), torch.tensor([False]), 8).sum() == 0


def test_a_centre_on_the_border_is_in_the_last_cell() -> None:
    column, row = target_cells(torch.tensor([[1.0, 0.0, 0.1, 0.1]]), 16)
    assert (column.tolist(), row.tolist()) == ([15], [0])


def test_focal_loss_by_hand() -> None:
    score = torch.tensor([[[0.8, 0.3], [0.5, 0.1]]])
    target = torch.tensor([[[1.0, 0.5], [0.0, 0.0]]])
    expected = (
        -(0.2**2) * math.log(0.8) - 0.5**4 * 0.3**2 * math.log(0.7) - 0.5**2 * math.log(0.5) - 0.1**2 * math.log(0.9)
    )
    assert focal_loss(score, target).item() == pytest.approx(expected, rel=1e-6)
    # Two positives halve it; none divides by one.
    assert focal_loss(score.repeat(2, 1, 1), target.repeat(2, 1, 1)).item() == pytest.approx(expected, rel=1e-6)
    nothing = -(0.8**2) * math.log(0.2) - 0.3**2 * math.log(0.7) - 0.5**2 * math.log(0.5) - 0.1**2 * math.log(0.9)
    assert focal_loss(score, torch.zeros(1, 2, 2)).item() == pytest.approx(nothing, rel=1e-6)


def test_overlaps_by_hand() -> None:
    a = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    b = torch.tensor([[1.0, 1.0, 3.0, 3.0], [2.0, 0.0, 3.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    iou, giou = overlaps(a, b)
    torch.testing.assert_close(iou, torch.tensor([1 / 7, 0.0, 1.0]))
    torch.testing.assert_close(giou, torch.tensor([1 / 7 - 2 / 9, -1 / 3, 1.0]))


side = st.floats(0.01, 2)
place = st.floats(-2, 2)


@given(st.tuples(place, place, side, side), st.tuples(place, place, side, side))
def test_generalised_iou_lies_below_iou_and_above_minus_one(a: tuple[float, ...], b: tuple[float, ...]) -> None:
    iou, giou = overlaps(corners(torch.tensor([a])), corners(torch.tensor([b])))
    assert -1 - 1e-5 <= giou.item() <= iou.item() + 1e-5 <= 1 + 2e-5


def test_the_box_is_read_at_the_given_cell() -> None:
    size, offset = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)
    size[0, :, 2, 1], offset[0, :, 2, 1] = torch.tensor([0.25, 0.5]), torch.tensor([0.5, -0.5])
    box = boxes_at(size, offset, torch.tensor([1]), torch.tensor([2]))
    torch.testing.assert_close(box, torch.tensor([[1.5 / 4, 1.5 / 4, 0.25, 0.5]]))


def _maps(cells: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    score = torch.full((2, 1, cells, cells), 0.1)
    score[0, 0, 2, 1] = 0.9
    size, offset = torch.full((2, 2, cells, cells), 0.5), torch.full((2, 2, cells, cells), 0.5)
    return score, size, offset


def test_a_whole_step_by_hand() -> None:
    # Predicted at cell (1, 2): centre (0.375, 0.625), size 0.5; wanted: the same centre, half as wide.
    boxes = torch.tensor([[0.375, 0.625, 0.25, 0.5], [0.5, 0.5, 0.2, 0.2]])
    losses = tracking_loss(_maps(), boxes, torch.tensor([True, False]), WEIGHTS)
    # The box of 1x2 cells has radius 0; 31 cells at 0.1 should be 0, one at 0.9 should be 1.
    focal = -(0.1**2) * math.log(0.9) - 31 * 0.1**2 * math.log(0.9)
    assert losses.terms["focal"].item() == pytest.approx(focal, rel=1e-5)
    assert losses.terms["l1"].item() == pytest.approx(2 * 0.125 / 4, rel=1e-5)
    assert losses.terms["giou"].item() == pytest.approx(0.5, rel=1e-5)
    assert losses.total.item() == pytest.approx(focal + 5 * 0.0625 + 2 * 0.5, rel=1e-5)
    assert losses.iou.item() == pytest.approx(0.5, rel=1e-5)
    assert losses.hit.item() == 1


def test_a_perfect_prediction_has_no_box_loss() -> None:
    losses = tracking_loss(_maps(), torch.tensor([[0.375, 0.625, 0.5, 0.5]] * 2), torch.tensor([True, False]), WEIGHTS)
    assert losses.terms["l1"].item() == pytest.approx(0, abs=1e-6)
    assert losses.terms["giou"].item() == pytest.approx(0, abs=1e-6)


def test_negatives_teach_the_score_alone() -> None:
    maps = tuple(m.clone().requires_grad_() for m in _maps())
    tracking_loss(maps, torch.rand(2, 4), torch.tensor([False, False]), WEIGHTS).total.backward()
    score, size, offset = maps
    assert (score.grad > 0).all()
    assert size.grad.abs().sum() == offset.grad.abs().sum() == 0


def test_a_score_that_half_precision_rounds_to_one_is_borne() -> None:
    score, size, offset = _maps()
    losses = tracking_loss(
        (torch.ones_like(score), size, offset), torch.rand(2, 4), torch.tensor([True, True]), WEIGHTS
    )
    assert torch.isfinite(losses.total)
