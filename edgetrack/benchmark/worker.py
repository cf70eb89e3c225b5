"""One contestant's process: `python -m edgetrack.benchmark.worker`, requests on stdin, replies on stdout.

Between requests it blocks on stdin, so that it takes no time from whoever is measured meanwhile. It ends when stdin
does, that is also when the process that started it is gone.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import BinaryIO

from edgetrack import json_lines
from edgetrack.benchmark import messages
from edgetrack.benchmark.measuring import RooflineRun, TrackerRun
from edgetrack.benchmark.messages import Burst, Load, LoadRoofline, Memory, Pace, Probe, Reply, Request, Run
from edgetrack.errors import EdgetrackError, WorkerError


class Server:
    """Answers requests for one contestant."""

    def __init__(self, *, open_run: Callable[[Load], TrackerRun] = TrackerRun) -> None:
        self._open_run = open_run
        self._tracker: TrackerRun | None = None
        self._roofline: RooflineRun | None = None

    def answer(self, request: Request) -> Reply:
        """Do what is asked.

        Raises:
            WorkerError: something else has to be asked first.
            EdgetrackError: it cannot be done.
        """
        if isinstance(request, Load):
            _limit_opencv(request.threads)
            self._tracker = self._open_run(request)
            return self._tracker.first()
        if isinstance(request, LoadRoofline):
            self._roofline = RooflineRun(request)
            return messages.Ready()
        return self._measure(request)

    def close(self) -> None:
        """Release what was loaded."""
        if self._tracker is not None:
            self._tracker.close()

    def _measure(self, request: Memory | Run | Pace | Burst | Probe) -> Reply:
        if isinstance(request, Probe) and self._roofline is not None:
            return self._roofline.run(request.seconds)
        if not isinstance(request, Probe) and self._tracker is not None:
            return self._track(self._tracker, request)
        raise WorkerError(f"{type(request).__name__} before anything was loaded for it")

    @staticmethod
    def _track(tracker: TrackerRun, request: Memory | Run | Pace | Burst) -> Reply:
        if isinstance(request, Memory):
            return tracker.memory(request.frames)
        if isinstance(request, Pace):
            return tracker.pace(request)
        return tracker.burst(request) if isinstance(request, Burst) else tracker.run(request)


def serve(requests: BinaryIO, replies: BinaryIO, server: Server) -> None:
    """Answer line by line until the requests end; what fails is answered with a `Failure`."""
    for line in iter(requests.readline, b""):
        replies.write(json_lines.encode(_answer(line, server)))
        replies.flush()
    server.close()


def _answer(line: bytes, server: Server) -> Reply:
    try:
        return server.answer(messages.decode_request(line))
    except EdgetrackError as error:
        return messages.Failure(type(error).__name__, str(error))
    except Exception as error:
        traceback.print_exc()
        return messages.Failure(type(error).__name__, str(error) or repr(error))


def _limit_opencv(threads: int) -> None:
    import cv2

    cv2.setNumThreads(threads)


def main() -> None:
    """Serve on this process's pipes; what libraries print to stdout goes to stderr."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(sys.stdin.buffer, replies, Server())


if __name__ == "__main__":
    main()
