"""Reads all sources again and again on a thread of its own, beside a benchmark whose work is in other processes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType

from edgetrack.telemetry.power_mode import UNKNOWN, PowerMode
from edgetrack.telemetry.process import ProcessMemory
from edgetrack.telemetry.reading import Quantity, Reading, Source
from edgetrack.telemetry.timeline import Missing, Series, Timeline, Window

INTERVAL_S = 0.5


class Sampler:
    """The timeline as it grows; a context manager that runs the thread and closes the sources at its end.

    Args:
        sources: what is read; one that fails is given up, and the timeline says why.
        missing: what was to be read and does not answer.
        power_mode: as it was found.
        interval_s: seconds between two rounds of readings.
        now: seconds of a clock that never goes back.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        missing: Sequence[Missing] = (),
        power_mode: PowerMode = UNKNOWN,
        interval_s: float = INTERVAL_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sources = list(sources)
        self._missing = list(missing)
        self._power_mode = power_mode
        self._interval_s = interval_s
        self._now = now
        self._start = now()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self._t_s: list[float] = []
        self._series: dict[tuple[str, Quantity, str], list[float | None]] = {}
        self._windows: list[Window] = []
        self._processes: dict[tuple[str, int], ProcessMemory] = {}
        self._watched: ProcessMemory | None = None

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        for source in self._sources:
            with suppress(OSError):
                source.close()

    def seconds(self) -> float:
        """Now, on the timeline's axis."""
        return self._now() - self._start

    @contextmanager
    def watch(self, label: str, pid: int) -> Iterator[None]:
        """Read the memory of a process meanwhile."""
        source = self._processes.setdefault((label, pid), ProcessMemory(label, pid, self._now))
        with self._lock:
            self._watched = source
        try:
            yield
        finally:
            with self._lock:
                self._watched = None

    def add(self, window: Window) -> None:
        """Note what was measured when."""
        with self._lock:
            self._windows.append(window)

    def sample(self) -> None:
        """One round of readings."""
        t_s, watched = self.seconds(), self._watched
        readings = [(source.name, reading) for source in list(self._sources) for reading in self._read(source)]
        if watched is not None:
            readings += [(watched.name, reading) for reading in _suppressed(watched)]
        with self._lock:
            self._t_s.append(t_s)
            for source, (quantity, name, value) in readings:
                values = self._series.setdefault((source, quantity, name), [])
                values.extend([None] * (len(self._t_s) - 1 - len(values)))
                values[len(self._t_s) - 1 :] = [value]

    def timeline(self) -> Timeline:
        """All there is by now."""
        with self._lock:
            count = len(self._t_s)
            return Timeline(
                interval_s=self._interval_s,
                t_s=list(self._t_s),
                series=[
                    Series(source, quantity, name, [*values, *[None] * (count - len(values))])
                    for (source, quantity, name), values in self._series.items()
                ],
                windows=list(self._windows),
                missing=list(self._missing),
                power_mode=self._power_mode,
            )

    def _run(self) -> None:
        self.sample()
        while not self._stop.wait(self._interval_s):
            self.sample()

    def _read(self, source: Source) -> list[Reading]:
        try:
            return list(source.read())
        except (OSError, ValueError) as error:
            with suppress(OSError):
                source.close()
            with self._lock:
                self._sources.remove(source)
                self._missing.append(Missing(source.name, f"stopped after {self.seconds():.0f} s: {error}"))
            return []


def _suppressed(process: ProcessMemory) -> list[Reading]:
    """A process that has ended has no memory to be read."""
    with suppress(OSError):
        return list(process.read())
    return []
