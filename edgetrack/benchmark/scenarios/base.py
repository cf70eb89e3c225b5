"""What a scenario is: what it asks of each candidate, how a worker measures that, what the record keeps of it."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from edgetrack.benchmark.config import BenchConfig
from edgetrack.benchmark.protocol import Measure, RoundSamples
from edgetrack.benchmark.warnings import BenchWarning
from edgetrack.errors import UsageError
from edgetrack.system.timeline import Timeline

if TYPE_CHECKING:
    from edgetrack.benchmark.frames import FrameFeed, Shots
    from edgetrack.benchmark.record import BenchResult
    from edgetrack.box import Box
    from edgetrack.runtime.multi import MultiTracker
    from edgetrack.runtime.session import Timing, Tracker
    from edgetrack.system.clock import Clock

MAX_FPS = 10_000.0
MAX_STREAMS = 64
ROUNDS = 6


@dataclass(frozen=True)
class Step:
    """One frame: `read` and `whole` in milliseconds as in `RoundSamples`, and the update's own timing."""

    read: float
    whole: float
    timing: Timing


@dataclass(frozen=True)
class Rig:
    """A loaded tracker in its worker, with frames and clocks.

    Attributes:
        tracker: loaded.
        feed: its frames.
        box: the target in the first frame.
        clock: times everything but the stages of an update, which are the tracker's own.
        cpu_seconds: what this process has computed so far.
        sleep: waits about that many seconds.
        open_tracker: loads the same bundle once more, with that number of threads.
        open_many: loads it once more for so many targets, with the threads of `tracker`.
    """

    tracker: Tracker
    feed: FrameFeed
    box: Box
    clock: Clock
    cpu_seconds: Callable[[], float]
    sleep: Callable[[float], None]
    open_tracker: Callable[[int], Tracker]
    open_many: Callable[[int], MultiTracker]

    def since(self, start: int) -> float:
        """Milliseconds."""
        return (self.clock.now_ns() - start) / 1e6

    def step(self, shots: Shots) -> Step:
        """Track the next frame that does not start the tracker again; starting again is not timed."""
        while True:
            start = self.clock.now_ns()
            frame, first = next(shots)
            read = self.since(start)
            if not first:
                result = self.tracker.update(frame)
                return Step(read, self.since(start), result.timing)
            self.tracker.init(frame, self.box)


class Scenario(abc.ABC):
    """A way in which frames arrive. One object lives in the benchmark, one in the worker of each candidate.

    Attributes:
        name: as `--scenario` takes it.
        kinds: what each round measures of every candidate, in this order; `Stream` has `track` and the cameras.
        track_kind: the kind whose frames make the model and track speeds.
        compares: whether candidates are compared with each other, with PyTorch and with the roofline.
        default_duration_s, default_fps, default_streams: where the config leaves them out.
        takes_fps, takes_streams: whether the config may set them; with `streams` goes `batched`.
        round_name: what its rounds are called in the notes.
    """

    name: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]]
    track_kind: ClassVar[str] = "track"
    compares: ClassVar[bool] = True
    default_duration_s: ClassVar[float] = 6.0
    default_fps: ClassVar[float | None] = None
    default_streams: ClassVar[int] = 1
    takes_fps: ClassVar[bool] = False
    takes_streams: ClassVar[bool] = False
    round_name: ClassVar[str] = "interleaved rounds"

    def __init__(self, config: BenchConfig) -> None:
        self.config = config

    @classmethod
    def check(cls, config: BenchConfig) -> None:
        """See that the scenario can use what the config sets.

        Raises:
            UsageError: it cannot, or a number is out of range.
        """
        for option, given, taken in (
            ("fps", config.fps is not None, cls.takes_fps),
            ("streams", config.streams != 0, cls.takes_streams),
            ("batched", config.batched, cls.takes_streams),
        ):
            if given and not taken:
                raise UsageError(f"--{option} has no use in the scenario {cls.name}; leave it out")
        if config.fps is not None and not 0 < config.fps <= MAX_FPS:
            raise UsageError(f"fps {config.fps}: expected frames per second above 0, up to {MAX_FPS:g}")
        if not 0 <= config.streams <= MAX_STREAMS:
            raise UsageError(f"streams {config.streams}: expected 1 to {MAX_STREAMS}")

    @classmethod
    def default_rounds(cls, duration_s: float) -> int:
        """How often every candidate is measured where the config leaves it out."""
        return ROUNDS

    def extra_wait_s(self, kind: str) -> float:
        """How much longer than the config's seconds one round may take, because frames have to arrive first."""
        return 0.0

    @abc.abstractmethod
    def measure(self, request: Measure, rig: Rig) -> RoundSamples:
        """Measure once, in the worker; `request.kind` is one of `kinds`, or `track` for the warm-up."""

    def close(self) -> None:  # noqa: B027 - most scenarios open nothing
        """Release what `measure` has opened."""

    def summarize(
        self, result: BenchResult, rounds: Mapping[str, Sequence[RoundSamples]], timeline: Timeline
    ) -> dict[str, object]:
        """Fields of the result that are the scenario's own, from all rounds by kind.

        A scenario without a field in `BenchResult` returns `{"found": {...}}` of plain data.
        """
        return {}

    @classmethod
    def warnings(cls, result: BenchResult) -> Iterator[BenchWarning]:
        """What in these fields calls for a warning."""
        return iter(())

    @classmethod
    def notes(cls, result: BenchResult) -> Iterator[str]:
        """Lines about these fields for people; none where the result is another scenario's."""
        return iter(())
