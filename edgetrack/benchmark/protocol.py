"""What the benchmark and its worker processes say to each other: one JSON object per line, tagged by `type`.

`check --baseline-python` starts workers of another installation. They are asked to `load`, for their `memory` and to
`run`, so the names of these three and of their answers stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import msgspec

from edgetrack.benchmark.config import BenchConfig
from edgetrack.box import Box
from edgetrack.errors import WorkerError
from edgetrack.io import decode_line
from edgetrack.processes import JsonLinesProcess, error_by_name, python_command, thread_environ
from edgetrack.runtime.threads import ThreadRace

COMMAND = python_command("edgetrack.benchmark.worker")


class Load(BenchConfig, frozen=True, kw_only=True, tag="load"):
    """Open a bundle as `edgetrack.load` does and track the box through the first frames of the source.

    `source` is as `open_source` takes it, `box` (x, y, w, h) in pixels of its first frame; frames kept decoded in
    memory are at most `keep_frames` and `keep_mb` (MiB).
    """

    bundle: str
    hint: str | None
    source: str
    box: Box
    keep_frames: int
    keep_mb: float


class LoadRoofline(msgspec.Struct, frozen=True, tag="load-roofline"):
    """Prepare the search for the machine's peak throughput."""

    precision: str
    threads: int


class Memory(msgspec.Struct, frozen=True, tag="memory"):
    """Track `frames` frames as they come from the source and tell the peak memory; asked before anything is timed."""

    frames: int


class Measure(msgspec.Struct, frozen=True, tag="run"):
    """Measure once in the way `kind`: `discarded` warm-up frames, then until `seconds` and `frames` are both reached.

    `track` takes frames that are decoded in memory, `camera` reads and decodes each one from the source, `camera_ahead`
    does so in a thread of its own; the other kinds are the scenario's.
    """

    kind: str
    seconds: float
    frames: int
    discarded: int = msgspec.field(name="unrecorded")


class Probe(msgspec.Struct, frozen=True, tag="probe"):
    """Search for the peak throughput for about `seconds`."""

    seconds: float


class Attain(msgspec.Struct, frozen=True, kw_only=True, tag="attain"):
    """Time the layers of a bundle's step graphs, in their graph and alone, for about `seconds`.

    `processor` is its model; `busy`: other programs compute, too, so that the times are not worth keeping.
    """

    bundle: str
    hint: str | None
    device: str
    threads: int
    seconds: float
    processor: str
    busy: bool


class Loaded(msgspec.Struct, frozen=True, tag="loaded"):
    """`load_ms` from the bundle's path to a tracker, `first_ms` of `init` and the first `update`.

    `placement` is where each graph runs, as its backend says; `thread_race` what was found where threads were raced,
    which then is a part of `load_ms`.
    """

    load_ms: float
    first_ms: float
    threads: int
    versions: dict[str, str]
    placement: dict[str, str] = {}
    thread_race: ThreadRace | None = None


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The peak throughput can be searched for."""


class PeakMemory(msgspec.Struct, frozen=True, tag="peak"):
    """Peak resident memory in MiB, and what the process holds of its GPU."""

    peak_rss_mb: float
    gpu_mb: float | None = None


class RoundSamples(msgspec.Struct, frozen=True, kw_only=True, tag="slice"):
    """One candidate in one round: an entry per recorded frame, in milliseconds, in the order in which they ran.

    Attributes:
        kind: as in `Measure`.
        crop, graphs, decode: of the frame's update.
        read: time to get the frame from the source, or from memory; empty where frames arrive at a rate.
        whole: from asking for the frame, or from its arrival, to its box.
        cpu_s, wall_s: what the process computed and how long it took, in seconds.
        queued: from a frame's arrival to the start of its update, where frames arrive at a rate.
        waiting: frames that had arrived and were not begun when the time was over.
        streams: box to box, for each of several trackers at once, or each update of one tracker with 1, 2 ... targets;
            the other lists are empty then.
        threads_each: threads of each of these trackers.
        batch: targets that the one tracker's graph takes at once; 1 where it has none for several.
    """

    kind: str
    crop: list[float] = []
    graphs: list[float] = []
    decode: list[float] = []
    read: list[float] = []
    whole: list[float] = []
    cpu_s: float
    wall_s: float
    queued: list[float] = []
    waiting: int = 0
    streams: list[list[float]] = []
    threads_each: int = 0
    batch: int = 1

    @property
    def frames(self) -> int:
        """Recorded frames of all streams."""
        return sum(map(len, self.streams)) if self.streams else len(self.graphs)

    @property
    def track(self) -> list[float]:
        """Milliseconds of each frame by the papers' definition: crop, graphs and decode."""
        return [sum(stages) for stages in zip(self.crop, self.graphs, self.decode, strict=True)]


