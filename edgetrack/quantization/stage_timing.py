"""How long a bundle's graphs take a frame, several bundles interleaved; for choices, not for reports: see `bench`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

from edgetrack.bundle import open_bundle, read_npz
from edgetrack.runtime.backends.base import CompiledGraph
from edgetrack.runtime.session import load
from edgetrack.runtime.verify import GOLDEN_FILE

WARM_UP, ROUNDS, RUNS = 5, 8, 6
Clock = Callable[[], int]


class Timed(NamedTuple):
    """A bundle's folder, and the run-time hint it is loaded with."""

    folder: Path
    hint: str | None = None


def interleaved_ms(timed: Sequence[Timed], threads: int | None, *, clock: Clock = time.perf_counter_ns) -> list[float]:
    """Median milliseconds of each bundle's per-frame graphs, on the inputs of its own record.

    Raises:
        BundleError: a bundle has no record. DeviceUnavailableError: the processor lacks a hint.
    """
    with ExitStack() as stack:
        runners = [_fed(stack, each, threads) for each in timed]
        samples: list[list[int]] = [[] for _ in runners]
        for graphs in runners:
            for _ in range(WARM_UP):
                _once(graphs)
        for _ in range(ROUNDS):
            for graphs, spent in zip(runners, samples, strict=True):
                for _ in range(RUNS):
                    start = clock()
                    _once(graphs)
                    spent.append(clock() - start)
    return [median(spent) / 1e6 for spent in samples]


def _fed(stack: ExitStack, timed: Timed, threads: int | None) -> list[CompiledGraph]:
    with open_bundle(timed.folder) as bundle:
        golden = read_npz(bundle.path(GOLDEN_FILE))
    tracker = stack.enter_context(load(timed.folder, threads=threads, precision_hint=timed.hint))
    graphs = [graph for graph in tracker.graphs.values() if graph.info.role == "step"]
    sample = min(key.split("/")[0] for key in golden)
    for graph in graphs:
        for name, buffer in graph.inputs.items():
            np.copyto(buffer, golden[f"{sample}/{graph.info.name}/in/{name}"])
    return graphs


def _once(graphs: Sequence[CompiledGraph]) -> None:
    for graph in graphs:
        graph.run()
