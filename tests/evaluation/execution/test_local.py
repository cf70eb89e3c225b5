"""Runs in processes of this machine: interruptions, and processes that die."""

from __future__ import annotations

import os

import pytest

from edgetrack.evaluation.datasets import open_dataset
from edgetrack.evaluation.execution import local
from edgetrack.evaluation.execution.ledger import Setup, Work
from edgetrack.evaluation.execution.local import DIED, run_in_processes

pytestmark = pytest.mark.xdist_group("evaluation")

DEADLY = """
import os, signal
from edgetrack.evaluation.datasets.clip import Clip

class Deadly(Clip):
    def open(self):
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_process_that_dies_takes_only_its_sequence(
    plain_dataset, make_bundle, tmp_path, monkeypatch, jobs: int
) -> None:
    (tmp_path / "deadly_sequences.py").write_text(DEADLY)
    monkeypatch.syspath_prepend(tmp_path)
    from deadly_sequences import Deadly

    dataset = open_dataset(plain_dataset("a", "b", "c", "d"))
    read = [dataset.read(entry) for entry in dataset.entries]
    read[1] = Deadly(**vars(read[1]))
    works = [Work(s, None, tmp_path / f"{s.name}.json", ("key", "bundle", "weights", "data")) for s in read]
    outcomes = {}
    setup = Setup(make_bundle(), "cpu", 1, None)
    run_in_processes(works, setup, jobs, lambda work, error: outcomes.update({work.clip.name: error}))
    assert outcomes == {"a": None, "b": DIED, "c": None, "d": None}
    assert sorted(p.name for p in tmp_path.glob("?.json")) == ["a.json", "c.json", "d.json"]


def test_interrupts_are_the_parents(monkeypatch) -> None:
    import signal

    before = signal.getsignal(signal.SIGINT)
    try:
        local._leave_interrupts_to_parent()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_interrupt_waits_in_the_queue_and_is_raised_at_the_end() -> None:
    import os
    import queue
    import signal

    events = queue.SimpleQueue()
    reached = []
    with pytest.raises(KeyboardInterrupt), local._interrupts_queued(events):  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        assert events.get() is None
        reached.append("the end")
    assert reached == ["the end"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_who_handles_interrupts_himself_goes_on_doing_so() -> None:
    import queue
    import signal

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with local._interrupts_queued(queue.SimpleQueue()):
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_pool_is_killed_quietly_right_after_something_was_submitted() -> None:
    # An exception of loky's manager thread would be a warning of pytest's, and so an error.
    pool, _ = local._executor(Setup("unused", "cpu", 1, None), 1)
    assert pool.submit(int).result() == 0
    late = pool.submit(int)
    local._settle([late])
    pool.shutdown(wait=True, kill_workers=True)
    assert late.done()


def test_every_native_library_is_held_to_the_threads_of_the_setup() -> None:
    pool, _ = local._executor(Setup("unused", "cpu", 3, None), 1)
    try:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
            assert pool.submit(os.getenv, name).result() == "3"
    finally:
        pool.shutdown(wait=True)
