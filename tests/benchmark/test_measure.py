from __future__ import annotations

import json
import os
import signal
from dataclasses import replace

import msgspec
import pytest

from edgetrack.benchmark.machine import MachineRecord
from edgetrack.benchmark.measure import Options, Surroundings, exit_code, measure
from edgetrack.benchmark.messages import Run
from edgetrack.benchmark.record import Record
from edgetrack.bundle.manifest import WeightsInfo
from edgetrack.capabilities import find_target
from edgetrack.errors import BackendMissingError, DeviceUnavailableError, UsageError, WorkerError

SOURCE = "synthetic:drift?frames=6&size=96x64"
WEIGHTS = WeightsInfo(origin="trained-here", sha256="a" * 64)
MACHINE = MachineRecord(os="an OS", kernel="1", architecture="x86_64", python="CPython", usable_cores=2, packages={})


def never(*args):
    raise AssertionError(args)


@pytest.fixture
def workers():
    return {}


@pytest.fixture
def around(scripted, real_worker, workers, tmp_path):
    """around(...) with real processes for bundles and a scripted one for the roof; onnx stands for the reference."""

    def start(label, threads):
        workers[label] = scripted(label, []) if label.startswith("roofline") else real_worker()
        return workers[label]

    def make(**changes):
        values = {
            "export": never,
            "notify": lambda line: None,
            "progress": lambda *step: None,
            "start": start,
            "look": lambda: MACHINE,
            "best_target": never,
            "reference_target": lambda: replace(find_target("fake"), packages=()),
            "folder": tmp_path / "out",
        }
        return Surroundings(**{**values, **changes})

    return make


@pytest.fixture
def only_scripted(around, scripted):
    return around(start=lambda label, threads: scripted(label, []))


def quick(*bundles, **changes):
    values = {
        "bundles": tuple(map(str, bundles)),
        "source": SOURCE,
        "threads": 1,
        "warmup_s": 0.0,
        "duration_s": 0.0,
        "iterations": 8,
        "rounds": 2,
        "with_reference": False,
    }
    return Options(**{**values, **changes})


def test_a_whole_run_keeps_the_contract(around, make_bundle, tmp_path):
    output = tmp_path / "results" / "bench.json"
    paths = [make_bundle(name, weights=WEIGHTS) for name in ("first", "second")]
    found = measure(quick(*paths, with_reference=True, output=output), around())
    assert exit_code(found) == 0
    assert Record.from_json(output.read_bytes(), source="here") == found
    data = json.loads(output.read_bytes())
    assert data["schema"] == 1
    assert data["complete"] is True
    assert data["machine"]["usable_cores"] == 2
    assert data["failures"] == []
    assert [result["bundle"] for result in data["results"]] == ["first", "second"]
    for result in data["results"]:
        check_result(result)


def check_result(result):
    assert (result["tracker"], result["target"], result["precision"], result["hint"]) == ("smat", "fake", "fp32", None)
    assert (result["weights"], result["device"], result["threads"]) == ("trained-here", "cpu", 1)
    for speed in ("model", "track", "camera"):
        latency = result["latency_ms"][speed]
        assert {"p50", "p90", "p95", "p99", "mean", "min", "max", "cv", "count", "interval", "bounds"} == set(latency)
        assert latency["count"] == 8
        assert 0 < latency["min"] <= latency["p50"] <= latency["max"]
        assert result["fps"][speed] == pytest.approx(1000 / latency["p50"])
        assert [len(one) for one in result["samples_ms"][speed]] == [4, 4]
    assert set(result["vs_pytorch"]) == {"model", "track", "peak_rss"}
    assert result["vs_paper"]["fps"] == 37.0
    assert result["roofline"]["model"] > 0
    assert result["memory_mb"]["peak_rss"] > 10
    assert result["load_ms"] > 0
    assert result["first_ms"] > 0
    assert result["size_mb"] > 0
    assert {"few-samples"} <= {warning["code"] for warning in result["warnings"]}


