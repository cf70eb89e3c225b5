from __future__ import annotations

import numpy as np
import pytest

from edgetrack.benchmark.protocol import Loaded
from edgetrack.errors import EdgetrackError, UsageError, WorkerError
from edgetrack.evaluation.datasets import open_dataset
from edgetrack.evaluation.protocols.anchored import AnchoredRuns, AnchorRun
from edgetrack.tuning.advice import tune_table
from edgetrack.tuning.record import TuneRecord, TuneWishes
from tests.gate.conftest import Machine, SimulatedWorker
from tests.tuning.conftest import QUIET


def standings(record):
    return {one.label: one.standing for one in record.entries}


@pytest.fixture
def two(bundle):
    return bundle("a"), bundle("b", precision="int8")


TIMES = {"a on 1 thread": 20.0, "a on 2 threads": 12.0, "b on 1 thread": 10.1, "b on 2 threads": 10.0}


def test_of_equals_the_one_with_fewer_threads_is_recommended_and_the_record_is_read_again(tuning, two, tmp_path):
    record = tuning(TIMES, *two, output=tmp_path / "tune.json")
    assert record.complete
    assert record.recommended == "b on 1 thread"
    assert standings(record) == {
        "b on 2 threads": "equal",
        "b on 1 thread": "recommended",
        "a on 2 threads": "slower",
        "a on 1 thread": "slower",
    }
    assert any("as fast within 3 %, and takes 2 threads instead of 1" in line for line in record.advice)
    assert TuneRecord.from_json((tmp_path / "tune.json").read_bytes(), source="here") == record
    by_label = {one.label: one for one in record.entries}
    assert by_label["a on 1 thread"].rounds < by_label["b on 1 thread"].rounds == len(record.rounds_ms)
    assert by_label["a on 1 thread"].versus_fastest.value == pytest.approx(2, rel=0.03)
    assert record.source.spec.startswith("synthetic:drift")


def test_exhaustive_measures_all_in_every_round_until_the_time_is_up(tuning, two):
    record = tuning(TIMES, *two, exhaustive=True, max_time_s=60.0)
    assert {one.rounds for one in record.entries} == {len(record.rounds_ms)}
    assert 50 < record.seconds < 66
    assert record.recommended == "b on 1 thread"


def test_time_ends_the_race_and_the_same_call_goes_on(tuning, two):
    close = {**TIMES, "b on 1 thread": 10.29}
    lines = []
    first = tuning(close, *two, max_time_s=25.0)
    assert not first.complete
    assert any("whether within 3 %" in one.what and one.more_s for one in first.undecided)
    assert any("goes on with what was measured" in line for line in tune_table(first).notes)
    second = tuning(close, *two, max_time_s=25.0, seed=1, lines=lines)
    assert second.rounds_ms[: len(first.rounds_ms)] == first.rounds_ms
    assert len(second.rounds_ms) > len(first.rounds_ms)
    assert "going on with" in lines[0]
    again = tuning(close, *two, max_time_s=25.0, seed=1, restart=True)
    assert again.rounds_ms[0] != first.rounds_ms[0]


@pytest.mark.parametrize("fps", [5.0, 1000.0])
def test_one_that_came_since_runs_once_where_a_resumed_race_has_no_time(tuning, two, fps):
    first, second = two
    close = {**TIMES, "a on 1 thread": 12.3}
    begun = tuning(close, first, max_time_s=10.0)

    class Ticking(Machine):
        def now_ns(self):
            self.now += 0.01
            return super().now_ns()

    late = Ticking(0, **QUIET)
    record = tuning(close, first, second, clock=late, max_time_s=0.001, wishes=TuneWishes(fps=fps))
    assert record.rounds_ms[: len(begun.rounds_ms)] == begun.rounds_ms
    assert {one.label: one.rounds for one in record.entries}["b on 1 thread"] == 1
    assert (record.recommended is None) is (fps == 1000)


def test_interruption_keeps_what_was_measured(tuning, two, monkeypatch):
    rounds = []

    class Interrupted(SimulatedWorker):
        def ask(self, request, expect, timeout_s):
            rounds.append(1)
            if len(rounds) > 60:
                raise KeyboardInterrupt
            return super().ask(request, expect, timeout_s)

    clock = Machine(0, **QUIET)
    record = tuning(10.0, *two, clock=clock, start=lambda label, threads: Interrupted(clock, 10.0))
    assert not record.complete
    assert record.rounds_ms


