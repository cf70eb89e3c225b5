"""Whole evaluations in real processes: resuming, interruption, broken sequences, processes that die."""

from __future__ import annotations

import sys
from dataclasses import replace

import msgspec
import pytest

from edgetrack.capabilities import open_ref
from edgetrack.errors import BackendMissingError, BundleIntegrityError
from edgetrack.evaluation.config import EvalConfig
from edgetrack.evaluation.datasets import open_dataset
from edgetrack.evaluation.protocols.streaming import RecordedLatencies, Streaming
from edgetrack.evaluation.results import EvalRecord, eval_table
from edgetrack.evaluation.run import SUMMARY, evaluate


class Log(list):
    """Collects what is told; `interrupt_after` raises as Ctrl-C does after so many finished sequences."""

    def __init__(self, interrupt_after=None):
        super().__init__()
        self.interrupt_after = interrupt_after

    def __call__(self, what, done, total):
        self.append((what, done, total))
        if done == self.interrupt_after:
            raise KeyboardInterrupt

    @property
    def texts(self):
        return [what for what, _, _ in self]


@pytest.fixture
def ref(make_bundle):
    return open_ref(str(make_bundle()))


@pytest.fixture
def configure(tmp_path):
    def make(root, **fields):
        return EvalConfig(open_dataset(root), output=tmp_path / "kept", threads=1, **fields)

    return make


def test_an_interrupted_evaluation_goes_on_where_it_was(plain_dataset, configure, ref, tmp_path) -> None:
    chosen = configure(plain_dataset("a", "b", "c"))
    with pytest.raises(KeyboardInterrupt):
        evaluate(ref, chosen, Log(interrupt_after=1))
    assert len(list((tmp_path / "kept").glob("a-*.json"))) == 1
    assert not (tmp_path / "kept" / SUMMARY).exists()
    log = Log()
    found = evaluate(ref, chosen, log)
    assert log.texts == ["a: kept from an earlier run", "b: done", "c: done"]
    assert [s.name for s in found.result.sequences] == ["a", "b", "c"]
    assert found.result.frames == 12
    saved = msgspec.json.decode((tmp_path / "kept" / SUMMARY).read_bytes(), type=EvalRecord)
    assert saved.results == [found.result]
    assert not list((tmp_path / "kept").glob(".*"))


def test_restart_and_anything_that_changed_are_tracked_again(
    plain_dataset, configure, ref, tmp_path, write_rows
) -> None:
    root = plain_dataset("a", "b", frames=3)
    chosen = configure(root)
    evaluate(ref, chosen)
    (damaged,) = (tmp_path / "kept").glob("a-*.json")
    damaged.write_bytes(damaged.read_bytes()[:-20])
    write_rows(root / "b" / "groundtruth.txt", *["11,12,20,16"] * 3)
    log = Log()
    evaluate(ref, chosen, log)
    assert log.texts == ["a: done", "b: done"]
    assert len(list((tmp_path / "kept").glob("b-*.json"))) == 2
    log = Log()
    evaluate(ref, replace(chosen, frames=2), log)
    assert log.texts == ["a: done", "b: done"]
    log = Log()
    evaluate(ref, replace(chosen, restart=True), log)
    assert log.texts == ["a: done", "b: done"]


def test_broken_sequences_are_reported_and_the_others_finish(
    plain_dataset, configure, ref, write_rows, write_images
) -> None:
    root = plain_dataset("good", "short", "torn")
    write_rows(root / "short" / "groundtruth.txt", "1,1,9,9", "1,1,9,9")
    (root / "torn" / "img" / "00003.jpg").write_bytes(b"no image")
    found = evaluate(ref, configure(root, jobs=2)).result
    assert [s.name for s in found.sequences] == ["good"]
    errors = {f.name: f.error for f in found.failures}
    assert sorted(errors) == ["short", "torn"]
    assert "2 boxes" in errors["short"]
    assert errors["torn"].startswith("SourceInterruptedError: frame 2")
    assert found.ao == found.sequences[0].ao


