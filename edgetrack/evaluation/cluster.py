"""Sequences on the workers of a Dask cluster: the same work as in local processes, the results are kept here.

Dask does the distribution: it queues, balances, and tries the task of a worker that died elsewhere, as often as the
scheduler's `distributed.scheduler.allowed-failures` says; then that sequence has failed, and the others go on.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from typing import Any

from edgetrack.errors import BackendMissingError, EdgetrackError, UsageError
from edgetrack.evaluation.work import Outcome, Setup, Work, perform

Done = Callable[[Work, "str | None"], None]
_ANSWER_S = 10
"""Seconds in which a scheduler answers and has a worker, or is taken not to be there."""


def run_on_cluster(works: Iterable[Work], setup: Setup, scheduler: str, done: Done) -> None:
    """Track every sequence on the cluster; each is kept on this machine's disk before `done` hears of it.

    Args:
        works: what is to be done; images are opened by the workers, under the same paths.
        setup: how each worker loads the bundle, under the same path.
        scheduler: its address, such as `tcp://10.0.0.5:8786`.
        done: is called with each finished work, and what went wrong.

    Raises:
        UsageError: the scheduler does not answer, or has no workers.
        EdgetrackError: a worker cannot load the bundle, or has none or another edgetrack.
        BackendMissingError: Dask is not installed here.
    """
    distributed = _distributed()
    with _connected(distributed, scheduler) as client:
        doubtful = _round(client, works, setup, done)
        for work, words in doubtful:
            if len(doubtful) == 1 or _round(client, [work], setup, done):
                done(work, words)


def _round(client: Any, works: Iterable[Work], setup: Setup, done: Done) -> list[tuple[Work, str]]:
    """Do all of it at once; returns those whose workers died, and what to say of them.

    A worker has tasks queued behind the one that kills it, which Dask blames as well: each of them is tried again
    alone, and the one that dies alone is the culprit.
    """
    distributed = _distributed()
    doubtful = []
    waiting = {client.submit(_remotely, setup, work, pure=False, retries=0): work for work in works}
    try:
        for future in distributed.as_completed(list(waiting), loop=client.loop):
            work, error = waiting.pop(future), future.exception()
            if isinstance(error, distributed.KilledWorker):
                doubtful.append((work, f"WorkerError: the Dask workers that tracked it died ({error})"))
                continue
            found, words = _outcome(future, error)
            if words is None:
                work.keep(found)
            done(work, words)
    finally:
        client.cancel(list(waiting))
    return doubtful


def _outcome(future: Any, error: BaseException | None) -> Outcome:
    if error is None:
        outcome: Outcome = future.result()
        return outcome
    if isinstance(error, EdgetrackError):
        raise error
    if isinstance(error, (ImportError, AttributeError)):
        raise EdgetrackError(
            f"the Dask workers cannot run this edgetrack ({type(error).__name__}: {error}); install the same version "
            "with its extras there"
        )
    return Outcome(None, f"WorkerError: {type(error).__name__}: {error}")


def _remotely(setup: Setup, work: Work) -> Outcome:
    """On a worker: track, and send back what came of it."""
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
