"""Calibration sets, and how they are collected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.box import Box, iou
from edgetrack.errors import CalibrationError, UnknownNameError, UsageError
from edgetrack.evaluation.datasets import open_dataset
from edgetrack.evaluation.datasets.clip import Clip
from edgetrack.media import Frame
from edgetrack.quantization.calibration import (
    DEFAULT,
    LOST_IOU,
    CropSampling,
    Item,
    Part,
    collect,
    find_set,
    make_set,
    read_set,
    set_names,
    to_toml,
)
from edgetrack.runtime.trackers.base import Decision, Procedure, StageTimer

SIDE = st.floats(1e-3, 1e4)
PLACE = st.floats(-1e4, 1e4)
BOXES = st.tuples(PLACE, PLACE, SIDE, SIDE)
# TOML holds every Unicode text but lone surrogates.
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
ITEMS = st.builds(
    lambda clip, start, template, gap, box: Item(clip, start, template, start + gap, box),
    NAMES, st.integers(0, 99), BOXES, st.integers(1, 99), BOXES,
)  # fmt: skip
ONE = Item("a", 0, (1.0, 2.0, 3.0, 4.0), 5, (6.0, 7.0, 8.0, 9.0))


def written(folder: Path, text: str) -> Path:
    path = folder / "set.toml"
    path.write_text(text, "utf-8")
    return path


@given(items=st.lists(ITEMS, min_size=1, max_size=5), dataset=NAMES, layout=st.none() | NAMES, about=NAMES)
def test_what_is_written_is_read(
    items: list[Item], dataset: str, layout: str | None, about: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = make_set("mine", (Part(dataset=dataset, layout=layout, items=tuple(items)),), about)
    path = written(tmp_path_factory.mktemp("set"), to_toml(made))
    assert read_set(path) == made


def test_a_list_that_was_changed_by_hand_is_refused(tmp_path: Path) -> None:
    text = to_toml(make_set("mine", (Part(dataset="d", items=(ONE,)),)))
    with pytest.raises(CalibrationError, match=r"changed after it was made.*calibrate collect"):
        read_set(written(tmp_path, text.replace("8.0", "8.5")))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("schema = 1", "schema = 2", "schema 2, expected 1"),
        ("schema = 1", "schema = ", "is not TOML"),
        ('name = "mine"', 'name = "../mine"', "not a calibration set"),
        ('about = ""', "others = 1", "unknown key"),
        ("3.0, 4.0]", "3.0, 0.0]", "no area"),
        ("3.0, 4.0]", "3.0, nan]", "not finite"),
        ("5, [6.0", "0, [6.0", "does not follow"),
        ("5, [6.0", "-5, [6.0", "not a calibration set"),
        ("8.0, 9.0]],", "8.0, 9.0], 1],", "not a calibration set"),
    ],
)
def test_what_is_no_set_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = to_toml(make_set("mine", (Part(dataset="d", items=(ONE,)),)))
    assert old in text
    with pytest.raises(CalibrationError, match=said):
        read_set(written(tmp_path, text.replace(old, new)))


def test_an_empty_set_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="lists 0 items"):
        read_set(written(tmp_path, to_toml(make_set("mine", (Part(dataset="d", items=()),)))))
    with pytest.raises(CalibrationError, match="cannot be read"):
        find_set(str(tmp_path / "none.toml"))


def test_the_shipped_sets_are_sound() -> None:
    assert DEFAULT in set_names()
    for name in set_names():
        assert find_set(name).size >= 300
    with pytest.raises(UnknownNameError, match=r"'nothing' is not known.*synthetic"):
        find_set("nothing")


class Still(Procedure):
    """Never moves: loses every target that does."""

    def __init__(self) -> None:
        self.state = Box(0, 0, 1, 1)
        self.placed = 0

    def init(self, frame: Frame, box: Box) -> None:
        self.state = box

    def reset_box(self, box: Box) -> None:
        self.state = box
        self.placed += 1

    def update(self, frame: Frame, timer: StageTimer) -> Decision:
        return Decision(self.state, 1.0, None)


def clips(spec: str) -> list[Clip]:
    dataset = open_dataset(spec)
    return [dataset.read(entry) for entry in dataset.entries]


@pytest.fixture
def drift() -> list[Clip]:
    return clips("synthetic:drift?frames=60&size=320x240")


def test_the_size_is_met_and_spread_evenly(drift: list[Clip]) -> None:
    items = collect(drift, Still(), CropSampling(size=20))
    frames = [item.frame for item in items]
    assert len(items) == 20
    assert (frames[0], frames[-1]) == (1, 59)
    assert set(np.diff(frames)) <= {3, 4}
    assert {item.template for item in items} == {tuple(round(v, 3) for v in drift[0].truth[0])}


def test_more_items_than_frames_give_every_frame(drift: list[Clip]) -> None:
    assert [item.frame for item in collect(drift, Still(), CropSampling(size=500))] == list(range(1, 60))


def test_several_clips_share_the_size() -> None:
    found = collect(clips("synthetic:?frames=12&size=160x120"), Still(), CropSampling(size=30))
    counts = [sum(item.clip == name for item in found) for name in {item.clip for item in found}]
    assert sum(counts) == 30
    assert max(counts) - min(counts) <= 1


def test_a_tracker_that_lost_the_target_is_put_back(drift: list[Clip]) -> None:
    tracker = Still()
    items = collect(drift, tracker, CropSampling(size=59, centre_jitter=0.0, scale_jitter=0.0))
    assert tracker.placed > 0
    for item in items[1:]:
        before = Box(*map(float, drift[0].truth[item.frame - 1]))
        assert iou(Box(*item.box), before) > LOST_IOU - 0.01


def test_about_half_of_the_boxes_are_jittered(drift: list[Clip]) -> None:
    still = collect(drift, Still(), CropSampling(size=59, centre_jitter=0.0, scale_jitter=0.0))
    moved = collect(drift, Still(), CropSampling(size=59))
    share = np.mean([a.box != b.box for a, b in zip(still, moved, strict=True)])
    assert 0.25 < share < 0.75


@pytest.mark.parametrize("change", [{"seed": 1}, {"centre_jitter": 1.0}])
def test_the_same_request_gives_the_same_items(drift: list[Clip], change: dict[str, float]) -> None:
    sampling: Callable[..., CropSampling] = CropSampling
    assert collect(drift, Still(), sampling(size=30)) == collect(drift, Still(), sampling(size=30))
    assert collect(drift, Still(), sampling(size=30)) != collect(drift, Still(), sampling(size=30, **change))


def test_nothing_to_collect_from_is_an_error() -> None:
    with pytest.raises(CalibrationError, match="no clip"):
        collect([], Still(), CropSampling())
    with pytest.raises(CalibrationError, match="none of 1 clips"):
        collect(clips("synthetic:drift?frames=1&size=160x120"), Still(), CropSampling())
    with pytest.raises(UsageError, match="--calib-size 0"):
        CropSampling(size=0)
