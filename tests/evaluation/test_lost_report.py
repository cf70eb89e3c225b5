"""Where a calibration is kept, and what is said of it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from edgetrack.bundle import open_bundle
from edgetrack.bundle.manifest import LostData, LostModel
from edgetrack.capabilities import open_ref
from edgetrack.errors import UnknownNameError, UsageError
from edgetrack.evaluation.lost_model import FeatureSet, HalfResult, LostCalibration
from edgetrack.evaluation.lost_report import LostOutput, calibration_table, recipe_with
from edgetrack.exporting.recipe import find_recipe, read_recipe

WEIGHTS = "ab" * 32
MODEL = LostModel(
    weights={"score": 1.0, "jump": -0.5},
    bias=0.25,
    threshold=0.93,
    frames=2,
    interval=(0.9, 0.95),
    rate=0.005,
    recall=0.99,
    false_alarms=0.004,
    auroc=0.999,
    bundle="nano",
    weights_sha256=WEIGHTS,
    data=(LostData(dataset='a "set"', sequences=("one", "two"), sha256="cd" * 32),),
)


def test_a_recipe_is_written_and_read_back_and_replaced(tmp_path: Path) -> None:
    source = (Path(__file__).parents[2] / "export_recipes" / "nanotrack_v2.toml").read_text("utf-8")
    path = tmp_path / "mine.toml"
    path.write_text(recipe_with(source, MODEL), "utf-8")
    recipe = read_recipe(path)
    assert recipe.lost[-1] == MODEL
    assert msgspec.structs.replace(recipe, lost=()) == msgspec.structs.replace(find_recipe("nanotrack_v2"), lost=())
    again = msgspec.structs.replace(MODEL, threshold=0.5)
    other = msgspec.structs.replace(MODEL, weights_sha256="ef" * 32)
    path.write_text(recipe_with(recipe_with(path.read_text("utf-8"), again), other), "utf-8")
    assert list(read_recipe(path).lost[-2:]) == [again, other]
    assert len(read_recipe(path).lost) == len(recipe.lost) + 1


def test_a_model_is_that_of_its_weights_in_the_recipes_own_configuration() -> None:
    recipe = msgspec.structs.replace(find_recipe("nanotrack_v2"), lost=(MODEL,))
    assert recipe.lost_of(WEIGHTS, {}) == MODEL
    assert recipe.lost_of(WEIGHTS, {"variant": "opencv"}) is msgspec.UNSET
    assert recipe.lost_of("00" * 32, {}) is msgspec.UNSET
    assert recipe.lost_of(None, {}) is msgspec.UNSET


def test_a_bundle_is_copied_with_its_model_and_the_source_stays(make_bundle, tmp_path: Path) -> None:
    source = make_bundle("plain")
    before = (source / "manifest.json").read_bytes()
    target = tmp_path / "calibrated"
    LostOutput.check(open_ref(str(source)), target, None, overwrite=False).write(MODEL)
    with open_bundle(target) as bundle, open_bundle(source) as plain:
        assert bundle.manifest.lost == MODEL
        assert msgspec.structs.replace(bundle.manifest, lost=msgspec.UNSET) == plain.manifest
    assert (source / "manifest.json").read_bytes() == before
    assert b'"lost"' not in before
    with pytest.raises(UsageError, match="--overwrite replaces it"):
        LostOutput.check(open_ref(str(source)), target, None, overwrite=False)


def test_what_cannot_be_written_is_refused_before_anything_is_measured(make_bundle, tmp_path: Path) -> None:
    ref = open_ref(str(make_bundle("plain")))
    with pytest.raises(UsageError, match=r"add -o FILE\.toml"):
        LostOutput.check(ref, tmp_path / "bundle", "smat", overwrite=False)
    with pytest.raises(UnknownNameError, match="tracker 'nothing' is not known"):
        LostOutput.check(ref, tmp_path / "a.toml", "nothing", overwrite=False)
    (tmp_path / "there.toml").write_text("")
    with pytest.raises(UsageError, match="--overwrite"):
        LostOutput.check(ref, tmp_path / "there.toml", None, overwrite=False)
    LostOutput.check(ref, None, None, overwrite=False).write(MODEL)


def test_the_table_says_what_was_kept_and_how_it_does_on_the_other_half() -> None:
    half = HalfResult(threshold=0.92, frames=100, off_target=10, recall=0.9, false_alarms=0.011)
    table = calibration_table(
        LostCalibration(
            model=MODEL,
            trials=(FeatureSet(("score",), 0.9), FeatureSet(("score", "jump"), 0.95)),
            auroc=(0.9, 1.0),
            recall=(0.98, 1.0),
            false_alarms=None,
            halves=(half,),
            off_target=20,
            frames=200,
        )
    )
    assert table.cells() == [["score", "0.9000", ""], ["score + jump", "0.9500", "kept"]]
    notes = "\n".join(table.notes)
    assert "log-odds of the confidence: 0.250 + 1.000 score, -0.500 jump" in notes
    assert "lost: 2 frames in a row below 0.930 (95 % 0.900-0.950)" in notes
    assert "on the rest: recall 0.900, false alarms 1.10% of 100 frames, 10 off target" in notes
