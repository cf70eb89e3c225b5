from __future__ import annotations

import itertools
import json
from dataclasses import replace

import msgspec
import pytest

from edgetrack.benchmark import assemble, cautions, present, record
from edgetrack.benchmark.cautions import Code
from edgetrack.benchmark.entries import Plan, RooflineEntry, TrackerEntry
from edgetrack.benchmark.footage import Footage
from edgetrack.benchmark.lineup import opened
from edgetrack.benchmark.machine import MachineRecord
from edgetrack.benchmark.messages import Loaded, Peak, Slice
from edgetrack.benchmark.record import Record, Settings, SourceNote
from edgetrack.benchmark.roofline import Roofline
from edgetrack.box import Box
from edgetrack.errors import EdgetrackError, WorkerError

PLAN = Plan("cpu", 2, 1.0, 6.0, 150, 6, 100.0, 100, 60.0)
MACHINE = MachineRecord(
    os="an OS", kernel="1", architecture="x86_64", python="CPython", cpu_model="a CPU", usable_cores=2, packages={}
)


def piece(kind, graphs):
    n = len(graphs)
    return Slice(kind, [0.25] * n, graphs, [0.75] * n, [3.0] * n, [value + 4 for value in graphs], 1.5 * n, 1.0 * n)


@pytest.fixture
def entry(make_bundle):
    footage = Footage("given", "read", Box(1, 2, 3, 4), (96, 64), "decoded")

    def make(name, ms, rounds=6, count=40, reference="torch", camera=True, **manifest):
        made = TrackerEntry(replace(opened(make_bundle(name, **manifest)), reference=reference), footage)
        made.loaded, made.peak = Loaded(70.0, 14.0, 2, {"fake": "1"}), Peak(50.0 * ms)
        made.slices["track"] = [piece("track", [ms] * count) for _ in range(rounds)]
        made.slices["camera"] = [piece("camera", [ms] * count) for _ in range(rounds if camera else 0)]
        return made

    return make


def roof(gflops, reason=None):
    made = RooflineEntry("fp32", 2)
    made.roofline = Roofline("fp32", 2, gflops, "numpy", "a chain", 3, reason)
    return made


def results(*entries, machine=MACHINE):
    return {result.label: result for result in assemble.results(entries, PLAN, machine)}


def codes(result):
    return [caution.code for caution in result.warnings]


def recorded(*entries, machine=MACHINE, complete=True):
    settings = Settings(
        scenario="stream", device="cpu", threads=2, warmup_s=1.0, duration_s=6.0, iterations=150, rounds=6
    )
    return Record(
        complete=complete,
        machine=machine,
        settings=settings,
        source=SourceNote(spec="given", size=(96, 64), box=Box(1, 2, 3, 4), camera="decoded"),
        results=assemble.results(entries, PLAN, machine),
        failures=assemble.failures(entries),
    )


def test_the_three_speeds_are_not_mixed(entry):
    result = results(entry("ours", 9.0))["ours"]
    assert result.latency_ms.model.p50 == 9.0
    assert result.latency_ms.track.p50 == 10.0
    assert result.latency_ms.camera.p50 == 13.0
    assert (result.fps.model, result.fps.track, result.fps.camera) == pytest.approx((1000 / 9, 100, 1000 / 13))
    waterfall = result.waterfall_ms
    assert (waterfall.crop, waterfall.graphs, waterfall.decode, waterfall.outside) == (0.25, 9.0, 0.75, 1.0)
    assert waterfall.read == 3.0


def test_every_sample_is_kept_by_round(entry):
    samples = results(entry("ours", 9.0, rounds=3, count=7))["ours"].samples_ms
    for rounds in (samples.model, samples.track, samples.camera, samples.crop, samples.decode, samples.read):
        assert [len(one) for one in rounds] == [7, 7, 7]