def test_a_killed_worker_fails_alone(around, make_bundle, workers):
    def progress(what, step, total):
        if what == "round 2/2, track: second":
            os.kill(workers["second"].pid, signal.SIGKILL)

    paths = [make_bundle(name) for name in ("first", "second", "third")]
    found = measure(quick(*paths), around(progress=progress))
    assert [result.bundle for result in found.results] == ["first", "third"]
    (failure,) = found.failures
    assert (failure.contestant, failure.error, failure.rounds_done) == ("second", "WorkerError", 1)
    assert "SIGKILL" in failure.message
    assert found.complete
    assert exit_code(found) == 1


def test_the_output_grows_with_every_round(only_scripted, make_bundle, tmp_path):
    output, seen = tmp_path / "bench.json", []

    def progress(what, step, total):
        if output.exists():
            data = json.loads(output.read_bytes())
            seen.append((data["complete"], [len(r["samples_ms"]["track"]) for r in data["results"]]))

    measure(quick(make_bundle("a"), rounds=3, output=output), replace(only_scripted, progress=progress))
    assert list(dict.fromkeys(map(str, seen))) == ["(False, [])", "(False, [1])", "(False, [2])"]
    assert json.loads(output.read_bytes())["complete"]


def test_ctrl_c_keeps_what_there_is(only_scripted, make_bundle, tmp_path):
    def progress(what, step, total):
        if what == "round 2/3, camera: a":
            raise KeyboardInterrupt

    output = tmp_path / "bench.json"
    around = replace(only_scripted, progress=progress)
    found = measure(quick(make_bundle("a"), rounds=3, output=output), around)
    assert not found.complete
    assert [len(one) for one in found.results[0].samples_ms.track] == [3, 3]
    assert [len(one) for one in found.results[0].samples_ms.camera] == [3]
    assert Record.from_json(output.read_bytes(), source="here") == found


def test_ctrl_c_before_the_first_frame(only_scripted, make_bundle):
    def progress(what, step, total):
        raise KeyboardInterrupt

    found = measure(quick(make_bundle("a")), replace(only_scripted, progress=progress))
    assert (found.complete, found.results, found.failures) == (False, [], [])


def test_an_output_is_not_overwritten_unasked(only_scripted, make_bundle, tmp_path):
    output = tmp_path / "bench.json"
    output.write_text("precious")
    with pytest.raises(UsageError, match="--overwrite"):
        measure(quick(make_bundle("a"), output=output), only_scripted)
    assert output.read_text() == "precious"
    measure(quick(str(tmp_path / "a"), output=output, overwrite=True), only_scripted)
    assert json.loads(output.read_bytes())["complete"]


def test_an_output_that_cannot_be_written(only_scripted, make_bundle, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        measure(quick(make_bundle("a"), output=tmp_path / "file" / "bench.json"), only_scripted)


def test_a_missing_reference_is_no_failure(only_scripted, make_bundle):
    around = replace(only_scripted, reference_target=lambda: replace(find_target("torch"), packages=("no_such",)))
    found = measure(quick(make_bundle("a"), with_reference=True), around)
    assert exit_code(found) == 0
    assert found.results[0].vs_pytorch.track is None
    assert "no-reference" in {caution.code for caution in found.results[0].warnings}


def test_frames_are_bounded_by_the_memory_there_is(around, scripted, make_bundle):
    log = []
    machine = MachineRecord(os="", kernel="", architecture="", python="", packages={}, memory_available_mib=400)
    measure(
        quick(make_bundle("a"), make_bundle("b")),
        around(start=lambda label, threads: scripted(label, log), look=lambda: machine),
    )
    assert {request.keep_mb for _, request in log if hasattr(request, "keep_mb")} == {100.0}
    assert all(request.frames == 4 for _, request in log[4:] if isinstance(request, Run) and request.unrecorded)


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ([], 0),
        ([None, WorkerError("x")], 1),
        ([BackendMissingError("x"), BackendMissingError("y")], 3),
        ([BackendMissingError("x"), WorkerError("y")], 1),
        ([None, BackendMissingError("x")], 1),
    ],
)
def test_exit_codes(around, scripted, make_bundle, errors, code):
    failing = dict(enumerate(errors))

    def start(label, threads):
        error = failing.get(int(label[1:])) if label.startswith("b") else None
        error = error or (errors[0] if errors and label.startswith("roofline") else None)
        return scripted(label, [], fail=lambda request: error)

    paths = [make_bundle(f"b{index}") for index in range(max(1, len(errors)))]
    assert exit_code(measure(quick(*paths), around(start=start))) == code


