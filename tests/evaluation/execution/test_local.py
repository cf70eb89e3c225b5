"""Runs in processes of this machine: interruptions, and processes that die."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from edgetrack.evaluation.datasets import open_dataset
from edgetrack.evaluation.execution import local
from edgetrack.evaluation.execution.ledger import Setup, Work
from edgetrack.evaluation.execution.local import DIED, run_in_processes

DEADLY = """
import os, signal
from edgetrack.evaluation.datasets.clip import Clip

class Deadly(Clip):
    def open(self, images=1):
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


def test_interrupts_are_the_parents(monkeypatch, tmp_path) -> None:
    import signal

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(local, "end_with_parent", lambda parent: None)
    before = signal.getsignal(signal.SIGINT)
    try:
        local._begin(tmp_path, os.getppid())
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


SHADOWS = ("inspect", "select", "typing", "signal", "argparse", "json", "msgspec", "edgetrack")


def test_scripts_of_the_current_folder_are_not_imported_by_the_workers(
    plain_dataset, make_bundle, tmp_path, monkeypatch
) -> None:
    dataset, here = open_dataset(plain_dataset("a", "b")), tmp_path / "here"
    here.mkdir()
    for name in SHADOWS:
        (here / f"{name}.py").write_text("raise SystemExit(7)\n")
    monkeypatch.chdir(here)
    works = [Work(dataset.read(e), None, Path(f"{e.name}.json"), ("k", "b", "w", "d")) for e in dataset.entries]
    outcomes = {}
    setup = Setup(make_bundle(), "cpu", 1, None)
    run_in_processes(works, setup, 2, lambda work, error: outcomes.update({work.clip.name: error}))
    assert outcomes == {"a": None, "b": None}
    # A file of a relative name is where it was asked for.
    assert (here / "a.json").is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels do not end children with their parent")
def test_workers_end_with_a_parent_that_is_killed(plain_dataset, make_bundle, tmp_path) -> None:
    code = SLOW.format(data=str(plain_dataset("a", "b")), bundle=str(make_bundle()), out=str(tmp_path))
    parent = subprocess.Popen([sys.executable, "-c", code])
    for _ in range(600):
        if len(started := list(tmp_path.glob("started-*"))) == 2:
            break
        time.sleep(0.1)
    workers = [psutil.Process(int(file.name.partition("-")[2])) for file in started]
    parent.kill()
    parent.wait()
    assert len(workers) == 2
    _, alive = psutil.wait_procs(workers, timeout=5)
    assert not alive


SLOW = """
import os, time
from pathlib import Path
from edgetrack.evaluation.datasets import open_dataset
from edgetrack.evaluation.datasets.clip import Clip
from edgetrack.evaluation.execution.ledger import Setup, Work
from edgetrack.evaluation.execution.local import run_in_processes

class Slow(Clip):
    def open(self, images=1):
        Path({out!r}, f"started-{{os.getpid()}}").touch()
        time.sleep(60)

data = open_dataset({data!r})
clips = [Slow(**vars(data.read(entry))) for entry in data.entries]
works = [Work(c, None, Path({out!r}, c.name + ".json"), ("k", "b", "w", "d")) for c in clips]
run_in_processes(works, Setup(Path({bundle!r}), "cpu", 1, None), 2, lambda work, error: None)
"""
