"""The four verdicts, and how those on single rules make one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

Verdict = Literal["pass", "fail", "undecided", "skipped"]


def together(verdicts: Iterable[Verdict]) -> Verdict:
    """`fail` where one fails, else `undecided` where one is, else `pass`; `skipped` where nothing was checked."""
    found = set(verdicts)
    order: tuple[Verdict, ...] = ("fail", "undecided", "pass")
    return next((verdict for verdict in order if verdict in found), "skipped")
