"""What errors say."""

from __future__ import annotations

import pytest

from edgetrack.benchmark.roofline import RooflineSearch
from edgetrack.benchmark.scenarios import find_scenario
from edgetrack.capabilities import find_target, require_precision
from edgetrack.devices.profiles import find_profile
from edgetrack.errors import InvalidTextError, UnknownNameError, UsageError
from edgetrack.evaluation.datasets import open_dataset
from edgetrack.evaluation.submission import check_kind
from edgetrack.exporting.lowering import Method
from edgetrack.exporting.recipe import find_recipe
from edgetrack.exporting.stages import patterns_of
from edgetrack.gate.budget import find_budget
from edgetrack.media import load_scene
from edgetrack.models.base import find_model
from edgetrack.quantization.calibration import find_set
from edgetrack.runtime.prompt import Prompt, phrases_of
from edgetrack.runtime.trackers.base import find_family
from edgetrack.training.settings import parse_mix


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("smatt", "tracker 'smatt' is not known (did you mean 'smat'?); expected one of: smat, DASTM"),
        ("dastm", "tracker 'dastm' is not known (did you mean 'DASTM'?); expected one of: smat, DASTM"),
        ("qqq", "tracker 'qqq' is not known; expected one of: smat, DASTM"),
    ],
)
def test_a_misspelt_name_meets_its_nearest(name: str, said: str) -> None:
    assert str(UnknownNameError.of("tracker", name, ["smat", "DASTM"])) == said


def test_an_empty_list_and_what_to_type() -> None:
    error = UnknownNameError.of("profile", "a", [], "`edgetrack list --devices` shows them")
    assert str(error) == "profile 'a' is not known; there is none; `edgetrack list --devices` shows them"
    assert error.exit_code == 2


def test_many_names_are_not_all_listed() -> None:
    error = UnknownNameError.of("sequence", "clip-01", [f"clip_{i:02}" for i in range(50)])
    said = "sequence 'clip-01' is not known (did you mean 'clip_01'?); there are 50, such as clip_00, clip_01, clip_02"
    assert str(error).startswith(said)
    assert len(str(UnknownNameError.of("tracker", "x" * 10_000, ["smat"]))) < 200


@pytest.mark.parametrize(
    ("find", "near"),
    [
        (lambda: find_recipe("nanotrak_v3"), "nanotrack_v3"),
        (lambda: find_target("opnvino"), "openvino"),
        (lambda: require_precision(find_target("onnx"), "int-8"), "int8"),
        (lambda: find_scenario("strem"), "stream"),
        (lambda: find_budget("smat-cpus"), "smat-cpu"),
        (lambda: find_profile("jetsn"), "jetson"),
        (lambda: open_dataset(".", "got-10k"), "got10k"),
        (lambda: open_dataset("synthetic:").select(["drfit"]), "drift"),
        (lambda: load_scene("oclusion"), "occlusion"),
        (lambda: find_set("synthetc"), "synthetic"),
        (lambda: patterns_of(find_recipe("smat").stages, ["nek"], "step"), "neck"),
        (lambda: find_model("smatt"), "smat"),
        (lambda: find_family("smatt"), "smat"),
        (lambda: check_kind("got10"), "got10k"),
        (lambda: RooflineSearch("fp-32", 1), "fp32"),
        (lambda: Method(ranges="min-max"), "minmax"),
        (lambda: parse_mix(["negatve=1"]), "negative"),
        (lambda: phrases_of({"catgory": "car"}, Prompt(("category",), lambda text: {})), "category"),
    ],
)
def test_every_kind_of_name_meets_its_nearest(find, near) -> None:
    with pytest.raises((UnknownNameError, InvalidTextError)) as caught:
        find()
    assert isinstance(caught.value, UsageError)
    assert f"(did you mean {near!r}?)" in str(caught.value)
