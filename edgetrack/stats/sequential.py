"""A group-sequential design: when to analyse what was measured so far, and how much error each analysis may spend.

Every interim analysis is a chance to be wrong: testing again and again until something fails would in the end fail
everybody. The analyses share the error between them, and what they spend sums to no more than what a rule has, however
correlated they are (Bonferroni's inequality). Rounds are analysed after an eighth, a quarter, half and all of the time,
and each analysis spends as much of the error as of the time has gone by since the one before (Lan & DeMets, "Discrete
sequential boundaries for clinical trials", 1983, with calendar time): half of it is left for the final one, which has
the most data. An analysis that comes before there are blocks enough for any verdict is not made and spends nothing; how
many blocks there are depends on the machine's speed, not on which side is slower.
"""

from __future__ import annotations

import math

ALPHA = 0.02
"""Chance, over all rules and analyses, that a budget that is kept is called broken, or one that is broken kept."""
ANALYSES = (0.125, 0.25, 0.5, 1.0)
"""When rounds are analysed, as shares of the time."""


def alpha_per_rule(rules: int) -> float:
    """What each of the rules may spend (Bonferroni)."""
    return ALPHA / max(1, rules)


def spent(analysis: int, before: float, alpha: float) -> float:
    """What a rule about rounds, which may spend `alpha`, spends at analysis number `analysis`, from 0.

    `before`: the share of the time at the last analysis that was made, 0 where none was.
    """
    return alpha * (ANALYSES[analysis] - before)


def spent_on_processes(analysis: int, alpha: float) -> float:
    """What a rule about processes spends: half at analysis 0, half of the rest at the next, ...

    Most processes are started before the first analysis, and each analysis adds one, which halves the error of their
    range.
    """
    return math.ldexp(alpha, -analysis - 1)
