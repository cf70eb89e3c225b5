from __future__ import annotations

from dataclasses import replace

import pytest

from edgetrack.benchmark.lineup import opened
from edgetrack.benchmark.references import add_references
from edgetrack.bundle.manifest import WeightsInfo
from edgetrack.capabilities import find_target
from edgetrack.errors import ParityError, UsageError

OURS = WeightsInfo(origin="official", sha256="a" * 64)
OTHERS = WeightsInfo(origin="official", sha256="b" * 64)
TARGET = replace(find_target("fake"), name="onnx", packages=())


def never(*args):
    raise AssertionError(args)


@pytest.fixture
def refer(tmp_path):
    """refer(bundle paths...) adds references, for which the target onnx stands."""

    def run(*paths, given=None, export=never, target=TARGET):
        told = []
        found = add_references(
            [opened(path) for path in paths],
            target,
            given=given,
            export=export,
            workshop=tmp_path / "workshop",
            notify=told.append,
            folder=tmp_path / "out",
        )
        return {c.label: (c.reference, [caution.code for caution in c.cautions]) for c in found}

    return run


def test_one_that_takes_part_is_the_reference_of_the_others_and_of_itself(refer, make_bundle):
    ours, torch = make_bundle("ours", weights=OURS), make_bundle("torch", target="onnx", weights=OURS)
    assert refer(ours, torch) == {"ours": ("torch", []), "torch": ("torch", [])}


def test_the_same_weights_come_before_nearness(refer, make_bundle, tmp_path):
    ours = make_bundle("ours", weights=OURS)
    make_bundle("near", target="onnx", weights=OTHERS)
    make_bundle("far", folder=tmp_path / "out", target="onnx", weights=OURS)
    assert refer(ours) == {"ours": ("far", []), "far": ("far", [])}


def test_one_beside_the_bundle_with_other_weights_comes_with_a_warning(refer, make_bundle):
    ours = make_bundle("ours", weights=OURS)
    make_bundle("near", target="onnx", weights=OTHERS)
    assert refer(ours) == {"ours": ("near", ["reference-weights-differ"]), "near": ("near", [])}


def test_a_reference_of_another_tracker_is_none(refer, make_bundle):
    make_bundle("near", target="onnx", tracker="other", weights=OURS)
    (label,) = (
        label
        for label in refer(make_bundle("ours", weights=OURS), export=lambda *order: make_bundle("made", target="onnx"))
        if label != "ours"
    )
    assert label == "made"


def test_one_is_exported_once_for_all_bundles_of_a_tracker(refer, make_bundle, tmp_path):
    asked = []

    def export(*order):
        asked.append(order)
        return make_bundle("made", folder=tmp_path / "workshop", target="onnx")

    found = refer(make_bundle("a", weights=OURS), make_bundle("b"), export=export)
    assert asked == [("smat", "onnx", tmp_path / "workshop" / "smat-onnx-fp32", None)]
    assert found == {
        "a": ("made", ["reference-weights-differ"]),
        "b": ("made", []),
        "made": ("made", ["untrained-weights"]),
    }


def test_untrained_bundles_are_held_against_untrained_ones(refer, make_bundle, tmp_path):
    asked = []

    def export(*order):
        asked.append(order[-1])
        return make_bundle("made", folder=tmp_path / "workshop", target="onnx")

    refer(make_bundle("a"), export=export)
    assert asked == ["untrained"]


def test_without_the_package_there_is_a_warning_and_no_reference(refer, make_bundle):
    missing = replace(TARGET, packages=("no_such_package",))
    assert refer(make_bundle("a"), target=missing) == {"a": (None, ["no-reference"])}


def test_an_export_that_fails_is_a_warning(refer, make_bundle):
    def export(*order):
        raise ParityError("not equal")

    assert refer(make_bundle("a"), export=export) == {"a": (None, ["no-reference"])}


def test_the_given_reference_is_taken(refer, make_bundle, tmp_path):
    ours = make_bundle("ours", weights=OURS)
    make_bundle("near", target="onnx", weights=OURS)
    chosen = make_bundle("chosen", folder=tmp_path / "elsewhere", target="onnx", weights=OTHERS)
    found = refer(ours, given=str(chosen))
    assert found == {"ours": ("chosen", ["reference-weights-differ"]), "chosen": ("chosen", [])}


def test_a_given_reference_that_is_none(refer, make_bundle, tmp_path):
    ours = make_bundle("ours")
    with pytest.raises(UsageError, match="expected one for 'onnx'"):
        refer(ours, given=str(ours))
    other = make_bundle("other", target="onnx", tracker="other")
    with pytest.raises(UsageError, match="measured are smat"):
        refer(ours, given=str(other))
