"""A race: which of several takes the least time, from rounds in which each runs once; time goes to those in question.

Successive elimination by paired tests (Maron & Moore, "Hoeffding Races", 1994; Birattari et al., "A Racing Algorithm
for Configuring Metaheuristics", 2002). Those that run in one round are a pair: what slows the machine slows both. The
ratio of two is judged by a confidence interval of the trimmed mean of its logarithm over their common rounds (Tukey &
McLaughlin, 1963: Student's t, a tenth of the rounds left out on either side), so that a round that another program has
disturbed moves it little.

The error is shared by all ordered pairs and all analyses (Bonferroni's inequality, however correlated they are):
analysis i of any number of them spends 1 / ((i + 1) (i + 2)) of it, which sums to no more than all of it whenever the
race is stopped. With probability 1 - `alpha` nothing that is said about any pair is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgetrack.arrays import Floats
from edgetrack.errors import UsageError
from edgetrack.stats.quantile import student_t

ALPHA = 0.05
MARGIN = 0.03
FIRST = 4
"""Rounds before the first analysis; each later one comes after a quarter more of them."""
_GROWTH = 1.25
_TRIM = 0.1


@dataclass(frozen=True)
class RaceRatio:
    """One candidate's time over another's, with the interval that the race judges it by; None: too few rounds."""

    value: float
    low: float | None
    high: float | None
    rounds: int


@dataclass
class Race:
    """Candidates, what each round measured of them, and who is still in question.

    Attributes:
        labels: the candidates.
        rank: of equals, the one with the lowest rank is taken.
        margin: a candidate that takes up to this share more time than another counts as equally fast.
        alpha: chance that anything that is said of any pair is wrong.
        rounds: the time of each candidate that ran in a round, in one unit, positive.
        beaten: who takes more than the margin longer than whom, and the ratio by which that was decided.
        refused: who is out for another reason, which whoever refuses it knows.
    """

    labels: Sequence[str]
    rank: Callable[[str], Any]
    margin: float = MARGIN
    alpha: float = ALPHA
    rounds: list[Mapping[str, float]] = field(default_factory=list)
    beaten: dict[str, tuple[str, RaceRatio]] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    analyses: int = field(default=0, init=False)
    _analysed: int = field(default=0, init=False)
    """Rounds at the last analysis: those after it are not looked at, else each of them would be one more."""
    _judged: dict[tuple[str, str], RaceRatio] = field(default_factory=dict, init=False)
    """Ratios as of the last analysis."""

    def __post_init__(self) -> None:
        if len(set(self.labels)) < len(self.labels) or not self.labels:
            raise UsageError(f"a race of {len(self.labels)} candidates with {len(set(self.labels))} names")
        given, self.rounds = self.rounds, []
        for one in given:
            self.add(one)

    @property
    def alive(self) -> list[str]:
        """Those that no other has beaten and nobody has refused."""
        return [one for one in self.labels if one not in self.beaten and one not in self.refused]

    def add(self, times: Mapping[str, float]) -> None:
        """Add a round of those that are alive, and analyse where it is time to."""
        self.rounds.append(times)
        if len(self.rounds) >= max(FIRST, math.ceil(_GROWTH * self._analysed)):
            self.analyse()

    def analyse(self) -> None:
        """Judge all pairs by the rounds so far, as at the end of the time."""
        if len(self.rounds) > self._analysed:
            self.analyses, self._analysed = self.analyses + 1, len(self.rounds)
            self._judged.clear()
            self._eliminate()

    def refuse(self, label: str) -> None:
        """Take a candidate out; those that it alone has beaten are back in question."""
        self.refused.add(label)
        self.beaten.pop(label, None)
        self.beaten = {one: found for one, found in self.beaten.items() if found[0] != label}
        self._eliminate()

    def ratio(self, one: str, other: str) -> RaceRatio:
        """The time of `one` over that of `other`, as the last analysis judges it."""
        if (one, other) not in self._judged:
            self._judged[one, other] = self._ratio(one, other)
        return self._judged[one, other]

    @property
    def leader(self) -> str:
        """Of those alive the one that seems the fastest.

        Raises:
            UsageError: nobody is alive.
        """
        alive = self.alive
        if not alive:
            raise UsageError("nobody is left in the race")
        first = alive[0]
        seen = [one for one in alive if one == first or self.ratio(one, first).rounds]
        return min(seen, key=lambda one: (self.ratio(one, first).value, self.rank(one)))

    def equals(self, label: str) -> bool:
        """Whether it is shown that nobody alive is faster than this one by more than the margin."""
        most = 1 + self.margin
        highs = [self.ratio(label, other).high for other in self.alive]
        return all(high is not None and high <= most for high in highs)

    @property
    def pick(self) -> str:
        """Of those that are shown to be as fast as any the one with the lowest rank; else the leader."""
        return min(filter(self.equals, self.alive), key=self.rank, default=self.leader)

    @property
    def open(self) -> list[str]:
        """Those on which the pick still depends: of a lower rank, and neither shown equal nor beaten."""
        equal = [one for one in self.alive if self.equals(one)]
        if not equal:
            return self.alive
        pick = min(equal, key=self.rank)
        return [one for one in self.alive if self.rank(one) < self.rank(pick)]

    @property
    def decided(self) -> bool:
        """Whether no further round can change the pick, but by an error."""
        return not self.open

    def rounds_to_decide(self) -> int | None:
        """About how many more rounds would decide it, if all go on as they do; None where no number would."""
        leader, wanted = self.leader, 0
        for one in self.open:
            found = self.ratio(one, leader)
            if found.low is None or found.high is None:
                wanted = max(wanted, len(self.rounds) + FIRST)
                continue
            distance = abs(math.log(found.value) - math.log1p(self.margin))
            half = math.log(found.high / found.low) / 2
            if distance < 1e-3:
                return None
            wanted = max(wanted, math.ceil(len(self.rounds) * (half / distance) ** 2))
        return max(1, wanted - len(self.rounds)) if self.open else 0

    def _eliminate(self) -> None:
        while len(alive := self.alive) > 1:
            leader = self.leader
            ratios = {one: self.ratio(one, leader) for one in alive}
            slower = {one: (leader, it) for one, it in ratios.items() if it.low and it.low > 1 + self.margin}
            if not slower:
                return
            self.beaten |= slower

    def _ratio(self, one: str, other: str) -> RaceRatio:
        if one == other:
            return RaceRatio(1.0, 1.0, 1.0, self._analysed)
        judged = self.rounds[: self._analysed]
        pairs = [(times[one], times[other]) for times in judged if one in times and other in times]
        if not pairs:
            return RaceRatio(math.nan, None, None, 0)
        logs = np.diff(np.log(np.array(pairs, np.float64)[:, ::-1]), axis=1)[:, 0]
        value, error, freedom = _trimmed(logs)
        if freedom < 2:
            return RaceRatio(math.exp(value), None, None, len(pairs))
        half = error * student_t(self._spend(), freedom)
        return RaceRatio(math.exp(value), _exp(value - half), _exp(value + half), len(pairs))

    def _spend(self) -> float:
        """What one ordered pair may spend at the last analysis."""
        pairs = len(self.labels) * max(1, len(self.labels) - 1)
        return self.alpha / pairs / (self.analyses * (self.analyses + 1))


def _trimmed(values: Floats) -> tuple[float, float, int]:
    """The trimmed mean, its standard error from the winsorized variance, and its degrees of freedom."""
    count, cut = len(values), int(_TRIM * len(values))
    ordered = np.sort(values)
    inner = ordered[cut : count - cut]
    if count < 2:
        return float(inner.mean()), math.inf, 0
    deviation = float(np.std(np.clip(ordered, inner[0], inner[-1]), ddof=1))
    return float(inner.mean()), deviation * math.sqrt(count) / len(inner), len(inner) - 1


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))
