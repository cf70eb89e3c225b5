"""The settings of an evaluation: what the CLI fills, `compare` shares between its bundles, and runs are kept under."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from edgetrack.errors import UsageError
from edgetrack.evaluation.datasets import Dataset
from edgetrack.evaluation.protocols import Task
from edgetrack.evaluation.protocols.anchored import Anchored
from edgetrack.evaluation.protocols.one_pass import OnePass
from edgetrack.evaluation.protocols.streaming import Streaming
from edgetrack.evaluation.text_noise import NoiseReport
from edgetrack.presentation.table import counted
from edgetrack.resources import usable_cores
from edgetrack.runtime.recovery import Recover


@dataclass(frozen=True)
class EvalConfig:
    """See `edgetrack eval --help`.

    Attributes:
        threads: of an inference; None shares the usable cores among the jobs. On a cluster, whose cores may have other
            users, None is one.
        device: where bundles run that have no place of their own.
        profile: name of the device's profile; such runs are kept under names of their own.
        output: where runs are kept; None is `out/eval/BUNDLE/DATASET`.
        anchors, streaming: further tasks beside the one pass.
        text_noise: how the descriptions of `dataset` were changed; None where they are the sequences' own.
        recover: what is done where the target is lost, as `edgetrack.load` takes it.
        scheduler: address of a Dask scheduler; None runs processes of this machine.

    Raises:
        UsageError: a number is outside its range, or two options exclude each other.
    """

    dataset: Dataset
    jobs: int = 1
    threads: int | None = None
    frames: int | None = None
    device: str = "cpu"
    output: Path | None = None
    restart: bool = False
    anchors: Anchored | None = None
    streaming: Streaming | None = None
    text_noise: NoiseReport | None = None
    recover: Recover | None = None
    scheduler: str | None = None
    profile: str | None = None

    def __post_init__(self) -> None:
        for name, value in (("jobs", self.jobs), ("threads", self.threads), ("frames", self.frames)):
            if value is not None and value < 1:
                raise UsageError(f"--{name} {value}: expected 1 or more")
        if self.scheduler is not None and self.jobs != 1:
            raise UsageError(
                "--jobs and --scheduler exclude each other: the cluster's workers decide how many run at once"
            )

    @property
    def threads_each(self) -> int:
        """Threads of one inference."""
        if self.threads is not None:
            return self.threads
        return 1 if self.scheduler is not None else max(1, usable_cores() // self.jobs)

    @property
    def measured_with(self) -> str:
        """What decides an inference's speed beside the bundle and the device."""
        where = f"workers of {self.scheduler}" if self.scheduler else counted(self.jobs, "job")
        return f"{counted(self.threads_each, 'thread')}, {where}"

    @property
    def tasks(self) -> list[Task[object]]:
        """What is done with each sequence."""
        streaming = self.streaming and replace(self.streaming, measured_with=self.measured_with)
        further = (self.anchors, streaming)
        return [OnePass(), *(task for task in further if task is not None)]
