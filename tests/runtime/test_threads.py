from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest

import edgetrack
from edgetrack.bundle import BundleWriter, open_bundle, write_npz
from edgetrack.errors import BundleError
from edgetrack.runtime.threads import LONGEST_S, race_threads, thread_counts
from tests.builders import CONSTANT, FEATURES, SEARCH, scripted_manifest, write_scripted


@pytest.mark.parametrize(
    ("cores", "counts"), [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (4, (1, 2, 4)), (12, (1, 2, 4, 8, 12))]
)
def test_numbers_of_threads(cores, counts):
    assert thread_counts(cores) == counts


class Clock:
    now = 0

    def now_ns(self):
        return self.now


@pytest.fixture
def golden(tmp_path):
    """A bundle with one golden record."""
    import json

    manifest = scripted_manifest("a")
    with BundleWriter(tmp_path / "a") as writer:
        for graph in manifest.graphs:
            (writer.folder / graph.file).write_text(json.dumps({t.name: CONSTANT.get(t.name) for t in graph.outputs}))
        inputs = {f"0/step/in/{t.name}": np.full(t.shape, 7, t.dtype) for t in (SEARCH, FEATURES)}
        write_npz(writer.folder / "golden.npz", inputs)
        return writer.commit(manifest)


@pytest.fixture
def raced(golden):
    """raced({1: 10.0, 2: 8.0}) races graphs that take so many milliseconds with so many threads."""

    def run(times, noise=0.02):
        clock, rng, seen = Clock(), np.random.default_rng(0), []

        def open_graphs(count, stack):
            def infer():
                seen.append(graph.inputs["search"].flat[0])
                clock.now += int(1e6 * times[count] * np.exp(noise * rng.normal()))

            graph = SimpleNamespace(
                inputs={t.name: np.zeros(t.shape, t.dtype) for t in (SEARCH, FEATURES)}, outputs={}, run=infer
            )
            return {"step": graph}

        with open_bundle(golden) as bundle:
            found = race_threads(bundle, max(times), open_graphs, clock)
        assert set(seen) == {7}  # golden crops, no zeros
        return found, clock.now / 1e9

    return run


def test_the_fastest_is_taken_and_the_cost_of_the_others_is_said(raced):
    found, _ = raced({1: 16.0, 2: 9.0, 4: 6.0})
    assert (found.threads, found.decided) == (4, True)
    cost = {one.threads: one.ratio for one in found.tried}
    assert cost[1] == pytest.approx(16 / 6, rel=0.05)
    assert re.fullmatch(
        r"threads: 4 is taken; 1 would take 2\.\d\d \(.+-.+\), 2 would take 1\.\d\d \(.+-.+\) times as long",
        found.describe(),
    )


def test_of_equals_the_smaller_number_is_taken(raced):
    found, _ = raced({1: 10.1, 2: 10.0})
    assert (found.threads, found.decided) == (1, True)


def test_one_core_has_one_number_and_its_time(raced):
    found, _ = raced({1: 10.0})
    assert (found.threads, found.decided, len(found.tried)) == (1, True, 1)
    assert found.tried[0].step_ms == pytest.approx(10.0, rel=0.1)
    assert found.describe() == "threads: 1 is taken"


def test_noise_ends_it_in_time(raced):
    found, seconds = raced({1: 103.0, 2: 100.0}, noise=0.3)
    assert not found.decided
    assert "which is not decided" in found.describe()
    assert seconds < LONGEST_S + 2


def test_load_races_and_says_so(golden, tmp_path):
    with edgetrack.load(golden, threads="auto") as tracker:
        assert tracker.thread_race.threads == tracker.options.threads
    with edgetrack.load(golden, threads=1) as tracker:
        assert tracker.thread_race is None
    with pytest.raises(BundleError, match="golden"):
        edgetrack.load(write_scripted(tmp_path / "without"), threads="auto")
