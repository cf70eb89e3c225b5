"""Accuracy control on bundles whose outputs are scripted: lowering any stage but one costs nothing."""

from __future__ import annotations

import json

import cv2
import msgspec
import numpy as np
import pytest

from edgetrack.bundle import BundleWriter, open_bundle, write_npz
from edgetrack.bundle.golden import GOLDEN_FILE
from edgetrack.errors import AccuracyError, EdgetrackError, UsageError
from edgetrack.evaluation.datasets import open_dataset
from edgetrack.evaluation.protocols.anchored import Anchored
from edgetrack.quantization.accuracy_control import (
    PLOT_FILE,
    REPORT_FILE,
    AccuracyControl,
    Sensitivity,
    advise,
    draw,
    lines,
    markdown,
)
from tests.builders import scripted_manifest

STAGES = ("stem", "trunk", "size")
# The true box is 20x16 in a crop of 4 times the root of its area: 0.25 of the crop, and larger ones overlap less.
GOOD, BAD, WORSE = 0.25, 0.5, 0.8


@pytest.fixture
def bundle(tmp_path):
    """bundle("name", 0.25) writes a bundle that finds boxes of that size, with a record to be timed on."""

    def make(folder, size):
        with BundleWriter(folder) as writer:
            (writer.folder / "template.json").write_text(json.dumps({"template_features": 1.0}))
            (writer.folder / "step.json").write_text(json.dumps({"score": 0.5, "size": size, "offset": 0.5}))
            manifest = scripted_manifest("scripted")
            arrays = {f"0/step/in/{t.name}": np.zeros(t.shape, t.dtype) for t in manifest.graph("step").inputs}
            write_npz(writer.folder / GOLDEN_FILE, arrays)
            return writer.commit(manifest)

    return make


@pytest.fixture
def trial(bundle, tmp_path, plain_dataset):
    """trial(max_drop=0.1, ...) -> what control decides where every stage in `costs` enlarges the boxes."""

    class Trial:
        def __init__(self):
            self.built, self.count = [], 0
            self.costs = {"size": BAD}
            self.dataset = open_dataset(plain_dataset("a", "b", frames=8))

        def build(self, kept, folder, quick):
            self.built.append((tuple(kept), quick))
            return bundle(folder, max([GOOD, *(size for stage, size in self.costs.items() if stage not in kept)]))

        def __call__(self, max_drop=0.1, kept=(), **wishes):
            self.control = AccuracyControl(self.dataset, max_drop, Anchored(3, 3), threads=1, **wishes)
            self.count += 1
            full = bundle(tmp_path / f"full-{self.count}", GOOD)
            return self.control(full, self.build, STAGES, kept, lambda stage: None)

    return Trial()


def test_what_costs_nothing_is_taken_as_it_is(trial) -> None:
    trial.costs = {}
    choice = trial()
    assert choice.kept == ()
    assert trial.built == [((), False)]
    found = msgspec.json.decode(choice.reports[REPORT_FILE], type=Sensitivity)
    assert found.met
    assert found.stages == []
    assert found.first.verdict == "equal"


def test_the_stage_that_costs_is_kept_and_no_other(trial) -> None:
    choice = trial()
    assert choice.kept == ("size",)
    found = msgspec.json.decode(choice.reports[REPORT_FILE], type=Sensitivity)
    assert found.stages[0].stage == "size"
    assert found.stages[0].gained.value == pytest.approx(-found.first.value)
    assert all(stage.gained.value == 0 for stage in found.stages[1:])
    assert found.last.value == pytest.approx(0)
    # The first, one for each stage beside none kept, and the one that was reverted: only the map is quick.
    assert [quick for _, quick in trial.built] == [False, True, True, True, True, False]
    picture = cv2.imdecode(np.frombuffer(choice.reports[PLOT_FILE], np.uint8), cv2.IMREAD_COLOR)
    assert picture.std() > 0
    assert draw(found) == choice.reports[PLOT_FILE]
    told = "\n".join(lines(found))
    assert "kept in fp32: size" in told
    assert "| size |" in markdown(found)


def test_stages_are_reverted_one_at_a_time_until_it_is_enough(trial) -> None:
    trial.costs = {"size": WORSE, "trunk": BAD}
    assert set(trial().kept) >= {"size", "trunk"}


@pytest.mark.full
def test_stages_that_hide_behind_one_another_are_found(trial) -> None:
    # Neither alone gains anything, as the other still spoils it.
    trial.costs = {"size": BAD, "trunk": BAD}
    assert set(trial().kept) >= {"size", "trunk"}


def test_what_no_stage_mends_is_an_error(trial) -> None:
    trial.costs = {"something else": BAD}
    with pytest.raises(AccuracyError, match="Nothing was written"):
        trial()


def test_the_recipes_kept_stages_stay_kept(trial) -> None:
    choice = trial(kept=("size",), map_always=True)
    assert choice.kept == ("size",)
    assert all("size" in kept for kept, _ in trial.built)


def test_without_reverting_the_excess_is_an_error_that_names_the_stage(trial) -> None:
    with pytest.raises(AccuracyError, match=r"costs [\d.]+ points.*10 are allowed.*suffers most is 'size'") as caught:
        trial(revert=False)
    assert caught.value.exit_code == 1
    assert not trial.control.found.met


def test_a_sequence_that_cannot_be_read_stops_it(trial, tmp_path) -> None:
    (tmp_path / "data" / "b" / "img" / "00004.jpg").write_bytes(b"no image")
    with pytest.raises(EdgetrackError, match="needs every validation sequence; b"):
        trial()


def test_drops_beyond_all_points_are_refused(trial) -> None:
    with pytest.raises(UsageError, match=r"--max-drop 200"):
        trial(max_drop=2.0)


@pytest.mark.parametrize(
    ("met", "fp32", "lowered", "hints", "said"),
    [
        (True, 10.0, 5.0, {}, "Use int8 here"),
        (True, 10.0, 9.9, {}, "int8 is not faster here"),
        (True, 10.0, 5.0, {"bf16": 4.0}, "the hint bf16 is faster still"),
        (True, 10.0, 5.0, {"bf16": 6.0}, "Use int8 here"),
        (False, 10.0, 5.0, {"bf16": 6.0}, "Use fp32 here"),
    ],
)
def test_advice_follows_speed_and_accuracy(met, fp32, lowered, hints, said) -> None:
    assert said in advise("int8", met, fp32, lowered, hints)


def test_the_scripted_record_is_sound(bundle, tmp_path) -> None:
    with open_bundle(bundle(tmp_path / "one", GOOD)) as opened:
        assert opened.manifest.precision == "fp32"
