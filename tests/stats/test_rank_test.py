from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from edgetrack.errors import UsageError
from edgetrack.stats.rank_test import (
    block_wins,
    null_of_blocks,
    paired_ratio_test,
    process_ratio_bounds,
    processes_agree,
    tails,
    unpaired_ratio_test,
)

RNG = np.random.default_rng


def blocks(ratio, count, noise=0.02, seed=0, drift=0.0):
    """Turns of a baseline of 20 ms and of a candidate, two of each per block; all slow down by `drift` per block."""
    rng = RNG(seed)
    level = 20 * (1 + drift * np.arange(count))[:, None]
    return (level * factor * np.exp(noise * rng.normal(size=(count, 2))) for factor in (1.0, ratio))


@pytest.mark.parametrize(("m", "n"), [(2, 2), (3, 4), (6, 5)])
def test_one_block_has_scipy_s_exact_distribution(m, n):
    null = null_of_blocks(1, m, n)
    assert null.sum() == pytest.approx(1)
    for seed in range(5):
        values = RNG(seed).random(m + n)
        a, b = values[:m], values[m:]
        u = float(block_wins(b[None], a[None])[0])
        for side, p in zip(("greater", "less"), tails(null, u), strict=True):
            assert p == pytest.approx(stats.mannwhitneyu(b, a, alternative=side, method="exact").pvalue)


def test_several_blocks_add_up_as_all_their_orders_do():
    one = [
        sum(x > y for x, y in itertools.product(b, set(range(4)) - set(b))) for b in itertools.combinations(range(4), 2)
    ]
    sums = np.bincount([sum(three) for three in itertools.product(one, repeat=3)], minlength=13) / 6**3
    assert null_of_blocks(3, 2, 2) == pytest.approx(sums)


def test_ties_count_half_and_never_help():
    alike = np.full((4, 2), 5.0)
    assert block_wins(alike, alike).tolist() == [2, 2, 2, 2]
    null = null_of_blocks(1, 2, 2)
    assert tails(null, 2.5) == (tails(null, 2)[0], tails(null, 3)[1])


@settings(max_examples=15)
@given(st.lists(st.floats(0.1, 10), min_size=6, max_size=6), st.integers(0, 99))
def test_what_changes_from_block_to_block_changes_nothing(levels, seed):
    a, b = blocks(1.03, 6, seed=seed)
    scale = np.array(levels)[:, None]
    plain, moved = (paired_ratio_test(x, y, 1.05, 0.05, RNG(0)) for x, y in ((a, b), (a * scale, b * scale)))
    assert (moved.p_above, moved.p_below) == (plain.p_above, plain.p_below)
    assert moved.value == pytest.approx(plain.value)
    assert moved.low == pytest.approx(plain.low)


def test_an_even_drift_within_blocks_favours_nobody():
    times = np.arange(80.0).reshape(20, 4)
    turns = 20 * np.exp(0.01 * times)
    found = paired_ratio_test(turns[:, [0, 3]], turns[:, [1, 2]], 1.05, 0.01, RNG(0))
    assert found.value == pytest.approx(1)
    assert found.verdict == "pass"


@pytest.mark.parametrize(("ratio", "verdict"), [(0.9, "pass"), (1.0, "pass"), (1.05, "undecided"), (1.1, "fail")])
def test_verdicts_are_about_the_limit(ratio, verdict):
    found = paired_ratio_test(*blocks(ratio, 24), 1.05, 0.01, RNG(0))
    assert found.verdict == verdict
    assert found.value == pytest.approx(ratio, abs=0.02)
    assert found.low < ratio < found.high


def test_too_few_blocks_decide_nothing_however_clear():
    found = paired_ratio_test(*blocks(2.0, 5), 1.05, 0.01, RNG(0))
    assert (found.verdict, found.low, found.high) == ("undecided", None, None)
    assert found.more == 2  # 2**-7 < 0.01


def test_both_views_must_agree():
    # One turn in four is tripled, always the candidate's: ranks hardly mind, the size does; and the other way round.
    a, b = (np.array(turns) for turns in blocks(1.0, 24, noise=0.001))
    b[:12] *= 3
    assert paired_ratio_test(a, b, 1.05, 0.01, RNG(0)).verdict == "undecided"


