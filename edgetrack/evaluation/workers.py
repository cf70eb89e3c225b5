"""Sequences in processes of their own: the bundle is loaded once in each, and one that dies takes only its sequence."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from edgetrack.errors import BackendMissingError
from edgetrack.evaluation import store
from edgetrack.evaluation.ope import one_pass
from edgetrack.evaluation.sequence import Sequence
from edgetrack.runtime.session import Tracker, load

DIED = "WorkerError: the process that tracked it died (killed, out of memory, or a crash in native code)"
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_IDLE_S = 15
"""Seconds after which an idle process ends: one whose parent was killed finishes its sequence, keeps it, and goes."""


@dataclass(frozen=True)
class Setup:
    """How every process loads the bundle: its folder, device, threads of an inference, and precision hint."""

    bundle: Path
    device: str
    threads: int
    precision_hint: str | None


@dataclass(frozen=True)
class Work:
    """A sequence to track (its first `limit` frames where that is not None), and where the run is kept."""

    sequence: Sequence
    limit: int | None
    file: Path
    saved_as: tuple[str, str, str, str]


Done = Callable[[Work, "str | None"], None]
"""Called with each finished work, and what went wrong."""


def run_all(works: Iterable[Work], setup: Setup, jobs: int, done: Done) -> None:
    """Track every sequence, `jobs` at a time; each is kept on disk before `done` hears of it.

    When a process dies, the pool is broken and all that ran in it are in doubt: each of them is tried again alone, and
    the one that dies alone is the culprit.

    Raises:
        EdgetrackError: the bundle cannot be loaded.
        BackendMissingError: joblib is not installed.
    """
    waiting = deque(works)
    while waiting:
        doubtful = _pool(waiting, setup, jobs, done)
        for work in doubtful:
            if len(doubtful) == 1 or _pool(deque([work]), setup, 1, done):
                done(work, DIED)


def _pool(waiting: deque[Work], setup: Setup, jobs: int, done: Done) -> list[Work]:
    """Work off the queue in one pool; returns what was running when a process died."""
    pool, broken = _executor(setup, min(jobs, len(waiting)))
    running: dict[Future[str | None], Work] = {}
    finished = False
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                future = pool.submit(_track, setup, waiting[0])
                running[future] = waiting.popleft()
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                error = future.result()
                done(running.pop(future), error)
        finished = True
    except broken:
        for future in [f for f in running if f.done() and f.exception() is None]:
            done(running.pop(future), future.result())
        return list(running.values())
    finally:
        # Nothing is lost: runs are on disk, and the bundle's folder belongs to the parent.
        pool.shutdown(wait=True, kill_workers=not finished)
    return []


def _executor(setup: Setup, jobs: int) -> tuple[Any, type[Exception]]:
    try:
        from joblib.externals.loky import ProcessPoolExecutor
        from joblib.externals.loky.process_executor import BrokenProcessPool
    except ImportError:
        raise BackendMissingError(
            "evaluation needs the package joblib, which is not installed; type: pip install 'edgetrack[eval]'"
        ) from None
    threads = dict.fromkeys(_THREAD_VARIABLES, str(setup.threads))
    return ProcessPoolExecutor(
        jobs, timeout=60, initializer=_leave_interrupts_to_parent, env=threads
    ), BrokenProcessPool


def _leave_interrupts_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@lru_cache(maxsize=1)
def _tracker(setup: Setup) -> Tracker:
    import cv2

    cv2.setNumThreads(setup.threads)
    return load(setup.bundle, device=setup.device, threads=setup.threads, precision_hint=setup.precision_hint)


def _track(setup: Setup, work: Work) -> str | None:
    """In a process of the pool: track, keep, and say what went wrong."""
    tracker = _tracker(setup)
    try:
        run = one_pass(tracker, work.sequence, work.limit)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    key, bundle, weights, dataset = work.saved_as
    store.save(
        store.Saved(key=key, bundle=bundle, weights=weights, dataset=dataset, sequence=work.sequence.name, run=run),
        work.file,
    )
    return None
