"""Open loop: a tracker on given crops, and the errors of its maps."""

from __future__ import annotations

import numpy as np
import pytest

import edgetrack
from edgetrack.box import Box
from edgetrack.errors import SequenceError
from edgetrack.evaluation.datasets import open_dataset
from edgetrack.evaluation.protocols.open_loop import LARGEST_MAP, MapInfo, OpenLoop, OpenLoopRun, map_errors, maps_of

STILL = Box(0, 0, 10, 10)


def kept(tmp_path, name, *maps):
    """An open-loop run of two frames whose maps hold these values."""
    infos = [MapInfo(f"step/{key}", np.shape(values)[1:]) for key, values in maps]
    rows = [np.concatenate([np.ravel(values[at]) for _, values in maps]) for at in range(2)]
    (tmp_path / name).write_bytes(np.array(rows, "<f4").tobytes())
    return OpenLoopRun(boxes=[STILL] * 2, maps=infos, file=str(tmp_path / name))


def test_map_errors_are_those_of_maps_with_one_name_and_shape(tmp_path) -> None:
    a = kept(tmp_path, "a", ("score", np.full((2, 1, 2), 2.0)), ("size", np.ones((2, 3))), ("only", np.ones((2, 1))))
    b = kept(tmp_path, "b", ("size", np.ones((2, 4))), ("score", np.array([[[2.0, 2.5]], [[2.0, 2.0]]])))
    (error,) = map_errors([(a, b), (a, b)])
    assert error.name == "step/score"
    assert error.relative_rms == pytest.approx(np.sqrt(0.25 / 4) / 2)
    assert error.max_abs == pytest.approx(0.5)
    zero = kept(tmp_path, "z", ("score", np.zeros((2, 1, 2))))
    assert map_errors([(zero, a)])[0].relative_rms is None
    assert map_errors([(a, kept(tmp_path, "c", ("other", np.ones((2, 1)))))]) == []
    assert map_errors([]) == []


@pytest.fixture
def sequence(plain_dataset):
    dataset = open_dataset(plain_dataset("a", frames=4))
    return dataset.read(dataset.entries[0])


def test_an_open_loop_run_searches_around_the_given_boxes_and_keeps_the_maps(make_bundle, sequence, tmp_path) -> None:
    file = tmp_path / "a.maps"
    given = (Box(10, 12, 20, 16), Box(30, 20, 20, 16), Box(5, 5, 20, 16))
    with edgetrack.load(make_bundle(), threads=1) as tracker:
        run = OpenLoop(given, file).run(tracker, sequence, None)
        alone = []
        for before in given[:2]:
            tracker.init(np.zeros((48, 64, 3), np.uint8), given[0])
            tracker.reset_box(before)
            alone.append(tracker.update(np.zeros((48, 64, 3), np.uint8)).box)
        assert {info.name for info, _ in maps_of(tracker)} == {"step/score", "step/size", "step/offset"}
        assert all(info.size <= LARGEST_MAP for info, _ in maps_of(tracker))
    assert run.boxes == alone
    assert run.boxes[0] != run.boxes[1]
    assert file.stat().st_size == 4 * 2 * sum(info.size for info in run.maps)
    assert map_errors([(run, run)])[0].max_abs == 0


def test_an_open_loop_run_of_more_boxes_than_frames_is_an_error(make_bundle, sequence, tmp_path) -> None:
    with (
        edgetrack.load(make_bundle(), threads=1) as tracker,
        pytest.raises(SequenceError, match="9 boxes were tracked"),
    ):
        OpenLoop((Box(10, 12, 20, 16),) * 9, tmp_path / "a.maps").run(tracker, sequence, None)
