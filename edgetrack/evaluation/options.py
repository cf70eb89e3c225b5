"""What to evaluate, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgetrack.errors import UsageError
from edgetrack.evaluation.anchors import AnchorPlan
from edgetrack.evaluation.datasets import Dataset
from edgetrack.evaluation.tasks import Anchored, OnePass, Streamed, Task
from edgetrack.runtime.threads import usable_cores


@dataclass(frozen=True)
class Options:
    """See `edgetrack eval --help`.

    `threads` None shares the usable cores among the jobs; on a cluster, where they are others', it is one.
    """

    bundle: str
    dataset: Dataset
    jobs: int = 1
    threads: int | None = None
    frames: int | None = None
    device: str = "cpu"
    precision_hint: str | None = None
    output: Path | None = None
    restart: bool = False
    anchors: AnchorPlan | None = None
    streaming: Streamed | None = None
    scheduler: str | None = None

    @property
    def threads_each(self) -> int:
        """Threads of one inference."""
        if self.threads is not None:
            return self.threads
        return 1 if self.scheduler is not None else max(1, usable_cores() // self.jobs)

    @property
    def tasks(self) -> list[Task[object]]:
        """What is done with each sequence."""
        tasks: list[Task[object]] = [OnePass()]
        if self.anchors is not None:
            tasks.append(Anchored(self.anchors))
        if self.streaming is not None:
            tasks.append(self.streaming)
        return tasks

    def check(self) -> None:
        """Check numbers.

        Raises:
            UsageError: one is outside its range, or two options exclude each other.
        """
        for name, value in (("jobs", self.jobs), ("threads", self.threads), ("frames", self.frames)):
            if value is not None and value < 1:
                raise UsageError(f"--{name} {value}: expected 1 or more")
        if self.scheduler is not None and self.jobs != 1:
            raise UsageError(
                "--jobs and --scheduler exclude each other: the cluster's workers decide how many run at once"
            )
