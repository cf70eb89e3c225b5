"""Whole evaluations in real processes: resuming, interruption, broken sequences, processes that die."""

from __future__ import annotations

import sys

import msgspec
import pytest

from edgetrack.errors import BackendMissingError, BundleIntegrityError, UsageError
from edgetrack.evaluation import store, workers
from edgetrack.evaluation.datasets import open_dataset
from edgetrack.evaluation.options import Options
from edgetrack.evaluation.record import Record
from edgetrack.evaluation.run import SUMMARY, evaluate
from edgetrack.evaluation.work import Setup, Work
from edgetrack.evaluation.workers import DIED, run_all

pytestmark = pytest.mark.xdist_group("evaluation")


class Log(list):
    """Collects what is told; `interrupt_after` raises as Ctrl-C does after so many finished sequences."""

    def __init__(self, interrupt_after=None):
        super().__init__()
        self.interrupt_after = interrupt_after

    def __call__(self, what, done, total):
        self.append((what, done, total))
        if done == self.interrupt_after:
            raise KeyboardInterrupt

    @property
    def texts(self):
        return [what for what, _, _ in self]


@pytest.fixture
def options(make_bundle, tmp_path):
    def make(root, **fields):
        return Options(str(make_bundle()), open_dataset(root), output=tmp_path / "kept", threads=1, **fields)

    return make


def test_an_interrupted_evaluation_goes_on_where_it_was(plain_dataset, options, tmp_path) -> None:
    chosen = options(plain_dataset("a", "b", "c"))
    with pytest.raises(KeyboardInterrupt):
        evaluate(chosen, Log(interrupt_after=1))
    assert len(list((tmp_path / "kept").glob("a-*.json"))) == 1
    assert not (tmp_path / "kept" / SUMMARY).exists()
    log = Log()
    found = evaluate(chosen, log)
    assert log.texts == ["a: kept from an earlier run", "b: done", "c: done"]
    assert [s.name for s in found.result.sequences] == ["a", "b", "c"]
    assert found.result.frames == 12
    saved = msgspec.json.decode((tmp_path / "kept" / SUMMARY).read_bytes(), type=Record)
    assert saved.results == [found.result]
    assert not list((tmp_path / "kept").glob(".*"))


def test_restart_and_anything_that_changed_are_tracked_again(plain_dataset, options, tmp_path, write_rows) -> None:
    root = plain_dataset("a", "b", frames=3)
    chosen = options(root)
    evaluate(chosen)
    (damaged,) = (tmp_path / "kept").glob("a-*.json")
    damaged.write_bytes(damaged.read_bytes()[:-20])
    write_rows(root / "b" / "groundtruth.txt", *["11,12,20,16"] * 3)
    log = Log()
    evaluate(chosen, log)
    assert log.texts == ["a: done", "b: done"]
    assert len(list((tmp_path / "kept").glob("b-*.json"))) == 2
    log = Log()
    evaluate(_with(chosen, frames=2), log)
    assert log.texts == ["a: done", "b: done"]
    log = Log()
    evaluate(_with(chosen, restart=True), log)
    assert log.texts == ["a: done", "b: done"]


def _with(options, **fields):
    return Options(**{**vars(options), **fields})


def test_broken_sequences_are_reported_and_the_others_finish(plain_dataset, options, write_rows, write_images) -> None:
    root = plain_dataset("good", "short", "torn")
    write_rows(root / "short" / "groundtruth.txt", "1,1,9,9", "1,1,9,9")
    (root / "torn" / "img" / "00003.jpg").write_bytes(b"no image")
    found = evaluate(options(root, jobs=2)).result
    assert [s.name for s in found.sequences] == ["good"]
    errors = {f.name: f.error for f in found.failures}
    assert sorted(errors) == ["short", "torn"]
    assert "2 boxes" in errors["short"]
    assert errors["torn"].startswith("SourceInterruptedError: frame 2")
    assert found.ao == found.sequences[0].ao


DEADLY = """
import os, signal
from edgetrack.evaluation.sequence import Sequence

class Deadly(Sequence):
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
    run_all(works, setup, jobs, lambda work, error: outcomes.update({work.sequence.name: error}))
    assert outcomes == {"a": None, "b": DIED, "c": None, "d": None}
    assert sorted(p.name for p in tmp_path.glob("?.json")) == ["a.json", "c.json", "d.json"]


def test_a_bundle_that_cannot_be_loaded_is_one_error_not_one_per_sequence(plain_dataset, make_bundle, tmp_path) -> None:
    dataset = open_dataset(plain_dataset("a", "b"))
    bundle = make_bundle("odd", score="input:nothing")
    with pytest.raises(BundleIntegrityError, match="input:nothing"):
        evaluate(Options(str(bundle), dataset, output=tmp_path / "kept"))


def test_a_missing_package_says_what_to_type(plain_dataset, options, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "joblib.externals.loky", None)  # as the import system marks what is not there
    with pytest.raises(BackendMissingError, match=r"edgetrack\[eval\]"):
        evaluate(options(plain_dataset("a")))


@pytest.mark.parametrize("field", ["jobs", "threads", "frames"])
def test_numbers_below_one_are_refused(plain_dataset, options, field) -> None:
    with pytest.raises(UsageError, match=f"--{field} 0"):
        evaluate(_with(options(plain_dataset("a")), **{field: 0}))


def test_threads_are_shared_among_jobs(plain_dataset, options, monkeypatch) -> None:
    monkeypatch.setattr("edgetrack.evaluation.options.usable_cores", lambda: 8)
    chosen = options(plain_dataset("a"))
    assert _with(chosen, threads=None, jobs=3).threads_each == 2
    assert _with(chosen, threads=None, jobs=99).threads_each == 1
    assert _with(chosen, threads=5, jobs=3).threads_each == 5


def test_a_failed_save_keeps_what_was_there(tmp_path) -> None:
    path = tmp_path / "x.json"
    store.save(Record(results=[]), path)
    before = path.read_bytes()

    class Unwritable(msgspec.Struct):
        value: object

    with pytest.raises(TypeError):
        store.save(Unwritable(object()), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_names_become_plain_file_names(tmp_path) -> None:
    assert store.plain_name("../a b/ü") == "_a_b_"
    assert store.file_for(tmp_path, "s", "0123456789abcdef0123").name == "s-0123456789abcdef.json"
    assert store.key_of("a", None, 1) != store.key_of("a", None, 2)


def test_interrupts_are_the_parents(monkeypatch) -> None:
    import signal

    before = signal.getsignal(signal.SIGINT)
    try:
        workers._leave_interrupts_to_parent()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_interrupt_waits_in_the_queue_and_is_raised_at_the_end() -> None:
    import os
    import queue
    import signal

    events = queue.SimpleQueue()
    reached = []
    with pytest.raises(KeyboardInterrupt), workers._interrupts_told_to(events):  # noqa: PT012
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
        with workers._interrupts_told_to(queue.SimpleQueue()):
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_pool_is_killed_quietly_right_after_something_was_submitted() -> None:
    # An exception of loky's manager thread would be a warning of pytest's, and so an error.
    pool, _ = workers._executor(Setup("unused", "cpu", 1, None), 1)
    assert pool.submit(int).result() == 0
    late = pool.submit(int)
    workers._settle([late])
    pool.shutdown(wait=True, kill_workers=True)
    assert late.done()
