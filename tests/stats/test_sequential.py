from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.gate.budget import Budget
from edgetrack.stats.sequential import ALPHA, ANALYSES, alpha_per_rule, spent, spent_on_processes


@given(st.sets(st.sampled_from(range(len(ANALYSES) - 1))))
def test_whichever_analyses_are_made_they_spend_all_of_it_and_no_more(early):
    before, total = 0.0, 0.0
    for analysis in [*sorted(early), len(ANALYSES) - 1]:
        total += spent(analysis, before, 0.02)
        before = ANALYSES[analysis]
    assert total == pytest.approx(0.02)


def test_processes_never_spend_all_of_it():
    assert sum(spent_on_processes(analysis, 0.02) for analysis in range(len(ANALYSES))) < 0.02


def test_rules_share_the_error_and_sizes_take_none():
    budget = Budget(schema=1, name="a", regressions={"track_p50_ratio": 1.05, "load_ratio": 1.2, "size_ratio": 1.02})
    assert budget.alpha == alpha_per_rule(2) == ALPHA / 2
    assert alpha_per_rule(0) == ALPHA
