"""One candidate's process: `python -m edgetrack.benchmark.worker`, requests on stdin, replies on stdout.

Between requests it blocks on stdin, so that it takes no time from whoever is measured meanwhile. It ends when stdin
does, which is also when the process that started it is gone.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import closing
from typing import BinaryIO, Literal

from edgetrack.benchmark import protocol
from edgetrack.benchmark.attainable import attainable_of
from edgetrack.benchmark.frames import FrameFeed
from edgetrack.benchmark.protocol import (
    Attain,
    Attained,
    Load,
    Loaded,
    LoadRoofline,
    Measure,
    Memory,
    PeakMemory,
    Probe,
    Rate,
    RoundSamples,
)
from edgetrack.benchmark.roofline import RooflineSearch
from edgetrack.benchmark.scenarios import scenario_of
from edgetrack.benchmark.scenarios.base import Rig
from edgetrack.capabilities import find_target
from edgetrack.errors import EdgetrackError, WorkerError
from edgetrack.io import encode_line
from edgetrack.runtime.multi import MultiTracker, load_many
from edgetrack.runtime.prompt import stand_in_text
from edgetrack.runtime.session import Tracker, load
from edgetrack.system.clock import Clock, MonotonicClock
from edgetrack.system.gpu import GpuMemory
from edgetrack.system.sensors import peak_rss_mb


class TrackerRun:
    """A bundle, opened and timed.

    Args:
        request: which bundle, on which frames.
        clock: times everything but the stages of an update, which are the tracker's own.
        cpu_seconds: what this process has computed so far.
        open_bundle: `edgetrack.load`, or something like it.
        sleep: waits about that many seconds, between frames that arrive at a rate.
    """

    def __init__(
        self,
        request: Load,
        *,
        clock: Clock | None = None,
        cpu_seconds: Callable[[], float] = time.process_time,
        open_bundle: Callable[..., Tracker] = load,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        def open_tracker(threads: int | Literal["auto"]) -> Tracker:
            tracker = open_bundle(request.bundle, device=request.device, threads=threads, precision_hint=request.hint)
            if tracker.attributes:
                tracker.set_text(stand_in_text(tracker.attributes))
            return tracker

        def open_many(room: int) -> MultiTracker:
            return load_many(
                request.bundle, room, device=request.device, threads=request.threads, precision_hint=request.hint
            )

        clock = clock or MonotonicClock()
        self._gpu_memory = GpuMemory(request.device)
        self._scenario = scenario_of(request)
        start = clock.now_ns()
        tracker = open_tracker("auto" if request.auto_threads else request.threads)
        self._load_ms = (clock.now_ns() - start) / 1e6
        feed = FrameFeed(request.source, tracker.modalities, request.keep_frames, request.keep_mb)
        self._rig = Rig(tracker, feed, request.box, clock, cpu_seconds, sleep, open_tracker, open_many)

    def first(self) -> Loaded:
        """How long loading took, and the time of `init` and the first `update`."""
        rig = self._rig
        with closing(rig.feed.from_source()) as shots:
            (head, _), (following, _) = next(shots), next(shots)
        start = rig.clock.now_ns()
        rig.tracker.init(head, rig.box)
        rig.tracker.update(following)
        versions = find_target(rig.tracker.manifest.target).versions()
        first_ms, placement = rig.since(start), rig.tracker.placement
        threads, race = rig.tracker.options.threads, rig.tracker.thread_race
        return Loaded(self._load_ms, first_ms, threads, versions, placement, race)

    def memory(self, frames: int) -> PeakMemory:
        """Track `frames` frames straight from the source, and tell the most memory that this process ever held.

        Only before anything is timed: that keeps decoded frames, which are the benchmark's and not the tracker's.
        """
        with closing(self._rig.feed.from_source()) as shots:
            for _ in range(frames):
                self._rig.step(shots)
        return PeakMemory(peak_rss_mb(), self._gpu_memory.mb())

    def measure(self, request: Measure) -> RoundSamples:
        """One round of one kind, as the scenario does it."""
        return self._scenario.measure(request, self._rig)

    def close(self) -> None:
        """Release the tracker, and what the scenario has opened."""
        self._scenario.close()
        self._rig.tracker.close()


class WorkerServer:
    """Answers requests for one candidate, for the roofline, or for an attainable limit."""

    def __init__(self, *, open_run: Callable[[Load], TrackerRun] = TrackerRun) -> None:
        self._open_run = open_run
        self._tracker: TrackerRun | None = None
        self._roofline: RooflineSearch | None = None

    def answer(self, request: protocol.WorkerRequest) -> protocol.WorkerReply:
        """Do what is asked.

        Raises:
            WorkerError: something else has to be asked first.
            EdgetrackError: it cannot be done.
        """
        match request:
            case Load():
                _limit_opencv(request.threads)
                self._tracker = self._open_run(request)
                return self._tracker.first()
            case LoadRoofline():
                self._roofline = RooflineSearch(request.precision, request.threads)
                self._roofline.prepare()
                return protocol.Ready()
            case Memory() if self._tracker is not None:
                return self._tracker.memory(request.frames)
            case Measure() if self._tracker is not None:
                return self._tracker.measure(request)
            case Probe() if self._roofline is not None:
                self._roofline.search(request.seconds)
                return Rate(self._roofline.result())
            case Attain():
                return Attained(attainable_of(request))
        raise WorkerError(f"{type(request).__name__} before anything was loaded for it")

    def close(self) -> None:
        """Release what was loaded."""
        if self._tracker is not None:
            self._tracker.close()


def serve(requests: BinaryIO, replies: BinaryIO, server: WorkerServer) -> None:
    """Answer line by line until the requests end; what fails is answered with a `Failure`."""
    for line in iter(requests.readline, b""):
        replies.write(encode_line(_answer(line, server)))
        replies.flush()
    server.close()


def _answer(line: bytes, server: WorkerServer) -> protocol.WorkerReply:
    try:
        return server.answer(protocol.decode_request(line))
    except EdgetrackError as error:
        return protocol.Failure(type(error).__name__, str(error))
    except Exception as error:
        traceback.print_exc()
        return protocol.Failure(type(error).__name__, str(error) or repr(error))


def _limit_opencv(threads: int) -> None:
    import cv2

    cv2.setNumThreads(threads)


def main() -> None:
    """Serve on this process's pipes; what libraries print to stdout goes to stderr."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(sys.stdin.buffer, replies, WorkerServer())


if __name__ == "__main__":
    main()
