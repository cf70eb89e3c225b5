from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from edgetrack.errors import UsageError
from edgetrack.stats.race import ALPHA, FIRST, Race
from tests.gate.conftest import Machine

NOISY = {"jitter": 0.1, "state": 0.08, "spike": 0.03, "burst": 1.5}
RATIOS = (1, 1.0, 1.02, 1.04, 1.08, 1.15, 1.2, 1.3, 1.5, 1.6, 1.8, 2, 2.2, 2.5, 3, 4)
"""Of candidates' times as they were seen on processors: a crowd near the best, and a long tail."""
TURN_MS, LEAST_FRAMES, DISCARDED, REST_S = 300.0, 12, 5, 0.1


def simulated(seed, ratios, most_rounds, *, base_ms=10.0, **noise):
    """A race on the gate's simulated machine.

    Returns:
        The pick's true time over the best's, and the share of the time that it would have taken to measure all
        candidates in as many rounds.
    """
    machine, rng = Machine(seed, **noise), np.random.default_rng(1000 + seed)
    times = {str(i): base_ms * ratio for i, ratio in enumerate(ratios)}
    race = Race(list(times), dict(zip(times, rng.permutation(len(times)), strict=True)).__getitem__)
    place = {one: np.exp(machine.place * rng.normal()) for one in times}
    while not race.decided and len(race.rounds) < most_rounds:
        found = {}
        for one in rng.permutation(race.alive):
            ms = times[one] * place[one]
            machine.frames(ms, DISCARDED)
            machine.now += REST_S
            found[one] = float(np.median(machine.frames(ms, max(LEAST_FRAMES, round(TURN_MS / ms)))))
        race.add(found)
    race.analyse()
    turns = [DISCARDED * ms / 1000 + REST_S + max(LEAST_FRAMES * ms, TURN_MS) / 1000 for ms in times.values()]
    return times[race.pick] / min(times.values()), machine.now / (len(race.rounds) * sum(turns))


def repeated(repetitions, **noise):
    found = []
    for seed in range(repetitions):
        spread = np.exp(0.01 * np.random.default_rng(seed).normal(size=len(RATIOS)))
        found.append(simulated(seed, np.multiply(RATIOS, spread), 400, **noise))
    excess, shares = np.array(found).T
    return float((excess <= 1.03).mean()), 1 - float(np.mean(shares))


def test_a_few_repetitions_pick_within_the_margin_and_save_half():
    good, saved = repeated(3)
    assert good == 1
    assert saved >= 0.5


@pytest.mark.full
@pytest.mark.parametrize("noise", [{}, NOISY, {"drift": 0.5}], ids=["quiet", "noisy", "slowing"])
def test_two_hundred_repetitions(noise):
    good, saved = repeated(200, **noise)
    print(f"within 3 % of the best: {good:.3f}; of the exhaustive time saved: {saved:.3f}")
    assert good >= 0.95
    assert saved >= 0.5


@pytest.mark.full
def test_nothing_that_is_said_of_any_pair_is_wrong_more_often_than_alpha():
    """Six candidates that differ by the margin itself, where every verdict is an error about half of the time."""
    wrong = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        race = Race([str(i) for i in range(6)], int)
        logs = np.log1p(race.margin) * (np.arange(6) > 0)
        for _ in range(60):
            times = np.exp(logs + 0.03 * rng.standard_t(4, size=6))
            race.add({one: times[int(one)] for one in race.alive})
            if race.beaten or (len(race.alive) == 6 and any(map(race.equals, "12345"))):
                wrong += 1
                break
    print(f"wrong in {wrong} of 300")
    assert wrong <= 300 * ALPHA


def race_of(rounds, **options):
    return Race(list(rounds[0]), lambda label: label, rounds=list(rounds), **options)


def steady(count, noise=0.02, **times):
    rng = np.random.default_rng(0)
    return [{name: ms * float(np.exp(noise * rng.normal())) for name, ms in times.items()} for _ in range(count)]


def test_gross_differences_are_called_at_the_first_analysis_and_fine_ones_later():
    race = race_of(steady(FIRST, a=30.0, b=10.0, c=10.0))
    assert set(race.beaten) == {"a"}
    assert not race.decided
    race = race_of(steady(60, a=30.0, b=10.0, c=10.0))
    assert race.decided
    assert race.pick == "b"  # of equals the lower rank


def test_a_candidate_just_within_the_margin_is_taken_where_its_rank_is_lower():
    race = race_of(steady(60, noise=0.005, cheap=10.15, dear=10.0))
    assert race.decided
    assert race.pick == "cheap"
    assert race.leader == "dear"


def test_who_is_refused_gives_back_those_that_it_has_beaten():
    race = race_of(steady(20, a=20.0, b=10.0, c=19.9))
    assert set(race.beaten) == {"a", "c"}
    race.refuse("b")
    assert race.alive == ["a", "c"]
    assert race.pick == "a"
    race.refuse("a")
    race.refuse("c")
    assert race.alive == []
    with pytest.raises(UsageError, match="nobody is left"):
        _ = race.leader


def test_rounds_between_analyses_are_not_looked_at():
    """Else every round would be one more chance to be wrong."""
    rounds = steady(FIRST + 1, a=10.0, b=10.2)
    race = race_of(rounds[:FIRST])
    race.add(rounds[FIRST])
    race.analyse()
    analyses, judged = race.analyses, race.ratio("b", "a")
    for _ in range(10):
        race.add({"a": 1.0, "b": 1000.0})
        if race.analyses > analyses:
            break
        assert race.ratio("b", "a") == judged
    assert race.ratio("b", "a").rounds == len(race.rounds) > judged.rounds


def test_the_interval_is_tukeys_and_mclaughlins():
    rng = np.random.default_rng(3)
    rounds = [{"a": float(a), "b": float(b)} for a, b in np.exp(rng.normal(size=(40, 2)) * [[0.1, 0.2]])]
    race = race_of(rounds)
    race.analyse()
    logs = [math.log(one["b"] / one["a"]) for one in rounds]
    alpha = 2 * ALPHA / 2 / (race.analyses * (race.analyses + 1))
    low, high = stats.mstats.trimmed_mean_ci(logs, limits=(0.1, 0.1), alpha=alpha)
    found = race.ratio("b", "a")
    assert found.value == pytest.approx(math.exp(stats.trim_mean(logs, 0.1)))
    assert (found.low, found.high) == pytest.approx((math.exp(low), math.exp(high)), rel=1e-3)


@given(st.lists(st.tuples(st.floats(0.1, 1e4), st.floats(0.1, 1e4)), min_size=1, max_size=30), st.floats(0.01, 100))
def test_another_unit_changes_nothing(pairs, unit):
    race, other = (race_of([{"a": a * u, "b": b * u} for a, b in pairs]) for u in (1.0, unit))
    race.analyse()
    other.analyse()
    assert race.ratio("a", "b").value == pytest.approx(other.ratio("a", "b").value, rel=1e-6)


def test_how_many_more_rounds_is_about_what_it_takes():
    few = race_of(steady(4, a=10.0, b=10.0, c=10.0))
    more = few.rounds_to_decide()
    assert more is not None
    assert 1 <= more <= 100
    assert race_of(steady(4 + 2 * more, a=10.0, b=10.0, c=10.0)).decided


@pytest.mark.parametrize("labels", [[], ["a", "a"]])
def test_a_race_needs_candidates_with_names(labels):
    with pytest.raises(UsageError, match="a race of"):
        Race(labels, len)