@pytest.mark.parametrize(
    "wrong",
    [
        {"scenario": "paces"},
        {"fps": 30.0},
        {"streams": 2},
        {"scenario": "burst", "streams": 0},
        {"scenario": "paced", "fps": 0.0},
        {"scenario": "soak", "reference": "a"},
        {"threads": 0},
        {"rounds": 0},
        {"iterations": 0},
        {"warmup_s": -1.0},
        {"duration_s": float("nan")},
        {"timeout_s": 0.0},
        {"reference": "a", "with_reference": False},
        {"source": "no-such-folder"},
    ],
)
def test_options_that_cannot_be_followed(only_scripted, make_bundle, wrong):
    with pytest.raises(UsageError):
        measure(quick(make_bundle("a"), **wrong), only_scripted)


def test_another_device_is_not_available(only_scripted, make_bundle):
    with pytest.raises(DeviceUnavailableError, match="tpu"):
        measure(quick(make_bundle("a"), device="tpu"), only_scripted)


def test_a_soak_is_about_one_bundle(only_scripted, make_bundle):
    with pytest.raises(UsageError, match="one bundle"):
        measure(quick(make_bundle("a"), make_bundle("b"), scenario="soak"), only_scripted)


def test_no_roof_of_the_processor_for_another_device(around, scripted, make_bundle):
    started = []

    def start(label, threads):
        started.append(label)
        return scripted(label, [])

    there = msgspec.structs.replace(MACHINE, nvidia_present=True)
    found = measure(quick(make_bundle("a"), device="cuda:0"), around(start=start, look=lambda: there))
    assert started == ["a"]
    assert found.results[0].roofline.model is None


@pytest.mark.parametrize("scenario", ["paced", "burst", "soak"])
def test_scenarios_with_real_workers(around, make_bundle, scenario, tmp_path):
    fps = {"paced": 200.0, "soak": 100.0}.get(scenario)
    output = tmp_path / "bench.json"
    options = quick(make_bundle("a"), scenario=scenario, fps=fps, rounds=2, duration_s=0.2, output=output)
    found = measure(options, around())
    assert exit_code(found) == 0
    assert Record.from_json(output.read_bytes(), source="here") == found
    (result,) = found.results
    assert (found.settings.scenario, found.settings.fps) == (scenario, fps)
    assert result.latency_ms.track.p50 > 0
    kinds = {window.kind for window in found.telemetry.windows}
    if scenario == "paced":
        assert kinds == {"track", "camera", "paced"}
        assert result.paced.frames == 2 * 20
        assert sum(map(len, result.paced.response_samples_ms)) + result.paced.waiting == 40
    elif scenario == "burst":
        assert kinds == {"track", "camera", "burst"}
        assert (result.burst.streams, len(result.burst.samples_ms), len(result.burst.samples_ms[0])) == (2, 2, 2)
        assert result.burst.fps > 0
    else:
        assert kinds == {"soak"}
        assert result.latency_ms.camera is None
        assert [window.frames for window in result.soak.windows] == [len(one) for one in result.samples_ms.track]
        assert result.soak.paced.frames == 20
    rss = [s for s in found.telemetry.series if s.quantity == "rss_mb"]
    assert all(value is None or value > 10 for series in rss for value in series.values)


def test_a_real_workers_memory_is_on_the_timeline(around, make_bundle):
    found = measure(quick(make_bundle("a"), duration_s=1.0, rounds=1), around())
    (rss,) = [s for s in found.telemetry.series if s.quantity == "rss_mb"]
    assert (rss.source, rss.name) == ("process", "a")
    assert any(value is not None and value > 10 for value in rss.values)
    assert len(rss.values) == len(found.telemetry.t_s)
