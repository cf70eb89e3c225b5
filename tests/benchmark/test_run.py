from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace

import msgspec
import pytest

from edgetrack.benchmark.candidates import FAST_HINT, opened
from edgetrack.benchmark.config import BenchConfig, SourceNote
from edgetrack.benchmark.frames import BenchFrames
from edgetrack.benchmark.measurement import CandidateMeasurement, RooflineMeasurement
from edgetrack.benchmark.protocol import Load, Measure, Memory, Probe
from edgetrack.benchmark.record import BenchRecord, VersusPaper
from edgetrack.benchmark.run import Environment, Runner, exit_code, measure, order, this_machine
from edgetrack.box import Box
from edgetrack.bundle.manifest import PaperFigures, WeightsInfo
from edgetrack.capabilities import find_target, recorded_packages
from edgetrack.errors import (
    BackendMissingError,
    DeviceUnavailableError,
    EdgetrackError,
    SourceError,
    UsageError,
    WorkerError,
)
from edgetrack.system.machine import PACKAGES, MachineRecord
from tests.builders import bench_request
from tests.system.conftest import ScriptedNvml, absent, watching

SOURCE = "synthetic:drift?frames=6&size=96x64"
WEIGHTS = WeightsInfo(origin="trained-here", sha256="a" * 64)
MACHINE = MachineRecord(os="an OS", kernel="1", architecture="x86_64", python="CPython", usable_cores=2, packages={})
FRAMES = BenchFrames(SourceNote(spec="given", size=(96, 64), box=Box(1, 2, 3, 4), camera="decoded"), "read", 10, 10.0)


def never(*args):
    raise AssertionError(args)


@pytest.fixture
def workers():
    return {}


@pytest.fixture
def environment(scripted, real_worker, workers, tmp_path):
    """environment(...): real processes for bundles, a scripted one for the roofline, onnx as the reference."""

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
        return Environment(**{**values, **changes})

    return make


@pytest.fixture
def only_scripted(environment, scripted):
    return environment(start=lambda label, threads: scripted(label, []))


def quick(*bundles, **changes):
    values = {
        "source": SOURCE,
        "threads": 1,
        "warmup_s": 0.0,
        "duration_s": 0.0,
        "iterations": 8,
        "rounds": 2,
        "with_reference": False,
    }
    return bench_request(*bundles, **{**values, **changes})


def test_a_whole_run_keeps_the_contract(environment, make_bundle, tmp_path):
    output = tmp_path / "results" / "bench.json"
    paths = [make_bundle(name, weights=WEIGHTS) for name in ("first", "second")]
    found = measure(quick(*paths, with_reference=True, output=output), environment())
    assert exit_code(found) == 0
    assert BenchRecord.from_json(output.read_bytes(), source="here") == found
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
    for speed in ("model", "track", "camera", "camera_ahead"):
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


def test_a_killed_worker_fails_alone(environment, make_bundle, workers):
    def progress(what, step, total):
        if what == "round 2/2, track: second":
            os.kill(workers["second"].pid, signal.SIGKILL)

    paths = [make_bundle(name) for name in ("first", "second", "third")]
    found = measure(quick(*paths), environment(progress=progress))
    assert [result.bundle for result in found.results] == ["first", "third"]
    (failure,) = found.failures
    assert (failure.candidate, failure.error, failure.rounds_done) == ("second", "WorkerError", 1)
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
    environment = replace(only_scripted, progress=progress)
    found = measure(quick(make_bundle("a"), rounds=3, output=output), environment)
    assert not found.complete
    assert [len(one) for one in found.results[0].samples_ms.track] == [3, 3]
    assert [len(one) for one in found.results[0].samples_ms.camera] == [3]
    assert BenchRecord.from_json(output.read_bytes(), source="here") == found


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
    with pytest.raises(EdgetrackError, match="cannot be written"):
        measure(quick(make_bundle("a"), output=tmp_path / "file" / "bench.json"), only_scripted)


def test_a_missing_reference_is_no_failure(only_scripted, make_bundle):
    environment = replace(only_scripted, reference_target=lambda: replace(find_target("torch"), packages=("no_such",)))
    found = measure(quick(make_bundle("a"), with_reference=True), environment)
    assert exit_code(found) == 0
    assert found.results[0].vs_pytorch.track is None
    assert "no-reference" in {warning.code for warning in found.results[0].warnings}


