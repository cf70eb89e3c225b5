"""What a check is asked for: a budget (a TOML file, see docs/check.md) and the options of the command line."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from edgetrack.box import Box
from edgetrack.errors import UnknownNameError, UsageError, did_you_mean
from edgetrack.evaluation.datasets import Dataset
from edgetrack.io import read_toml
from edgetrack.resources import data_folder
from edgetrack.stats.sequential import alpha_per_rule
from edgetrack.stats.verdict import Verdict

Speed = Literal["model", "track"]
RuleKind = Literal["latency", "process", "size", "ao", "latency ratio", "process ratio", "size ratio"]
TAKEN_CODES = (2, 3, 4)
"""Exit codes with another meaning: usage, a missing extra, a missing device."""
_LARGEST_LIMIT = 1e9
_LONGEST_S = 86_400.0
_SPEEDS: tuple[Speed, ...] = ("model", "track")
_PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True)
class BudgetRule:
    """One line of a budget.

    Attributes:
        name: its key, such as `track_p95_ms`.
        kind: how it is judged.
        unit: of the limit: ms, MB (2**20 bytes), points (of AO), or x (multiples of the baseline's figure).
        limit: the highest value allowed; for `delta_ao_points` the lowest.
        figure: the measurement's name, such as `load_ms`; empty where the kind says it.
        speed, quantile: of a latency; the quantile is 0..1.
    """

    name: str
    kind: RuleKind
    unit: str
    limit: float = math.nan
    figure: str = ""
    speed: Speed = "track"
    quantile: float = math.nan

    @property
    def needs_baseline(self) -> bool:
        """Whether it compares with another bundle."""
        return self.kind == "ao" or self.kind.endswith("ratio")


def _limits() -> Iterator[BudgetRule]:
    for speed in _SPEEDS:
        for p in _PERCENTILES:
            yield BudgetRule(f"{speed}_p{p}_ms", "latency", "ms", speed=speed, quantile=p / 100)
    yield BudgetRule("load_ms", "process", "ms", figure="load_ms")
    yield BudgetRule("peak_rss_mb", "process", "MB", figure="peak_rss_mb")
    yield BudgetRule("size_mb", "size", "MB")
    yield BudgetRule("delta_ao_points", "ao", "points")


def _regressions() -> Iterator[BudgetRule]:
    for speed in _SPEEDS:
        for p in _PERCENTILES[:-1]:
            yield BudgetRule(f"{speed}_p{p}_ratio", "latency ratio", "x", speed=speed, quantile=p / 100)
    yield BudgetRule("load_ratio", "process ratio", "x", figure="load_ms")
    yield BudgetRule("peak_rss_ratio", "process ratio", "x", figure="peak_rss_mb")
    yield BudgetRule("size_ratio", "size ratio", "x")


LIMITS = {rule.name: rule for rule in _limits()}
REGRESSIONS = {rule.name: rule for rule in _regressions()}


class BudgetConditions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the limits were set for; options of the command line override it.

    `device` None: the CPU. `threads` None: all usable cores. `source` None: the benchmark's scene.
    """

    device: Annotated[str, msgspec.Meta(min_length=1, max_length=100)] | None = None
    threads: Annotated[int, msgspec.Meta(ge=1, le=1024)] | None = None
    source: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)] | None = None


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A budget. `note` is shown with the result: where the limits come from."""

    schema: Literal[1]
    name: Annotated[
        str,
        msgspec.Meta(
            pattern=r"^[a-z0-9][a-z0-9._-]{0,79}$",
            description="at most 80 lower-case letters, digits, '.', '_' and '-'",
        ),
    ]
    note: Annotated[str, msgspec.Meta(max_length=500)] = ""
    measure: BudgetConditions = BudgetConditions()
    limits: dict[str, float] = {}
    regressions: dict[str, float] = {}

    def __post_init__(self) -> None:
        if not self.limits and not self.regressions:
            raise ValueError("it has neither [limits] nor [regressions]")
        _check("limits", self.limits, LIMITS)
        _check("regressions", self.regressions, REGRESSIONS)

    @property
    def rules(self) -> list[BudgetRule]:
        """Limits first, in the file's order."""
        return [
            replace(known[name], limit=limit)
            for known, given in ((LIMITS, self.limits), (REGRESSIONS, self.regressions))
            for name, limit in given.items()
        ]

    @property
    def alpha(self) -> float:
        """The error that each rule may spend; sizes are exact and take none."""
        return alpha_per_rule(sum(rule.kind not in ("size", "size ratio") for rule in self.rules))


