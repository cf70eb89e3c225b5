"""SMAT's procedure on scripted maps: losses, limits, and graphs that do not suit it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgetrack.box import Box
from edgetrack.bundle import Manifest
from edgetrack.errors import BundleError
from edgetrack.runtime.session import Tracker, load
from tests.builders import scripted_manifest, with_attention

START = Box(120.0, 80.0, 60.0, 40.0)
TrackerMaker = Callable[..., Tracker]
MAPS = ("score", "size", "offset")


def script(tracker: Tracker, monkeypatch: pytest.MonkeyPatch, fill: Callable[[dict[str, np.ndarray]], object]) -> None:
    """Let a function write the step's maps."""
    step = tracker.graphs["step"]
    monkeypatch.setattr(step, "run", lambda: fill(step.outputs))


@pytest.mark.parametrize("name", MAPS)
def test_nan_means_lost_with_the_previous_box(scripted_tracker: TrackerMaker, frame: np.ndarray, name: str) -> None:
    tracker = scripted_tracker(**{name: "nan"})
    tracker.init(frame, START)
    result = tracker.update(frame)
    assert (result.box, result.score, result.lost) == (START, 0.0, True)
    assert result.reason == "the graph returned NaN or infinity; the last box is kept"


@pytest.mark.parametrize("values", [(math.inf,), (-math.inf,), (math.inf, -math.inf), (math.nan,), (3e38, 3e38)])
@pytest.mark.parametrize("name", MAPS)
def test_one_bad_value_anywhere_means_lost(
    scripted_tracker: TrackerMaker,
    frame: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    values: tuple[float, ...],
) -> None:
    def fill(outputs: dict[str, np.ndarray]) -> None:
        for output in outputs.values():
            output.fill(0.3)
        outputs[name].reshape(-1)[-len(values) :] = values

    tracker = scripted_tracker()
    script(tracker, monkeypatch, fill)
    tracker.init(frame, START)
    assert tracker.update(frame).lost
    assert tracker.update(frame).box == START


def test_tracking_goes_on_after_nan(scripted_tracker: TrackerMaker, frame: np.ndarray) -> None:
    tracker, plain = scripted_tracker(score=[0.9, 0.9]), scripted_tracker()
    for each in (tracker, plain):
        each.init(frame, START)
    tracker.graphs["step"]._rules["score"] = "nan"
    assert tracker.update(frame).lost
    tracker.graphs["step"]._rules["score"] = 0.9
    assert tracker.update(frame).box == plain.update(frame).box


def test_low_score_means_lost_and_says_so_but_is_followed(scripted_tracker: TrackerMaker, frame: np.ndarray) -> None:
    low, high = scripted_tracker(score=[0.05, 0.9]), scripted_tracker()
    for tracker in (low, high):
        tracker.init(frame, START)
    lost, found = low.update(frame), high.update(frame)
    assert (lost.lost, lost.reason) == (True, "score 0.050 is below 0.1")
    assert lost.score == pytest.approx(0.05)
    assert lost.box == found.box
    assert (found.lost, found.reason) == (False, None)
    assert not low.update(frame).lost


def test_score_is_the_one_before_the_window(
    scripted_tracker: TrackerMaker, frame: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(outputs: dict[str, np.ndarray]) -> None:
        for output in outputs.values():
            output.fill(0)
        outputs["score"][0, 0, 2, 3] = 0.75

    tracker = scripted_tracker()
    script(tracker, monkeypatch, fill)
    tracker.init(frame, START)
    assert tracker.update(frame).score == 0.75


def test_template_is_taken_once_and_never_again(scripted_tracker: TrackerMaker, frame: np.ndarray) -> None:
    tracker = scripted_tracker()
    tracker.init(frame, START)
    features = tracker.graphs["step"].inputs["template_features"].copy()
    for _ in range(3):
        tracker.update(np.zeros_like(frame))
    assert tracker.graphs["template"].runs == 1
    assert np.array_equal(tracker.graphs["step"].inputs["template_features"], features)
    assert features.any()


def test_placed_tracker_searches_around_the_new_box_and_keeps_the_template(
    scripted_tracker: TrackerMaker, frame: np.ndarray
) -> None:
    placed, started, elsewhere = scripted_tracker(), scripted_tracker(), Box(40.0, 60.0, 60.0, 40.0)
    placed.init(frame, START)
    features = placed.graphs["step"].inputs["template_features"].copy()
    started.init(frame, elsewhere)
    placed._procedure.reset_box(elsewhere)
    assert placed.update(frame).box == started.update(frame).box
    assert np.array_equal(placed.graphs["step"].inputs["search"], started.graphs["step"].inputs["search"])
    assert np.array_equal(placed.graphs["step"].inputs["template_features"], features)
    assert placed.graphs["template"].runs == 1


FINITE = st.floats(-(2.0**99), 2.0**99, width=32)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    score=hnp.arrays(np.float32, (1, 1, 16, 16), elements=st.floats(0, 1, width=32)),
    size=hnp.arrays(np.float32, (1, 2, 16, 16), elements=FINITE),
    offset=hnp.arrays(np.float32, (1, 2, 16, 16), elements=FINITE),
)
def test_any_finite_maps_keep_the_box_in_the_frame(
    scripted_tracker: TrackerMaker, frame: np.ndarray, score: np.ndarray, size: np.ndarray, offset: np.ndarray
) -> None:
    tracker = scripted_tracker()
    tracker.graphs["step"].run = lambda: [
        np.copyto(tracker.graphs["step"].outputs[name], value)
        for name, value in zip(MAPS, (score, size, offset), strict=True)
    ]
    tracker.init(frame, START)
    for _ in range(3):
        assert_in_frame(tracker.update(frame).box, frame)


