"""Memories of past frames: schedules, ways of keeping, estimates, and codes that are made again."""

from __future__ import annotations

import gc
import json
import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgetrack.runtime.memory import EncodedMemory, MemoryBank, MemoryEstimate, MemorySchedule, Retention

GOLDEN = {
    "uniform:3": "odtrack_uniform_k3 (also DMTrack paper policy)",
    "uniform:2": "uniform_k2",
    "nearest:3": "dmtrack_released_code_nearest_k3",
    "nearest:2": "dmtrack_released_code_nearest_k2 (rgbd)",
    "fixed:3": "spmtrack_default",
    "spread:3": "spmtrack_LaSOT_B378",
}


SCHEDULES = [*sorted(GOLDEN), "latest:2", "latest:3"]
SPREAD = MemorySchedule("spread", 3)


def bank(
    retention: str, schedule: str = "uniform:3", shape: tuple[int, ...] = (2, 3), dtype: Any = np.uint16
) -> MemoryBank:
    return MemoryBank(Retention.parse(retention), MemorySchedule.parse(schedule), shape, dtype)


def numbered(number: int) -> np.ndarray:
    return np.full((2, 3), number, np.uint16)


@pytest.mark.parametrize("text", sorted(GOLDEN))
def test_schedules_are_the_official_ones(shared: Path, text: str) -> None:
    table = json.loads((shared / "golden" / "memory_indices.json").read_text())[GOLDEN[text]]
    schedule = MemorySchedule.parse(text)
    assert {t: list(schedule.choose(int(t))) for t in table} == table


SINGLE = ["uniform:1", "nearest:1", "fixed:1", "spread:1", "latest:1"]


@given(st.sampled_from([*SCHEDULES, *SINGLE]), st.integers(1, 5000))
def test_a_schedule_asks_for_what_there_is_and_no_more_than_it_says(text: str, t: int) -> None:
    schedule = MemorySchedule.parse(text)
    chosen = schedule.choose(t)
    assert list(chosen) == sorted(chosen)
    assert all(0 <= index < t for index in chosen)
    assert 1 <= len(chosen) <= schedule.most


def test_a_memory_of_one_template_is_the_first_frame_or_the_last() -> None:
    found = {text: {MemorySchedule.parse(text).choose(t) for t in (1, 2, 3, 100)} for text in SINGLE}
    newest = {(0,), (1,), (2,), (99,)}
    assert found == {text: newest if text[0] in "nl" else {(0,)} for text in SINGLE}


@given(st.sampled_from([*SCHEDULES, *SINGLE]), st.integers(0, 100))
def test_a_memory_that_is_full_once_stays_full(text: str, later: int) -> None:
    schedule = MemorySchedule.parse(text)
    assert len(schedule.choose(schedule.full_at + later)) == schedule.most
    assert all(len(schedule.choose(t)) < schedule.most for t in range(1, schedule.full_at))


@given(st.integers(2, 6), st.integers(1, 5000))
def test_latest_spans_the_past_from_the_first_to_the_newest(count: int, t: int) -> None:
    chosen = MemorySchedule("latest", count).choose(t)
    assert (len(chosen), chosen[0], chosen[-1]) == (count, 0, t - 1)
    if t > count:
        np.testing.assert_allclose(chosen, np.linspace(0, t - 1, count), atol=1)


@pytest.mark.parametrize(
    "text", ["", "uniform", "uniform:0", "uniform:x", "newest:3", "uniform:65", "uniform:٣", "fixed:-3"]
)
def test_what_is_no_schedule_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="such as uniform:3"):
        MemorySchedule.parse(text)


@pytest.mark.parametrize(
    "text", ["", "all", "bounded", "bounded:1", "bounded:0x9", "exact:ram", "bounded:9999999", "bounded:-4"]
)
def test_what_is_no_way_of_keeping_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="bounded:M"):
        Retention.parse(text)


@pytest.mark.parametrize("retention", ["exact", "exact:disk"])
@pytest.mark.parametrize("schedule", [*SCHEDULES, *SINGLE])
def test_exact_gives_what_was_put_in(retention: str, schedule: str) -> None:
    kept, out = bank(retention, schedule), np.empty((2, 3), np.uint16)
    for round_ in range(2):
        kept.clear()
        for number in range(40):
            kept.append(numbered(1000 * round_ + number))
            for index in kept.schedule.choose(kept.count):
                assert kept.read(index, out) == index
                assert (out == 1000 * round_ + index).all()