def test_frames_are_bounded_by_the_memory_there_is(environment, scripted, make_bundle):
    log = []
    machine = MachineRecord(os="", kernel="", architecture="", python="", packages={}, memory_available_mib=400)
    measure(
        quick(make_bundle("a"), make_bundle("b")),
        environment(start=lambda label, threads: scripted(label, log), look=lambda: machine),
    )
    assert {request.keep_mb for _, request in log if hasattr(request, "keep_mb")} == {100.0}
    assert all(request.frames == 4 for _, request in log[4:] if isinstance(request, Measure) and request.discarded)


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
def test_exit_codes(environment, scripted, make_bundle, errors, code):
    failing = dict(enumerate(errors))

    def start(label, threads):
        error = failing.get(int(label[1:])) if label.startswith("b") else None
        error = error or (errors[0] if errors and label.startswith("roofline") else None)
        return scripted(label, [], fail=lambda request: error)

    paths = [make_bundle(f"b{index}") for index in range(max(1, len(errors)))]
    assert exit_code(measure(quick(*paths), environment(start=start))) == code


@pytest.mark.parametrize(
    "wrong",
    [
        {"scenario": "paces"},
        {"fps": 30.0},
        {"streams": 2},
        {"scenario": "burst", "streams": -1},
        {"scenario": "paced", "fps": 0.0},
        {"scenario": "soak", "reference": "a"},
        {"threads": -1},
        {"rounds": -1},
        {"rounds": 1001},
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


def test_cheap_checks_come_before_a_reference_is_exported(environment, make_bundle):
    def export(*_):
        raise AssertionError("exported")

    here = environment(export=export)
    with pytest.raises(DeviceUnavailableError, match=r"fake bundles run on cpu, cuda:0, not on 'gpu'"):
        measure(bench_request(make_bundle("a"), device="gpu"), here)
    with pytest.raises(SourceError, match=r"nosuch\.mp4 does not exist"):
        measure(bench_request(make_bundle("b"), source="nosuch.mp4"), here)


def test_another_device_is_not_available(only_scripted, make_bundle):
    with pytest.raises(DeviceUnavailableError, match="tpu"):
        measure(quick(make_bundle("a"), device="tpu"), only_scripted)


def test_a_soak_is_about_one_bundle(only_scripted, make_bundle):
    with pytest.raises(UsageError, match="one bundle"):
        measure(quick(make_bundle("a"), make_bundle("b"), scenario="soak"), only_scripted)


def test_no_roofline_of_the_processor_for_another_device(environment, scripted, make_bundle):
    started = []

    def start(label, threads):
        started.append(label)
        return scripted(label, [])

    there = msgspec.structs.replace(MACHINE, nvidia_present=True)
    found = measure(quick(make_bundle("a"), device="cuda:0"), environment(start=start, look=lambda: there))
    assert started == ["a"]
    assert found.results[0].roofline.model is None


def test_a_jetson_has_a_gpu_whatever_its_driver_is_called(environment, scripted, make_bundle):
    board = msgspec.structs.replace(MACHINE, is_jetson=True)
    there = environment(start=lambda label, threads: scripted(label, []), look=lambda: board, watch=absent)
    assert measure(quick(make_bundle("a"), device="cuda:0"), there).results[0].device == "cuda:0"


@pytest.mark.parametrize("scenario", ["paced", "burst", "soak"])
def test_scenarios_with_real_workers(environment, make_bundle, scenario, tmp_path):
    fps = {"paced": 200.0, "soak": 100.0}.get(scenario)
    output = tmp_path / "bench.json"
    request = quick(make_bundle("a"), scenario=scenario, fps=fps, rounds=2, duration_s=0.2, output=output)
    found = measure(request, environment())
    assert exit_code(found) == 0
    assert BenchRecord.from_json(output.read_bytes(), source="here") == found
    (result,) = found.results
    assert (found.settings.scenario, found.settings.fps) == (scenario, fps)
    assert result.latency_ms.track.p50 > 0
    kinds = {window.kind for window in found.telemetry.windows}
    if scenario == "paced":
        assert kinds == {"track", "camera", "camera_ahead", "paced"}
        assert result.paced.frames == 2 * 20
        assert sum(map(len, result.paced.response_samples_ms)) + result.paced.waiting == 40
    elif scenario == "burst":
        assert kinds == {"track", "camera", "camera_ahead", "burst"}
        assert (result.burst.streams, len(result.burst.samples_ms), len(result.burst.samples_ms[0])) == (2, 2, 2)
        assert result.burst.fps > 0
    else:
        assert kinds == {"soak"}
        assert result.latency_ms.camera is None
        assert [window.frames for window in result.soak.windows] == [len(one) for one in result.samples_ms.track]
        assert result.soak.paced.frames == 20
    rss = [s for s in found.telemetry.series if s.quantity == "rss_mb"]
    assert all(value is None or value > 10 for series in rss for value in series.values)


def test_a_real_workers_memory_is_on_the_timeline(environment, make_bundle):
    found = measure(quick(make_bundle("a"), duration_s=1.0, rounds=1), environment())
    (rss,) = [s for s in found.telemetry.series if s.quantity == "rss_mb"]
    assert (rss.source, rss.name) == ("process", "a")
    assert any(value is not None and value > 10 for value in rss.values)
    assert len(rss.values) == len(found.telemetry.t_s)


CONFIG = BenchConfig(threads=2, duration_s=3.0, iterations=10, rounds=3, streams=1)


@pytest.fixture
def measurements(make_bundle):
    return [
        *(CandidateMeasurement(CONFIG, 60.0, opened(make_bundle(name)), FRAMES) for name in "abc"),
        RooflineMeasurement(CONFIG, 60.0, "fp32"),
    ]


@pytest.fixture
def race(scripted, measurements):
    """race(start=...) runs them; returns what was asked, what was reported and the workers."""

    def run(start=None, measurements=measurements, after_round=None):
        log, steps, workers, rounds = [], [], {}, []

        def begin(label, threads):
            workers[label] = (start and start(label, log)) or scripted(label, log)
            return workers[label]

        runner = Runner(measurements, CONFIG.rounds, begin, lambda *step: steps.append(step))
        runner.run(after_round or rounds.append)
        return log, steps, workers, rounds

    return run


def turns(log, kind):
    return "".join(label[0] for label, request in log if isinstance(request, Measure) and request.kind == kind)


def test_order_turns_round():
    assert order("abc", 0) == ["a", "b", "c"]
    assert order("abc", 1) == ["c", "b", "a"]
    assert order("abc", 2) == ["a", "b", "c"]


def test_turns_are_interleaved_and_kinds_kept_apart(race):
    log, _, _, rounds = race()
    assert turns(log, "track") == "abc" + "abc" + "cba" + "abc"  # the first is the warm-up
    assert turns(log, "camera") == "abc" + "cba" + "abc"
    assert rounds == [0, 1, 2, 3]
    measured = [request.kind for _, request in log if isinstance(request, Measure)][3:]
    assert measured == (["track"] * 3 + ["camera"] * 3 + ["camera_ahead"] * 3) * 3


def test_the_roofline_takes_turns_with_track(race):
    log, _, _, _ = race()
    assert sum(isinstance(request, Probe) for _, request in log) == 1 + 3


def test_rounds_add_up_to_what_was_asked_and_discard_their_first_frames(race):
    log, _, _, _ = race()
    rounds = [request for label, request in log if label == "a" and isinstance(request, Measure)]
    assert (rounds[0].seconds, rounds[0].discarded) == (1.0, 0)
    assert all((s.seconds, s.frames) == (1.0, 4) and s.discarded > 0 for s in rounds[1:])


def test_memory_is_asked_before_anything_is_timed(race):
    log, _, _, _ = race()
    assert [type(request) for label, request in log if label == "a"][:3] == [Load, Memory, Measure]


def test_progress_counts_to_the_end(race):
    _, steps, _, _ = race()
    assert [step for _, step, _ in steps] == list(range(1, len(steps) + 1))
    assert {total for _, _, total in steps} == {len(steps)}


def test_what_is_measured_is_kept(race, measurements):
    race()
    first = measurements[0]
    assert first.loaded.load_ms == 10.0
    assert first.peak.peak_rss_mb == 200.0
    assert [len(one.graphs) for one in first.rounds["track"]] == [4, 4, 4]
    assert first.rounds_done == 3
    assert measurements[3].roofline.gflops == 0.001


@pytest.mark.parametrize("when", [Load, Memory, Measure, Probe])
def test_who_fails_is_left_out_and_the_others_go_on(race, scripted, measurements, when):
    label = "roofline fp32" if when is Probe else "b"

    def start(name, log):
        def fail(request):
            return WorkerError("gone") if isinstance(request, when) else None

        return scripted(name, log, fail=fail if name == label else None)

    log, _, workers, rounds = race(start)
    failed = next(entry for entry in measurements if entry.label == label)
    assert isinstance(failed.failure, WorkerError)
    assert rounds == [0, 1, 2, 3]
    assert [entry.rounds_done for entry in measurements if entry is not failed] == [3, 3, 3]
    assert sum(name == label and isinstance(request, when) for name, request in log) == 1
    assert all(worker.closed for worker in workers.values())


def test_where_all_fail_there_are_no_rounds(race, scripted, measurements):
    def start(name, log):
        return scripted(name, log, fail=lambda request: BackendMissingError("install it"))

    _, _, _, rounds = race(start)
    assert rounds == [0]
    assert all(isinstance(entry.failure, BackendMissingError) for entry in measurements)


def test_a_hanging_process_is_given_up(race, real_worker, measurements):
    measurements[1].timeout_s = 0.05

    def start(name, log):
        return real_worker([sys.executable, "-S", "-c", "import sys; sys.stdin.read()"]) if name == "b" else None

    race(start)
    assert "no answer" in str(measurements[1].failure)
    assert [entry.rounds_done for entry in measurements] == [3, 0, 3, 3]


def test_a_process_that_is_never_idle_is_remembered(race, scripted, measurements):
    race(lambda name, log: scripted(name, log, restless=name == "c"))
    assert [entry.never_idle for entry in measurements] == [False, False, True, False]


def test_an_interruption_closes_all_workers(race, scripted):
    workers = []

    def start(name, log):
        workers.append(scripted(name, log))
        return workers[-1]

    def interrupt(done):
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        race(start, after_round=interrupt)
    assert len(workers) == 4
    assert all(worker.closed for worker in workers)


def test_names_must_differ(race, measurements):
    with pytest.raises(UsageError, match="one name"):
        race(measurements=[measurements[0], measurements[0]])


def test_a_run_has_the_papers_gpu_and_no_roof(make_bundle, scripted, tmp_path):
    machine = msgspec.structs.replace(MACHINE, nvidia_present=True)
    asked = []
    environment = Environment(
        export=None,
        notify=lambda line: None,
        progress=lambda *step: None,
        start=lambda label, threads: scripted(label, asked),
        look=lambda: machine,
        reference_target=lambda: replace(find_target("fake"), packages=(), hints=(FAST_HINT,)),
        watch=watching(ScriptedNvml(others=(9,))),
        folder=tmp_path / "out",
    )
    paper = PaperFigures(cpu_fps=37.0, gpu_fps=158.0, gpu="a card")
    request = bench_request(
        make_bundle("ours", paper=paper),
        device="cuda:0",
        source="synthetic:drift?frames=6&size=96x64",
        iterations=8,
        rounds=2,
        duration_s=0.0,
    )
    found = measure(request, environment)
    assert {label for label, _ in asked} == {"ours", f"ours@{FAST_HINT}"}
    for result in found.results:
        assert result.device == "cuda:0"
        assert result.vs_paper == VersusPaper(fps=158.0, ratio=result.fps.track / 158.0, gpu="a card", source=None)
        assert result.roofline.model is None
        assert "gpu-shared" in {warning.code for warning in result.warnings}
    assert found.results[1].vs_pytorch.track == pytest.approx(1.0)


def test_a_gpu_on_a_machine_without_one_ends_before_the_export(scripted):
    environment = Environment(export=None, notify=None, progress=None, look=lambda: MACHINE, watch=absent)
    with pytest.raises(DeviceUnavailableError, match="no NVIDIA driver was found here"):
        measure(bench_request(device="cuda:0"), environment)


def test_the_record_of_a_machine_states_the_packages_of_the_targets():
    stated = set(this_machine().packages)
    assert {"numpy", "torch", "openvino", "onnxruntime", "nncf"} <= stated
    assert stated <= {*PACKAGES, *recorded_packages()}
