"""Verdicts: an interval compared with a limit (the gate) or with a margin (two trackers)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

Verdict = Literal["pass", "fail", "undecided", "skipped"]
DifferenceVerdict = Literal["better", "worse", "equal", "undecided"]


def judge_limit(low: float | None, high: float | None, limit: float) -> Verdict:
    """`pass` where the interval is no more than the limit, `fail` where it lies above; None is an end not known."""
    if high is not None and high <= limit:
        return "pass"
    return "fail" if low is not None and low > limit else "undecided"


def overall_verdict(verdicts: Iterable[Verdict], *, may_skip: bool = False) -> Verdict:
    """`fail` where one fails, else `skipped` where one is, else `undecided` where one is, else `pass`.

    With `may_skip`, what was skipped does not count, unless nothing was checked.
    """
    found = set(verdicts)
    strict: tuple[Verdict, ...] = ("fail", "skipped", "undecided", "pass")
    lenient: tuple[Verdict, ...] = ("fail", "undecided", "pass")
    return next((verdict for verdict in (lenient if may_skip else strict) if verdict in found), "skipped")


def judge_difference(low: float, high: float, margin: float) -> DifferenceVerdict:
    """What an interval of B minus A says about B, where higher is better.

    `equal`: it lies within +-`margin`. `better`, `worse`: it lies on one side of 0 and not within the margin.
    """
    if -margin <= low and high <= margin:
        return "equal"
    if low > 0:
        return "better"
    return "worse" if high < 0 else "undecided"


def runs_to_settle(value: float, half: float, margin: float, runs: int) -> int | None:
    """How many more runs would bring an interval of `value` +- `half` to exclude 0 or to lie within the margin.

    The easier of the two counts. None where neither comes about: a difference of 0 without a margin.
    """
    wanted = max(abs(value), margin - abs(value))
    return max(1, math.ceil(runs * (half / wanted) ** 2) - runs) if wanted > 0 else None
