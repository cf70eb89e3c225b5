"""Figures against GOT-10k's toolkit, closed forms, and properties that hold for any boxes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgetrack.box import Box, center_distances, ious
from edgetrack.box import iou as box_iou
from edgetrack.errors import UsageError
from edgetrack.evaluation import metrics
from edgetrack.evaluation.datasets.clip import ScoringRules
from edgetrack.evaluation.metrics import FIGURES, divergence, intervals, overall

SIZE = (300, 280)
GOT10K = ScoringRules(bounded=True, over_frames=True)
positive = st.floats(1, 100)
place = st.floats(-200, 200)
boxes = st.tuples(place, place, positive, positive)
many = arrays(np.float64, st.tuples(st.integers(1, 12), st.just(4)), elements=st.floats(1, 60))


@pytest.fixture(scope="module")
def pair():
    """200 boxes and what a tracker might make of them."""
    rng = np.random.Generator(np.random.PCG64(7))
    truth = np.hstack([rng.integers(0, 260, (200, 2)), rng.integers(10, 60, (200, 2))]).astype(float)
    found = truth + rng.integers(-25, 26, (200, 4))
    found[:, 2:] = np.maximum(found[:, 2:], 1)
    found[0] = truth[0]
    return found, truth


def test_overlap_and_distance_as_got10ks_toolkit_printed_them(pair) -> None:
    # got10k 0.1.3, utils/metrics.py: rect_iou without and with bound=(300, 280), center_error.
    overlap = ious(*pair)
    expected = [1.0, 0.3008423586040915, 0.0, 0.21660649819494585, 0.361474435196195, 0.02656546489563567]
    np.testing.assert_allclose(overlap[:6], expected, rtol=1e-12)
    assert overlap.mean() == pytest.approx(0.17693782183244636, rel=1e-12)
    bounded = ious(*(metrics.into_frame(b, SIZE) for b in pair))
    assert bounded.mean() == pytest.approx(0.18116894888131407, rel=1e-12)
    assert center_distances(*pair).mean() == pytest.approx(20.226471134231637, rel=1e-12)


def test_curves_as_got10ks_toolkit_printed_them(pair) -> None:
    # got10k 0.1.3, experiments/otb.py: _calc_curves on the same boxes.
    curve = [0.745, 0.645, 0.585, 0.485, 0.395, 0.31, 0.25, 0.195, 0.115, 0.08, 0.035, 0.02, 0.015, 0.015, 0.01, 0.01]
    curve += [0.005, 0.005, 0.005, 0.005, 0.0]
    found = metrics.success_curve(ious(*pair))
    np.testing.assert_allclose(found, curve, rtol=1e-12)
    everywhere = np.ones(200, bool)
    scores = metrics.score(*pair, everywhere, ScoringRules(), SIZE).scores
    assert scores.auc == pytest.approx(0.18714285714285714)
    assert scores.precision == pytest.approx(0.53)
    assert (scores.op50, scores.op75) == (found[10], found[15])


def test_ao_and_sr_as_got10ks_toolkit_printed_them(pair) -> None:
    # got10k 0.1.3, experiments/got10k.py: report() on sequences of 150 and 50 frames, every seventh without the target.
    found, truth = pair
    visible = np.arange(200) % 7 != 3
    parts = [metrics.score(found[s], truth[s], visible[s], GOT10K, SIZE) for s in (slice(150), slice(150, 200))]
    assert [p.frames for p in parts] == [128, 42]
    assert [p.scores.ao for p in parts] == pytest.approx([0.16789977118863877, 0.20528211499412058])
    together = overall(parts, GOT10K)
    assert together.ao == pytest.approx(0.1771354090699931)
    assert together.sr50 == pytest.approx(0.047058823529411764)
    assert together.sr75 == pytest.approx(0.0058823529411764705)
    assert overall(parts, ScoringRules()).ao == pytest.approx((0.16789977118863877 + 0.20528211499412058) / 2)


def test_against_got10ks_toolkit_itself(pair) -> None:
    reason = "OFFICIAL TOOLKIT ABSENT: pip install 'edgetrack[crosscheck]' to compare with got10k's own functions"
    official = pytest.importorskip("got10k.utils.metrics", reason=reason)
    otb = pytest.importorskip("got10k.experiments.otb", reason=reason)
    overlap, distances = official.rect_iou(*pair), official.center_error(*pair)
    np.testing.assert_allclose(ious(*pair), overlap, atol=1e-12)
    np.testing.assert_allclose(center_distances(*pair), distances, atol=1e-12)
    bounded = official.rect_iou(*(b.copy() for b in pair), bound=SIZE)
    np.testing.assert_allclose(ious(*(metrics.into_frame(b, SIZE) for b in pair)), bounded, atol=1e-12)
    experiment = otb.ExperimentOTB.__new__(otb.ExperimentOTB)
    experiment.nbins_iou, experiment.nbins_ce = 21, 51
    success, precision = experiment._calc_curves(overlap, distances)
    np.testing.assert_allclose(metrics.success_curve(overlap), success)
    np.testing.assert_allclose(metrics.precision_curve(distances), precision)


def test_closed_forms_of_a_constant_shift() -> None:
    # A 10x20 box shifted by 2 to the right: IoU = 8 / 12, centres 2 pixels = 0.2 widths apart.
    truth = np.tile([50.0, 50, 10, 20], (11, 1))
    found = truth + np.array([2, 0, 0, 0])
    found[0] = truth[0]
    scores = metrics.score(found, truth, np.ones(11, bool), ScoringRules(), SIZE).scores
    assert scores.ao == pytest.approx(2 / 3)
    assert (scores.sr50, scores.sr75) == (1, 0)
    # Thresholds 0 .. 0.65 are below 2/3 for all 11 frames, 0.70 .. 0.95 below 1 for the first.
    assert scores.auc == pytest.approx((14 * 1 + 6 / 11) / 21)
    assert (scores.op50, scores.op75) == (1, pytest.approx(1 / 11))
    assert scores.precision == 1
    # 0.2 up to rounding: thresholds 0 .. 0.19 hold the first frame alone.
    assert scores.p_norm == pytest.approx((20 / 11 + 31) / 51, abs=1 / 51)


def test_an_iou_at_a_threshold_does_not_pass_it_and_a_distance_does() -> None:
    curve = metrics.success_curve(np.array([0.5]))
    assert curve.tolist() == [1.0] * 10 + [0.0] * 11
    assert metrics.precision_curve(np.array([20.0])).tolist() == [0.0] * 20 + [1.0] * 31


def test_a_perfect_tracker_passes_all_thresholds_but_one() -> None:
    truth = np.tile([5.0, 5, 9, 9], (4, 1))
    scores = metrics.score(truth, truth, np.ones(4, bool), ScoringRules(), SIZE).scores
    assert scores.auc == pytest.approx(20 / 21)
    assert [getattr(scores, name) for name in FIGURES if name != "auc"] == [1.0] * 8


def test_absent_frames_are_left_out_or_count_as_misses() -> None:
    truth = np.tile([5.0, 5, 9, 9], (4, 1))
    truth[2:] = np.nan
    found = np.tile([5.0, 5, 9, 9], (4, 1))
    visible = np.array([True, True, False, False])
    out = metrics.score(found, truth, visible, ScoringRules(), SIZE).scores
    missed = metrics.score(found, truth, visible, ScoringRules(absent_fails=True), SIZE).scores
    assert (out.ao, out.op50, out.precision, out.p_norm) == (1, 1, 1, 1)
    assert (missed.ao, missed.op50, missed.precision, missed.p_norm) == (1, 0.5, 0.5, 0.5)


def test_a_box_at_the_frames_edge_is_scored_like_any_other() -> None:
    """LaSOT's script takes a true box with x = 0 for none: an error of -1, which passes P (docs/eval.md)."""
    truth = np.tile([[0.0, 20.0, 30.0, 20.0]], (20, 1))
    truth[1:, 0] = 40.0
    truth[5:7, 0] = 0.0
    found = truth + np.array([25.0, 0.0, 0.0, 0.0])
    found[0] = truth[0]
    found[10:] = truth[10:]
    ours = metrics.score(found, truth, np.ones(20, bool), ScoringRules(absent_fails=True), SIZE).scores
    official = np.where((truth > 0).all(axis=1), metrics.center_distances(found, truth), -1.0)
    assert ours.precision == pytest.approx(11 / 20)
    assert (official <= 20).mean() == pytest.approx(13 / 20)  # the two frames at the edge, and the first that is right


