"""Figures of two modalities and of long-term tracking, each computed a second time, in plain loops, from its source."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.evaluation.datasets.clip import ScoringRules
from edgetrack.evaluation.metrics import (
    ConfidentRun,
    PairScores,
    confident_run,
    long_term,
    overall_pair,
    score_pair,
)

SIZE = (320, 240)
RGBT234 = ScoringRules(absent_fails=True)
GTOT = ScoringRules(absent_fails=True, over_frames=True, pixels=5)


def walk(seed: int, frames: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A tracker's boxes, and the target's in two modalities, a few pixels apart."""
    rng = np.random.default_rng(seed)
    first = np.hstack([100 + rng.normal(0, 3, (frames, 2)).cumsum(axis=0), rng.uniform(20, 40, (frames, 2))])
    second = first + np.hstack([rng.normal(0, 6, (frames, 2)), np.zeros((frames, 2))])
    found = first + np.hstack([rng.normal(0, 9, (frames, 2)), rng.uniform(-4, 4, (frames, 2))])
    found[0] = first[0]
    return found, first, second


def overlap(a: Any, b: Any) -> float:
    wide = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    high = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(wide, 0.0) * max(high, 0.0)
    # Rounding may put equal boxes above 1.
    return min(float(shared / (a[2] * a[3] + b[2] * b[3] - shared)), 1.0)


def apart(a: Any, b: Any) -> float:
    return math.hypot(a[0] + a[2] / 2 - b[0] - b[2] / 2, a[1] + a[3] / 2 - b[1] - b[3] / 2)


def by_hand(found: Any, truths: list[Any], pixels: float) -> tuple[float, float]:
    """RGBT234's paper: in each frame the smaller distance and the larger overlap; P at a distance, area of success."""
    near = [min(apart(box, truth[index]) for truth in truths) for index, box in enumerate(found)]
    large = [max(overlap(box, truth[index]) for truth in truths) for index, box in enumerate(found)]
    rates = [sum(value > step / 20 for value in large) / len(large) for step in range(21)]
    return sum(value <= pixels for value in near) / len(near), sum(rates) / 21


@pytest.mark.parametrize("rules", [RGBT234, GTOT])
@pytest.mark.parametrize("seed", range(3))
def test_maximum_precision_and_success_are_those_of_the_paper(seed: int, rules: ScoringRules) -> None:
    found, first, second = walk(seed)
    scores = score_pair(found, first, second, np.ones(len(found), bool), rules)
    precision, auc = by_hand(found, [second], rules.pixels)
    mpr, msr = by_hand(found, [first, second], rules.pixels)
    expected = PairScores(precision_second=precision, auc_second=auc, mpr=mpr, msr=msr)
    for name in PairScores.__struct_fields__:
        assert getattr(scores, name) == pytest.approx(getattr(expected, name), abs=1e-12), name
    # The better of both is never worse than either.
    assert mpr >= max(precision, by_hand(found, [first], rules.pixels)[0])


def test_frames_without_the_target_fail_or_are_left_out_as_the_rules_say() -> None:
    found, first, second = walk(0)
    first[20:30] = second[20:30] = np.nan
    second[50] = np.nan
    visible = ~np.isnan(first).any(axis=1)
    kept = np.flatnonzero(visible)
    strict = score_pair(found, first, second, visible, RGBT234)
    lenient = score_pair(found, first, second, visible, ScoringRules())
    whole = [first[kept], np.where(np.isnan(second[kept]), first[kept], second[kept])]
    mpr, msr = by_hand(found[kept], whole, 20)
    assert (lenient.mpr, lenient.msr) == (pytest.approx(mpr), pytest.approx(msr))
    share = len(kept) / len(found)
    assert (strict.mpr, strict.msr) == (pytest.approx(mpr * share), pytest.approx(msr * share))


def test_figures_of_a_data_set_weigh_sequences_or_frames() -> None:
    a = PairScores(precision_second=0.2, auc_second=0.2, mpr=0.2, msr=0.2)
    b = PairScores(precision_second=0.8, auc_second=0.8, mpr=0.8, msr=0.8)
    over_sequences, ends = overall_pair([(a, 30), (b, 10), (PairScores(), 5)], RGBT234)
    assert over_sequences.mpr == pytest.approx(0.5)
    assert ends["mpr"] == pytest.approx((0.2, 0.8))
    assert overall_pair([(a, 30), (b, 10)], GTOT)[0].msr == pytest.approx(0.35)
    assert overall_pair([(a, 30)], RGBT234) == (a, dict.fromkeys(PairScores.__struct_fields__))
    assert overall_pair([], RGBT234)[0] == PairScores()


