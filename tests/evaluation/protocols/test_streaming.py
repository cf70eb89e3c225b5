"""The simulated clock against timetables that are worked out by hand."""

from __future__ import annotations

import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.box import Box
from edgetrack.errors import SequenceError, UnknownNameError, UsageError
from edgetrack.evaluation.datasets.clip import Clip, ScoringRules
from edgetrack.evaluation.protocols.one_pass import OnePass
from edgetrack.evaluation.protocols.streaming import RecordedLatencies, Streaming, read_latencies
from edgetrack.evaluation.run import score_run
from tests.builders import bench_json

FPS = 100
"""A frame each 10 ms."""


class Scripted:
    """Finds a box whose x is the number of the frame (told by its grey value), in the times that it is given."""

    def __init__(self, ms=()):
        self.ms, self.seen = iter(ms), []

    def init(self, frame, box):
        self.seen.append(int(frame[0, 0, 0]))

    def update(self, frame):
        index = int(frame[0, 0, 0])
        self.seen.append(index)
        return SimpleNamespace(
            box=Box(index, 0, 5, 5),
            score=1.0,
            lost=False,
            timing=SimpleNamespace(total=next(self.ms)),
            diagnostics={},
        )


class Numbered(Clip):
    """Frames whose pixels are their number."""

    def open(self, images=1):
        frames = [np.full((8, 8, 3), index, np.uint8) for index in range(len(self.truth))]

        class Frames:
            def __enter__(self):
                return iter(frames)

            def __exit__(self, *_):
                pass

        return Frames()


def numbered(frames):
    truth = np.array([[float(index), 0, 5, 5] for index in range(frames)])
    return Numbered("s", "s", truth, np.ones(frames, bool), ScoringRules())


def measured(updates, init=0.0, frames=7, fps=FPS):
    """A run whose init and updates take these milliseconds."""
    times = iter([0, round(init * 1e6)])
    tracker = Scripted(updates)
    return Streaming(fps).run(tracker, numbered(frames), clock=lambda: next(times)), tracker


def test_without_latency_it_is_the_one_pass() -> None:
    run, tracker = measured([0.0] * 6)
    assert tracker.seen == [0, 1, 2, 3, 4, 5, 6]
    assert run.source == [0, 1, 2, 3, 4, 5, 6]
    assert (run.processed, run.staleness) == (1.0, 0.0)
    offline = OnePass().run(Scripted([1.0] * 6), numbered(7))
    assert run.boxes == offline.boxes
    assert score_run(numbered(7), run) == score_run(numbered(7), offline)


def test_updates_within_a_frame_are_one_frame_late() -> None:
    run, tracker = measured([9.0] * 6)
    assert tracker.seen == [0, 1, 2, 3, 4, 5, 6]
    assert run.source == [0, 0, 1, 2, 3, 4, 5]
    assert run.staleness == 1.0


def test_an_update_of_exactly_a_frame_is_in_time_for_the_next() -> None:
    run, tracker = measured([10.0] * 6)
    assert tracker.seen == [0, 1, 2, 3, 4, 5, 6]
    assert run.source == [0, 0, 1, 2, 3, 4, 5]


def test_a_busy_tracker_takes_the_newest_frame_when_it_is_free() -> None:
    # Frame 1 (at 10) is done at 35, frame 3 (came at 30) at 60, frame 6 (at 60) after the end.
    run, tracker = measured([25.0] * 6)
    assert tracker.seen == [0, 1, 3, 6]
    assert run.source == [0, 0, 0, 0, 1, 1, 3]
    assert run.processed == pytest.approx(3 / 6)
    assert run.staleness == pytest.approx((1 + 2 + 3 + 3 + 4 + 3) / 6)
    assert [box.x for box in run.boxes] == run.source


def test_the_time_of_init_counts() -> None:
    # Free at 15, so frame 1 is taken late, and is done at 16: frames 2.. are taken as they come.
    run, tracker = measured([1.0] * 6, init=15.0)
    assert tracker.seen == [0, 1, 2, 3, 4, 5, 6]
    assert run.source == [0, 0, 1, 2, 3, 4, 5]
    run, tracker = measured([0.0] * 6, init=30.0)
    assert tracker.seen == [0, 3, 4, 5, 6]
    assert run.source == [0, 0, 0, 3, 4, 5, 6]
    assert run.ms[0] == 30.0


