"""The bootstrap of two levels against its closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgetrack.errors import UsageError
from edgetrack.evaluation import bootstrap
from edgetrack.evaluation.bootstrap import interval, mean_of_means, resampled_means

GROUPS = st.lists(st.integers(1, 6).flatmap(lambda n: arrays(np.float64, n, elements=st.floats(0, 1))), min_size=1)


def ragged(seed=0):
    random = np.random.default_rng(seed)
    return [random.normal(random.normal(0.5, 0.1), 0.2, size) for size in (3, 12, 1, 7, 20, 5)]


def test_the_spread_of_resampled_means_is_the_closed_form() -> None:
    groups = ragged()
    between = np.var([g.mean() for g in groups])
    within = np.mean([g.var() / len(g) for g in groups])
    drawn = resampled_means(groups, 40_000, np.random.default_rng(1))
    assert drawn.std() == pytest.approx(np.sqrt((between + within) / len(groups)), rel=0.02)
    assert drawn.mean() == pytest.approx(mean_of_means(groups), abs=4 * drawn.std() / 200)


def test_an_interval_of_one_large_group_is_that_of_a_mean() -> None:
    values = np.random.default_rng(2).normal(0.4, 0.1, 400)
    low, high = interval([values], resamples=8000)
    half = 1.959964 * values.std() / 20
    assert (low, high) == (
        pytest.approx(values.mean() - half, abs=half / 10),
        pytest.approx(values.mean() + half, abs=half / 10),
    )


def test_runs_of_one_sequence_that_are_alike_do_not_narrow_the_interval() -> None:
    few = [np.full(2, value) for value in (0.1, 0.5, 0.9)]
    many = [np.full(200, value) for value in (0.1, 0.5, 0.9)]
    assert interval(few) == pytest.approx(interval(many))


@given(GROUPS)
def test_an_interval_lies_within_the_values_and_repeats_itself(groups) -> None:
    low, high = interval(groups, resamples=50)
    ends = min(g.min() for g in groups), max(g.max() for g in groups)
    assert ends[0] - 1e-9 <= low <= high <= ends[1] + 1e-9
    assert (low, high) == interval(groups, resamples=50)


def test_large_tables_are_drawn_in_blocks_of_the_same_law(monkeypatch) -> None:
    groups = ragged()
    monkeypatch.setattr(bootstrap, "_BLOCK", 500)
    drawn = resampled_means(groups, 20_001, np.random.default_rng(3))
    assert drawn.shape == (20_001,)
    between = np.var([g.mean() for g in groups]) + np.mean([g.var() / len(g) for g in groups])
    assert drawn.std() == pytest.approx(np.sqrt(between / len(groups)), rel=0.03)


@pytest.mark.parametrize(
    ("groups", "fields", "words"),
    [
        ([], {}, "0 groups"),
        ([np.ones(2), np.ones(0)], {}, r"\[2, 0\]"),
        ([np.ones(2)], {"confidence": 1.0}, "between 0 and 1"),
        ([np.ones(2)], {"resamples": 0}, "expected 1 or more"),
    ],
)
def test_what_cannot_be_drawn_from_is_refused(groups, fields, words) -> None:
    with pytest.raises(UsageError, match=words):
        interval(groups, **fields)
