"""The parent's book on each worker: what to ask it, and what it answered."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass, field

from edgetrack.benchmark import messages
from edgetrack.benchmark.footage import Footage
from edgetrack.benchmark.lineup import Contestant
from edgetrack.benchmark.messages import Bursted, Kind, Loaded, Paced, Peak, Slice
from edgetrack.benchmark.process import Worker
from edgetrack.benchmark.roofline import Roofline
from edgetrack.benchmark.scenario import STREAM, Scenario
from edgetrack.errors import EdgetrackError
from edgetrack.runtime.trackers.base import find_procedure

KINDS: tuple[Kind, ...] = ("track", "camera", "paced", "burst", "soak")
"""All kinds of slices, in the order in which a round goes through them."""
_WARMUP_FRAMES = 10
_UNRECORDED = 5
"""Frames at the start of each slice that at least bring back the caches after another's turn."""
_MEMORY_FRAMES = 30
_LONGEST_PROBE_S = 0.5


@dataclass(frozen=True)
class Plan:
    """How to measure.

    Attributes:
        device, threads: of every contestant.
        warmup_s: seconds before the first round, and at least 10 frames.
        duration_s, iterations: for each contestant and speed, over all rounds; both are reached.
        rounds: turns that every contestant takes.
        keep_mb: decoded frames that one process may hold.
        keep_frames: the same, as a number.
        timeout_s: longest wait for one answer.
        scenario: how frames come.
    """

    device: str
    threads: int
    warmup_s: float
    duration_s: float
    iterations: int
    rounds: int
    keep_mb: float
    keep_frames: int
    timeout_s: float
    scenario: Scenario = STREAM

    @property
    def slice_s(self) -> float:
        """Seconds of one slice."""
        return self.duration_s / self.rounds

    @property
    def slice_frames(self) -> int:
        """Least frames of one slice."""
        return math.ceil(self.iterations / self.rounds)


@dataclass
class Entry(abc.ABC):
    """One worker's part in the benchmark; `failure` ends it."""

    failure: EdgetrackError | None = field(default=None, init=False)
    never_rested: bool = field(default=False, init=False)
    rounds_done: int = field(default=0, init=False)

    @property
    @abc.abstractmethod
    def label(self) -> str:
        """What people call it."""

    @property
    @abc.abstractmethod
    def kinds(self) -> tuple[Kind, ...]:
        """The slices that it takes turns in."""

    @abc.abstractmethod
    def open(self, worker: Worker, plan: Plan) -> None:
        """Load what is measured, and all that is asked only once."""

    @abc.abstractmethod
    def warm_up(self, worker: Worker, plan: Plan) -> None:
        """Run unrecorded."""

    @abc.abstractmethod
    def turn(self, worker: Worker, kind: Kind, plan: Plan) -> None:
        """Run and keep one slice, of one of `kinds`."""


@dataclass
class TrackerEntry(Entry):
    """A bundle's answers."""

    contestant: Contestant
    footage: Footage
    scenario: Scenario = STREAM
    loaded: Loaded | None = field(default=None, init=False)
    peak: Peak | None = field(default=None, init=False)
    slices: dict[Kind, list[Slice]] = field(default_factory=lambda: {kind: [] for kind in KINDS}, init=False)
    paced: list[Paced] = field(default_factory=list, init=False)
    bursts: list[Bursted] = field(default_factory=list, init=False)

    @property
    def label(self) -> str:
        return self.contestant.label

    @property
    def kinds(self) -> tuple[Kind, ...]:
        return self.scenario.kinds

    @property
    def unrecorded(self) -> int:
        """Frames at the start of each slice that are not timed: also those that fill a memory of past frames.

        PyTorch's reference reads the entries that there are, a graph of fixed shape masks those that are not: on a
        memory that is not full yet the one does less work than ever again, the other as much.
        """
        manifest = self.contestant.manifest
        forecast = find_procedure(manifest).forecast(manifest)
        return max(_UNRECORDED, 0 if forecast is None else forecast.schedule.full_at - 1)

    def open(self, worker: Worker, plan: Plan) -> None:
        request = messages.Load(
            bundle=str(self.contestant.path),
            device=plan.device,
            threads=plan.threads,
            hint=self.contestant.hint,
            source=self.footage.path,
            box=self.footage.box,
            keep_frames=plan.keep_frames,
            keep_mb=plan.keep_mb,
        )
        self.loaded = worker.ask(request, Loaded, plan.timeout_s)
        self.peak = worker.ask(messages.Memory(_MEMORY_FRAMES), Peak, plan.timeout_s)

    def warm_up(self, worker: Worker, plan: Plan) -> None:
        request = messages.Run("track", plan.warmup_s, _WARMUP_FRAMES, 0)
        worker.ask(request, Slice, plan.timeout_s + plan.warmup_s)

    def turn(self, worker: Worker, kind: Kind, plan: Plan) -> None:
        seconds, frames, wait_s = plan.slice_s, plan.slice_frames, plan.timeout_s + plan.slice_s
        if kind in ("paced", "soak"):
            fresh = kind == "paced" or not self.paced
            pace = messages.Pace(self.scenario.fps, seconds, frames, self.unrecorded, fresh)
            self._keep_paced(worker.ask(pace, Paced, wait_s + frames / (self.scenario.fps or math.inf)), kind)
        elif kind == "burst":
            burst = messages.Burst(self.scenario.streams, seconds, frames, self.unrecorded)
            self.bursts.append(worker.ask(burst, Bursted, wait_s))
        else:
            self.slices[kind].append(worker.ask(messages.Run(kind, seconds, frames, self.unrecorded), Slice, wait_s))

    def _keep_paced(self, found: Paced, kind: Kind) -> None:
        """A soak has no slices but these: its frames are also what the track and model speeds are of."""
        self.paced.append(found)
        if kind == "soak":
            read = [0.0] * len(found.crop)
            self.slices["track"].append(
                Slice("track", found.crop, found.graphs, found.decode, read, found.response, found.cpu_s, found.wall_s)
            )


@dataclass
class RooflineEntry(Entry):
    """The roof at one precision."""

    precision: str
    threads: int
    roofline: Roofline | None = field(default=None, init=False)

    @property
    def label(self) -> str:
        return f"roofline {self.precision}"

    @property
    def kinds(self) -> tuple[Kind, ...]:
        return ("track",)

    def open(self, worker: Worker, plan: Plan) -> None:
        worker.ask(messages.LoadRoofline(self.precision, self.threads), messages.Ready, plan.timeout_s)

    def warm_up(self, worker: Worker, plan: Plan) -> None:
        self._probe(worker, plan)

    def turn(self, worker: Worker, kind: Kind, plan: Plan) -> None:
        self._probe(worker, plan)

    def _probe(self, worker: Worker, plan: Plan) -> None:
        request = messages.Probe(min(_LONGEST_PROBE_S, plan.slice_s))
        self.roofline = worker.ask(request, messages.Rate, plan.timeout_s).roofline