def test_confidence_needs_a_tracker_that_keeps_scores() -> None:
    with pytest.raises(ValueError, match="keeps no scores of past frames, use uniform:3"):
        MemorySchedule.parse("confident:3")


@given(
    st.integers(1, 5),
    st.lists(st.floats(0, 1), max_size=60),
    st.sampled_from(["exact", "exact:disk", "bounded:2"]),
)
def test_the_most_confident_frames_and_the_first_are_kept_and_no_more(
    count: int, scores: list[float], retention: str
) -> None:
    kept = MemoryBank(
        Retention.parse(retention), MemorySchedule.parse(f"confident:{count}", scored=True), (2, 3), np.uint16
    )
    kept.append(numbered(0))
    for number, score in enumerate(scores, 1):
        kept.append(numbered(number), score)
        # Among equals the earlier one stays.
        ranked = sorted(range(1, number + 1), key=lambda index: scores[index - 1], reverse=True)
        assert kept.chosen() == tuple(sorted([0, *ranked[: count - 1]]))
        out = np.empty((2, 3), np.uint16)
        for index in kept.chosen():
            assert kept.read(index, out) == index
            assert (out == index).all()
        assert kept.nbytes == kept.estimate.nbytes(number)
    assert kept.nbytes <= count * 12


@given(limit=st.integers(2, 20), count=st.integers(1, 300))
def test_bounded_is_wrong_by_half_its_spacing_at_most(limit: int, count: int) -> None:
    kept, out = bank(f"bounded:{limit}"), np.empty((2, 3), np.uint16)
    for number in range(count):
        kept.append(numbered(number))
        assert kept.nbytes <= limit * 12
    assert kept.read(0, out) == 0
    for index in range(count):
        found = kept.read(index, out)
        assert (out == found).all()
        assert abs(found - index) <= kept.spacing / 2
    assert kept.spacing <= max(1, 4 * count / limit)


def test_an_entry_is_a_copy_and_others_do_not_exist() -> None:
    kept, out, entry = bank("exact"), np.empty((2, 3), np.uint16), numbered(1)
    kept.append(entry)
    entry[...] = 2
    kept.read(0, out)
    assert (out == 1).all()
    for index in (-1, 1):
        with pytest.raises(IndexError, match="memory of 1"):
            kept.read(index, out)


@pytest.mark.parametrize(
    ("retention", "schedule"), [("bounded:8", "uniform:3"), ("exact", "nearest:3"), ("exact:disk", "uniform:3")]
)
def test_a_long_run_stays_within_the_bound(retention: str, schedule: str) -> None:
    shape = (100, 100)
    kept, entry = bank(retention, schedule, shape, np.uint8), np.zeros(shape, np.uint8)
    kept.append(entry)
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(2000):
            kept.append(entry)
        assert tracemalloc.get_traced_memory()[1] < 12 * entry.nbytes
    finally:
        tracemalloc.stop()


@given(
    retention=st.sampled_from(["exact", "bounded:5", "bounded:64"]),
    schedule=st.sampled_from(["uniform:3", "nearest:3"]),
    frames=st.integers(0, 100),
)
def test_estimate_covers_what_is_kept(retention: str, schedule: str, frames: int) -> None:
    kept = bank(retention, schedule)
    for number in range(frames + 1):
        kept.append(numbered(number))
    assert kept.nbytes <= kept.estimate.nbytes(frames)
    if retention == "exact":
        assert kept.nbytes == kept.estimate.nbytes(frames)


def test_estimate_is_said_in_words() -> None:
    assert "177 MB after a minute" in MemoryEstimate(98_304, Retention(None, False), SPREAD).text()
    assert "6.3 MB" in MemoryEstimate(98_304, Retention(64, False), SPREAD).text()
    assert "temporary file" in MemoryEstimate(98_304, Retention(None, True), SPREAD).text()
    assert "3 entries" in MemoryEstimate(98_304, Retention(None, False), MemorySchedule("nearest", 3)).text()


ROOM = 4