def test_a_tracker_slower_than_the_sequence_never_says_anything() -> None:
    run, tracker = measured([1e6] * 6)
    assert tracker.seen == [0, 1]
    assert run.source == [0] * 7
    assert set(run.boxes) == {Box(0, 0, 5, 5)}


def test_two_boxes_may_be_on_their_way_at_once() -> None:
    # Frame 1 is done at 19; frame 2 (at 20) at 39, frame 3 late at 39 and done at 39.5: at 40 the last one counts.
    run, tracker = measured([9.0, 19.0, 0.5, 0.0, 0.0, 0.0])
    assert tracker.seen == [0, 1, 2, 3, 4, 5, 6]
    assert run.source == [0, 0, 1, 1, 4, 5, 6]


def test_recorded_latencies_count_instead_of_measured_ones() -> None:
    recorded = RecordedLatencies("x", (25.0,))
    tracker = Scripted([0.0] * 6)
    run = Streaming(FPS, recorded).run(tracker, numbered(7))
    # init keeps it busy until 25: frame 2 is taken then and is done at 50, frame 5 at 75.
    assert tracker.seen == [0, 2, 5]
    assert run.ms == [25.0] * 3
    assert run == Streaming(FPS, recorded).run(Scripted([9.0] * 6), numbered(7))


def test_a_limit_cuts_and_one_frame_has_no_shares() -> None:
    run = Streaming(FPS).run(Scripted([0.0] * 6), numbered(7), limit=3)
    assert len(run.boxes) == 3
    run = Streaming(FPS).run(Scripted(), numbered(7), limit=1)
    assert (run.processed, run.staleness) == (None, None)


def test_frames_and_boxes_that_do_not_fit_are_an_error() -> None:
    wrong = Clip(
        "s", "synthetic:drift?frames=4&size=96x64", np.tile([9.0] * 4, (3, 1)), np.ones(3, bool), ScoringRules()
    )
    with pytest.raises(SequenceError, match="4 frames and 3 boxes"):
        Streaming(FPS).run(Scripted([0.0] * 9), wrong)


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf")])
def test_no_rate_is_refused(fps) -> None:
    with pytest.raises(UsageError, match="such as 30"):
        Streaming(fps)


@given(st.lists(st.floats(0, 200), min_size=1, max_size=30), st.floats(1, 500), st.integers(1, 60))
def test_what_is_known_is_never_from_the_future_and_never_gets_older(samples, fps, frames) -> None:
    run = Streaming(fps, RecordedLatencies("x", tuple(samples))).run(Scripted([0.0] * frames), numbered(frames))
    period_ms = 1000 / fps
    assert len(run.source) == frames
    assert all(source <= index for index, source in enumerate(run.source))
    assert run.source == sorted(run.source)
    # The time spent before a frame was known cannot exceed the time that had passed.
    assert sum(run.ms[: len(set(run.source))]) <= period_ms * (frames - 1) + 1e-3 or len(set(run.source)) == 1


@pytest.fixture
def bench(tmp_path):
    def write(*candidates, schema=1):
        path = tmp_path / "bench.json"
        path.write_text(json.dumps(bench_json(*candidates, schema=schema)))
        return path

    return write


def test_the_bundle_that_is_evaluated_is_taken_or_one_that_is_named(bench) -> None:
    path = bench(("a", None, [[1.0, 2.0], [3.0]]), ("a", "bf16", [[4.0]]))
    assert read_latencies(str(path), "a") == RecordedLatencies("a", (1.0, 2.0, 3.0))
    assert read_latencies(f"{path}:a@bf16", "a") == RecordedLatencies("a@bf16", (4.0,))
    with pytest.raises(UnknownNameError, match="'b' is not known; expected one of: a, a@bf16"):
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


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=20), st.text(max_size=9))
def test_a_replay_keeps_the_order_goes_round_and_repeats_itself(samples, seed) -> None:
    recorded = RecordedLatencies("x", tuple(samples))
    taken = list(itertools.islice(recorded.replay(seed), 3 * len(samples)))
    assert taken == list(itertools.islice(recorded.replay(seed), 3 * len(samples)))
    assert taken[: len(samples)] * 3 == taken
    assert any(samples[at:] + samples[:at] == taken[: len(samples)] for at in range(len(samples)))


def test_sequences_start_at_different_places() -> None:
    recorded = RecordedLatencies("x", tuple(map(float, range(100))))
    assert len({next(recorded.replay(name)) for name in "abcdef"}) > 3
    assert recorded.digest != RecordedLatencies("x", (1.0,)).digest
