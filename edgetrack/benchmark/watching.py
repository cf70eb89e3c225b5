"""Puts each slice on the sensors' axis of time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from edgetrack.benchmark.entries import Entry, TrackerEntry
from edgetrack.benchmark.messages import Kind
from edgetrack.benchmark.process import Worker, WorkerProcess
from edgetrack.telemetry.sampler import Sampler
from edgetrack.telemetry.timeline import Window


class Watcher:
    """What `Runner` calls around slices: notes their windows, and has the worker's memory read meanwhile."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    @contextmanager
    def __call__(self, entry: Entry, kind: Kind, worker: Worker) -> Iterator[None]:
        start = self._sampler.seconds()
        pid = worker.pid if isinstance(worker, WorkerProcess) else None
        with self._sampler.watch(entry.label, pid) if pid is not None else nullcontext():
            yield
        end = self._sampler.seconds()
        if isinstance(entry, TrackerEntry):
            busy, frames = _last(entry, kind)
            self._sampler.add(Window(entry.label, kind, start, end, min(busy, end - start), frames))


def _last(entry: TrackerEntry, kind: Kind) -> tuple[float, int]:
    """Seconds and frames that the slice that just ended recorded."""
    if kind in ("paced", "soak"):
        return entry.paced[-1].wall_s, len(entry.paced[-1].crop)
    if kind == "burst":
        return entry.bursts[-1].wall_s, sum(map(len, entry.bursts[-1].whole))
    return entry.slices[kind][-1].wall_s, len(entry.slices[kind][-1].crop)
