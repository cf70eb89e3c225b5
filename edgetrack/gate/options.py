"""What a check was asked for, and what it needs from outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgetrack.benchmark import machine
from edgetrack.benchmark.machine import MachineRecord
from edgetrack.benchmark.process import Start
from edgetrack.box import Box
from edgetrack.errors import UsageError
from edgetrack.evaluation.datasets import Dataset
from edgetrack.gate.budget import Budget
from edgetrack.stats.verdict import Verdict

Clock = Callable[[], float]
"""Seconds from some moment on."""
TAKEN_CODES = (2, 3, 4)
"""Exit codes that say something else: usage, a missing extra, a missing device."""
_LONGEST_S = 86_400.0


@dataclass(frozen=True)
class Options:
    """What `edgetrack check` was asked for; see its help for what each option means."""

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

    def check(self) -> None:
        """Check numbers, and that options fit each other.

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
                f"--undecided-exit {self.undecided_exit}: expected 0 (lets it pass), 1 (as a fail), or a code of its "
                "own from 5 to 125, such as 5"
            )
        if self.baseline_python is not None and self.baseline is None:
            raise UsageError("--baseline-python runs the baseline; add --baseline BUNDLE, which may be the same bundle")

    def exit_code(self, verdict: Verdict) -> int:
        """0 for a pass, and where nothing was to be checked; 1 for a fail; what was asked for where it is open."""
        return {"pass": 0, "skipped": 0, "fail": 1}.get(verdict, self.undecided_exit)


@dataclass(frozen=True)
class Surroundings:
    """What a check needs from outside.

    Attributes:
        progress: is told what happens now.
        evaluating: is told how far an evaluation is.
        start: starts workers; None: as the options say.
        look: reads the machine's record.
        clock: seconds, for `max_time_s`.
    """

    progress: Callable[[str], None]
    evaluating: Callable[[str, int, int], None]
    clock: Clock
    start: Start | None = None
    look: Callable[[], MachineRecord] = machine.collect