class Rig:
    """A memory whose encoder triples a source, and counts."""

    def __init__(self, text: str) -> None:
        self.codes, self.present = np.zeros((ROOM, 3), np.float32), np.zeros((1, ROOM), np.float32)
        self.encoded = 0
        self.memory = EncodedMemory(
            Retention.parse(text),
            MemorySchedule.parse("uniform:2"),
            np.zeros(5, np.uint8),
            self.codes,
            self.present,
            self.encode,
        )

    def encode(self, source: NDArray[Any], out: NDArray[Any]) -> None:
        self.encoded += 1
        out[...] = 3.0 * float(source[0])

    def append(self, number: int) -> None:
        self.memory.append(np.full(5, number, np.uint8), np.full(3, 3.0 * number, np.float32))

    def held(self) -> list[float]:
        return sorted(float(code[0]) / 3 for code, there in zip(self.codes, self.present[0], strict=True) if there)


@given(
    text=st.sampled_from(["exact", "exact:disk", "bounded:64"]),
    asked=st.lists(st.lists(st.integers(0, 19), min_size=1, max_size=ROOM), min_size=1, max_size=6),
)
def test_what_was_asked_for_is_there_once_for_each_time(text: str, asked: list[list[int]]) -> None:
    rig = Rig(text)
    for number in range(20):
        rig.append(number)
    for wanted in asked:
        rig.memory.recall(wanted)
        assert rig.held() == sorted(wanted)
        assert int(rig.present.sum()) == len(wanted)


def test_a_code_that_is_there_is_not_made_again() -> None:
    rig = Rig("exact")
    for number in range(6):
        rig.append(number)
    rig.memory.recall((0, 2, 4))
    assert rig.encoded == 3
    # The newest was just made, 2 is there, and so is its second copy.
    rig.memory.recall((2, 2, 5))
    assert rig.encoded == 3
    assert rig.held() == [2, 2, 5]
    rig.memory.recall((1, 5))
    assert rig.encoded == 4


def test_bounded_keeps_codes_and_its_bound() -> None:
    rig = Rig("bounded:4")
    for number in range(50):
        rig.append(number)
    assert rig.memory.bank.nbytes <= 4 * 12
    rig.memory.recall((0, 49))
    assert rig.held() == [0, 49]
    assert rig.encoded == 0


@pytest.mark.parametrize("text", ["exact", "bounded:8"])
def test_a_code_that_is_not_finite_is_replaced_by_the_one_before(text: str) -> None:
    rig = Rig(text)
    rig.append(1)
    rig.memory.append(np.full(5, 2, np.uint8), np.full(3, np.nan, np.float32))
    assert rig.memory.bank.count == 2
    rig.append(3)
    rig.memory.recall((0, 1, 2))
    assert rig.held() == [1, 1, 3]


def test_cleared_it_starts_anew() -> None:
    rig = Rig("exact")
    rig.append(1)
    rig.memory.recall((0,))
    rig.memory.clear()
    with pytest.raises(IndexError):
        rig.memory.recall((0,))
    rig.append(7)
    rig.memory.recall((0,))
    assert rig.held() == [7]


def test_sources_are_kept_where_nothing_bounds_them() -> None:
    assert [Retention.parse(text).keeps_sources for text in ("exact", "exact:disk", "bounded:8")] == [True, True, False]


@pytest.mark.parametrize("share", ["0.5", "0.9", ".75"])
def test_what_fades_is_forgotten_but_for_the_first(share: str) -> None:
    kept = MemoryBank(Retention.parse(f"decay:{share}", fades=True), MemorySchedule.parse("uniform:4"), (1,), np.uint16)
    out, fade = np.empty(1, np.uint16), float(share)
    for number in range(60):
        kept.append(np.full(1, number, np.uint16))
        left = [index for index in range(kept.count) if kept.read(index, out) == index]
        # All whose weight is above one per cent, and the first.
        assert left == [index for index in range(kept.count) if index == 0 or fade ** (number - index) >= 0.01]
        assert set(kept.chosen()) <= set(left)
        assert 0 in kept.chosen()
        weights = [math.exp((1 - kept.presence(index)) * -1e4) for index in left]
        expected = [1.0 if index == 0 else fade ** (number - index) for index in left]
        assert weights == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("text", ["decay:1", "decay:1.5", "decay:0", "decay:0.0", "decay:nan", "decay:-.5", "decay:"])
def test_a_share_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="decay:G with G between 0 and 1"):
        Retention.parse(text, fades=True)


def test_what_weighs_nothing_cannot_fade() -> None:
    with pytest.raises(ValueError, match="does not weigh past frames"):
        Retention.parse("decay:0.9")
