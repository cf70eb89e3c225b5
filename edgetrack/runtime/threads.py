"""How many threads of one inference are the fastest here: a short race of a bundle's step on its golden crops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from statistics import median

import msgspec
import numpy as np

from edgetrack.arrays import Array
from edgetrack.bundle.golden import read_golden
from edgetrack.bundle.reader import Bundle
from edgetrack.errors import BundleError
from edgetrack.runtime.backends.base import CompiledGraph
from edgetrack.stats.race import FIRST, Race
from edgetrack.system.clock import Clock, MonotonicClock

OpenGraphs = Callable[[int, ExitStack], Mapping[str, CompiledGraph]]
"""Opens a bundle's graphs with a number of threads; the stack closes them."""
TURN_S, TURN_RUNS, DISCARDED = 0.03, 3, 1
LONGEST_S = 4.0
_MOST_ROUNDS = 200


class ThreadsTried(msgspec.Struct, frozen=True, kw_only=True):
    """A number of threads: the median of its turns, and its time over that of the chosen number, with the interval."""

    threads: int
    step_ms: float
    ratio: float
    low: float | None = None
    high: float | None = None


class ThreadRace(msgspec.Struct, frozen=True, kw_only=True):
    """The number that is taken, and what any other would cost; `decided` is whether that was shown in the time."""

    threads: int
    decided: bool
    tried: tuple[ThreadsTried, ...]

    def describe(self) -> str:
        """Such as `1 thread is the best; 2 would take 1.04 (0.98-1.10) times as long`."""
        others = [one for one in self.tried if one.threads != self.threads]
        costs = [
            f"{one.threads} would take {one.ratio:.2f}"
            + ("" if one.low is None or one.high is None else f" ({one.low:.2f}-{one.high:.2f})")
            for one in others
        ]
        what = "is taken" if self.decided else "is taken, which is not decided"
        return f"threads: {self.threads} {what}" + (f"; {', '.join(costs)} times as long" if costs else "")


def thread_counts(cores: int) -> tuple[int, ...]:
    """1, 2, 4 ... and `cores`."""
    return (*(2**n for n in range(cores.bit_length()) if 2**n < cores), cores)


def race_threads(bundle: Bundle, most: int, open_graphs: OpenGraphs, clock: Clock | None = None) -> ThreadRace:
    """Find the smallest number of threads that is within 3 % of the fastest, in four seconds or less.

    Args:
        bundle: open; its golden record has the inputs.
        most: threads to try at most.
        open_graphs: opens the bundle's graphs.
        clock: times the turns.

    Raises:
        BundleError: the bundle has no golden record.
        EdgetrackError: its graphs cannot be opened.
    """
    clock, inputs = clock or MonotonicClock(), _inputs(bundle)
    with ExitStack() as stack:
        opened = {str(count): open_graphs(count, stack) for count in thread_counts(most)}
        for graphs in opened.values():
            for name, tensors in inputs.items():
                for tensor, buffer in graphs[name].inputs.items():
                    np.copyto(buffer, tensors[tensor], casting="no")

        def turn(graphs: Mapping[str, CompiledGraph]) -> float:
            spent, begun = list[float](), clock.now_ns()
            while len(spent) < DISCARDED + TURN_RUNS or clock.now_ns() - begun < TURN_S * 1e9:
                start = clock.now_ns()
                for name in inputs:
                    graphs[name].run()
                spent.append((clock.now_ns() - start) / 1e6)
            return max(1e-6, median(spent[DISCARDED:]))

        race, start = Race(list(opened), int), clock.now_ns()
        for graphs in opened.values():
            turn(graphs)
        for number in range(_MOST_ROUNDS):
            # Where there is one number to try, nothing is open, and its time is still wanted.
            if (number and race.decided) or (number >= FIRST and clock.now_ns() - start > LONGEST_S * 1e9):
                break
            order = race.alive if number % 2 == 0 else race.alive[::-1]
            race.add({label: turn(opened[label]) for label in order})
        race.analyse()
    return _result(race)


def _inputs(bundle: Bundle) -> dict[str, dict[str, Array]]:
    """The first recorded inputs of every graph that runs in a frame."""
    steps = {graph.name for graph in bundle.manifest.graphs if graph.role == "step"}
    found: dict[str, dict[str, Array]] = {}
    for key, array in read_golden(bundle).items():
        _, graph, side, tensor = key.split("/", 3)
        if graph in steps and side == "in":
            found.setdefault(graph, {}).setdefault(tensor, array)
    if not steps or found.keys() != steps:
        raise BundleError(
            f"{bundle.manifest.name} has no golden record of its step, which threads are raced on; give their number"
        )
    return found


def _result(race: Race) -> ThreadRace:
    tried = []
    for label in race.labels:
        found = race.beaten[label][1] if label in race.beaten else race.ratio(label, race.pick)
        times = [one[label] for one in race.rounds if label in one]
        tried.append(
            ThreadsTried(threads=int(label), step_ms=median(times), ratio=found.value, low=found.low, high=found.high)
        )
    return ThreadRace(threads=int(race.pick), decided=race.decided, tried=tuple(tried))
