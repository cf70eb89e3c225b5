"""NanoTrack's procedure on scripted maps: both variants, losses, limits, settings and graphs that do not suit it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgetrack.box import Box
from edgetrack.bundle import Manifest, open_bundle
from edgetrack.bundle.manifest import GraphInfo
from edgetrack.errors import BundleError
from edgetrack.exporting.recipe import find_recipe
from edgetrack.runtime.backends.base import BackendOptions
from edgetrack.runtime.session import Tracker, load
from edgetrack.runtime.trackers.base import read_settings
from edgetrack.runtime.trackers.nanotrack import OPENCV, NanoTrackSettings
from tests.builders import scripted_manifest, tensor

SETTINGS = find_recipe("nanotrack_v2").procedure
VARIANTS = {"official": SETTINGS, "opencv": SETTINGS | OPENCV | {"variant": "opencv"}}
START = Box(120.0, 80.0, 60.0, 40.0)
TrackerMaker = Callable[..., Tracker]

each_variant = pytest.mark.parametrize("variant", sorted(VARIANTS))


def manifest_of(variant: str = "official", cells: int = 16) -> Manifest:
    kernels = (tensor("k_cls", 1, 64, 4), tensor("k_reg", 1, 64, 4))
    template, search = tensor("template", 127, 127, 3, dtype="uint8"), tensor("search", 255, 255, 3, dtype="uint8")
    maps = (tensor("cls", 1, 2, cells, cells), tensor("loc", 1, 4, cells, cells))
    graphs = (
        GraphInfo(name="template", role="init", file="t.json", inputs=(template,), outputs=kernels),
        GraphInfo(name="step", role="step", file="s.json", inputs=(search, *kernels), outputs=maps),
    )
    return scripted_manifest(tracker="nanotrack_v2", title="NanoTrack", graphs=graphs, procedure=VARIANTS[variant])


@pytest.fixture
def nano(scripted: Callable[..., Path]) -> Iterator[TrackerMaker]:
    """nano("opencv", cls=0.0, loc=3.0) -> a tracker whose step fills its maps by those rules, closed at the end."""
    with ExitStack() as stack:

        def make(variant: str = "official", **rules: Any) -> Tracker:
            path = scripted(manifest_of(variant), **({"cls": 0.0, "loc": 3.4} | rules))
            return stack.enter_context(Tracker(open_bundle(path), BackendOptions()))

        yield make


def script(tracker: Tracker, **maps: np.ndarray) -> None:
    """Let the step return these maps."""
    step = tracker.graphs["step"]
    step.run = lambda: [np.copyto(step.outputs[name], value) for name, value in maps.items()]


def peak_at(row: int, column: int) -> np.ndarray:
    cls = np.zeros((1, 2, 16, 16), np.float32)
    cls[0, 0], cls[0, 0, row, column], cls[0, 1, row, column] = 20, 0, 20
    return cls


@each_variant
@pytest.mark.parametrize("name", ["cls", "loc"])
def test_nan_means_lost_with_the_previous_box(nano: TrackerMaker, frame: np.ndarray, variant: str, name: str) -> None:
    tracker = nano(variant, **{name: "nan"})
    tracker.init(frame, START)
    result = tracker.update(frame)
    assert (result.box, result.score, result.lost) == (START, 0.0, True)
    assert result.reason == "the graph returned NaN or infinity; the last box is kept"
    tracker.graphs["step"]._rules[name] = 1.0
    assert tracker.update(frame).reason != result.reason


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan, 1e3])
def test_one_bad_distance_anywhere_means_lost(nano: TrackerMaker, frame: np.ndarray, bad: float) -> None:
    tracker = nano()
    loc = np.full((1, 4, 16, 16), 3.0, np.float32)
    loc[0, 3, 15, 15] = bad
    script(tracker, cls=peak_at(4, 4), loc=loc)
    tracker.init(frame, START)
    assert tracker.update(frame).lost
    assert tracker.update(frame).box == START


def test_low_score_means_lost_and_says_so_but_is_followed(nano: TrackerMaker, frame: np.ndarray) -> None:
    tracker = nano()
    cls = np.zeros((1, 2, 16, 16), np.float32)
    cls[0, 0] = 2
    script(tracker, cls=cls, loc=np.full((1, 4, 16, 16), 3.0, np.float32))
    tracker.init(frame, START)
    result = tracker.update(frame)
    assert result.score == pytest.approx(1 / (1 + math.exp(2)))
    assert (result.lost, result.reason) == (True, "score 0.119 is below 0.5")
    assert result.box != START


def test_box_is_the_documented_arithmetic(nano: TrackerMaker, frame: np.ndarray) -> None:
    tracker = nano()
    script(tracker, cls=peak_at(9, 7), loc=np.full((1, 4, 16, 16), math.log(30), np.float32))
    tracker.init(frame, START)
    found = tracker.update(frame)
    w, h = 60.0, 40.0
    s = math.sqrt((w + 50) * (h + 50))
    scale = 127 / s
    size = math.sqrt(120 * 120) / math.sqrt((w * scale + 50 * scale) * (h * scale + 50 * scale))
    penalty = math.exp(-(max(size, 1 / size) * 1.5 - 1) * SETTINGS["penalty_k"])
    rate = penalty * SETTINGS["size_rate"]
    cx, cy = 150 - 16 / scale, 100 + 16 / scale
    side = 60 / scale
    expected = Box.from_center(cx, cy, (1 - rate) * w + rate * side, (1 - rate) * h + rate * side)
    assert found.box == pytest.approx(expected, abs=1e-4)
    assert found.score == pytest.approx(1.0)


@each_variant
def test_placed_tracker_searches_around_the_new_box_and_keeps_the_template(
    nano: TrackerMaker, frame: np.ndarray, variant: str
) -> None:
    placed, started, elsewhere = nano(variant), nano(variant), Box(40.0, 60.0, 62.0, 40.0)
    placed.init(frame, START)
    kernel = placed.graphs["step"].inputs["k_cls"].copy()
    started.init(frame, elsewhere)
    placed._procedure.reset_box(elsewhere)
    assert placed.update(frame).box == started.update(frame).box
    assert np.array_equal(placed.graphs["step"].inputs["search"], started.graphs["step"].inputs["search"])
    assert np.array_equal(placed.graphs["step"].inputs["k_cls"], kernel)
    assert placed.graphs["template"].runs == 1


def test_border_has_the_first_frames_mean(nano: TrackerMaker) -> None:
    tracker = nano()
    first = np.full((240, 320, 3), (10, 20, 30), np.uint8)
    first[:120] += np.array((5, 6, 7), np.uint8)
    tracker.init(first, Box(0.0, 0.0, 20.0, 20.0))
    tracker.update(np.full((240, 320, 3), 200, np.uint8))
    # Means 12.5, 23, 33.5 are truncated.
    assert tracker.graphs["step"].inputs["search"][0, 0].tolist() == [12, 23, 33]


def test_opencvs_border_has_the_frames_own_mean_and_colours_are_rgb(nano: TrackerMaker) -> None:
    tracker = nano("opencv")
    first = np.full((240, 320, 3), (10, 20, 30), np.uint8)
    tracker.init(first, Box(0.0, 0.0, 20.0, 20.0))
    assert tracker.graphs["template"].inputs["template"][60, 60].tolist() == [30, 20, 10]
    second = first + np.uint8(100)
    second[:121] += np.uint8(1)
    tracker.update(second)
    assert tracker.graphs["step"].inputs["search"][0, 0].tolist() == [131, 121, 111]


def test_opencvs_boxes_are_whole_pixels(nano: TrackerMaker, frame: np.ndarray) -> None:
    tracker = nano("opencv")
    tracker.init(frame, (120.7, 80.2, 60.9, 40.1))
    assert tracker._procedure.variant.box() == START
    for _ in range(5):
        assert all(value == int(value) for value in tracker.update(frame).box)


def assert_sane(box: Box, image: np.ndarray, slack: float) -> None:
    """The centre in the frame, no side below ten pixels or above the frame's."""
    height, width = image.shape[:2]
    cx, cy = box.center
    assert box.is_finite
    assert -slack <= cx <= width + slack
    assert -slack <= cy <= height + slack
    assert 10 <= box.w <= width
    assert 10 <= box.h <= height


