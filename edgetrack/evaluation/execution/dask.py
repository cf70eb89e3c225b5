"""Runs on the workers of a Dask cluster: the same work as in local processes, the results are kept here.

Dask queues, balances, and tries the task of a worker that died elsewhere, as often as the scheduler's
`distributed.scheduler.allowed-failures` says; then that run has failed, and the others go on.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Iterable
from typing import Any

from edgetrack.errors import BackendMissingError, EdgetrackError, UsageError
from edgetrack.evaluation.execution.ledger import Done, Setup, Work, WorkResult, perform, run_quarantined

_ANSWER_S = 10
"""Seconds in which a scheduler must answer and have a worker."""


def run_on_cluster(works: Iterable[Work], setup: Setup, scheduler: str, done: Done) -> None:
    """Make every run on the cluster; each is kept on this machine's disk before `done` hears of it.

    Args:
        works: the runs to make; images are opened by the workers, under the same paths.
        setup: how each worker loads the bundle, under the same path.
        scheduler: its address, such as `tcp://10.0.0.5:8786`.
        done: hears of each finished run.

    Raises:
        UsageError: the scheduler does not answer, or has no workers.
        EdgetrackError: a worker cannot load the bundle, or has none or another edgetrack.
        BackendMissingError: Dask is not installed here.
    """
    with _connected(_distributed(), scheduler) as client:
        run_quarantined(works, lambda waiting: _round(client, waiting, setup, done), done)


def _round(client: Any, queue: deque[Work], setup: Setup, done: Done) -> list[tuple[Work, str]]:
    """Submit the whole queue at once; returns the runs whose workers died.

    A worker has tasks queued behind the one that kills it, which Dask blames as well: all of them are suspects.
    """
    distributed = _distributed()
    suspects = []
    waiting = {client.submit(_remotely, setup, work, pure=False, retries=0): work for work in queue}
    queue.clear()
    try:
        for future in distributed.as_completed(list(waiting), loop=client.loop):
            work, error = waiting.pop(future), future.exception()
            if isinstance(error, distributed.KilledWorker):
                suspects.append((work, f"WorkerError: the Dask workers that tracked it died ({error})"))
                continue
            found, why = _result(future, error)
            if why is None:
                work.keep(found)
            done(work, why)
    finally:
        client.cancel(list(waiting))
    return suspects


def _result(future: Any, error: BaseException | None) -> WorkResult:
    if error is None:
        result: WorkResult = future.result()
        return result
    if isinstance(error, EdgetrackError):
        raise error
    if isinstance(error, (ImportError, AttributeError)):
        raise EdgetrackError(
            f"the Dask workers cannot run this edgetrack ({type(error).__name__}: {error}); install the same version "
            "with its extras there"
        )
    return WorkResult(None, f"WorkerError: {type(error).__name__}: {error}")


def _remotely(setup: Setup, work: Work) -> WorkResult:
    """On a worker: track, and send back the run."""
    try:
        return perform(setup, work)
    except EdgetrackError as error:
        raise type(error)(
            f"the Dask worker on {socket.gethostname()} cannot run the bundle: {error}; every worker needs the bundle "
            f"at {setup.bundle}, and the extra of its backend"
        ) from error


def _connected(distributed: Any, scheduler: str) -> Any:
    try:
        client = distributed.Client(scheduler, timeout=_ANSWER_S, set_as_default=False)
    except (OSError, ValueError, asyncio.TimeoutError) as error:
        raise UsageError(
            f"--scheduler {scheduler}: no Dask scheduler answers there ({error}); expected an address such as "
            "tcp://HOST:8786; start one with: dask scheduler"
        ) from None
    try:
        client.wait_for_workers(1, timeout=_ANSWER_S)
    except (OSError, asyncio.TimeoutError):
        client.close()
        raise UsageError(
            f"the scheduler at {scheduler} has no workers; start some with: dask worker {scheduler}"
        ) from None
    return client


def _distributed() -> Any:
    try:
        import distributed
    except ImportError:
        raise BackendMissingError(
            "--scheduler needs the package distributed (Dask), which is not installed; type: "
            "pip install 'edgetrack[cluster]'"
        ) from None
    return distributed
