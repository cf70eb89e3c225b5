"""Paired differences: what pairs, and what is said about it."""

from __future__ import annotations

import numpy as np
import pytest

from edgetrack.errors import UsageError
from edgetrack.evaluation.anchors import AnchoredRun, AnchorRun
from edgetrack.evaluation.difference import paired_difference


def runs_of(name, values, first=0):
    made = [AnchorRun(frame=first + 5 * i, direction="forward", ao=float(v), frames=4) for i, v in enumerate(values)]
    return AnchoredRun(sequence=name, runs=made)


def trackers(shift, spread, sequences=12, runs=10, seed=0):
    """Runs of two trackers that differ by `shift` on average and by `spread` from run to run."""
    random = np.random.default_rng(seed)
    a = [random.uniform(0.3, 0.7, runs) for _ in range(sequences)]
    b = [values + random.normal(shift, spread, runs) for values in a]
    return [[runs_of(f"s{i}", values) for i, values in enumerate(side)] for side in (a, b)]


@pytest.mark.parametrize(
    ("shift", "spread", "verdict"),
    [(0.05, 0.02, "better"), (-0.05, 0.02, "worse"), (0.0, 0.005, "equal"), (0.0, 0.3, "undecided")],
)
def test_a_known_difference_gets_its_verdict(shift, spread, verdict) -> None:
    found = paired_difference(*trackers(shift, spread), margin=0.005)
    assert found.verdict == verdict
    assert found.low <= found.value <= found.high
    assert found.low <= shift <= found.high
    assert (found.runs, found.sequences) == (120, 12)
    assert (found.more_runs is not None) == (verdict == "undecided")
    assert verdict in found.describe()


def test_pairing_takes_out_what_both_share() -> None:
    a, b = trackers(0.01, 0.001)
    found = paired_difference(a, b, margin=0.0)
    # Runs of one tracker spread over 0.4; their differences over a thousandth.
    assert found.high - found.low < 0.002
    assert found.verdict == "better"


def test_swapped_trackers_get_the_opposite() -> None:
    a, b = trackers(0.02, 0.05)
    there, back = paired_difference(a, b, 0.005), paired_difference(b, a, 0.005)
    assert back.value == pytest.approx(-there.value)
    assert (back.low, back.high) == (pytest.approx(-there.high), pytest.approx(-there.low))


def test_a_sequence_that_one_tracker_lacks_and_one_without_runs_are_left_out() -> None:
    a = [runs_of("x", [0.1, 0.2]), runs_of("y", [0.5]), runs_of("empty", [])]
    b = [runs_of("empty", []), runs_of("x", [0.2, 0.3])]
    found = paired_difference(a, b, 0.01)
    assert (found.value, found.runs, found.sequences) == (pytest.approx(0.1), 2, 1)


@pytest.mark.parametrize(
    ("a", "b", "margin", "words"),
    [
        ([runs_of("x", [0.1, 0.2])], [runs_of("x", [0.1])], 0.01, "2 and 1 of them"),
        ([runs_of("x", [0.1, 0.2])], [runs_of("x", [0.1, 0.2], first=1)], 0.01, "one plan"),
        ([runs_of("x", [0.1])], [runs_of("x", [0.1])], 0.01, "1 paired runs"),
        ([], [runs_of("x", [0.1])], 0.01, "0 paired runs"),
        ([runs_of("x", [0.1])] * 2, [runs_of("x", [0.1])], 0.01, "each sequence once"),
        ([], [], -1.0, "such as half a point"),
        ([], [], float("nan"), "such as half a point"),
    ],
)
def test_what_does_not_pair_is_refused(a, b, margin, words) -> None:
    with pytest.raises(UsageError, match=words):
        paired_difference(a, b, margin)