def test_against_pytorch(entry):
    found = results(entry("ours", 9.0), entry("torch", 19.0))
    ours, torch = found["ours"], found["torch"]
    assert ours.vs_pytorch.model == pytest.approx(19 / 9)
    assert ours.vs_pytorch.track == pytest.approx(2.0)
    assert ours.vs_pytorch.peak_rss == pytest.approx(9 / 19)
    assert ours.vs_pytorch_interval.track == pytest.approx((2.0, 2.0))
    assert torch.vs_pytorch.track is None
    assert "no-reference" not in codes(ours) + codes(torch)


def test_below_six_rounds_there_is_a_ratio_without_an_interval(entry):
    ours = results(entry("ours", 9.0, rounds=5), entry("torch", 19.0, rounds=5))["ours"]
    assert ours.vs_pytorch.track == pytest.approx(2.0)
    assert ours.vs_pytorch_interval.track is None


def test_a_round_that_one_of_both_lacks_does_not_count(entry):
    ours = results(entry("ours", 9.0, rounds=3), entry("torch", 19.0, rounds=2))["ours"]
    assert ours.vs_pytorch.track == pytest.approx(2.0)


def test_a_reference_that_failed_leaves_nulls_and_a_warning(entry):
    torch = entry("torch", 19.0)
    torch.failure = WorkerError("gone")
    found = results(entry("ours", 9.0), torch)
    assert list(found) == ["ours"]
    assert found["ours"].vs_pytorch.track is None
    assert "no-reference" in codes(found["ours"])


def test_a_stage_too_short_for_the_clock_has_no_ratio(entry):
    ours = results(entry("ours", 0.0), entry("torch", 19.0))["ours"]
    assert ours.fps.model is None
    assert ours.vs_pytorch.model is None
    assert ours.vs_pytorch.track == pytest.approx(20.0)


def test_against_the_paper(entry):
    paper = results(entry("ours", 9.0))["ours"].vs_paper
    assert (paper.fps, paper.cpu, paper.source) == (37.0, "a processor", "a paper")
    assert paper.ratio == pytest.approx(100 / 37)


def test_against_the_roof(entry):
    roofline = results(entry("ours", 9.0, flops=4_500_000_000), roof(1000.0))["ours"].roofline
    assert roofline.limit_ms == pytest.approx(4.5)
    assert roofline.model == pytest.approx(2.0)
    assert (roofline.gflops, roofline.engine, roofline.precision) == (1000.0, "numpy", "fp32")


@pytest.mark.parametrize(
    ("flops", "other", "detail"),
    [(0, roof(1000.0), "operations"), (10, roof(None, "too old"), "too old"), (10, None, "not measured")],
)
def test_without_a_roof_there_is_a_warning(entry, flops, other, detail):
    result = results(entry("ours", 9.0, flops=flops), *([other] if other else []))["ours"]
    assert result.roofline.model is None
    assert detail in next(c.detail for c in result.warnings if c.code == "no-roofline")


def test_processor_time_over_wall_time(entry):
    assert results(entry("ours", 9.0))["ours"].cores_busy == pytest.approx(1.5)


def test_before_the_first_camera_round_the_camera_is_null(entry):
    result = results(entry("ours", 9.0, camera=False))["ours"]
    assert result.latency_ms.camera is None
    assert result.fps.camera is None
    assert result.waterfall_ms.read is None


def test_few_samples_leave_percentiles_out_and_say_so(entry):
    result = results(entry("ours", 9.0, rounds=1, count=12))["ours"]
    assert result.latency_ms.track.p90 == 10.0
    assert result.latency_ms.track.p99 is None
    assert "few-samples" in codes(result)
    assert "few-samples" not in codes(results(entry("more", 9.0))["more"])


def test_a_noisy_contestant_and_one_that_never_rests(entry):
    noisy = entry("noisy", 9.0)
    noisy.slices["track"] = [piece("track", [9.0, 19.0] * 50)]
    noisy.never_rested = True
    assert {"noisy", "never-rested"} <= set(codes(results(noisy)["noisy"]))


