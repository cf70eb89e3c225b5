from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.stats.verdict import judge_difference, judge_limit, overall_verdict, runs_to_settle


def test_a_limit_is_judged_by_the_end_that_is_known():
    assert [judge_limit(9.0, 11.0, limit) for limit in (8.9, 9.0, 10.9, 11.0)] == [
        "fail",
        "undecided",
        "undecided",
        "pass",
    ]
    assert judge_limit(None, 11.0, 11.0) == "pass"
    assert judge_limit(9.0, None, 8.0) == "fail"
    assert judge_limit(None, None, 1.0) == "undecided"


@pytest.mark.parametrize(
    ("verdicts", "one"),
    [
        ([], "skipped"),
        (["skipped"], "skipped"),
        (["pass", "skipped"], "skipped"),
        (["undecided", "skipped"], "skipped"),
        (["fail", "skipped"], "fail"),
        (["pass", "undecided"], "undecided"),
        (["undecided", "fail", "pass"], "fail"),
    ],
)
def test_the_worst_verdict_is_that_of_all(verdicts, one):
    assert overall_verdict(verdicts) == one


def test_what_was_skipped_counts_for_nothing_only_where_that_was_asked_for():
    assert overall_verdict(["pass", "skipped"], may_skip=True) == "pass"
    assert overall_verdict(["undecided", "skipped"], may_skip=True) == "undecided"
    assert overall_verdict(["skipped"], may_skip=True) == "skipped"


@pytest.mark.parametrize(
    ("low", "high", "margin", "verdict"),
    [
        (-0.004, 0.005, 0.005, "equal"),
        (0.001, 0.004, 0.005, "equal"),
        (0.001, 0.006, 0.005, "better"),
        (-0.006, -0.001, 0.005, "worse"),
        (-0.006, 0.001, 0.005, "undecided"),
        (0.0, 0.006, 0.005, "undecided"),
        (0.0, 0.0, 0.0, "equal"),
    ],
)
def test_the_rule(low, high, margin, verdict) -> None:
    assert judge_difference(low, high, margin) == verdict


@given(st.floats(-0.2, 0.2), st.floats(0.001, 0.2), st.floats(0.001, 0.05), st.integers(2, 1000))
def test_the_runs_asked_for_would_settle_it(value, half, margin, runs) -> None:
    if judge_difference(value - half, value + half, margin) != "undecided":
        return
    more = runs_to_settle(value, half, margin, runs)
    narrow = half * np.sqrt(runs / (runs + more))
    assert judge_difference(
        value - narrow - 1e-12, value + narrow + 1e-12, margin + 1e-9
    ) != "undecided" or narrow <= abs(value)
    if more > 1:
        wide = half * np.sqrt(runs / (runs + more - 1))
        assert wide > max(abs(value), margin - abs(value)) - 1e-9


def test_no_number_of_runs_settles_nothing() -> None:
    assert runs_to_settle(0.0, 0.1, 0.0, 10) is None
    assert runs_to_settle(0.01, 0.02, 0.0, 100) == 300
