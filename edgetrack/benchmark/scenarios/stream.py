"""Frames back to back: as fast as the tracker goes."""

from __future__ import annotations

from contextlib import closing
from typing import ClassVar

from edgetrack.benchmark.protocol import Measure, RoundSamples
from edgetrack.benchmark.scenarios.base import Rig, Scenario, Step
from edgetrack.errors import WorkerError


class Stream(Scenario):
    """`track` on frames that are decoded in memory, `camera` on frames that are read and decoded one by one.

    `camera_ahead` reads and decodes them ahead in a thread of its own, as `edgetrack track` does.
    """

    name = "stream"
    kinds: ClassVar[tuple[str, ...]] = ("track", "camera", "camera_ahead")

    def measure(self, request: Measure, rig: Rig) -> RoundSamples:
        """From the first frame on.

        Raises:
            WorkerError: a kind that the scenario does not have.
        """
        if request.kind not in Stream.kinds:
            raise WorkerError(f"the scenario {self.name} does not measure {request.kind!r}")
        if request.kind == "track":
            shots = rig.feed.from_memory()
        else:
            shots = rig.feed.from_source(ahead=request.kind == "camera_ahead")
        with closing(shots):
            for _ in range(request.discarded):
                rig.step(shots)
            steps: list[Step] = []
            cpu, start = rig.cpu_seconds(), rig.clock.now_ns()
            while len(steps) < request.frames or rig.since(start) < 1000 * request.seconds:
                steps.append(rig.step(shots))
            wall_s, cpu_s = rig.since(start) / 1000, rig.cpu_seconds() - cpu
        return RoundSamples(
            kind=request.kind,
            crop=[step.timing.crop for step in steps],
            graphs=[step.timing.graphs for step in steps],
            decode=[step.timing.decode for step in steps],
            read=[step.read for step in steps],
            whole=[step.whole for step in steps],
            cpu_s=cpu_s,
            wall_s=wall_s,
        )
