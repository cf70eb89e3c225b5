"""Turns of two bundles, or of one, on the benchmark's workers: A B B A, B A A B, ..."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from edgetrack.arrays import Floats
from edgetrack.benchmark.candidates import Candidate
from edgetrack.benchmark.config import BenchConfig
from edgetrack.benchmark.frames import BenchFrames
from edgetrack.benchmark.measurement import CandidateMeasurement
from edgetrack.benchmark.protocol import Loaded, RoundSamples, Start, Worker
from edgetrack.benchmark.run import order
from edgetrack.gate.budget import Speed
from edgetrack.gate.report import CodeNote, SideNote, TurnsMs
from edgetrack.presentation.progress import Progress

GateRole = Literal["candidate", "baseline"]
TURN_S = 0.4
TURN_FRAMES = 12
"""A turn is short, so that a machine that slows down within a block does so little, and has frames for a median."""
KEEP_FRAMES = 60


@dataclass
class GateSide:
    """One of the two, with what its processes measured.

    Attributes:
        blocks: turns by block, those of a block in the order in which they ran.
        process_of: for each block how many processes there had been.
        load_ms, peak_rss_mb: one figure per process.
        loaded: the first process's answer.
    """

    role: GateRole
    bundle: Candidate
    start: Start
    blocks: list[list[RoundSamples]] = field(default_factory=list)
    process_of: list[int] = field(default_factory=list)
    load_ms: list[float] = field(default_factory=list)
    peak_rss_mb: list[float] = field(default_factory=list)
    loaded: Loaded | None = None

    def turns(self, speed: Speed) -> list[list[Floats]]:
        """The samples of every turn in milliseconds, by block."""
        return [
            [np.array(turn.track if speed == "track" else turn.graphs, np.float64) for turn in block]
            for block in self.blocks
        ]

    @property
    def turns_ms(self) -> TurnsMs:
        """All samples, as the report holds them."""
        model, track = (
            [turn.tolist() for block in self.turns(speed) for turn in block] for speed in ("model", "track")
        )
        return TurnsMs(model=model, track=track)

    def note(self, code: CodeNote) -> SideNote:
        """Its description in the report; `code` ran it."""
        manifest = self.bundle.manifest
        return SideNote(
            bundle=self.bundle.label,
            tracker=manifest.tracker,
            target=manifest.target,
            precision=manifest.precision,
            weights=manifest.weights.origin,
            size_mb=self.bundle.size_mb,
            versions=self.loaded.versions if self.loaded else {},
            load_ms=self.load_ms,
            peak_rss_mb=self.peak_rss_mb,
            recorded=False,
            code=code,
        )


def turn_config(device: str, threads: int) -> BenchConfig:
    """How one turn is measured."""
    return BenchConfig(device=device, threads=threads, duration_s=TURN_S, iterations=TURN_FRAMES, rounds=1, streams=1)


class TurnRunner:
    """Processes of both sides, and their turns. A context manager: leaving it ends the processes.

    Args:
        sides: candidate and baseline, or the candidate alone.
        frames: what is tracked.
        config: see `turn_config`.
        timeout_s: longest wait for one answer.
        progress: is told each step.
    """

    def __init__(
        self, sides: Sequence[GateSide], frames: BenchFrames, config: BenchConfig, timeout_s: float, progress: Progress
    ) -> None:
        self.sides = sides
        self._frames = frames
        self._config = config
        self._timeout_s = timeout_s
        self._progress = progress
        self._stack = ExitStack()
        self._open: dict[GateRole, tuple[CandidateMeasurement, Worker]] = {}
        self.never_idle = False

    def __enter__(self) -> TurnRunner:
        return self

    def __exit__(self, *what: object) -> None:
        self._stack.close()

    def load(self, side: GateSide) -> None:
        """Load a side in a fresh process, in place of the one that it has, and keep what that took.

        Raises:
            EdgetrackError: the bundle cannot be run, or the process failed.
        """
        self._progress(f"loading the {side.role}, process {len(side.load_ms) + 1}", 0, 0)
        measurement = CandidateMeasurement(self._config, self._timeout_s, side.bundle, self._frames)
        if side.role in self._open:
            self._open.pop(side.role)[1].close()
        worker = side.start(side.bundle.label, self._config.threads)
        self._stack.callback(worker.close)
        measurement.open(worker)
        self._open[side.role] = measurement, worker
        side.loaded = side.loaded or measurement.loaded
        side.load_ms.append(measurement.loaded.load_ms)
        side.peak_rss_mb.append(measurement.peak.peak_rss_mb)
        self._settle(worker)

    def restart(self) -> None:
        """Fresh processes for both, warmed up: a process's place in memory is chance, not the bundle's speed."""
        for side in self.sides:
            self.load(side)
        for side in self.sides:
            measurement, worker = self._open[side.role]
            measurement.warm_up(worker)
            # The first turn decodes the frames that are kept; the second runs as later ones do.
            measurement.measure(worker, "track", seconds=0.0, frames=1)
            self._settle(worker)

    def block(self) -> None:
        """One block; kept only when all of its turns are done."""
        number = len(self.sides[0].blocks)
        self._progress(f"block {number + 1}", 0, 0)
        done: dict[GateRole, list[RoundSamples]] = {side.role: [] for side in self.sides}
        first = order(self.sides, number)
        for side in [*first, *reversed(first)]:
            measurement, worker = self._open[side.role]
            done[side.role].append(measurement.measure(worker, "track"))
            self._settle(worker)
        for side in self.sides:
            side.blocks.append(done[side.role])
            side.process_of.append(len(side.load_ms))

    def _settle(self, worker: Worker) -> None:
        self.never_idle |= not worker.wait_idle()
