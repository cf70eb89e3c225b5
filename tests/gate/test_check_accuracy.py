from __future__ import annotations

from pathlib import Path

import pytest

from edgetrack.capabilities import open_ref
from edgetrack.evaluation.datasets import open_dataset
from edgetrack.evaluation.protocols.anchored import Difference
from edgetrack.gate.budget import Budget
from edgetrack.gate.check import delta_ao, judge_ao

(RULE,) = Budget(schema=1, name="mine", limits={"delta_ao_points": -0.5}).rules


def difference(value, low, high):
    return Difference(
        value=value, low=low, high=high, verdict="undecided", runs=80, sequences=10, margin=0.005, more_runs=None
    )


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.005, 0.001, "pass"),
        (-0.001, 0.04, "pass"),
        (-0.02, -0.0051, "fail"),
        (-0.02, -0.004, "undecided"),
        (-0.006, 0.02, "undecided"),
    ],
)
def test_it_passes_where_no_more_can_be_lost_and_fails_where_more_is(low, high, verdict):
    found = judge_ao(RULE, difference((low + high) / 2, low, high), 0.01)
    assert found.verdict == verdict
    assert (found.low, found.high) == (100 * low, 100 * high)
    assert (found.more is not None) == (verdict == "undecided")


def test_a_narrow_miss_needs_fewer_runs_than_a_hair_s_breadth():
    near = judge_ao(RULE, difference(-0.0055, -0.0155, 0.0045), 0.01)
    far = judge_ao(RULE, difference(-0.0010, -0.0110, 0.0090), 0.01)
    assert near.more > far.more > 0


def test_two_alike_bundles_lose_nothing(make_bundle):
    a, b = (open_ref(str(make_bundle(name))) for name in "ab")
    scene = open_dataset("synthetic:drift?frames=30&size=96x64", None)
    told = []
    found = delta_ao(
        RULE, a, b, scene, device="cpu", threads=1, alpha=0.01, progress=lambda what, done, total: told.append(what)
    )
    assert (found.verdict, found.value, found.low, found.high) == ("pass", 0, 0, 0)
    assert found.samples >= 2
    assert told
    assert not Path("out/eval/a").exists()
