from __future__ import annotations

import sys

import pytest

from edgetrack.benchmark.entries import Plan, RooflineEntry, TrackerEntry
from edgetrack.benchmark.footage import Footage
from edgetrack.benchmark.lineup import opened
from edgetrack.benchmark.messages import Load, Memory, Probe, Run
from edgetrack.benchmark.runner import Runner, order
from edgetrack.box import Box
from edgetrack.errors import BackendMissingError, UsageError, WorkerError

FOOTAGE = Footage("given", "read", Box(1, 2, 3, 4), (96, 64), "decoded")


def plan(**changes):
    values = {
        "device": "cpu",
        "threads": 2,
        "warmup_s": 1.0,
        "duration_s": 3.0,
        "iterations": 10,
        "rounds": 3,
        "keep_mb": 10.0,
        "keep_frames": 10,
        "timeout_s": 60.0,
    }
    return Plan(**{**values, **changes})


@pytest.fixture
def entries(make_bundle):
    return [*(TrackerEntry(opened(make_bundle(name)), FOOTAGE) for name in "abc"), RooflineEntry("fp32", 2)]


@pytest.fixture
def race(scripted, entries):
    """race(start=...) runs them; returns what was asked, what was reported and the workers."""

    def run(start=None, entries=entries, after_round=None, **changes):
        log, steps, workers, rounds = [], [], {}, []

        def begin(label, threads):
            workers[label] = (start and start(label, log)) or scripted(label, log)
            return workers[label]

        runner = Runner(entries, plan(**changes), begin, lambda *step: steps.append(step))
        runner.run(after_round or rounds.append)
        return log, steps, workers, rounds

    return run


def turns(log, kind):
    return "".join(label[0] for label, request in log if isinstance(request, Run) and request.kind == kind)


def test_order_turns_round():
    assert order("abc", 0) == ["a", "b", "c"]
    assert order("abc", 1) == ["c", "b", "a"]
    assert order("abc", 2) == ["a", "b", "c"]


def test_turns_are_interleaved_and_kinds_kept_apart(race):
    log, _, _, rounds = race()
    assert turns(log, "track") == "abc" + "abc" + "cba" + "abc"  # the first is the warm-up
    assert turns(log, "camera") == "abc" + "cba" + "abc"
    assert rounds == [0, 1, 2, 3]
    measured = [request.kind for _, request in log if isinstance(request, Run)][3:]
    assert measured == (["track"] * 3 + ["camera"] * 3) * 3


def test_the_roof_takes_turns_with_track(race):
    log, _, _, _ = race()
    assert sum(isinstance(request, Probe) for _, request in log) == 1 + 3


def test_slices_add_up_to_what_was_asked_and_start_unrecorded(race):
    log, _, _, _ = race(duration_s=3.0, iterations=10, rounds=3)
    slices = [request for label, request in log if label == "a" and isinstance(request, Run)]
    assert (slices[0].seconds, slices[0].unrecorded) == (1.0, 0)
    assert all((s.seconds, s.frames) == (1.0, 4) and s.unrecorded > 0 for s in slices[1:])


def test_memory_is_asked_before_any_slice(race):
    log, _, _, _ = race()
    assert [type(request) for label, request in log if label == "a"][:3] == [Load, Memory, Run]


def test_progress_counts_to_the_end(race):
    _, steps, _, _ = race()
    assert [step for _, step, _ in steps] == list(range(1, len(steps) + 1))
    assert {total for _, _, total in steps} == {len(steps)}


def test_what_is_measured_is_kept(race, entries):
    race()
    first = entries[0]
    assert first.loaded.load_ms == 10.0
    assert first.peak.peak_rss_mb == 200.0
    assert [len(piece.graphs) for piece in first.slices["track"]] == [4, 4, 4]
    assert first.rounds_done == 3
    assert entries[3].roofline.gflops == 0.001


@pytest.mark.parametrize("when", [Load, Memory, Run, Probe])
def test_who_fails_is_left_out_and_the_others_go_on(race, scripted, entries, when):
    label = "roofline fp32" if when is Probe else "b"

    def start(name, log):
        def fail(request):
            return WorkerError("gone") if isinstance(request, when) else None

        return scripted(name, log, fail=fail if name == label else None)

    log, _, workers, rounds = race(start)
    failed = next(entry for entry in entries if entry.label == label)
    assert isinstance(failed.failure, WorkerError)
    assert rounds == [0, 1, 2, 3]
    assert [entry.rounds_done for entry in entries if entry is not failed] == [3, 3, 3]
    assert sum(name == label and isinstance(request, when) for name, request in log) == 1
    assert all(worker.closed for worker in workers.values())


def test_where_all_fail_there_are_no_rounds(race, scripted, entries):
    def start(name, log):
        return scripted(name, log, fail=lambda request: BackendMissingError("install it"))

    _, _, _, rounds = race(start)
    assert rounds == [0]
    assert all(isinstance(entry.failure, BackendMissingError) for entry in entries)


def test_a_hanging_process_is_given_up(race, real_worker, scripted, entries):
    def start(name, log):
        return real_worker([sys.executable, "-S", "-c", "import sys; sys.stdin.read()"]) if name == "b" else None

    race(start, timeout_s=0.05)
    assert "no answer" in str(entries[1].failure)
    assert [entry.rounds_done for entry in entries] == [3, 0, 3, 3]


def test_who_never_rests_is_remembered(race, scripted, entries):
    race(lambda name, log: scripted(name, log, restless=name == "c"))
    assert [entry.never_rested for entry in entries] == [False, False, True, False]


def test_an_interruption_closes_all_workers(race, scripted):
    workers = []

    def start(name, log):
        workers.append(scripted(name, log))
        return workers[-1]

    def interrupt(done):
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        race(start, after_round=interrupt)
    assert len(workers) == 4
    assert all(worker.closed for worker in workers)


def test_names_must_differ(race, entries):
    with pytest.raises(UsageError, match="one name"):
        race(entries=[entries[0], entries[0]])
