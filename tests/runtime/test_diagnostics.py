"""What trackers mix, summarised: closed forms, and temperatures that undo one another."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.runtime.diagnostics import (
    FACTORS,
    DiagnosticLog,
    add_frame,
    entropy,
    merged,
    sentence,
    sentences,
    summarize,
    tempered,
)

LOGITS = st.lists(st.floats(-8, 8), min_size=2, max_size=5)


def softmax(logits: list[float], tau: float = 1.0) -> np.ndarray:
    powers = np.exp(np.array([logits]) / tau)
    return powers / powers.sum()


@given(logits=LOGITS, tau=st.floats(0.4, 3), factor=st.floats(0.4, 3))
def test_another_temperature_is_that_of_the_logits(logits: list[float], tau: float, factor: float) -> None:
    found = tempered(softmax(logits, tau), factor)
    np.testing.assert_allclose(found, softmax(logits, tau * factor), rtol=1e-6, atol=1e-12)


def test_a_share_of_nothing_stays_nothing() -> None:
    np.testing.assert_allclose(tempered(np.array([[0.0, 0.2, 0.8]]), 2.0), [[0, 1 / 3, 2 / 3]])


@given(logits=LOGITS)
def test_entropy_is_between_none_and_all_and_grows_with_temperature(logits: list[float]) -> None:
    values = [float(entropy(tempered(softmax(logits), factor))[0]) for factor in FACTORS]
    assert all(-1e-9 <= value <= 1 + 1e-9 for value in values)
    assert all(a <= b + 1e-9 for a, b in itertools.pairwise(values))


def test_entropy_of_known_shares() -> None:
    found = entropy(np.array([[0.25] * 4, [1, 0, 0, 0], [0.5, 0.5, 0, 0]]))
    np.testing.assert_allclose(found, [1, 0, 0.5], atol=1e-12)
    assert entropy(np.ones((2, 1))).tolist() == [0, 0]


def test_a_summary_counts_and_averages() -> None:
    shares: DiagnosticLog = {}
    for first in (0.75, 0.75, 0.25, 0.75):
        add_frame(shares, {"gate": {"a": first, "b": 1 - first}})
    add_frame(shares, {"gate": {"a": math.nan, "b": 1.0}})
    add_frame(shares, {})
    found = summarize(shares)["gate"]
    assert found.frames == 4
    assert found.largest == {"a": 0.75, "b": 0.25}
    assert found.mean == pytest.approx({"a": 0.625, "b": 0.375})
    expected = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(2)
    assert found.entropy == pytest.approx(expected)
    assert [at.factor for at in found.temperatures] == list(FACTORS)
    assert found.temperatures[FACTORS.index(1.0)].mean == pytest.approx(found.mean)
    assert sentence("gate", found).startswith("gate over 4 frames: a 0.62 (largest in 75%), b 0.38")


def test_runs_are_put_together_and_none_gives_none() -> None:
    one, two = {"gate": {"a": [0.2], "b": [0.8]}}, {"gate": {"a": [0.6, 0.7], "b": [0.4, 0.3]}}
    assert merged([one, {}, two]) == {"gate": {"a": [0.2, 0.6, 0.7], "b": [0.8, 0.4, 0.3]}}
    assert summarize({}) == {}
    assert summarize({"gate": {"a": []}}) == {}


@given(frames=st.integers(1, 300), gates=st.integers(1, 40))
def test_a_course_is_the_means_of_equal_stretches(frames: int, gates: int) -> None:
    log: DiagnosticLog = {}
    for frame in range(frames):
        add_frame(log, {f"g{g}": {"a": frame / frames, "b": 1 - frame / frames} for g in range(gates)})
    for summary in summarize(log, course=True).values():
        assert summary.course is not None
        course = np.array(summary.course["a"])
        assert len(course) == min(frames, 120, 2880 // gates)
        assert np.all(np.diff(course) > 0)
        sizes = [len(piece) for piece in np.array_split(np.arange(frames), len(course))]
        assert np.average(course, weights=sizes) == pytest.approx(summary.mean["a"], abs=1e-4)
        np.testing.assert_allclose(np.array(summary.course["b"]), 1 - course, atol=2e-4)
    assert all(summary.course is None for summary in summarize(log).values())


def test_many_gates_are_one_sentence() -> None:
    log: DiagnosticLog = {}
    add_frame(log, {f"layer {g}": {"a": 0.5 + 0.05 * g, "b": 0.5 - 0.05 * g} for g in range(8)})
    (line,) = sentences(summarize(log))
    assert line.startswith("8 gates over 1 frames, layer 0 to layer 7: entropy 0.")
    assert "the most decided layer 7: a 0.85; layer 6: a 0.80" in line
    few = {name: parts for name, parts in log.items() if name in ("layer 0", "layer 1")}
    assert [text.partition(" over")[0] for text in sentences(summarize(few))] == ["layer 0", "layer 1"]


def test_a_figure_of_one_part_has_a_course() -> None:
    log: DiagnosticLog = {"memory": {"cosine": [1 - n / 1000 for n in range(1, 251)]}}
    found = summarize(log)["memory"]
    assert found.every_100 == pytest.approx([0.9, 0.8])
    assert found.temperatures == []
    assert sentence("memory", found) == (
        "memory over 250 frames: cosine 0.875 in the mean; 0.900 after 100, 0.800 after 200"
    )
    several = summarize(merged([log, log]), one_run=False)["memory"]
    assert several.every_100 == []
