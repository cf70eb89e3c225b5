"""Features against their definitions on maps that are known, and the hysteresis."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgetrack.box import Box
from edgetrack.bundle.manifest import LostModel
from edgetrack.runtime.decode import ScoreMaps
from edgetrack.runtime.lost import FEATURES, LostJudge, logistic, measure

BOX = Box(100, 100, 20, 5)


def model(**fields) -> LostModel:
    known = {"weights": {"score": 1.0}, "threshold": 0.5, "rate": 0.01, "recall": 1, "false_alarms": 0, "auroc": 1}
    return LostModel(**{**known, "bundle": "x", "data": (), **fields})


@pytest.mark.parametrize("score", [0.0, 1e-6, 0.25, 0.9, 1.0])
def test_score_alone_is_its_own_confidence(score: float) -> None:
    features = measure(["score"], score, BOX, BOX, None)
    assert logistic({"score": 1.0}, 0.0, features) == pytest.approx(score, abs=1.1e-6)


def test_jump_and_scale_are_those_of_the_box() -> None:
    # 30 pixels to the right, in square roots of 100 square pixels; twice as wide.
    found = measure(["jump", "scale"], 0.5, BOX, Box(120, 100, 40, 5), None)
    assert found == {"jump": pytest.approx(math.log(4)), "scale": pytest.approx(math.log(2))}
    still = measure(["jump", "scale"], 0.5, BOX, BOX, None)
    assert still == {"jump": 0.0, "scale": 0.0}


def test_entropy_is_zero_for_one_cell_and_one_for_equal_cells() -> None:
    flat, single = np.full((16, 16), 0.3), np.zeros((16, 16))
    single[3, 4] = 1
    found = [measure(["entropy"], 0.5, BOX, BOX, ScoreMaps(one, one))["entropy"] for one in (flat, single)]
    assert found == [pytest.approx(1.0), pytest.approx(0.0, abs=1e-6)]


def test_ratio_of_peak_to_side_lobes_leaves_the_main_lobe_out() -> None:
    cells = np.zeros((16, 16))
    cells[::2] = 0.2  # beside the peak: mean 0.1 and spread 0.1, when both halves are as large
    cells[6:11, 6:11] = 0.9  # the main lobe, 5 x 5
    cells[8, 8] = 1.0
    beside = np.ones((16, 16), bool)
    beside[6:11, 6:11] = False
    expected = math.log((1.0 - cells[beside].mean()) / cells[beside].std())
    assert measure(["psr"], 0.5, BOX, BOX, ScoreMaps(cells, cells))["psr"] == pytest.approx(expected)
    assert expected == pytest.approx(math.log(9), abs=0.05)


@pytest.mark.parametrize("fill", [math.nan, math.inf, 0.0, 1.0])
def test_every_feature_is_finite_whatever_the_maps(fill: float) -> None:
    maps = ScoreMaps(*np.full((2, 16, 16), fill))
    with np.errstate(all="ignore"):
        found = measure(FEATURES, 1.0, Box(0, 0, 0, 0), Box(0, 0, 1e6, 1e6), maps)
    assert list(found) == list(FEATURES)
    assert all(map(math.isfinite, found.values()))


def test_state_changes_after_so_many_frames_in_a_row() -> None:
    judge = LostJudge(model(frames=2))
    values = [0.4, 0.6, 0.4, 0.4, 0.6, 0.4, 0.6, 0.6, 0.4]
    assert "".join("L" if judge.judge(value) else "-" for value in values) == "---LLLL--"


def test_reasons_say_what_was_below_what() -> None:
    judge = LostJudge(model(frames=2, threshold=0.7))
    assert [judge.judge(value) for value in (0.6, 0.6, 0.8, 0.9)] == [
        None,
        "confidence 0.600 is below 0.700",
        "confidence 0.800 is not yet steady",
        None,
    ]
    judge.judge(0.1)
    judge.judge(0.1)
    judge.restart()
    assert judge.judge(0.1) is None
