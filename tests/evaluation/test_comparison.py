"""Whole comparisons of two bundles in real processes."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from edgetrack.capabilities import open_ref
from edgetrack.errors import BackendMissingError, UsageError
from edgetrack.evaluation.comparison import MAPS, SUMMARY, CompareConfig, CompareRecord, compare
from edgetrack.evaluation.comparison_report import check_plot, compare_table, draw_plot
from edgetrack.evaluation.config import EvalConfig
from edgetrack.evaluation.datasets import open_dataset
from edgetrack.evaluation.protocols.anchored import Anchored


@pytest.fixture
def request_of(make_bundle, plain_dataset, tmp_path):
    def make(*, size_b=0.25, dataset=None):
        a, b = make_bundle("a"), make_bundle("b", size=size_b)
        root = dataset or plain_dataset("x", "y", frames=6)
        runs = EvalConfig(open_dataset(root), output=tmp_path / "kept", threads=1, anchors=Anchored(2, 2))
        return CompareConfig(open_ref(str(a)), open_ref(str(b)), runs, 0.005)

    return make


def test_bundles_that_compute_the_same_are_equal(request_of, tmp_path) -> None:
    found = compare(request_of())
    assert found.failures == []
    assert (found.delta_ao.value, found.delta_ao.low, found.delta_ao.high) == (0, 0, 0)
    assert found.delta_ao.verdict == "equal"
    assert found.delta_ao.equal
    assert found.delta_ao.not_worse
    assert found.one_pass.value == 0
    assert found.agreement.iou_above_0_9 == 1
    assert (found.agreement.diverged, found.agreement.first_divergence) == (0, None)
    assert found.open_loop.box_error == pytest.approx(0)
    assert [error.max_abs for error in found.open_loop.maps] == [0, 0, 0]
    assert found.error_gain is None
    assert found.a.ao == found.b.ao
    saved = msgspec.json.decode((tmp_path / "kept" / SUMMARY).read_bytes(), type=CompareRecord)
    assert saved == found


def test_bundles_that_do_not_are_told_apart_and_their_error_grows(request_of) -> None:
    told = []
    found = compare(request_of(size_b=0.15), lambda what, done, total: told.append(what))
    assert found.delta_ao.verdict in ("better", "worse")
    assert found.agreement.mean_iou < 0.9
    assert found.open_loop.box_error > 0
    size = next(error for error in found.open_loop.maps if error.name == "step/size")
    assert size.relative_rms == pytest.approx(0.4, rel=1e-5)
    assert size.max_abs == pytest.approx(0.1, rel=1e-5)
    # Both find boxes of a fixed share of the search region, which follows the last box: the error compounds.
    assert found.error_gain > 1
    assert [one.name for one in found.sequences] == ["x", "y"]
    assert len(found.sequences[0].iou) == 6
    assert told[0] == "a: x: done"
    assert told[-1] == "b: y (open loop): done"
    text = "\n".join(compare_table(found).notes)
    assert "error gain" in text
    assert found.delta_ao.verdict in text
    assert compare_table(found).markdown().startswith("| sequence | frames |")


def test_runs_are_kept_and_a_broken_sequence_costs_itself(request_of, plain_dataset) -> None:
    root = plain_dataset("x", "y", frames=4)
    (root / "y" / "img" / "00003.jpg").write_bytes(b"no image")
    request = request_of(dataset=root)
    found = compare(request)
    assert [one.name for one in found.sequences] == ["x"]
    assert {failure.name for failure in found.failures} == {"a: y", "b: y", "a: y (anchors)", "b: y (anchors)"}
    told = []
    compare(request, lambda what, done, total: told.append(what))
    assert sum("kept from an earlier run" in what for what in told) == 4
    assert sum(what.endswith("open loop): done") for what in told) == 2


def test_an_interrupted_open_loop_goes_on_where_it_was(request_of, tmp_path) -> None:
    request, maps = request_of(size_b=0.15), tmp_path / "kept" / MAPS
    expected = compare(request)
    assert not maps.exists()

    def interrupt(what: str, done: int, total: int) -> None:
        if what == "b: x (open loop): done":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(request, interrupt)
    # Of what was left one file of maps is cut, and its run has to be made again; a stranger's file is in the way.
    cut = next((maps / "a").glob("y-*.maps"))
    cut.write_bytes(cut.read_bytes()[:-4])
    (maps / "b" / "damaged.json").write_bytes(b"\xff{")
    told = []
    assert compare(request, lambda what, done, total: told.append(what)) == expected
    again = sorted(what for what in told if "open loop" in what)
    assert again[0] == "a: x (open loop): kept from an earlier run"
    assert again[1] == "a: y (open loop): done"
    assert again[-1] == "b: y (open loop): done"
    assert not maps.exists()


def test_maps_of_another_bundle_are_not_taken(request_of, make_bundle) -> None:
    request = request_of(size_b=0.15)

    def interrupt(what: str, done: int, total: int) -> None:
        if what == "b: y (open loop): done":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(request, interrupt)
    found = compare(replace(request, b=open_ref(str(make_bundle("c", size=0.2)))))
    size = next(error for error in found.open_loop.maps if error.name == "step/size")
    assert size.max_abs == pytest.approx(0.05, rel=1e-5)


def test_sequences_without_truth_are_compared_all_the_same(request_of, plain_dataset) -> None:
    root = plain_dataset("x", frames=4)
    (root / "x" / "groundtruth.txt").write_text("10,12,20,16\n")
    found = compare(request_of(size_b=0.15, dataset=root))
    assert (found.delta_ao, found.one_pass, found.a.ao) == (None, None, None)
    assert found.agreement.sequences == 1
    assert found.open_loop is not None


def test_a_bundle_is_not_compared_with_itself(request_of) -> None:
    request = request_of()
    with pytest.raises(UsageError, match="compared with itself"):
        replace(request, b=request.a)
    with pytest.raises(UsageError, match="half a point"):
        replace(request, margin=-1.0)


def test_a_picture_shows_each_sequence(request_of, tmp_path) -> None:
    pytest.importorskip("matplotlib")
    draw_plot(compare(request_of(size_b=0.15)), tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UsageError, match="ends in one of"):
        check_plot(tmp_path / "p.txt")
    with pytest.raises(UsageError, match="make it first"):
        check_plot(tmp_path / "none" / "p.png")


def test_a_missing_package_says_what_to_type(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BackendMissingError, match=r"edgetrack\[plot\]"):
        check_plot(tmp_path / "p.png")