class Roofline(msgspec.Struct, frozen=True):
    """The best rate found; `gflops` and `shape` are None where it cannot be measured, and `reason` says why.

    `gflops` is in 1e9 FLOP/s (two per multiply-accumulate; integer operations count the same), `shape` the chain that
    reached it, `runs` how many runs of all chains it was the best of.
    """

    precision: str
    threads: int
    gflops: float | None
    engine: str
    shape: str | None
    runs: int
    reason: str | None = None


class LimitPart(msgspec.Struct, frozen=True, kw_only=True):
    """Layers of one kind: how many, the least milliseconds that they take, and what they take in the graph."""

    kind: str
    layers: int
    limit_ms: float
    graph_ms: float


class Attainable(msgspec.Struct, frozen=True, kw_only=True):
    """What a step would take at the rate that each layer reaches alone; `limit_ms` is None where `reason` says why.

    Attributes:
        limit_ms: the sum over the layers, in milliseconds: of each that computes, the least time that its shape took,
            alone or in the graph; of each that only moves numbers, that of its traffic at the rate measured for as many
            bytes; of changes of layout that the engine puts between layers, nothing.
        model: our p50 over it; 1 is perfect.
        engine: what runs the graph.
        instructions: the instruction set, as the engine names it; empty where it does not.
        primitives: milliseconds of `limit_ms` by what computes them, such as `brgconv_1x1:avx512_core_vnni`.
        parts: by kind of layer, the longest first.
        shapes: distinct shapes among the layers that compute; `alone` of them were timed alone.
        took_s: what the measurement took.
        date: when it was made, in UTC.
    """

    limit_ms: float | None = None
    model: float | None = None
    engine: str = ""
    instructions: str = ""
    primitives: dict[str, float] = {}
    parts: list[LimitPart] = []
    shapes: int = 0
    alone: int = 0
    took_s: float = 0.0
    date: str = ""
    reason: str | None = None


class Attained(msgspec.Struct, frozen=True, tag="attained"):
    """The attainable limit of a bundle."""

    attainable: Attainable


class Rate(msgspec.Struct, frozen=True, tag="rate"):
    """The peak throughput as far as it is known."""

    roofline: Roofline


class Failure(msgspec.Struct, frozen=True, tag="failure"):
    """The request could not be done; `error` is the name of the exception's class."""

    error: str
    message: str


WorkerRequest = Load | LoadRoofline | Memory | Measure | Probe | Attain
WorkerReply = Loaded | Ready | PeakMemory | RoundSamples | Rate | Attained | Failure
ReplyT = TypeVar("ReplyT", Loaded, Ready, PeakMemory, RoundSamples, Rate, Attained)

_REQUESTS: msgspec.json.Decoder[WorkerRequest] = msgspec.json.Decoder(WorkerRequest)
_REPLIES: msgspec.json.Decoder[WorkerReply] = msgspec.json.Decoder(WorkerReply)


def decode_request(line: bytes) -> WorkerRequest:
    """The request of a line.

    Raises:
        WorkerError: it is none.
    """
    return decode_line(line, _REQUESTS, lambda shown, why: WorkerError(f"{shown} is no request: {why}"))


def decode_reply(line: bytes) -> WorkerReply:
    """The reply of a line.

    Raises:
        WorkerError: it is none.
    """
    return decode_line(
        line, _REPLIES, lambda shown, why: WorkerError(f"broke its protocol: {shown} is no reply: {why}")
    )


class Worker(Protocol):
    """Answers requests about one candidate."""

    def ask(self, request: WorkerRequest, expect: type[ReplyT], timeout_s: float) -> ReplyT:
        """The answer, which must be of the expected kind.

        Raises:
            WorkerError: it died, took too long or broke its protocol.
            EdgetrackError: what it says went wrong, of the same class.
        """

    def wait_idle(self) -> bool:
        """Wait until it computes nothing any more; False where it still does after two seconds."""

    def close(self) -> None:
        """End it, however busy it is; safe to call twice."""


Start = Callable[[str, int], Worker]
"""Starts a worker for the candidate of that label, for a number of threads."""


class WorkerProcess(JsonLinesProcess):
    """A worker in a process of its own."""

    def ask(self, request: WorkerRequest, expect: type[ReplyT], timeout_s: float) -> ReplyT:
        reply = self.exchange(request, decode_reply, timeout_s)
        if isinstance(reply, Failure):
            raise error_by_name(reply.error, reply.message)
        if not isinstance(reply, expect):
            self._in_step = False
            raise WorkerError(f"broke its protocol: answered {type(request).__name__} with {type(reply).__name__}")
        return reply


def start_worker(label: str, threads: int) -> Worker:
    """A worker process whose libraries are told the number of threads before they are loaded.

    `OMP_WAIT_POLICY` is left alone: a thread pool that sleeps between layers is not the one that users run.
    """
    return WorkerProcess(COMMAND, thread_environ(threads))
