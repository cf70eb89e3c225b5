"""Turns of two bundles, or of one, on the benchmark's workers: A B B A, B A A B, ..."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from edgetrack.arrays import Floats
from edgetrack.benchmark.candidates import Candidate
from edgetrack.benchmark.config import BenchConfig
from edgetrack.benchmark.frames import BenchFrames
from edgetrack.benchmark.measurement import CandidateMeasurement
from edgetrack.benchmark.process import Start, Worker
from edgetrack.benchmark.protocol import Loaded, RoundSamples
from edgetrack.gate.budget import Speed
from edgetrack.gate.record import TurnsMs

Progress = Callable[[str], None]
Role = Literal["candidate", "baseline"]
TURN_S = 0.4
TURN_FRAMES = 12
"""A turn is short, so that a machine that slows down within a block does so little, and has frames for a median."""
KEEP_FRAMES = 60


@dataclass
class Side:
    """One of the two, with all that its processes found.

    Attributes:
        blocks: turns by block, those of a block in the order in which they ran.
        load_ms, peak_rss_mb: one figure per process.
        loaded: what the first process said.
    """

    role: Role
    bundle: Candidate
    start: Start
    blocks: list[list[RoundSamples]] = field(default_factory=list)
    load_ms: list[float] = field(default_factory=list)
    peak_rss_mb: list[float] = field(default_factory=list)
    loaded: Loaded | None = None

    def turns(self, speed: Speed) -> list[list[Floats]]:
        """The samples of every turn in milliseconds, by block."""
        return [
            [np.array(turn.track if speed == "track" else turn.graphs, np.float64) for turn in block]
            for block in self.blocks
        ]

    def turns_ms(self) -> TurnsMs:
        """All samples, for the record."""

        def flat(speed: Speed) -> list[list[float]]:
            return [turn.tolist() for block in self.turns(speed) for turn in block]

        return TurnsMs(**{speed: flat(speed) for speed in get_args(Speed)})


def gate_config(device: str, threads: int) -> BenchConfig:
    """How one turn is measured."""
    return BenchConfig(device=device, threads=threads, duration_s=TURN_S, iterations=TURN_FRAMES, rounds=1, streams=1)


def order(roles: Sequence[Role], block: int) -> list[Role]:
    """Who runs when in a block, from 0: what drifts evenly favours nobody, and each goes first as often."""
    forth = list(roles) if block % 2 == 0 else list(reversed(roles))
    return forth + forth[::-1]


class Rounds:
    """Processes of both sides, and their turns. A context manager: leaving it ends the processes.

    Args:
        sides: candidate and baseline, or the candidate alone.
        frames: what is tracked.
        config: see `gate_config`.
        timeout_s: longest wait for one answer.
        progress: is told what happens.
    """

    def __init__(
        self, sides: Sequence[Side], frames: BenchFrames, config: BenchConfig, timeout_s: float, progress: Progress
    ) -> None:
        self.sides = sides
        self._frames = frames
        self._config = config
        self._timeout_s = timeout_s
        self._progress = progress
        self._stack = ExitStack()
        self._open: dict[Role, tuple[CandidateMeasurement, Worker]] = {}
        self.never_rested = False

    def __enter__(self) -> Rounds:
        return self

    def __exit__(self, *what: object) -> None:
        self._stack.close()

    def load(self, side: Side) -> None:
        """Load a side in a fresh process, in place of the one that it has, and keep what that took.

        Raises:
            EdgetrackError: the bundle cannot be run, or the process failed.
        """
        self._progress(f"loading the {side.role}, process {len(side.load_ms) + 1}")
        entry = CandidateMeasurement(self._config, self._timeout_s, side.bundle, self._frames)
        if side.role in self._open:
            self._open.pop(side.role)[1].close()
        worker = side.start(side.bundle.label, self._config.threads)
        self._stack.callback(worker.close)
        entry.open(worker)
        self._open[side.role] = entry, worker
        if entry.loaded is not None and entry.peak is not None:
            side.loaded = side.loaded or entry.loaded
            side.load_ms.append(entry.loaded.load_ms)
            side.peak_rss_mb.append(entry.peak.peak_rss_mb)
        self._rest(worker)

    def renew(self) -> None:
        """Fresh processes for both, warmed up: where a process happens to lie in memory is not the bundle's doing."""
        for side in self.sides:
            self.load(side)
        for side in self.sides:
            entry, worker = self._open[side.role]
            entry.warm_up(worker)
            # The first turn decodes the frames that are kept; the second runs as later ones do.
            entry.measure(worker, "track", seconds=0.0, frames=1)
            self._rest(worker)

    def block(self) -> None:
        """One block; kept only when all of its turns are done."""
        number = len(self.sides[0].blocks)
        self._progress(f"block {number + 1}")
        done: dict[Role, list[RoundSamples]] = {side.role: [] for side in self.sides}
        for role in order([side.role for side in self.sides], number):
            entry, worker = self._open[role]
            done[role].append(entry.measure(worker, "track"))
            self._rest(worker)
        for side in self.sides:
            side.blocks.append(done[side.role])

    def _rest(self, worker: Worker) -> None:
        self.never_rested |= not worker.rest()