@each_variant
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cls=hnp.arrays(np.float32, (1, 2, 16, 16), elements=st.floats(width=32)),
    loc=hnp.arrays(np.float32, (1, 4, 16, 16), elements=st.floats(-100, 90, width=32)),
    box=st.tuples(st.floats(-50, 310), st.floats(-30, 230), st.floats(51, 400), st.floats(31, 400)),
)
def test_any_maps_keep_the_centre_in_the_frame(
    nano: TrackerMaker,
    frame: np.ndarray,
    variant: str,
    cls: np.ndarray,
    loc: np.ndarray,
    box: tuple[float, float, float, float],
) -> None:
    tracker = nano(variant)
    script(tracker, cls=cls, loc=loc)
    tracker.init(frame, box)
    for _ in range(3):
        result = tracker.update(frame)
        assert 0 <= result.score <= 1
        if "NaN" not in (result.reason or ""):
            assert_sane(result.box, frame, 1.5 if variant == "opencv" else 1e-9)


@each_variant
@pytest.mark.parametrize(
    "box", [(5.0, 5.0, 1e-3, 1e-3), (5 - 1e6, 5 - 1e6, 1e6, 1e6), (10.0, 10.0, 1e6, 1e6), (0.0, 0.0, 1e6, 1e-6)]
)
def test_any_box_that_touches_the_frame_can_be_started_from(
    nano: TrackerMaker, frame: np.ndarray, variant: str, box: tuple[float, float, float, float]
) -> None:
    tracker = nano(variant)
    tracker.init(frame, box)
    for _ in range(3):
        assert tracker.update(frame).box.is_finite