def test_the_number_of_blocks_that_was_foretold_is_about_enough():
    a, b = blocks(1.075, 30, noise=0.06, seed=3)
    first = paired_ratio_test(a, b, 1.05, 0.01, RNG(0))
    assert first.verdict == "undecided"
    assert first.more is not None
    later = [
        paired_ratio_test(*blocks(first.value, 2 * (30 + first.more), noise=0.06, seed=s), 1.05, 0.01, RNG(0))
        for s in range(5)
    ]
    assert [found.verdict for found in later].count("fail") >= 4


def test_nothing_is_foretold_where_ranks_and_size_point_apart():
    a, b = (np.array(turns) for turns in blocks(1.0, 10, noise=0.001))
    b[:6] *= 4
    found = paired_ratio_test(a, b, 1.4, 0.001, RNG(0))
    assert found.verdict == "undecided"
    assert found.more is None or found.more > 0


def test_unpaired_turns_are_scipy_s_mann_whitney():
    rng = RNG(5)
    a, b = rng.lognormal(3, 0.02, 12), rng.lognormal(3.1, 0.02, 10)
    found = unpaired_ratio_test(a, b, 1.02, 0.01, RNG(0))
    assert found.p_above == stats.mannwhitneyu(b / 1.02, a, alternative="greater").pvalue
    assert found.verdict == "fail"
    assert found.value == pytest.approx(math.exp(0.1), rel=0.02)
    assert unpaired_ratio_test(a, a, 1.1, 0.01, RNG(0)).verdict == "pass"
    assert unpaired_ratio_test(a[:1], b[:1], 1.02, 0.01, RNG(0)).verdict == "undecided"


@given(st.integers(4, 9), st.integers(4, 9), st.sampled_from([0.05, 0.01, 0.003]))
def test_bounds_of_processes_are_the_ratios_that_scipy_s_test_does_not_reject(m, n, alpha):
    rng = RNG(10 * m + n)
    a, b = rng.lognormal(0, 0.1, m), rng.lognormal(0.1, 0.1, n)
    found = process_ratio_bounds(a, b, alpha)

    def p(ratio, side):
        return stats.mannwhitneyu(b / ratio, a, alternative=side, method="exact").pvalue

    if found.low is None or found.high is None:
        assert math.comb(m + n, m) * alpha < 1
        return
    assert found.low < found.value < found.high
    assert p(found.low * 0.9999, "greater") <= alpha < p(found.low * 1.0001, "greater")
    assert p(found.high * 1.0001, "less") <= alpha < p(found.high * 0.9999, "less")


def test_unequal_numbers_of_blocks_are_refused():
    a, b = blocks(1.0, 4)
    with pytest.raises(UsageError, match="4 blocks against 3"):
        paired_ratio_test(a, b[:3], 1.05, 0.01, RNG(0))
    with pytest.raises(UsageError, match="expected at least one of each"):
        unpaired_ratio_test(a[:, 0], b[:0, 0], 1.05, 0.01, RNG(0))
    with pytest.raises(UsageError, match="4 processes against 0"):
        process_ratio_bounds(a[:, 0], b[:0, 0], 0.01)


@pytest.mark.parametrize("alpha", [0.01, 0.05])
@pytest.mark.parametrize("slower", [1.0, 1.1, 1.3])
def test_processes_agree_as_students_test_of_their_ratios_says(alpha: float, slower: float) -> None:
    """Equal blocks of one turn: a pair's ratio is that of its turns, and SciPy's test of the pairs is the same."""
    rng = np.random.default_rng(1)
    for pairs in (2, 3, 8):
        ratios = slower * np.exp(0.05 * rng.standard_normal(pairs))
        baseline = np.full((3 * pairs, 1), 20.0)
        candidate = baseline * np.repeat(ratios, 3)[:, None]
        process_of = np.repeat(np.arange(pairs), 3).tolist()
        expected = stats.ttest_1samp(np.log(ratios), math.log(1.05), alternative="greater").pvalue < alpha
        assert processes_agree(baseline, candidate, process_of, 1.05, alpha) == expected


def test_a_single_pair_of_processes_never_agrees() -> None:
    blocks = np.full((9, 2), 20.0)
    assert not processes_agree(blocks, 3 * blocks, [1] * 9, 1.05, 0.05)
