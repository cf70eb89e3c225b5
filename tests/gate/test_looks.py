from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.gate.budget import Budget
from edgetrack.gate.looks import ALPHA, LOOKS, share_of, spent, spent_on_processes


@given(st.sets(st.sampled_from(range(len(LOOKS) - 1))))
def test_whichever_looks_are_taken_they_spend_all_of_it_and_no_more(early):
    taken, total = 0.0, 0.0
    for look in [*sorted(early), len(LOOKS) - 1]:
        total += spent(look, taken, 0.02)
        taken = LOOKS[look]
    assert total == pytest.approx(0.02)


def test_processes_never_spend_all_of_it():
    assert sum(spent_on_processes(look, 0.02) for look in range(len(LOOKS))) < 0.02


def test_rules_share_the_error_and_sizes_take_none():
    budget = Budget(schema=1, name="a", regressions={"track_p50_ratio": 1.05, "load_ratio": 1.2, "size_ratio": 1.02})
    assert share_of(budget.rules) == ALPHA / 2
    assert share_of([]) == ALPHA
