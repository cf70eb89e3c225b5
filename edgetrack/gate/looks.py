"""When to look at what was measured, and how sure to be at each look.

Every look is a chance to be wrong, so that looking until it fails would in the end fail everybody. The looks share the
error between them, and what they spend sums to no more than what a rule has, however alike they are (Bonferroni's
inequality). Turns are looked at after an eighth, a quarter, half and all of the time, and each look spends as much of
the error as of the time has gone by since the one before (Lan & DeMets, "Discrete sequential boundaries for clinical
trials", 1983, with calendar time): half of it is left for the last look, which has the most to go by. A look that comes
before there are blocks enough for any verdict is not taken and spends nothing; how many blocks there are depends on the
machine's speed, not on who is slower.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgetrack.gate.budget import Rule

ALPHA = 0.02
"""Chance, over all rules and looks, that a budget that is kept is called broken, or one that is broken kept."""
LOOKS = (0.125, 0.25, 0.5, 1.0)
"""When, as shares of the time."""


def share_of(rules: Sequence[Rule]) -> float:
    """What each of a budget's rules may spend; sizes are exact and take no part."""
    return ALPHA / max(1, sum(rule.kind not in ("size", "size ratio") for rule in rules))


def spent(look: int, taken: float, alpha: float) -> float:
    """What a rule about turns, which may spend `alpha`, spends at look number `look`, from 0.

    `taken`: the share of the time at the last look that was taken, 0 where none was.
    """
    return alpha * (LOOKS[look] - taken)


def spent_on_processes(look: int, alpha: float) -> float:
    """What a rule about processes spends: half at look 0, half of the rest at the next, ...

    Most processes are started before the first look, and each look adds one, which halves the error of their range.
    """
    return math.ldexp(alpha, -look - 1)
