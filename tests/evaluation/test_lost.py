"""What the flag is scored by, counted by hand."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgetrack.box import Box
from edgetrack.evaluation.datasets.clip import Clip, ScoringRules
from edgetrack.evaluation.lost import SOON, FlagScores, flag_scores, flag_table, flagged_run
from edgetrack.io import encode_json

HERE, AWAY = Box(10, 10, 20, 20), Box(200, 200, 20, 20)


def clip(truth: str, every: int = 1) -> Clip:
    """A sequence whose target is at HERE where the text has `x`, absent where it has `.`."""
    boxes = np.array([tuple(HERE) if mark == "x" else (np.nan,) * 4 for mark in truth])
    visible = ~np.isnan(boxes).any(axis=1)
    return Clip("a", tuple(Path(f"{i}.jpg") for i in range(len(truth))), boxes, visible, ScoringRules(), every=every)


def scores_of(truth: str, found: str, lost: str, **options):
    """`found`: `x` where the box is on HERE; `lost`: `L` where it is flagged; scores are 0.2 there, else 0.8."""
    boxes = [HERE if mark == "x" else AWAY for mark in found]
    flags = [mark == "L" for mark in lost]
    return flagged_run(clip(truth, **options), boxes, [None, *(0.2 if f else 0.8 for f in flags[1:])], flags)


def test_recall_and_false_alarms_count_frames_after_the_first() -> None:
    # Frame 0 does not count; 1-2 on target, 3 off and unnoticed, 4-5 absent and flagged, 6 on target and flagged.
    run = scores_of("xxxx..xx", "xxx---xx", "----LLL-")
    found = flag_scores([run])
    assert found is not None
    assert (found.frames, found.off_target, found.flagged) == (7, 3, 3)
    assert found.recall == pytest.approx(2 / 3)
    assert found.false_alarms == pytest.approx(1 / 4)
    # Of 3 x 4 pairs: the unnoticed one ties with 3 of 4 others and scores above the flagged one.
    assert found.auroc == pytest.approx((3 * 0.5 + 0 + 2 * (3 + 0.5)) / 12)
    assert (found.losses, found.noticed, found.notice) == (1, 1, 1)
    assert found.interval == {}
    assert found.curve == []


@pytest.mark.parametrize(
    ("iou_box", "off"),
    [(Box(10, 10, 20, 20), False), (Box(10, 26, 20, 20), False), (Box(10, 27, 20, 20), True)],
    ids=["on it", "IoU 0.111", "IoU 0.081"],
)
def test_bound_of_overlap(iou_box: Box, off: bool) -> None:
    run = flagged_run(clip("xx"), [HERE, iou_box], [None, 0.5], [False, False])
    assert run.off.tolist() == [off]


def test_a_return_is_found_when_the_box_is_on_target_and_unflagged() -> None:
    # Absent in 2-3; back in 4; the box is there in 5, still flagged, and trusted in 6.
    run = scores_of("xx..xxxx", "xx---xxx", "--LLLL--")
    assert run.finds == (2,)
    found = flag_scores([run])
    assert found is not None
    assert (found.returns, found.found, found.find) == (1, 1, 2)


def test_a_return_that_is_not_found_counts_once_there_was_time() -> None:
    short, long = "xx." + "x" * (SOON - 1), "xx." + "x" * SOON
    assert scores_of(short, "xx" + "-" * SOON, "--" + "L" * SOON).finds == ()
    run = scores_of(long, "xx" + "-" * (SOON + 1), "--" + "L" * (SOON + 1))
    assert run.finds == (None,)
    late = scores_of("xx." + "x" * 40, "xx" + "-" * 35 + "x" * 6, "--" + "L" * 35 + "-" * 6)
    found = flag_scores([run, late])
    assert found is not None
    assert (found.returns, found.found, found.find) == (2, 0, 34)


def test_an_unnoticed_loss_has_no_wait() -> None:
    assert scores_of("xxxxxx", "xx--xx", "------").notices == (None,)
    assert scores_of("xxxxxx", "xx--x-", "--L---").notices == (0, None)


def test_only_annotated_frames_count() -> None:
    run = scores_of("x..x..x", "x" * 7, "-" * 7, every=3)
    assert run.off.tolist() == [False, False]


def test_whole_data_set_has_intervals_and_a_curve() -> None:
    runs = [scores_of("xx..xx", "xx--xx", "--LL--") for _ in range(3)]
    found = flag_scores(runs, whole=True)
    assert found is not None
    assert found.interval["recall"] == found.interval["auroc"] == (1.0, 1.0)
    assert found.interval["false_alarms"] == (0.0, 0.0)
    assert found.curve == [(0.2, 0.0, 0.0), (0.8, 0.0, 1.0), (pytest.approx(0.8), 1.0, 1.0)]
    assert msgspec.json.decode(encode_json(found), type=FlagScores) == found
    table = flag_table([("a", found)], found)
    assert [row[0] for row in table.rows] == ["a", "all", "95 %"]
    assert table.cells()[1][1:6] == ["15", "6", "1.000", "0.0000", "1.000"]


def test_nothing_counts_in_a_single_frame() -> None:
    assert flag_scores([scores_of("x", "x", "-")]) is None
    assert flag_scores([]) is None
