"""Memories of what a graph made: every way of keeping gives the same, and nothing is made twice in vain."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgetrack.runtime.encoded_memory import EncodedMemory, forecast_of, keeps_sources
from edgetrack.runtime.memory import Retention, Schedule

ROOM = 4


class Rig:
    """A memory whose encoder triples a source, and counts."""

    def __init__(self, text: str) -> None:
        self.codes, self.present = np.zeros((ROOM, 3), np.float32), np.zeros((1, ROOM), np.float32)
        self.encoded = 0
        self.memory = EncodedMemory(
            Retention.parse(text),
            Schedule.parse("uniform:2"),
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


def test_forecasts_follow_what_is_kept() -> None:
    schedule = Schedule.parse("uniform:4")
    exact, bounded = Retention.parse("exact"), Retention.parse("bounded:8")
    assert (keeps_sources(exact), keeps_sources(bounded)) == (True, False)
    assert forecast_of(exact, schedule, 10, 1000).nbytes(99) == 100 * 10
    assert forecast_of(bounded, schedule, 10, 1000).nbytes(99) == 8 * 1000