def test_wishes_leave_out_what_is_too_large_or_too_slow(tuning, two):
    rss = {"b on 1 thread": 400.0, "b on 2 threads": 400.0}
    record = tuning(TIMES, *two, rss=rss, wishes=TuneWishes(max_memory_mb=300.0))
    assert record.recommended == "a on 2 threads"
    assert standings(record)["b on 1 thread"] == "refused"
    record = tuning(TIMES, *two, rss=rss, wishes=TuneWishes(max_memory_mb=300.0, fps=100.0))
    assert record.recommended is None
    assert record.advice[0].startswith("Nothing meets the wishes: ")
    record = tuning(TIMES, *two, wishes=TuneWishes(fps=60.0))
    assert any("the 60 fps that are asked for" in line for line in record.advice)


def runs(value):
    rng = np.random.default_rng(5)
    ao = np.clip(0.5 + value + 0.001 * rng.normal(size=(3, 20)), 0, 1)
    return [
        AnchoredRuns(
            sequence=f"s{n}",
            runs=[AnchorRun(frame=25 * i, direction="forward", ao=float(x), frames=50) for i, x in enumerate(row)],
        )
        for n, row in enumerate(ao)
    ]


@pytest.mark.parametrize(
    ("lost", "recommended", "words"),
    [
        (0.0, "b on 1 thread", "AO against FP32: +0.00 points"),
        (-0.02, "a on 2 threads", "b on 2 threads takes 16 % less time, but loses 2.0 to 2.0 points of AO"),
    ],
)
def test_a_faster_one_that_loses_ao_makes_way(tuning, two, monkeypatch, lost, recommended, words):
    asked = []

    def anchored_runs(ref, config, progress):
        asked.append(ref.label)
        return runs(lost if ref.label == "b" else 0.0)

    monkeypatch.setattr("edgetrack.tuning.accuracy.anchored_runs", anchored_runs)
    wishes = TuneWishes(max_drop=0.5, dataset="synthetic")
    record = tuning(TIMES, *two, wishes=wishes, dataset=open_dataset("synthetic:drift?frames=60&size=96x64"))
    assert record.recommended == recommended
    assert lost == 0 or standings(record)["b on 2 threads"] == "refused"
    assert any(words in line for line in record.advice), record.advice
    assert asked == ["a", "b"]
    assert record.complete
    assert "3 sequences are few: intervals of AO are too narrow" in tune_table(record).notes


def test_accuracy_that_no_time_is_left_for_is_undecided_and_not_recommended(tuning, two):
    wishes = TuneWishes(max_drop=0.5, dataset="synthetic")
    dataset = open_dataset("synthetic:drift?frames=600&size=96x64")
    record = tuning({**TIMES, "b on 1 thread": 400.0, "b on 2 threads": 10.0}, *two, wishes=wishes, dataset=dataset)
    assert record.recommended == "a on 2 threads"
    assert standings(record)["b on 2 threads"] == "unproven"
    assert not record.complete
    assert any("no time was left" in one.what and one.more_s for one in record.undecided)


def test_one_whose_process_fails_is_left_out_of_the_race_with_the_reason(tuning, two):
    clock = Machine(0, **QUIET)

    class Broken(SimulatedWorker):
        def ask(self, request, expect, timeout_s):
            if expect is Loaded:
                raise WorkerError("no memory")
            return super().ask(request, expect, timeout_s)

    def start(label, threads):
        return (Broken if label.startswith("b") else SimulatedWorker)(clock, TIMES[label])

    record = tuning(TIMES, *two, clock=clock, start=start)
    assert standings(record)["b on 2 threads"] == "failed"
    assert record.recommended == "a on 2 threads"
    assert "b on 1 thread: WorkerError: no memory" in tune_table(record).plain()


def test_bundles_of_other_trackers_or_checkpoints_are_refused(tuning, bundle, tmp_path):
    first = bundle("a")
    with pytest.raises(UsageError, match="another tracker"):
        tuning(10.0, first, bundle("b", overrides={"score_threshold": 0.5}))
    with pytest.raises(UsageError, match="another checkpoint"):
        tuning(10.0, first, bundle("c", weights="b" * 64))
    taken = tmp_path / "taken.json"
    taken.write_text("{}")
    with pytest.raises(UsageError, match="exists"):
        tuning(10.0, first, output=taken)


def test_no_fp32_bundle_to_compare_with_is_said(tuning, bundle):
    with pytest.raises(EdgetrackError, match="no FP32 bundle"):
        tuning(
            10.0,
            bundle("b", precision="int8"),
            wishes=TuneWishes(max_drop=0.5, dataset="x"),
            dataset=open_dataset("synthetic:drift"),
        )
