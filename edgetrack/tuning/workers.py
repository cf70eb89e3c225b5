"""The processes of a race: one for each candidate, which take turns in rounds, in an order that is drawn anew."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass

import numpy as np

from edgetrack.benchmark.config import BenchConfig
from edgetrack.benchmark.frames import BenchFrames
from edgetrack.benchmark.measurement import CandidateMeasurement
from edgetrack.benchmark.protocol import Start, Worker, WorkerProcess
from edgetrack.errors import EdgetrackError
from edgetrack.presentation.progress import Progress
from edgetrack.system.sampler import Sampler
from edgetrack.system.timeline import Window
from edgetrack.tuning.candidates import TuneCandidate

KIND = "track"
TURN_S = 0.3
TURN_FRAMES = 12
KEEP_FRAMES = 30
"""Of each process: as many processes as candidates are there at once."""


@dataclass(frozen=True)
class RaceRunner:
    """A candidate's process, what it measured, and what it is called."""

    label: str
    measurement: CandidateMeasurement
    worker: Worker


class RaceWorkers:
    """Opens candidates and runs rounds. A context manager: leaving it ends the processes.

    Args:
        candidates: to be opened, one process each.
        frames: what is tracked.
        timeout_s: longest wait for one answer.
        start: starts a worker.
        progress: is told each step.
        sampler: reads the power while frames run.
        seed: of the order within rounds.

    Attributes:
        runners: those that are open, by label.
        failures: why others are not.
    """

    def __init__(
        self,
        candidates: Sequence[TuneCandidate],
        frames: BenchFrames,
        timeout_s: float,
        start: Start,
        progress: Progress,
        sampler: Sampler,
        seed: int = 0,
    ) -> None:
        self._candidates, self.frames, self._timeout_s = candidates, frames, timeout_s
        self._start, self._progress, self._sampler = start, progress, sampler
        self._random = np.random.default_rng(seed)
        self._stack = ExitStack()
        self.runners: dict[str, RaceRunner] = {}
        self.failures: dict[str, EdgetrackError] = {}

    def __enter__(self) -> RaceWorkers:
        return self

    def __exit__(self, *what: object) -> None:
        self._stack.close()

    def open(self) -> None:
        """Load and warm up all; one that fails is left out."""
        for step, one in enumerate(self._candidates, 1):
            self._progress(f"loading {one.label}", step, len(self._candidates))
            config = BenchConfig(
                device=one.bundle.device or "cpu",
                threads=one.threads,
                warmup_s=TURN_S,
                duration_s=TURN_S,
                iterations=TURN_FRAMES,
                rounds=1,
                streams=1,
            )
            worker = self._start(one.label, one.threads)
            self._stack.callback(worker.close)
            runner = RaceRunner(
                one.label, CandidateMeasurement(config, self._timeout_s, one.bundle, self.frames), worker
            )
            try:
                runner.measurement.open(worker)
                runner.measurement.warm_up(worker)
            except EdgetrackError as error:
                self._fail(runner, error)
            else:
                worker.wait_idle()
                self.runners[one.label] = runner

    def round(self, labels: Sequence[str]) -> dict[str, list[float]]:
        """One turn each, in an order of chance: what drifts within a round slows nobody more than others.

        Returns:
            Milliseconds of track of every frame, by label; without those whose process failed meanwhile.
        """
        found: dict[str, list[float]] = {}
        for index in self._random.permutation(len(labels)):
            runner = self.runners[labels[index]]
            try:
                found[runner.label] = self._turn(runner)
            except EdgetrackError as error:
                self._fail(runner, error)
        return found

    def _turn(self, runner: RaceRunner) -> list[float]:
        worker, sampler = runner.worker, self._sampler
        start = sampler.seconds()
        pid = worker.pid if isinstance(worker, WorkerProcess) else None
        with sampler.watch(runner.label, pid) if pid is not None else nullcontext():
            samples = runner.measurement.measure(worker, KIND)
        end = sampler.seconds()
        device = runner.measurement.device
        sampler.add(Window(runner.label, KIND, start, end, min(samples.wall_s, end - start), samples.frames, device))
        worker.wait_idle()
        return samples.track

    def _fail(self, runner: RaceRunner, error: EdgetrackError) -> None:
        self.failures[runner.label] = error
        self.runners.pop(runner.label, None)
        runner.worker.close()
