from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from edgetrack.errors import UsageError
from edgetrack.stats.trend import theil_sen


@given(st.lists(st.integers(-5, 5), min_size=6, max_size=30))
def test_slope_and_interval_are_scipys(values):
    times = np.arange(len(values), dtype=float)
    found = theil_sen(times, [float(value) for value in values])
    expected = stats.theilslopes(values, times, 0.95)
    assert found.value == pytest.approx(expected.slope)
    if len(set(values)) > 1:
        assert (found.low, found.high) == pytest.approx((expected.low_slope, expected.high_slope))


def test_one_odd_value_does_not_bend_it():
    values = [2.0 * t for t in range(20)]
    values[7] = 1e6
    assert theil_sen(range(20), values).value == pytest.approx(2.0)


def test_noise_without_a_trend_holds_zero_and_a_leak_does_not():
    rng = np.random.default_rng(1)
    noise = rng.normal(size=16)
    assert not theil_sen(range(16), noise).grows
    assert theil_sen(range(16), noise + 0.5 * np.arange(16)).grows


def test_what_never_changes_has_no_slope():
    found = theil_sen(range(10), [7.0] * 10)
    assert (found.value, found.low, found.high, found.grows) == (0.0, 0.0, 0.0, False)


def test_few_points_have_no_interval():
    assert theil_sen([0.0], [1.0]) is None
    found = theil_sen([0.0, 1.0, 2.0], [0.0, 1.0, 2.0])
    assert (found.value, found.low, found.grows) == (1.0, None, None)


@pytest.mark.parametrize("wrong", [([0.0, 0.0], [1.0, 2.0]), ([0.0], [1.0, 2.0]), ([0.0, 1.0], [1.0, float("nan")])])
def test_points_that_are_none(wrong):
    with pytest.raises(UsageError):
        theil_sen(*wrong)