@dataclass(frozen=True)
class GateConfig:
    """What `edgetrack check` was asked for; its help explains the options.

    `profile` names the device's profile, `places` says where on it each target runs.
    """

    budget: Budget
    bundle: str
    baseline: str | None = None
    baseline_python: Path | None = None
    dataset: Dataset | None = None
    device: str | None = None
    threads: int | None = None
    source: str | None = None
    box: Box | None = None
    max_time_s: float = 180.0
    timeout_s: float = 120.0
    undecided_exit: int = 1
    force: bool = False
    allow_skipped: bool = False
    profile: str | None = None
    places: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Check the options' ranges and that they fit each other.

        Raises:
            UsageError: they do not.
        """
        if not 0 < self.max_time_s <= _LONGEST_S:
            raise UsageError(f"--max-time {self.max_time_s:g}: expected seconds above 0, up to {_LONGEST_S:g}")
        if not 0 < self.timeout_s <= _LONGEST_S:
            raise UsageError(f"--timeout {self.timeout_s:g}: expected seconds above 0, up to {_LONGEST_S:g}")
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"--threads {self.threads}: expected 1 or more")
        if not 0 <= self.undecided_exit <= 125 or self.undecided_exit in TAKEN_CODES:
            raise UsageError(
                f"--undecided-exit {self.undecided_exit}: expected 0 (passes), 1 (fails), or a code of its own "
                "from 5 to 125, such as 5"
            )
        if self.baseline_python is not None and self.baseline is None:
            raise UsageError("--baseline-python runs the baseline; add --baseline BUNDLE, which may be the same bundle")

    def exit_code(self, verdict: Verdict) -> int:
        """0 for a pass, 1 for a fail and where rules were skipped, `undecided_exit` for undecided."""
        return {"pass": 0, "skipped": 1, "fail": 1}.get(verdict, self.undecided_exit)


def _check(section: str, given: dict[str, float], known: dict[str, BudgetRule]) -> None:
    for name, limit in given.items():
        if name not in known:
            raise ValueError(
                f"[{section}] has the unknown key {name!r}{did_you_mean(name, known)}; it may have: {', '.join(known)}"
            )
        if name == "delta_ao_points":
            if not -100 <= limit <= 0:
                raise ValueError(f"[{section}] {name} = {limit}: expected points from -100 to 0, such as -0.5")
        elif not 0 < limit <= _LARGEST_LIMIT:
            raise ValueError(f"[{section}] {name} = {limit}: expected a finite number above 0")


def find_budget(name: str) -> Budget:
    """The budget of that name that ships with edgetrack, or the one in a file when `name` ends in `.toml`.

    Raises:
        UnknownNameError: no such budget ships with edgetrack.
        UsageError: the file cannot be read, or is not a budget.
    """
    if name.endswith(".toml"):
        return read_budget(Path(name))
    shipped = {path.stem: path for path in sorted((data_folder("bench") / "budgets").glob("*.toml"))}
    if name not in shipped:
        raise UnknownNameError.of("budget", name, shipped, "or a budget's path, which ends in .toml")
    return read_budget(shipped[name])


def read_budget(path: Path) -> Budget:
    """Read and check one budget file.

    Raises:
        UsageError: it cannot be read, is not TOML, or is not a budget.
    """
    return read_toml(path, Budget, "budget", advice="see docs/check.md")
