"""The choice of a cell against STMTrack's numbers, and what penalties and window do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.runtime.scored_boxes import choose_box
from edgetrack.runtime.window import hann_closed

WINDOW = hann_closed(5)


def chosen(score: Any, boxes: Any, expected: tuple[float, float] = (10.0, 10.0), **changes: float) -> Any:
    settings = {"influence": 0.21, "penalty_k": 0.04, **changes}
    return choose_box(score.reshape(1, 5, 5), boxes.reshape(1, 5, 5, 4), expected, WINDOW, **settings)


def squares(side: float = 10.0) -> Any:
    return np.tile(np.array([0, 0, side - 1, side - 1], np.float32), (25, 1))


@pytest.mark.parametrize("case", range(4))
def test_the_official_cell_is_chosen(golden: Callable[[str], Any], case: int) -> None:
    fixture = golden("stm_postprocess")
    np.testing.assert_allclose(hann_closed(25).ravel(), fixture.arrays["window"], rtol=0, atol=1e-12)
    given_ = fixture.group(f"case{case}")
    scale, (w, h) = float(given_["scale"]), given_["prev_size"]
    found = choose_box(
        given_["score"].reshape(1, 25, 25),
        given_["box_xyxy"].reshape(1, 25, 25, 4),
        (w * scale, h * scale),
        hann_closed(25),
        influence=0.21,
        penalty_k=0.04,
    )
    assert found is not None
    assert found.cell == given_["best_id"]
    assert found.windowed == pytest.approx(float(given_["best_pscore"]), abs=1e-6)
    assert found.penalty == pytest.approx(float(given_["penalty_best"]), abs=1e-6)


def test_without_change_and_window_the_score_decides() -> None:
    score = np.linspace(0.1, 0.9, 25, dtype=np.float32)
    found = chosen(score, squares(), influence=0.0)
    assert (found.cell, found.penalty) == (24, 1.0)
    assert found.windowed == pytest.approx(found.score)
    assert (found.x, found.y, found.w, found.h) == (4.5, 4.5, 10.0, 10.0)


def test_equal_scores_are_decided_by_the_window_then_the_order() -> None:
    even = np.full(25, 0.5, np.float32)
    assert chosen(even, squares()).cell == 12
    assert chosen(even, squares(), influence=0.0).cell == 0


@given(factor=st.floats(1.1, 8))
def test_a_change_costs_as_much_as_its_inverse(factor: float) -> None:
    even = np.full(25, 0.5, np.float32)
    larger, smaller = (chosen(even, squares(10.0 * f)).penalty for f in (factor, 1 / factor))
    assert larger == pytest.approx(smaller, rel=1e-5)
    assert larger == pytest.approx(np.exp(-(factor - 1) * 0.04), rel=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_decides_nothing(bad: float) -> None:
    even = np.full(25, 0.5, np.float32)
    broken = squares()
    broken[12] = bad
    found = chosen(even, broken)
    assert found is None or found.cell != 12
    even[3] = bad
    found = chosen(even, squares())
    assert found is None or found.cell != 3
