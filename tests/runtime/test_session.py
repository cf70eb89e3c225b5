"""`load` and `Tracker`: states, guards, results."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgetrack
from edgetrack.box import Box
from edgetrack.bundle import Manifest, open_bundle, pack
from edgetrack.errors import (
    BundleError,
    DeviceUnavailableError,
    InvalidBoxError,
    InvalidFrameError,
    UnknownNameError,
    UsageError,
)
from edgetrack.runtime.backends.fake.backend import FakeGraph
from edgetrack.runtime.session import Timing, Tracker, load

START = (120.0, 80.0, 60.0, 40.0)
TrackerMaker = Callable[..., Tracker]
BAD_FRAMES = [
    None,
    [[0]],
    "frame.png",
    np.zeros((0, 5, 3), np.uint8),
    np.zeros((5, 5, 3), np.float32),
    np.zeros((5, 5, 3), np.uint16),
    np.zeros((5, 5, 2), np.uint8),
]


class TestLoading:
    @pytest.fixture(autouse=True)
    def no_cache(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EDGETRACK_CACHE", "off")

    def test_folder_zip_and_open_bundle_are_the_same(
        self, scripted: Callable[..., Path], tmp_path: Path, frame: np.ndarray
    ) -> None:
        folder = scripted()
        with open_bundle(folder) as opened:
            packed = pack(opened, tmp_path / "packed.zip")
        boxes = []
        for given in (folder, str(folder), packed, open_bundle(folder)):
            with load(given) as tracker:
                tracker.init(frame, START)
                boxes.append(tracker.update(frame).box)
        assert len(set(boxes)) == 1

    def test_package_offers_it_under_its_own_name(self, scripted: Callable[..., Path]) -> None:
        with edgetrack.load(scripted()) as tracker:
            assert isinstance(tracker, edgetrack.Tracker)
            assert tracker.manifest.tracker == "smat"

    def test_threads_default_to_the_usable_cores(
        self, scripted: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("edgetrack.runtime.session.usable_cores", lambda: 7)
        with load(scripted()) as tracker:
            assert tracker.options.threads == 7
        with load(scripted(), threads=3) as tracker:
            assert tracker.options.threads == 3

    @pytest.mark.parametrize("threads", [0, -1])
    def test_fewer_than_one_thread_is_refused(self, scripted: Callable[..., Path], threads: int) -> None:
        with pytest.raises(UsageError, match=f"threads is {threads}; give 1 or more"):
            load(scripted(), threads=threads)

    def test_unknown_device_is_refused(self, scripted: Callable[..., Path]) -> None:
        with pytest.raises(DeviceUnavailableError, match="not on 'cuda:3'") as caught:
            load(scripted(), device="cuda:3")
        assert caught.value.exit_code == 4

    @pytest.mark.parametrize(
        ("change", "error", "words"),
        [
            ({"tracker": "nothing"}, UnknownNameError, "tracker 'nothing' is not known"),
            ({"tracker": "base"}, UnknownNameError, "tracker 'base' is not known"),
            ({"target": "nowhere"}, UnknownNameError, "target 'nowhere' is not known"),
            ({"procedure": {}}, BundleError, "procedure section does not suit CenterFamilySettings"),
        ],
    )
    def test_manifest_that_cannot_be_run_is_refused(
        self,
        scripted: Callable[..., Path],
        fake_manifest: Manifest,
        change: dict[str, Any],
        error: type[Exception],
        words: str,
    ) -> None:
        import msgspec

        with pytest.raises(error, match=words):
            load(scripted(msgspec.structs.replace(fake_manifest, **change)))

    def test_what_was_opened_is_closed_when_a_later_graph_fails(
        self, scripted: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        closed = []
        monkeypatch.setattr(FakeGraph, "_close", lambda self: closed.append(self.info.name))
        with pytest.raises(BundleError, match="is not a fake graph"):
            load(scripted(score=[["nested"]]))
        assert closed == ["template"]


class TestStates:
    def test_update_before_init_is_refused(self, scripted_tracker: TrackerMaker, frame: np.ndarray) -> None:
        with pytest.raises(UsageError, match=r"call tracker\.init\(frame, box\) on the first frame"):
            scripted_tracker().update(frame)

    def test_closed_tracker_refuses_all_and_closes_again(
        self, scripted_tracker: TrackerMaker, frame: np.ndarray
    ) -> None:
        tracker = scripted_tracker()
        tracker.init(frame, START)
        tracker.close()
        tracker.close()
        for call in (lambda: tracker.update(frame), lambda: tracker.init(frame, START)):
            with pytest.raises(UsageError, match="the tracker is closed"):
                call()

    def test_context_manager_closes_the_graphs_and_the_bundle(
        self, scripted: Callable[..., Path], tmp_path: Path, frame: np.ndarray
    ) -> None:
        with open_bundle(scripted()) as opened:
            packed = open_bundle(pack(opened, tmp_path / "packed.zip"))
        with load(packed) as tracker:
            tracker.init(frame, START)
        assert not packed.folder.exists()
        with pytest.raises(UsageError, match="graph 'step' is closed"):
            tracker.graphs["step"].run()

    def test_second_init_starts_over(self, scripted_tracker: TrackerMaker, frame: np.ndarray) -> None:
        tracker = scripted_tracker()
        tracker.init(frame, START)
        first = tracker.update(frame)
        tracker.update(frame)
        tracker.init(frame, START)
        assert tracker.update(frame).box == first.box

    @pytest.mark.parametrize("bad", BAD_FRAMES, ids=repr)
    def test_frame_that_is_refused_leaves_the_target_as_it_is(
        self, scripted_tracker: TrackerMaker, frame: np.ndarray, bad: Any
    ) -> None:
        plain, disturbed = scripted_tracker(), scripted_tracker()
        for tracker in (plain, disturbed):
            tracker.init(frame, START)
            tracker.update(frame)
        with pytest.raises(InvalidFrameError):
            disturbed.update(bad)
        with pytest.raises(InvalidFrameError):
            disturbed.init(bad, START)
        assert disturbed.update(frame).box == plain.update(frame).box

    @pytest.mark.parametrize(
        "box",
        [
            (math.nan, 1, 2, 3),
            (1, 2, math.inf, 3),
            (1, 2, 0, 3),
            (1, 2, 3, 0),
            (1, 2, -3, 3),
            (400, 10, 20, 20),
            (-50, 10, 20, 20),
            (10, 10, 1e200, 1e200),
            (1, 2, 3),
            (1, 2, 3, 4, 5),
            None,
            "box",
        ],
    )
    def test_box_that_is_refused_leaves_the_target_as_it_is(
        self, scripted_tracker: TrackerMaker, frame: np.ndarray, box: Any
    ) -> None:
        tracker = scripted_tracker()
        with pytest.raises(InvalidBoxError):
            tracker.init(frame, box)
        with pytest.raises(UsageError, match="before init"):
            tracker.update(frame)
        tracker.init(frame, START)
        with pytest.raises(InvalidBoxError):
            tracker.init(frame, box)
        assert not tracker.update(frame).lost

    @pytest.mark.parametrize("box", [(-5, -5, 20, 20), (310, 230, 100, 100), (0, 0, 1e6, 1e6), (5, 5, 1e-3, 1e-3)])
    def test_box_that_touches_the_frame_can_be_followed(
        self, scripted_tracker: TrackerMaker, frame: np.ndarray, box: Any
    ) -> None:
        tracker = scripted_tracker()
        tracker.init(frame, box)
        assert_inside(tracker.update(frame).box, frame)


class TestFrames:
    def test_grey_bgra_and_views_give_the_same_box_as_bgr(
        self, scripted_tracker: TrackerMaker, frame: np.ndarray
    ) -> None:
        grey = np.ascontiguousarray(frame[..., 0])
        bgr = np.dstack([grey] * 3)
        kinds = [
            bgr,
            grey,
            grey[..., None],
            np.dstack([bgr, grey]),
            bgr[:, ::-1].copy()[:, ::-1],
            np.asfortranarray(bgr),
        ]
        results = []
        for kind in kinds:
            tracker = scripted_tracker(offset="input:search")
            tracker.init(kind, START)
            results.append(tracker.update(kind).box)
        assert len(set(results)) == 1

    def test_size_may_change_from_frame_to_frame(self, scripted_tracker: TrackerMaker, frame: np.ndarray) -> None:
        tracker = scripted_tracker()
        tracker.init(frame, START)
        for height, width in ((480, 640), (60, 80), (10, 10), (240, 320)):
            image = np.zeros((height, width, 3), np.uint8)
            assert_inside(tracker.update(image).box, image)

    @pytest.mark.parametrize("shape", [(1, 1, 3), (1, 500, 3), (9, 4, 3)])
    def test_frame_smaller_than_the_margin_is_tracked(
        self, scripted_tracker: TrackerMaker, shape: tuple[int, ...]
    ) -> None:
        tracker = scripted_tracker()
        image = np.zeros(shape, np.uint8)
        tracker.init(image, (0, 0, 1, 1))
        for _ in range(3):
            assert tracker.update(image).box.is_finite


def assert_inside(box: Box, image: np.ndarray) -> None:
    height, width = image.shape[:2]
    assert box.x >= 0
    assert box.y >= 0
    assert box.w >= 10
    assert box.h >= 10
    assert box.x + box.w <= width + 1e-9
    assert box.y + box.h <= height + 1e-9


class TestTiming:
    def test_spans_are_those_of_the_clock(self, scripted_tracker: TrackerMaker, frame: np.ndarray) -> None:
        # start, crop, graphs, end
        ticks = iter([1_000_000, 1_250_000, 4_250_000, 4_350_000])
        tracker = scripted_tracker(clock=lambda: next(ticks))
        tracker.init(frame, START)
        timing = tracker.update(frame).timing
        assert timing == Timing(crop=0.25, graphs=3.0, decode=0.1)
        assert timing.total == pytest.approx(3.35)

    def test_frame_with_nan_is_timed_too(self, scripted_tracker: TrackerMaker, frame: np.ndarray) -> None:
        ticks = iter([0, 1_000_000, 3_000_000, 7_000_000])
        tracker = scripted_tracker(clock=lambda: next(ticks), score="nan")
        tracker.init(frame, START)
        assert tracker.update(frame).timing == Timing(crop=1.0, graphs=2.0, decode=4.0)

    def test_every_update_starts_at_zero(self, scripted_tracker: TrackerMaker, frame: np.ndarray) -> None:
        counter = itertools.count(0, 1_000_000)
        tracker = scripted_tracker(clock=lambda: next(counter))
        tracker.init(frame, START)
        assert [tracker.update(frame).timing for _ in range(3)] == [Timing(1.0, 1.0, 1.0)] * 3


def test_updates_allocate_no_image(scripted_tracker: TrackerMaker, frame: np.ndarray) -> None:
    tracker = scripted_tracker()
    tracker.init(frame, (150, 110, 20, 20))
    tracker.update(frame)
    tracker._procedure.state = Box(150, 110, 20, 20)
    tracemalloc.start()
    try:
        for _ in range(50):
            tracker.update(frame)
            tracker._procedure.state = Box(150, 110, 20, 20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 50_000, "a search crop has 196,608 bytes"


def test_a_tracker_is_placed_only_where_it_can_be(scripted) -> None:
    frame = np.zeros((48, 64, 3), np.uint8)
    with edgetrack.load(scripted(), threads=1) as tracker:
        with pytest.raises(UsageError, match="reset_box was called before init"):
            tracker.reset_box((1, 1, 9, 9))
        tracker.init(frame, (10, 12, 20, 16))
        before = tracker.update(frame).box
        tracker.init(frame, (10, 12, 20, 16))
        for wrong in ((100, 1, 9, 9), (1, 1, 0, 9), (1, 1, 9, float("nan"))):
            with pytest.raises(InvalidBoxError):
                tracker.reset_box(wrong)
        assert tracker.update(frame).box == before
        tracker.update(np.zeros((48, 200, 3), np.uint8))
        tracker.reset_box((100, 1, 9, 9))
    with pytest.raises(UsageError, match="is closed"):
        tracker.reset_box((1, 1, 9, 9))


def test_the_next_search_starts_at_the_box_where_it_was_placed(scripted) -> None:
    frame = np.zeros((480, 640, 3), np.uint8)
    with edgetrack.load(scripted(), threads=1) as tracker:
        tracker.init(frame, (100, 100, 40, 40))
        first = tracker.update(frame).box
        tracker.reset_box((400, 300, 40, 40))
        moved = tracker.update(frame).box
    assert moved == pytest.approx((first.x + 300, first.y + 200, first.w, first.h))