def test_nothing_after_the_first_frame_is_no_score() -> None:
    one = np.array([[5.0, 5, 9, 9]])
    assert metrics.score(one, one, np.ones(1, bool), ScoringRules(), SIZE) == (metrics.Scores(), 0)
    assert overall([metrics.Scored(metrics.Scores(), 0)], ScoringRules()) == metrics.Scores()


def test_got10ks_bound_moves_a_box_instead_of_cutting_it() -> None:
    assert metrics.into_frame(np.array([[-10.0, 0, 30, 20], [290, 0, 30, 20]]), SIZE).tolist() == [
        [0, 0, 30, 20],
        [290, 0, 10, 20],
    ]


def _plain_iou(a, b):
    """The definition for two boxes with positive sizes, one number after another."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


@given(boxes, boxes)
def test_overlap_and_distance_are_those_of_the_box_algebra(a, b) -> None:
    one, other = np.array([a]), np.array([b])
    assert ious(one, other)[0] == pytest.approx(_plain_iou(a, b), abs=1e-9)
    assert box_iou(Box(*a), Box(*b)) == ious(one, other)[0]
    assert center_distances(one, other)[0] == pytest.approx(math.dist(Box(*a).center, Box(*b).center), abs=1e-9)


@given(many, st.data())
def test_scores_are_shares_ordered_and_blind_to_scale(truth, data) -> None:
    found = data.draw(arrays(np.float64, truth.shape, elements=st.floats(1, 60)))
    everywhere = np.ones(len(truth), bool)
    one = metrics.score(found, truth, everywhere, ScoringRules(), SIZE).scores
    if len(truth) == 1:
        assert one == metrics.Scores()
        return
    assert all(0 <= getattr(one, name) <= 1 for name in FIGURES)
    assert one.sr75 <= one.sr50
    assert one.op75 <= one.op50
    twice = metrics.score(2 * found, 2 * truth, everywhere, ScoringRules(), SIZE).scores
    assert twice.ao == pytest.approx(one.ao)
    assert twice.p_norm == pytest.approx(one.p_norm)


@given(many)
def test_curves_fall_and_rise(values) -> None:
    overlaps = values[:, 0] / 60
    assert (np.diff(metrics.success_curve(overlaps)) <= 0).all()
    assert (np.diff(metrics.precision_curve(values[:, 1])) >= 0).all()


def test_intervals_hold_the_mean_are_repeatable_and_narrow_with_more_sequences() -> None:
    def scored(values):
        return [metrics.Scored(metrics.Scores(**dict.fromkeys(FIGURES, v)), 10) for v in values]

    few, lots = scored([0.2, 0.4, 0.6, 0.8]), scored([0.2, 0.4, 0.6, 0.8] * 25)
    low, high = intervals(few, ScoringRules())["ao"]
    assert 0.2 <= low < 0.5 < high <= 0.8
    assert intervals(few, ScoringRules()) == intervals(few, ScoringRules())
    narrow_low, narrow_high = intervals(lots, ScoringRules())["ao"]
    # The standard error of the mean of 100 such values is 0.0224; a normal 95 % interval is 0.0877 wide.
    assert narrow_high - narrow_low == pytest.approx(0.0877, abs=0.008)
    assert intervals(few[:1], ScoringRules())["ao"] is None
    assert intervals(scored([0.5] * 3), ScoringRules())["auc"] == (0.5, 0.5)


def test_an_interval_over_frames_weighs_sequences_by_their_frames() -> None:
    parts = [metrics.Scored(metrics.Scores(**dict.fromkeys(FIGURES, v)), n) for v, n in ((0.0, 1), (1.0, 999))]
    assert overall(parts, GOT10K).ao == pytest.approx(0.999)
    assert overall(parts, GOT10K).auc == pytest.approx(0.5)
    low, high = intervals(parts * 5, GOT10K)["ao"]
    assert low > 0.9
    assert high <= 1


STILL = Box(0, 0, 10, 10)


def moved(share):
    """A box whose IoU with `STILL` is (1 - share) / (1 + share)."""
    return Box(10 * share, 0, 10, 10)


def test_the_curve_the_first_divergence_and_the_recovery() -> None:
    b = [STILL, moved(0.02), moved(0.5), moved(0.01), moved(0.9), moved(0.2), moved(0.01), moved(0.2)]
    found = divergence([STILL] * 8, b)
    ious = [1, 0.98 / 1.02, 0.5 / 1.5, 0.99 / 1.01, 0.1 / 1.9, 0.8 / 1.2, 0.99 / 1.01, 0.8 / 1.2]
    assert found.iou == pytest.approx(ious)
    # Together at 3, but apart once more at 4: 6 is the recovery.
    assert (found.first, found.recovery) == (2, 6)
    assert divergence([STILL] * 5, b[:5]).recovery is None
    assert found.later == found.iou[1:]


def test_runs_that_agree_and_runs_that_never_meet_again() -> None:
    assert divergence([STILL] * 3, [STILL] * 3).first is None
    lost = divergence([STILL] * 3, [STILL, moved(0.9), moved(0.9)])
    assert (lost.first, lost.recovery) == (1, None)
    # An IoU of 0.5 is apart; a box without area shares nothing.
    half = divergence([STILL] * 2, [STILL, Box(0, 0, 5, 10)])
    assert (half.iou[1], half.first) == (0.5, 1)
    assert divergence([STILL] * 2, [STILL, Box(0, 0, 0, 0)]).first == 1


def test_one_frame_says_nothing_and_different_lengths_are_refused() -> None:
    alone = divergence([STILL], [STILL])
    assert (alone.later, alone.first, alone.recovery) == ([], None, None)
    with pytest.raises(UsageError, match="2 and 1 frames"):
        divergence([STILL] * 2, [STILL])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_a_recovery_follows_a_divergence(shares) -> None:
    found = divergence([STILL] * len(shares), [moved(share) for share in shares])
    if found.first is None:
        assert found.recovery is None
        assert all(value > 0.5 for value in found.later)
    else:
        assert found.iou[found.first] <= 0.5
        assert found.recovery is None or found.recovery > found.first
        assert found.recovery is None or min(found.iou[found.recovery :]) > 0.5
