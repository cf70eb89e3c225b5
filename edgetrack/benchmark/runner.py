"""Rounds in which the contestants take turns: never two at a time, and each as often early as late."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from itertools import count

from edgetrack.benchmark.entries import KINDS, Entry, Plan
from edgetrack.benchmark.messages import Kind
from edgetrack.benchmark.process import Start, Worker
from edgetrack.errors import EdgetrackError, UsageError

Watch = Callable[[Entry, Kind, Worker], AbstractContextManager[object]]
"""Is around each slice that a contestant's worker runs."""
Progress = Callable[[str, int, int], None]
"""Is told what happens now, which step that is (from 1) and how many there are."""


def order(entries: Sequence[Entry], round_number: int) -> list[Entry]:
    """A B C in round 0, C B A in round 1, and so on: a machine that warms up slows nobody more than others."""
    return list(entries) if round_number % 2 == 0 else list(reversed(entries))


class Runner:
    """Runs the contestants' workers.

    Args:
        entries: who takes part; what they find is kept in them. Labels differ.
        plan: how much.
        start: starts a worker.
        progress: is told of each step before it starts.
        watch: looks on while a slice runs.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        plan: Plan,
        start: Start,
        progress: Progress,
        watch: Watch = lambda entry, kind, worker: nullcontext(),
    ) -> None:
        if len({entry.label for entry in entries}) != len(entries):
            raise UsageError("two contestants have one name; give each bundle once")
        self._entries = entries
        self._plan = plan
        self._start = start
        self._progress = progress
        self._watch = watch
        self._workers: dict[str, Worker] = {}
        self._steps = count(1)
        self._total = sum(2 + len(entry.kinds) * plan.rounds for entry in entries)

    def run(self, after_round: Callable[[int], object]) -> None:
        """Load, warm up and measure everybody; who fails is left out from there on, the others go on.

        Args:
            after_round: is told how many rounds are done, also 0 after the warm-up.
        """
        with ExitStack() as stack:
            for entry in self._entries:
                self._do(entry, "loading", partial(self._open, stack))
            for entry in self._entries:
                self._do(entry, "warming up", self._warm_up)
            after_round(0)
            for number in range(self._plan.rounds):
                if not self._workers:
                    return
                self._round(number)
                after_round(number + 1)

    def _open(self, stack: ExitStack, entry: Entry) -> None:
        worker = self._start(entry.label, self._plan.threads)
        stack.callback(worker.close)
        self._workers[entry.label] = worker
        entry.open(worker, self._plan)

    def _warm_up(self, entry: Entry) -> None:
        entry.warm_up(self._workers[entry.label], self._plan)

    def _round(self, number: int) -> None:
        for kind in KINDS:
            title = f"round {number + 1}/{self._plan.rounds}, {kind}"
            turn = partial(self._turn, kind)
            for entry in order([entry for entry in self._entries if kind in entry.kinds], number):
                self._do(entry, title, turn)
        for entry in self._entries:
            entry.rounds_done += entry.failure is None

    def _turn(self, kind: Kind, entry: Entry) -> None:
        worker = self._workers[entry.label]
        with self._watch(entry, kind, worker):
            entry.turn(worker, kind, self._plan)

    def _do(self, entry: Entry, what: str, action: Callable[[Entry], None]) -> None:
        """One step; afterwards the worker rests before another one is timed."""
        self._progress(f"{what}: {entry.label}", next(self._steps), self._total)
        if entry.failure is not None:
            return
        try:
            action(entry)
        except EdgetrackError as error:
            entry.failure = error
            failed = self._workers.pop(entry.label, None)
            if failed is not None:
                failed.close()
        else:
            entry.never_rested |= not self._workers[entry.label].rest()
