"""Reading recorded latencies, and replaying them."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.errors import UnknownNameError, UsageError
from edgetrack.evaluation.latencies import Recorded, read_latencies


@pytest.fixture
def bench(tmp_path):
    def write(*results, schema=1):
        path = tmp_path / "bench.json"
        made = [
            {"bundle": name, "hint": hint, "device": "cpu", "samples_ms": {"model": [], "track": track}}
            for name, hint, track in results
        ]
        path.write_text(json.dumps({"schema": schema, "machine": {}, "results": made}))
        return path

    return write


def test_the_bundle_that_is_evaluated_is_taken_or_one_that_is_named(bench) -> None:
    path = bench(("a", None, [[1.0, 2.0], [3.0]]), ("a", "bf16", [[4.0]]))
    assert read_latencies(str(path), "a") == Recorded("a", (1.0, 2.0, 3.0))
    assert read_latencies(f"{path}:a@bf16", "a") == Recorded("a@bf16", (4.0,))
    with pytest.raises(UnknownNameError, match="'b'; it has: a, a@bf16"):
        read_latencies(str(path), "b")


def test_a_single_bundle_needs_no_name(bench) -> None:
    assert read_latencies(str(bench(("on-a-phone", None, [[7.5]]))), "a").samples == (7.5,)


def test_what_is_no_benchmark_is_refused(bench, tmp_path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_latencies(str(tmp_path / "none.json"), "a")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(UsageError, match="bench -o"):
        read_latencies(str(tmp_path / "other.json"), "a")
    with pytest.raises(UsageError, match="schema 9"):
        read_latencies(str(bench(("a", None, [[1.0]]), schema=9)), "a")
    for wrong in ([], [[-1.0]], [[]]):
        with pytest.raises(UsageError, match="record them again"):
            read_latencies(str(bench(("a", None, wrong))), "a")


def test_the_record_of_a_real_benchmark_is_read() -> None:
    from edgetrack.benchmark.record import BenchResult, SamplesMs
    from edgetrack.evaluation import latencies

    # The two packages may not import one another; the names that are read here are those that are written there.
    assert set(latencies._Result.__struct_fields__) <= set(BenchResult.__struct_fields__)
    assert set(latencies._Samples.__struct_fields__) <= set(SamplesMs.__struct_fields__)


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=20), st.text(max_size=9))
def test_a_replay_keeps_the_order_goes_round_and_repeats_itself(samples, seed) -> None:
    recorded = Recorded("x", tuple(samples))
    taken = list(itertools.islice(recorded.replay(seed), 3 * len(samples)))
    assert taken == list(itertools.islice(recorded.replay(seed), 3 * len(samples)))
    assert taken[: len(samples)] * 3 == taken
    assert any(samples[at:] + samples[:at] == taken[: len(samples)] for at in range(len(samples)))


def test_sequences_start_at_different_places() -> None:
    recorded = Recorded("x", tuple(map(float, range(100))))
    assert len({next(recorded.replay(name)) for name in "abcdef"}) > 3
    assert recorded.digest != Recorded("x", (1.0,)).digest