@pytest.mark.parametrize("seed", range(3))
def test_box_stays_in_the_frame_over_300_hostile_frames(
    scripted_tracker: TrackerMaker, frame: np.ndarray, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = np.random.default_rng(seed)

    def fill(outputs: dict[str, np.ndarray]) -> None:
        scale = 10.0 ** rng.integers(-6, 7)
        outputs["score"][...] = rng.random((1, 1, 16, 16))
        for name in ("size", "offset"):
            outputs[name][...] = rng.standard_normal((1, 2, 16, 16)) * scale
        if rng.random() < 0.1:
            outputs["size"][0, 0, 0, 0] = rng.choice([math.nan, math.inf])

    tracker = scripted_tracker()
    script(tracker, monkeypatch, fill)
    tracker.init(frame, START)
    for _ in range(300):
        assert_in_frame(tracker.update(frame).box, frame)


@pytest.mark.parametrize(("size", "offset"), [(0.9999, 0.5), (0.9999, 40.0), (1e-4, -40.0)])
def test_box_that_always_grows_or_flees_is_bounded(
    scripted_tracker: TrackerMaker, frame: np.ndarray, size: float, offset: float
) -> None:
    tracker = scripted_tracker(size=size, offset=offset)
    tracker.init(frame, START)
    for _ in range(300):
        assert_in_frame(tracker.update(frame).box, frame)


def assert_in_frame(box: Box, image: np.ndarray) -> None:
    height, width = image.shape[:2]
    assert box.is_finite
    assert 0 <= box.x <= width - 10
    assert 0 <= box.y <= height - 10
    assert 10 <= box.w <= width - box.x + 1e-9
    assert 10 <= box.h <= height - box.y + 1e-9


def retensored(manifest: Manifest, graph: str, side: str, tensor: str, change: dict[str, Any]) -> Manifest:
    """The manifest with one tensor changed."""
    graphs = []
    for info in manifest.graphs:
        if info.name == graph:
            tensors = tuple(
                msgspec.structs.replace(t, **change) if t.name == tensor else t for t in getattr(info, side)
            )
            info = msgspec.structs.replace(info, **{side: tensors})
        graphs.append(info)
    return msgspec.structs.replace(manifest, graphs=tuple(graphs))


@pytest.mark.parametrize(
    ("graph", "side", "tensor", "change"),
    [
        ("template", "inputs", "template", {"shape": (64, 64, 3)}),
        ("template", "inputs", "template", {"name": "z"}),
        ("template", "outputs", "template_features", {"shape": (1, 4, 2, 2)}),
        ("step", "inputs", "search", {"shape": (256, 256, 4)}),
        ("step", "inputs", "template_features", {"shape": (1, 1, 1, 1)}),
        ("step", "outputs", "score", {"shape": (1, 1, 16, 8)}),
        ("step", "outputs", "score", {"shape": (16, 16)}),
        ("step", "outputs", "size", {"shape": (1, 2, 8, 8)}),
        ("step", "outputs", "offset", {"name": "shift"}),
    ],
)
def test_graphs_that_do_not_suit_the_procedure_are_refused(
    scripted: Callable[..., Path],
    fake_manifest: Manifest,
    graph: str,
    side: str,
    tensor: str,
    change: dict[str, Any],
) -> None:
    manifest = retensored(fake_manifest, graph, side, tensor, change)
    with pytest.raises(BundleError, match="do not suit its procedure"):
        load(scripted(manifest))


@pytest.mark.parametrize(
    ("name", "message"),
    [("template", "input 'template_features' of 'step' has no role"), ("step", "has no graph 'step'")],
)
def test_bundle_without_a_graph_is_refused(
    scripted: Callable[..., Path], fake_manifest: Manifest, name: str, message: str
) -> None:
    graphs = tuple(info for info in fake_manifest.graphs if info.name != name)
    with pytest.raises(BundleError, match=message):
        load(scripted(msgspec.structs.replace(fake_manifest, graphs=graphs)))


def test_maps_of_attention_cover_the_crop_that_was_searched(scripted: Callable[..., Path], frame: np.ndarray) -> None:
    manifest = with_attention(scripted_manifest(), near=(1, 4, 4), far=(1, 2, 2))
    with load(scripted(manifest, attention_near=[0.1, 0.2], attention_far=0.3), threads=1) as tracker:
        tracker.init(frame, START)
        first, second = tracker.update(frame), tracker.update(frame)
    assert [look.name for look in first.attention] == ["near", "far"]
    # Copies: the next frame's weights are its own.
    assert [found.attention[0].weights.flat[0] for found in (first, second)] == pytest.approx([0.1, 0.2])
    assert first.attention[1].weights.shape == (2, 2)
    # ceil(4 sqrt(60 x 40)) = 196, its middle that of the box.
    assert first.attention[0].region == Box(52, 2, 196, 196)
    middle = first.box.x + first.box.w / 2, first.box.y + first.box.h / 2
    region = second.attention[0].region
    assert (region.x + region.w / 2, region.y + region.h / 2) == pytest.approx(middle, abs=1)


@pytest.mark.parametrize("shape", [(4, 4), (2, 4, 4), (1, 1, 4, 4)])
def test_maps_of_attention_of_another_shape_do_not_suit(scripted: Callable[..., Path], shape: tuple[int, ...]) -> None:
    with pytest.raises(BundleError, match="attention_near"):
        load(scripted(with_attention(scripted_manifest(), near=shape), attention_near=0.1), threads=1)
