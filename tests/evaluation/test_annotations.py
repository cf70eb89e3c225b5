"""What is annotated of frames, and how a gate's weights go with it: against NumPy, on clips that are made here."""

from __future__ import annotations

import numpy as np
import pytest

from edgetrack.box import Box
from edgetrack.evaluation.annotations import correlations, course, frame_annotations
from edgetrack.evaluation.datasets.clip import Clip, ScoringRules
from edgetrack.evaluation.protocols.one_pass import OnePassRun


def moving(steps: list[float], hidden: set[int] = frozenset(), **fields: object) -> tuple[Clip, OnePassRun]:  # type: ignore[assignment]
    """A clip whose target of 10 x 10 pixels moves by these steps to the right, and a run on it."""
    left = np.concatenate([[0.0], np.cumsum(steps)])
    truth = np.stack([left, 0 * left, 0 * left + 10, 0 * left + 10], axis=1)
    visible = np.array([index not in hidden for index in range(len(left))])
    clip = Clip("a", (), truth, visible, ScoringRules(), **fields)  # type: ignore[arg-type]
    boxes = [Box(*row) for row in truth]
    return clip, OnePassRun(size=(99, 99), boxes=boxes, scores=[], lost=[], ms=[])


def test_weights_are_correlated_with_speed_and_absence() -> None:
    steps = [1.0, 4.0, 2.0, 8.0, 3.0]
    clip, run = moving(steps, hidden={2, 5})
    run.shares["gate"] = {"fast": [0.1 * step for step in steps], "same": [0.5] * 5, "not": [0, 1, 0, 0, 1]}
    run.shares["short"] = {"one": [0.1, 0.2]}
    found = correlations(clip, run)
    assert found["gate"]["fast"]["speed"] == pytest.approx(1)
    assert found["gate"]["not"]["hidden"] == pytest.approx(1)
    assert found["gate"]["fast"]["hidden"] == pytest.approx(np.corrcoef(steps, [0, 1, 0, 0, 1])[0, 1])
    assert "growth" not in found["gate"]["fast"], "the box keeps its size"
    assert "same" not in found["gate"]
    assert "short" not in found


def test_too_few_frames_correlate_with_nothing() -> None:
    clip, run = moving([1.0, 2.0])
    run.shares["gate"] = {"fast": [0.1, 0.2]}
    assert correlations(clip, run) == {}


def test_tags_of_frames_are_annotations_like_any_other() -> None:
    clutter = np.array([True, False, True, True, False, False])
    clip, run = moving([1.0, 2.0, 3.0, 4.0, 5.0], tags={"background-clutter": clutter})
    weights = [0.9, 0.1, 0.8, 0.7, 0.2]
    run.shares["gate"] = {"se": weights}
    expected = np.corrcoef(weights, clutter[1:])[0, 1]
    assert correlations(clip, run)["gate"]["se"]["background-clutter"] == pytest.approx(expected)


def test_the_course_has_the_means_of_stretches_and_no_row_of_zeros() -> None:
    steps = [float(step) for step in range(1, 241)]
    clip, _ = moving(steps, hidden={240})
    found = course(frame_annotations(clip, 241))
    assert list(found) == ["speed", "hidden"], "its size does not change"
    assert found["speed"][:2] == [0.15, 0.35], "120 stretches of two frames each"
    assert found["hidden"] == [0.0] * 119 + [0.5]
    clip.truth[3:5] = np.nan
    assert course(frame_annotations(clip, 6))["speed"] == [0.1, 0.2, None, None, None]


@pytest.mark.parametrize("fields", [{"every": 10}, {"truth": 1}])
def test_where_not_every_frame_is_annotated_nothing_is_said(fields: dict[str, int]) -> None:
    clip, run = moving([1.0, 2.0, 3.0, 4.0], **({"every": 10} if "every" in fields else {}))
    if "truth" in fields:
        clip = Clip("a", (), clip.truth[:1], clip.visible[:1], ScoringRules())
    run.shares["gate"] = {"se": [0.1, 0.2, 0.3, 0.4]}
    assert frame_annotations(clip, 5) == {}
    assert correlations(clip, run) == {}


def test_a_box_without_an_area_has_no_speed_and_no_growth() -> None:
    clip, _ = moving([1.0, 2.0, 3.0, 4.0])
    clip.truth[2, 2:] = 0
    found = frame_annotations(clip, 5)
    assert np.isnan(found["growth"]).tolist() == [False, True, True, False]
    assert np.isnan(found["speed"]).tolist() == [False, False, True, False]
    assert course({"speed": found["speed"]}) == {"speed": [0.1, pytest.approx(0.5831, abs=1e-4), None, 0.4]}
