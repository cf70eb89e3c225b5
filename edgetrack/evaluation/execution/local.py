"""Runs in processes of this machine: each loads the bundle once, and one that dies takes only its sequence."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from edgetrack.errors import BackendMissingError
from edgetrack.evaluation.execution.ledger import Done, Setup, Work, perform, run_quarantined
from edgetrack.processes import end_with_parent, isolated_children
from edgetrack.resources import THREAD_VARIABLES

DIED = "WorkerError: the process that tracked it died (killed, out of memory, or a crash in native code)"
_IDLE_S = 60
"""Seconds after which an idle process ends, also one whose parent was killed."""

_LONGEST_SETTLING = 1000
"""Hundredths of a second."""


def run_in_processes(works: Iterable[Work], setup: Setup, jobs: int, done: Done) -> None:
    """Make every run, `jobs` at a time; each is kept on disk before `done` hears of it.

    When a process dies, the pool is broken, and all that ran in it are suspects: see `run_quarantined`.

    Raises:
        EdgetrackError: the bundle cannot be loaded.
        BackendMissingError: joblib is not installed.
    """
    run_quarantined(works, lambda waiting: _pool(waiting, setup, jobs, done), done)


def _pool(waiting: deque[Work], setup: Setup, jobs: int, done: Done) -> list[tuple[Work, str]]:
    """Work off the queue in one pool; returns what was running when a process died."""
    jobs = min(jobs, len(waiting))
    pool, broken = _executor(setup, jobs)
    running: dict[Future[str | None], Work] = {}
    events: SimpleQueue[Future[str | None] | None] = SimpleQueue()
    finished = False
    with _interrupts_queued(events):
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    with isolated_children():
                        future = pool.submit(_perform_and_keep, setup, waiting[0])
                    running[future] = waiting.popleft()
                    future.add_done_callback(events.put)
                ended = events.get()
                if ended is None:
                    raise KeyboardInterrupt
                error = ended.result()
                done(running.pop(ended), error)
            finished = True
        except broken:
            for future in [f for f in running if f.done() and f.exception() is None]:
                done(running.pop(future), future.result())
            return [(work, DIED) for work in running.values()]
        finally:
            if not finished:
                _settle(running)
            # Nothing is lost: runs are on disk, and the bundle's folder belongs to the parent.
            pool.shutdown(wait=True, kill_workers=not finished)
    return []


@contextmanager
def _interrupts_queued(events: SimpleQueue[Any]) -> Iterator[None]:
    """Meanwhile Ctrl-C puts None into the queue; one that was not handled is raised at the end.

    A KeyboardInterrupt that is raised wherever the main thread happens to be can leave the lock of a future taken, on
    which loky's manager thread then waits for ever (seen once in 16 interruptions on a busy machine).
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    heard = False

    def tell(number: int, frame: object) -> None:
        nonlocal heard
        heard = True
        events.put(None)

    signal.signal(signal.SIGINT, tell)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if heard:
        raise KeyboardInterrupt


def _settle(running: Iterable[Future[Any]]) -> None:
    """Wait until loky's manager thread has taken up everything that was submitted, which needs no free worker.

    A pool that is killed forgets its futures; the manager then fails, with a traceback on stderr, on the number of one
    that it has not taken up yet (KeyError, joblib 1.6). It gives no signal; a dead one is not waited for.
    """
    for _ in range(_LONGEST_SETTLING):
        if all(future.running() or future.done() for future in running):
            return
        time.sleep(0.01)


def _executor(setup: Setup, jobs: int) -> tuple[Any, type[Exception]]:
    try:
        from joblib.externals.loky import ProcessPoolExecutor
        from joblib.externals.loky.process_executor import BrokenProcessPool
    except ImportError:
        raise BackendMissingError(
            "evaluation needs the package joblib, which is not installed; type: pip install 'edgetrack[eval]'"
        ) from None
    threads = dict.fromkeys(THREAD_VARIABLES, str(setup.threads))
    return ProcessPoolExecutor(
        jobs, timeout=_IDLE_S, initializer=_begin, initargs=(Path.cwd(), os.getpid()), env=threads
    ), BrokenProcessPool


def _begin(folder: Path, parent: int) -> None:
    """A worker works where its parent does, leaves interrupts to it, and ends with it."""
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(parent)


def _perform_and_keep(setup: Setup, work: Work) -> str | None:
    """In a process of the pool: track and keep; returns the error."""
    found, error = perform(setup, work)
    if error is None:
        work.keep(found)
    return error