def vot_by_hand(runs: list[tuple[Any, list[float], Any]]) -> tuple[float, float, float]:
    """VOT's long-term measures at every confidence that occurs: no choice of thresholds can be above their best."""
    best = (0.0, 0.0, 0.0)
    for threshold in sorted({score for _, scores, _ in runs for score in scores}):
        precisions, recalls = [], []
        for found, scores, truth in runs:
            taken = [index for index, score in enumerate(scores) if score >= threshold]
            overlaps = []
            for index in taken:
                absent = any(map(math.isnan, truth[index]))
                # The frame in which the box was given is none that the tracker found.
                overlaps.append(0.0 if absent or index == 0 else overlap(found[index], truth[index]))
            visible = sum(not any(map(math.isnan, row)) for row in truth)
            precisions.append(sum(overlaps) / len(overlaps) if overlaps else 1.0)
            recalls.append(sum(overlaps) / visible)
        precision, recall = sum(precisions) / len(runs), sum(recalls) / len(runs)
        if precision + recall > 0:
            best = max(best, (2 * precision * recall / (precision + recall), precision, recall))
    return best


def long_runs(frames: int) -> list[tuple[Any, list[float], Any]]:
    runs = []
    for seed in range(3):
        found, truth, _ = walk(seed, frames)
        truth[frames // 2 : frames // 2 + 6] = np.nan
        # Surer where it is right.
        sure = [0.0] + [float(1 - apart(found[i], np.nan_to_num(truth[i])) / 400) for i in range(1, frames)]
        runs.append((found, sure, truth))
    return runs


def test_vot_long_term_figures_are_those_of_the_definition() -> None:
    # With fewer frames than points of the curve, its points are all confidences that occur.
    runs = long_runs(30)
    found = long_term([confident_run(boxes, scores, truth, SIZE) for boxes, scores, truth in runs])
    assert found is not None
    f_score, precision, recall = vot_by_hand(runs)
    assert (found.f_score, found.precision, found.recall) == pytest.approx((f_score, precision, recall), abs=1e-12)
    assert found.threshold in {score for _, scores, _ in runs for score in scores}


def test_a_hundred_points_of_the_curve_come_close_to_all() -> None:
    runs = long_runs(300)
    found = long_term([confident_run(boxes, scores, truth, SIZE) for boxes, scores, truth in runs])
    assert found is not None
    best = vot_by_hand(runs)[0]
    assert best - 0.01 <= found.f_score <= best + 1e-12


def test_a_perfect_tracker_that_knows_when_the_target_is_gone_has_all_but_the_first_frame() -> None:
    truth = np.tile([50.0, 50.0, 20.0, 20.0], (11, 1))
    truth[5] = np.nan
    sure = [None, 0.9, 0.9, 0.9, 0.9, 0.1, 0.9, 0.9, 0.9, 0.9, 0.9]
    found = long_term([confident_run(np.nan_to_num(truth, nan=50.0), sure, truth, SIZE)])
    assert found is not None
    assert (found.precision, found.recall, found.threshold) == pytest.approx((1.0, 0.9, 0.9))
    # One that never doubts loses precision in that frame and in the first.
    always = long_term([confident_run(np.nan_to_num(truth, nan=50.0), [None] + [0.9] * 10, truth, SIZE)])
    assert always is not None
    assert (always.precision, always.recall) == pytest.approx((0.9, 0.9))


def test_boxes_are_cut_to_the_frame_before_they_are_compared() -> None:
    truth = np.array([[0, 0, 10, 10], [-10, 0, 20, 10]], np.float64)
    found = np.array([[0, 0, 10, 10], [0, 0, 10, 10]], np.float64)
    assert confident_run(found, [None, 0.5], truth, (100, 100)).overlap.tolist() == [0.0, 1.0]


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=150))
def test_the_f_score_lies_between_its_parts(frames: list[tuple[float, float]]) -> None:
    overlaps, confidence = (np.array(column) for column in zip(*frames, strict=True))
    found = long_term([ConfidentRun(overlaps, confidence, len(frames))])
    assert found is not None
    assert 0 <= found.f_score <= 1
    assert min(found.precision, found.recall) - 1e-12 <= found.f_score <= max(found.precision, found.recall) + 1e-12


def test_without_sequences_there_is_nothing() -> None:
    assert long_term([]) is None
