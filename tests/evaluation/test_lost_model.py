"""Calibration on sequences whose scores are made up: what is chosen, and when it is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.bundle.manifest import LostModel
from edgetrack.errors import CalibrationError, NotSeparableError, UsageError
from edgetrack.evaluation.lost_model import LostSequence, fit, flagged, parse_rate
from edgetrack.runtime.lost import LostJudge


def sequence(rng: np.random.Generator, apart: float, extra: float = 0.0, frames: int = 400) -> LostSequence:
    """A fifth of the frames is off target; log-odds differ by `apart`, a second feature by `extra`."""
    off = np.arange(frames) >= frames * 4 // 5
    score, jump = (rng.normal(size=frames) - gap * off for gap in (apart, -extra))
    return LostSequence({"score": score, "jump": jump, "scale": rng.normal(size=frames)}, off)


def sequences(apart: float, extra: float = 0.0, count: int = 6) -> list[LostSequence]:
    rng = np.random.default_rng(0)
    return [sequence(rng, apart, extra) for _ in range(count)]


def test_score_alone_is_kept_where_nothing_adds_to_it() -> None:
    found = fit(sequences(6.0), rate=0.01, hysteresis=1)
    model = found.model
    assert (model.weights, model.bias) == ({"score": 1.0}, 0.0)
    assert [one.features for one in found.trials] == [("score",), ("score", "jump"), ("score", "scale")]
    assert model.false_alarms <= 0.01
    assert model.recall > 0.97
    assert model.interval is not None
    assert model.interval[0] <= model.threshold <= model.interval[1]
    # The middle between log-odds of 0 and of -6, as far as such tails tell.
    assert np.log(model.threshold / (1 - model.threshold)) == pytest.approx(-3, abs=0.7)
    assert found.warning is None
    for half in found.halves:
        assert half.recall > 0.97
        assert half.false_alarms <= 0.012
        assert (half.frames, half.off_target) == (1200, 240)


def test_a_feature_that_separates_earns_its_place() -> None:
    found = fit(sequences(2.0, extra=3.0), rate=0.01, hysteresis=1)
    assert list(found.model.weights) == ["score", "jump"]
    assert found.model.weights["score"] > 0 > found.model.weights["jump"]
    alone, both = found.trials[0].auroc, max(one.auroc for one in found.trials)
    # Normal distributions d apart have an area of Phi(d / sqrt 2): 0.921 at 2, 0.995 at sqrt(13).
    assert alone == pytest.approx(0.921, abs=0.02)
    assert both == pytest.approx(0.995, abs=0.005)


def test_a_coin_is_refused_with_its_area() -> None:
    with pytest.raises(NotSeparableError, match=r"AUROC 0\.[45]\d\d by score .*expected 0\.9 or more") as caught:
        fit(sequences(0.1), rate=0.01, hysteresis=1)
    assert caught.value.exit_code == 1


def test_too_few_frames_are_refused() -> None:
    few = sequences(6.0, count=2)
    with pytest.raises(CalibrationError, match=r"640 frames are on target; a rate of 0\.10% can be told from 3000 on"):
        fit(few, rate=0.001, hysteresis=1)
    on = [LostSequence(one.features, np.zeros_like(one.off)) for one in few]
    with pytest.raises(CalibrationError, match="80 frames of 1 sequences are off target"):
        fit([few[0], on[1]], rate=0.01, hysteresis=1)


def test_halves_need_both_kinds() -> None:
    some = sequences(6.0, count=4)
    some[1] = some[3] = LostSequence(some[1].features, np.zeros_like(some[1].off))
    some[1].features["score"] += 20 * (some[1].features["score"] < 0)
    found = fit(some, rate=0.05, hysteresis=1)
    assert found.halves == ()
    assert found.warning is not None
    assert "was not tried" in found.warning


def test_a_high_area_with_a_low_recall_elsewhere_is_said() -> None:
    found = fit(sequences(2.2), rate=0.005, hysteresis=1)
    assert found.model.auroc > 0.9
    assert min(half.recall for half in found.halves) < 0.5
    assert found.warning is not None
    assert f"recall {min(half.recall for half in found.halves):.3f} on sequences" in found.warning


@given(st.lists(st.floats(0, 1), max_size=60), st.floats(0, 1), st.integers(1, 4))
def test_flags_are_those_of_the_runtimes_judge(values: list[float], threshold: float, hysteresis: int) -> None:
    model = LostModel(
        weights={"score": 1.0},
        threshold=threshold,
        frames=hysteresis,
        rate=0.01,
        recall=1,
        false_alarms=0,
        auroc=1,
        bundle="",
        data=(),
    )
    judge = LostJudge(model)
    expected = [judge.judge(value) is not None for value in values]
    assert flagged(np.array(values), np.array([threshold]), hysteresis)[:, 0].tolist() == expected


@pytest.mark.parametrize(("text", "rate"), [("0.5%", 0.005), ("0.005", 0.005), (" 2% ", 0.02)])
def test_a_rate_is_a_share_or_a_percentage(text: str, rate: float) -> None:
    assert parse_rate(text) == pytest.approx(rate)


@pytest.mark.parametrize("text", ["", "0", "1", "100%", "-1%", "nan", "many", "5 in 1000"])
def test_other_rates_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"expected a share above 0 and below 1, such as 0\.5% or 0\.005"):
        parse_rate(text)