@each_variant
@pytest.mark.parametrize("seed", range(2))
def test_hostile_frames_of_changing_size_are_survived(nano: TrackerMaker, variant: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tracker = nano(variant)
    tracker.init(np.zeros((240, 320, 3), np.uint8), START)
    for _ in range(150):
        scale = 10.0 ** rng.integers(-3, 3)
        maps = {name: rng.standard_normal((1, count, 16, 16)) * scale for name, count in (("cls", 2), ("loc", 4))}
        script(tracker, **maps)
        height, width = rng.integers(1, 500, 2)
        assert tracker.update(np.zeros((height, width, 3), np.uint8)).box.is_finite


@pytest.mark.parametrize("variant", ["official", "opencv"])
def test_settings_of_both_variants_are_read(variant: str) -> None:
    assert read_settings(VARIANTS[variant], NanoTrackSettings).variant == variant


@pytest.mark.parametrize(
    "change",
    [
        {"variant": "other"},
        {"variant": None},
        {"template_size": 0},
        {"search_size": 25.5},
        {"stride": -16},
        {"window_influence": 1.5},
        {"window_influence": math.nan},
        {"size_rate": -0.1},
        {"penalty_k": math.inf},
        {"penalty_k": -1.0},
        {"smallest_side": 0.0},
        {"lost_below": math.nan},
        {"colour": 1},
    ],
)
def test_settings_that_cannot_be_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match="procedure section does not suit NanoTrackSettings"):
        read_settings(SETTINGS | change, NanoTrackSettings)


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_every_setting_must_be_stated(name: str) -> None:
    with pytest.raises(BundleError, match=f"lacks the key '{name}'"):
        read_settings({key: value for key, value in SETTINGS.items() if key != name}, NanoTrackSettings)


@pytest.mark.parametrize("name", sorted(OPENCV))
def test_opencv_with_other_numbers_is_refused(name: str) -> None:
    with pytest.raises(BundleError, match=r"variant 'opencv' has fixed numbers: found .*expected .*0\.055"):
        read_settings(VARIANTS["opencv"] | {name: 0.2}, NanoTrackSettings)


def test_opencv_on_another_grid_is_refused(scripted: Callable[..., Path]) -> None:
    with pytest.raises(BundleError, match="works on 16 x 16 cells, the graphs of bundle 'scripted' have 15 x 15"):
        load(scripted(manifest_of("opencv", cells=15), cls=0.0, loc=3.0))


def changed(graph: str, side: str, tensor: str, change: dict[str, Any]) -> Manifest:
    """The manifest with one tensor changed."""
    manifest = manifest_of()
    graphs = []
    for info in manifest.graphs:
        if info.name == graph:
            tensors = (msgspec.structs.replace(t, **change) if t.name == tensor else t for t in getattr(info, side))
            info = msgspec.structs.replace(info, **{side: tuple(tensors)})
        graphs.append(info)
    return msgspec.structs.replace(manifest, graphs=tuple(graphs))


@pytest.mark.parametrize(
    ("graph", "side", "tensor", "change"),
    [
        ("template", "inputs", "template", {"shape": (64, 64, 3)}),
        ("template", "inputs", "template", {"name": "z"}),
        ("template", "outputs", "k_cls", {"shape": (1, 64, 5)}),
        ("step", "inputs", "k_reg", {"name": "k"}),
        ("step", "inputs", "search", {"shape": (255, 255, 4)}),
        ("step", "outputs", "cls", {"shape": (1, 2, 16, 8)}),
        ("step", "outputs", "cls", {"shape": (1, 2, 1, 1)}),
        ("step", "outputs", "loc", {"shape": (1, 4, 15, 15)}),
        ("step", "outputs", "loc", {"name": "boxes"}),
    ],
)
def test_graphs_that_do_not_suit_the_procedure_are_refused(
    scripted: Callable[..., Path], graph: str, side: str, tensor: str, change: dict[str, Any]
) -> None:
    with pytest.raises(BundleError, match="do not suit its procedure"):
        load(scripted(changed(graph, side, tensor, change), cls=0.0, loc=3.0))