def test_a_bundle_that_cannot_be_loaded_is_one_error_not_one_per_sequence(plain_dataset, make_bundle, tmp_path) -> None:
    dataset = open_dataset(plain_dataset("a", "b"))
    bundle = make_bundle("odd", score="input:nothing")
    with pytest.raises(BundleIntegrityError, match="input:nothing"):
        evaluate(open_ref(str(bundle)), EvalConfig(dataset, output=tmp_path / "kept"))


def test_a_missing_package_says_what_to_type(plain_dataset, configure, ref, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "joblib.externals.loky", None)  # as the import system marks what is not there
    with pytest.raises(BackendMissingError, match=r"edgetrack\[eval\]"):
        evaluate(ref, configure(plain_dataset("a")))


def test_speed_belongs_to_the_threads_and_jobs_that_it_was_measured_with(plain_dataset, configure, ref) -> None:
    one = configure(plain_dataset("a", "b"))
    part = evaluate(ref, replace(one, dataset=one.dataset.select(["a"]))).result
    assert part.other_speed is None
    log = Log()
    found = evaluate(ref, replace(one, threads=2), log).result
    assert log.texts == ["a: kept from an earlier run", "b: done"]
    assert found.other_speed == {"a": "1 thread, 1 job"}
    a, b = found.sequences
    assert a.fps is None
    assert found.fps == b.fps
    notes = eval_table(found).notes
    assert (
        "no track fps for a: kept from an earlier call, measured with 1 thread, 1 job; --restart measures again"
        in notes
    )
    again = evaluate(ref, replace(one, threads=2, restart=True)).result
    assert again.other_speed is None
    assert all(one.fps for one in again.sequences)


def test_a_run_under_a_measured_clock_is_kept_for_its_setting_alone(plain_dataset, configure, ref) -> None:
    """Its boxes follow from the speed; with recorded latencies they do not, and threads change nothing."""
    one = replace(configure(plain_dataset("a")), streaming=Streaming(30))
    evaluate(ref, one)
    for changed, taken in ((one, True), (replace(one, threads=2), False), (replace(one, threads=2), True)):
        log = Log()
        evaluate(ref, changed, log)
        assert ("a (streaming): kept from an earlier run" in log.texts) is taken
        assert "a: kept from an earlier run" in log.texts
    replayed = replace(one, streaming=Streaming(30, RecordedLatencies("phone", (50.0,))))
    evaluate(ref, replayed)
    log = Log()
    evaluate(ref, replace(replayed, threads=2), log)
    assert "a (streaming): kept from an earlier run" in log.texts


def test_an_attribute_is_the_mean_of_the_sequences_that_have_it(ref, configure, tmp_path, write_images, write_rows):
    """LaSOT's layout: the figures of FM are those of the two sequences that are marked so, averaged by hand."""
    root = tmp_path / "lasot"
    boxes = {"cat-1": "20,20,30,20", "cat-2": "10,10,12,30", "cat-3": "12,14,20,20"}
    for name, box in boxes.items():
        write_images(root / "cat" / name / "img", 4)
        write_rows(root / "cat" / name / "groundtruth.txt", *[box] * 4)
        # Columns 9 and 11 are SV and FM.
        flags = ["0"] * 14
        flags[10], flags[8] = str(int(name != "cat-3")), str(int(name == "cat-3"))
        write_rows(root / "att" / f"{name}.txt", ",".join(flags))
    found = evaluate(ref, configure(root)).result
    each = {one.name: one for one in found.sequences}
    marked = {one.attribute: one for one in found.attributes}
    assert list(marked) == ["SV", "FM"]
    assert (marked["SV"].sequences, marked["FM"].sequences) == (1, 2)
    assert marked["SV"].auc == each["cat-3"].auc
    for figure in ("ao", "auc", "precision", "p_norm20"):
        two = [getattr(each[name], figure) for name in ("cat-1", "cat-2")]
        assert getattr(marked["FM"], figure) == pytest.approx(sum(two) / 2)
    kept = msgspec.json.decode((tmp_path / "kept" / SUMMARY).read_bytes(), type=EvalRecord)
    assert kept.results[0].attributes == found.attributes
