"""How two tensors are compared."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgetrack.runtime.parity import compare

VALUES = hnp.arrays(np.float32, 12, elements=st.floats(-1e3, 1e3, width=32))
TOLERANCES = st.floats(0, 10)


def test_peak_allows_a_share_of_the_references_largest_magnitude() -> None:
    reference, found = np.array([0.0, -4.0]), np.array([0.9, -4.0])
    c = compare("t", found, reference, atol=0.1, rtol=0, peak=0.25)
    assert (c.ok, c.atol, c.smallest_atol) == (True, 1.1, 0.9)
    assert not compare("t", found, reference, atol=0.1, rtol=0, peak=0.19).ok
    assert not compare("t", np.zeros(2), reference, atol=0, rtol=0, peak=0.99).ok


def test_figures_are_the_closed_forms() -> None:
    reference = np.array([1.0, -2.0, 4.0, 0.0])
    c = compare("t", reference + np.array([0.1, 0, -0.3, 0]), reference, atol=0.2, rtol=0.05)
    assert c.max_abs == pytest.approx(0.3)
    assert c.mean_abs == pytest.approx(0.1)
    assert c.q999_abs == pytest.approx(0.3 - 0.2 * 0.003)
    assert c.reference_max == 4
    assert c.smallest_atol == pytest.approx(0.3 - 0.05 * 4)
    assert c.ok


def test_tolerance_grows_with_the_reference_not_with_what_was_found() -> None:
    assert compare("t", np.array([100.0]), np.array([110.0]), atol=0, rtol=0.095).ok
    assert not compare("t", np.array([110.0]), np.array([100.0]), atol=0, rtol=0.095).ok


@given(a=VALUES, b=VALUES, atol=TOLERANCES, rtol=TOLERANCES)
def test_verdict_is_the_written_rule(a: np.ndarray, b: np.ndarray, atol: float, rtol: float) -> None:
    x, y = a.astype(float), b.astype(float)
    excess = (np.abs(x - y) - rtol * np.abs(y)).max()
    assert compare("t", a, b, atol=atol, rtol=rtol).ok == (excess <= atol)


@given(a=VALUES, b=VALUES, rtol=st.floats(0, 1))
def test_smallest_atol_passes_and_one_percent_less_fails(a: np.ndarray, b: np.ndarray, rtol: float) -> None:
    smallest = compare("t", a, b, atol=0, rtol=rtol).smallest_atol
    assert compare("t", a, b, atol=smallest, rtol=rtol).ok
    assume(smallest > 1e-300)
    assert not compare("t", a, b, atol=smallest * 0.99, rtol=rtol).ok


@given(a=VALUES)
def test_equal_tensors_pass_without_tolerance(a: np.ndarray) -> None:
    c = compare("t", a, a, atol=0, rtol=0)
    assert (c.ok, c.max_abs, c.smallest_atol) == (True, 0, 0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", ["found", "reference", "both"])
def test_what_is_not_finite_never_passes(bad: float, side: str) -> None:
    good, spoilt = np.zeros(3), np.array([0, bad, 0])
    found, reference = {"found": (spoilt, good), "reference": (good, spoilt), "both": (spoilt, spoilt)}[side]
    c = compare("t", found, reference, atol=1e300, rtol=1e300)
    assert (c.ok, c.max_abs, c.smallest_atol) == (False, math.inf, math.inf)


@pytest.mark.parametrize(("a", "b"), [((2, 3), (3, 2)), ((1,), (3,)), ((), (1,))])
def test_shapes_are_never_stretched(a: Any, b: Any) -> None:
    assert not compare("t", np.zeros(a), np.zeros(b), atol=1, rtol=1).ok


def test_bytes_do_not_wrap_around() -> None:
    assert compare("t", np.array([1], np.uint8), np.array([255], np.uint8), atol=1, rtol=0).max_abs == 254


def test_empty_tensors_agree() -> None:
    c = compare("t", np.zeros((0, 3)), np.zeros((0, 3)), atol=0, rtol=0)
    assert (c.ok, c.mean_abs, c.q999_abs) == (True, 0, 0)