@pytest.mark.parametrize(
    ("changes", "threads", "code"),
    [
        ({"load_average": (1.5, 0.0, 0.0)}, 2, "busy-machine"),
        ({"governor": "performance, powersave"}, 2, "governor"),
        ({}, 3, "too-many-threads"),
        ({"load_average": (0.9, 9.0, 9.0), "governor": "performance"}, 2, None),
        ({"usable_cores": None, "load_average": None}, 99, None),
    ],
)
def test_what_the_machine_warns_of(changes, threads, code):
    found = [c.code for c in cautions.of_machine(msgspec.structs.replace(MACHINE, **changes), threads)]
    assert found == ([code] if code else [])


def test_every_warning_has_advice_and_a_name_of_its_own():
    made = [code.caution("a case") for code in Code]
    assert len({caution.code for caution in made}) == len(made)
    assert all(len(caution.advice) > 10 for caution in made)


def test_failures_name_who_what_and_how_far(entry):
    failed = entry("ours", 9.0)
    failed.failure, failed.rounds_done = WorkerError("killed"), 2
    (failure,) = assemble.failures([failed, entry("torch", 9.0)])
    assert (failure.contestant, failure.error, failure.message, failure.rounds_done) == (
        "ours",
        "WorkerError",
        "killed",
        2,
    )


def test_a_record_survives_json(entry):
    found = recorded(entry("ours", 9.0), entry("torch", 19.0), roof(1000.0))
    assert Record.from_json(found.to_json(), source="here") == found


def test_what_is_no_record(entry):
    for data in (b"", b"{}", b"\xff", b"[1]"):
        with pytest.raises(EdgetrackError, match="here is not"):
            Record.from_json(data, source="here")
    newer = json.loads(recorded().to_json()) | {"schema": 2}
    with pytest.raises(EdgetrackError, match="schema 2"):
        Record.from_json(json.dumps(newer), source="here")


def test_saving_replaces_the_whole_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "bench.json"
    record.save(recorded(complete=False), path)
    record.save(recorded(), path)
    assert Record.from_json(path.read_bytes(), source="here").complete
    assert [one.name for one in path.parent.iterdir()] == ["bench.json"]


def test_a_save_that_fails_keeps_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "bench.json"
    record.save(recorded(), path)
    before = path.read_bytes()

    def full(handle):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="disk full"):
        record.save(recorded(complete=False), path)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["bench.json"]


def test_the_markdown_table_has_all_columns_in_every_row(entry):
    found = recorded(entry("ours", 9.0, camera=False), entry("torch", 19.0), roof(None))
    lines = [line for line in present.markdown(found, 95).splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1
    assert "track p95" in lines[0]
    assert "2.00 (2.00-2.00)" in lines[2]
    assert lines[3].split("|")[7].strip() == "-"


def test_notes_say_each_warning_once_and_what_failed(entry):
    failed = entry("broken", 9.0)
    failed.failure = WorkerError("killed by SIGKILL")
    machine = msgspec.structs.replace(MACHINE, governor="powersave")
    lines = list(present.notes(recorded(entry("ours", 9.0), entry("torch", 9.0), failed, machine=machine)))
    governor = [line for line in lines if "powersave" in line]
    assert len(governor) == 1
    assert "ours" not in governor[0]
    assert any(line.startswith("FAILED: broken: WorkerError") for line in lines)
    assert any("37 fps" in line and "a processor" in line for line in lines)
    assert not any("NOT COMPLETE" in line for line in lines)
    assert any("NOT COMPLETE" in line for line in present.notes(recorded(complete=False)))


def test_the_terminals_table_holds_the_same_cells(entry):
    found = recorded(entry("ours", 9.0), entry("torch", 19.0))
    drawn = present.table(found, 99)
    cells = [list(column.cells) for column in drawn.columns]
    rows = [present.row(result, 99) for result in found.results]
    assert list(itertools.chain(*zip(*cells, strict=True))) == list(itertools.chain(*rows))
