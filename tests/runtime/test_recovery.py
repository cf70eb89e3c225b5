"""Searching for a lost target, on a graph that sees the brightest spot of its crop, and so a target where it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import numpy as np
import pytest

import edgetrack
from edgetrack.box import Box, iou
from edgetrack.bundle import open_bundle
from edgetrack.bundle.manifest import LostModel, Manifest
from edgetrack.errors import BundleError, InvalidBoxError, UnknownNameError, UsageError
from edgetrack.runtime.backends.base import BackendOptions, CompiledGraph
from edgetrack.runtime.multi import load_many
from edgetrack.runtime.recovery import DAMPING, MOST_PLACES, Guard
from edgetrack.runtime.session import Tracker, load
from edgetrack.runtime.trackers.center import CenterFamily
from tests.builders import scripted_manifest, write_scripted

SIZE = (360, 640)
SIDE = 24
START = (100.0, 100.0)
MODEL = LostModel(
    weights={"score": 1.0}, threshold=0.8, rate=0.01, recall=1, false_alarms=0, auroc=1, bundle="x", data=()
)


class SpotGraph(CompiledGraph):
    """A centre head whose score is the brightness of the brightest spot, at its middle, with its size."""

    engine = "spot"

    def _open(self, path: Path, options: BackendOptions) -> None:
        self.runs = 0

    def _infer(self) -> None:
        self.runs += 1
        grey = self.inputs["search"][..., 0].astype(np.float64) / 255
        score, size, offset = (self.outputs[name] for name in ("score", "size", "offset"))
        score[...], size[...], offset[...] = 0.0, 0.2, 0.5
        rows, columns = np.nonzero(grey > max(0.1, 0.8 * grey.max()))
        if len(rows):
            y, x = rows.mean() / 16, columns.mean() / 16
            score[0, 0, int(y), int(x)] = min(grey.max(), 0.999)
            offset[0, :, int(y), int(x)] = x % 1, y % 1
            size[0, :, int(y), int(x)] = (np.ptp(columns) + 1) / 256, (np.ptp(rows) + 1) / 256

    def _close(self) -> None:
        """Nothing to release."""


def scene(*spots: tuple[float, float, int]) -> np.ndarray:
    """A dark frame with squares of SIDE pixels: corner x, y and brightness."""
    frame = np.zeros((*SIZE, 3), np.uint8)
    for x, y, level in spots:
        frame[max(0, int(y)) : int(y) + SIDE, max(0, int(x)) : int(x) + SIDE] = level
    return frame


@pytest.fixture
def spotting(tmp_path: Path) -> Iterator[Callable[..., Tracker]]:
    """spotting(recover="expand") -> a tracker of the bright spot, started on one at START."""
    path = write_scripted(tmp_path / "spot")
    with ExitStack() as stack:

        def make(model: LostModel | None = MODEL, **options: object) -> Tracker:
            bundle = open_bundle(path)
            manifest = msgspec.structs.replace(bundle.manifest, lost=msgspec.UNSET if model is None else model)
            bundle = type(bundle)(bundle.folder, manifest, bundle.source)
            known = BackendOptions()
            template = edgetrack.runtime.session.open_graphs(open_bundle(path), known, stack)["template"]
            graphs = {"template": template, "step": SpotGraph(manifest.graph("step"), path, known)}
            tracker = stack.enter_context(Tracker(bundle, known, graphs=graphs, **options))
            tracker.init(scene((*START, 255)), (*START, SIDE, SIDE))
            return tracker

        yield make


def followed(tracker: Tracker, path: list[tuple[float, float, int] | None]) -> list[edgetrack.Result]:
    return [tracker.update(scene() if spot is None else scene(spot)) for spot in path]


AWAY: list[tuple[float, float, int] | None] = [(110, 100, 255), (120, 100, 255), *[None] * 8]


def test_off_by_default_and_boxes_are_those_of_the_published_procedure(spotting: Callable[..., Tracker]) -> None:
    path = [(110, 100, 255), (120, 100, 90), (130, 100, 255), *[None] * 8, *[(500, 250, 255)] * 5]
    published, judged = followed(spotting(None), path), followed(spotting(), path)
    assert [one.box for one in judged] == [one.box for one in published]
    assert [one.score for one in judged] == [one.score for one in published]
    # The number of the recipe, 0.1, flags what scores nothing; the model what scores less than 0.8.
    assert [one.lost for one in published] == [*[False] * 3, *[True] * 13]
    assert [one.lost for one in judged] == [False, True, False, *[True] * 13]
    assert judged[1].reason == "confidence 0.353 is below 0.800"


def test_a_target_that_returns_elsewhere_is_found_within_a_round(spotting: Callable[..., Tracker]) -> None:
    tracker = spotting(recover="expand")
    assert all(one.lost for one in followed(tracker, AWAY)[2:])
    back = followed(tracker, [(560, 300, 255)] * 30)
    first = next(index for index, one in enumerate(back) if not one.lost)
    assert first < 30
    assert all(iou(one.box, Box(560, 300, SIDE, SIDE)) > 0.7 for one in back[first:])
    assert not any(one.lost for one in back[first:])


@pytest.mark.parametrize("place", [(4, 4), (320, 180), (600, 20), (20, 320)])
def test_it_is_found_wherever_it_returns(spotting: Callable[..., Tracker], place: tuple[int, int]) -> None:
    tracker = spotting(recover="expand")
    followed(tracker, AWAY)
    assert not followed(tracker, [(*place, 255)] * 30)[-1].lost


def test_a_look_alike_below_the_threshold_is_not_accepted(spotting: Callable[..., Tracker]) -> None:
    tracker = spotting(recover="expand")
    followed(tracker, AWAY)
    assert all(one.lost for one in followed(tracker, [(300, 200, 150)] * 60))


def test_a_lost_box_coasts_and_stops(spotting: Callable[..., Tracker]) -> None:
    tracker = spotting(recover="expand")
    moving = followed(tracker, [(100 + 10 * n, 100, 255) for n in range(1, 30)])
    last = moving[-1].box
    coasting = [one.box for one in followed(tracker, [None] * 60)]
    paths = np.diff([last.center[0], *(box.center[0] for box in coasting[1:])])
    # The first lost frame is the procedure's own; from the next on each path is DAMPING times the one before.
    assert paths[0] == pytest.approx(10 * DAMPING, rel=0.05)
    assert paths[1:10] == pytest.approx(paths[:9] * DAMPING, rel=1e-6)
    assert paths.sum() == pytest.approx(10 * DAMPING / (1 - DAMPING), rel=0.05)
    assert {(box.w, box.h) for box in coasting[1:]} == {(last.w, last.h)}


def test_a_coasting_box_stays_in_the_frame(spotting: Callable[..., Tracker]) -> None:
    tracker = spotting(recover="expand")
    followed(tracker, [(100 + 40 * n, 100, 255) for n in range(1, 14)])
    assert all(one.box.center[0] <= SIZE[1] for one in followed(tracker, [None] * 20))


def test_a_frame_never_costs_more_than_two_searches(spotting: Callable[..., Tracker]) -> None:
    tracker = spotting(recover="expand")
    step, costs = tracker.graphs["step"], []
    for frame in [*[scene((150, 100, 255))] * 3, *[scene()] * 10, *[scene((500, 300, 150))] * 30]:
        before = step.runs
        tracker.update(frame)
        costs.append(step.runs - before)
    assert set(costs[:3]) == {1}
    assert max(costs) == 2


def test_places_of_a_round_grow_by_half_and_then_cover_the_frame(spotting: Callable[..., Tracker]) -> None:
    tracker = spotting(recover="expand")
    followed(tracker, AWAY[:3])
    guard = tracker._guard
    assert isinstance(guard, Guard)
    places = list(guard._round(scene(), guard.good))
    here = (*guard.good.center, 1.0)
    assert all(place == here for place in places[::5])
    elsewhere = [place for index, place in enumerate(places) if index % 5]
    wider = [place.factor for place in elsewhere if (place.cx, place.cy) == guard.good.center]
    widest = SIZE[1] / guard.side
    assert wider[:2] == [1.5, 2.25]
    assert wider[-1] == pytest.approx(widest)
    grid = elsewhere[len(wider) :]
    assert 1 < len(grid) <= MOST_PLACES
    covered = np.zeros(SIZE, bool)
    for place in grid:
        reach = place.factor * guard.side / 2
        y1, x1 = max(0, int(place.cy - reach)), max(0, int(place.cx - reach))
        covered[y1 : int(place.cy + reach) + 1, x1 : int(place.cx + reach) + 1] = True
    assert covered.all()
    distances = [np.hypot(p.cx - guard.good.center[0], p.cy - guard.good.center[1]) for p in grid]
    assert distances == sorted(distances)


def test_nothing_that_a_rejected_look_changed_stays(spotting: Callable[..., Tracker]) -> None:
    tracker = spotting(recover="expand")
    procedure = tracker.procedure
    assert isinstance(procedure, CenterFamily)
    carried = np.zeros(1)
    procedure.looked = (carried,)
    look = procedure.look

    def counting(frame, timer):
        carried[0] += 1
        return look(frame, timer)

    procedure.look = counting  # type: ignore[method-assign]
    followed(tracker, AWAY[:3])
    assert carried[0] == 3
    followed(tracker, [None] * 20)
    assert carried[0] == 3


def test_a_new_target_and_another_box_end_the_search(spotting: Callable[..., Tracker]) -> None:
    tracker = spotting(recover="expand")
    followed(tracker, AWAY)
    tracker.reset_box((500, 300, SIDE, SIDE))
    assert not tracker.update(scene((500, 300, 255))).lost
    followed(tracker, [None] * 5)
    tracker.init(scene((300, 300, 255)), (300, 300, SIDE, SIDE))
    assert not tracker.update(scene((300, 300, 255))).lost


class TestProposals:
    def test_the_best_candidate_is_followed(self, spotting: Callable[..., Tracker]) -> None:
        tracker = spotting()
        followed(tracker, AWAY)
        frame = scene((500, 300, 255), (300, 50, 220))
        found = tracker.propose([(20, 20, 24, 24), (298, 52, 22, 26), (502, 298, 24, 24)], frame)
        assert found.accepted == 2
        assert found.confidences == pytest.approx((0.0, 220 / 255, 0.999), abs=1e-5)
        assert iou(found.box, Box(500, 300, SIDE, SIDE)) > 0.7
        after = tracker.update(frame)
        assert (after.lost, iou(after.box, found.box) > 0.9) == (False, True)

    def test_none_is_followed_below_the_threshold(self, spotting: Callable[..., Tracker]) -> None:
        tracker, other = spotting(), spotting()
        followed(tracker, AWAY), followed(other, AWAY)
        found = tracker.propose([(300, 50, 24, 24)], scene((300, 50, 150)))
        assert (found.accepted, found.confidences) == (None, (pytest.approx(150 / 255),))
        assert found.box == tracker.procedure.state
        assert tracker.update(scene()).box == other.update(scene()).box

    def test_what_cannot_be_searched_is_refused(self, spotting: Callable[..., Tracker]) -> None:
        tracker = spotting()
        with pytest.raises(InvalidBoxError, match="outside the frame"):
            tracker.propose([(10, 10, 5, 5), (900, 10, 5, 5)], scene())
        with pytest.raises(UsageError, match="0 candidates were proposed; give 1 to 256"):
            tracker.propose([], scene())
        with pytest.raises(UsageError, match="type: edgetrack calibrate lost spot DATA -o CALIBRATED"):
            spotting(None).propose([(10, 10, 5, 5)], scene())


class TestLoading:
    def test_recovery_needs_a_calibrated_bundle(self, tmp_path: Path) -> None:
        plain = write_scripted(tmp_path / "plain")
        with pytest.raises(UsageError, match="type: edgetrack calibrate lost plain DATA -o CALIBRATED"):
            load(plain, recover="expand")
        calibrated = _calibrated(tmp_path)
        load(calibrated, recover="expand").close()
        with pytest.raises(UnknownNameError, match="recovery 'expnd' is not known"):
            load(calibrated, recover="expnd")  # type: ignore[arg-type]

    def test_several_targets_recover_each_for_itself(self, tmp_path: Path, frame: np.ndarray) -> None:
        with load_many(_calibrated(tmp_path), 2, recover="expand") as many:
            for x in (10, 100):
                many.start(frame, (x, 50, 40, 40))
            # The scripted score is 0.5, below the threshold.
            assert [one.lost for one in many.update(frame).values()] == [True, True]
            assert [one.lost for one in many.update(frame).values()] == [True, True]

    def test_a_model_that_weighs_maps_needs_a_tracker_with_maps(self, tmp_path: Path) -> None:
        model = msgspec.structs.replace(MODEL, weights={"score": 1.0, "psr": 0.5})
        load(_calibrated(tmp_path, model=model)).close()

        class Blind(CenterFamily):
            @property
            def chooser(self):
                return None

            @chooser.setter
            def chooser(self, value):
                """It has none."""

        with open_bundle(_calibrated(tmp_path, model=model)) as bundle:
            graphs = edgetrack.runtime.session.open_graphs(bundle, BackendOptions(), ExitStack())
            with pytest.raises(BundleError, match="weighs psr, and its tracker has no score map"):
                edgetrack.runtime.recovery.guard(bundle.manifest, Blind(bundle.manifest, graphs), None)


def _calibrated(tmp_path: Path, model: LostModel = MODEL) -> Path:
    manifest: Manifest = msgspec.structs.replace(scripted_manifest(), lost=model)
    return write_scripted(tmp_path / "calibrated", manifest, overwrite=True)
