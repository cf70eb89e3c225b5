from __future__ import annotations

from dataclasses import replace

import pytest

from edgetrack.benchmark.candidates import opened
from edgetrack.benchmark.config import BenchConfig, SourceNote
from edgetrack.benchmark.frames import BenchFrames
from edgetrack.benchmark.measurement import CandidateMeasurement, RooflineMeasurement, failures, results
from edgetrack.benchmark.protocol import COMMAND, Loaded, PeakMemory, Rate, Ready, Roofline, RoundSamples, WorkerProcess
from edgetrack.benchmark.record import BenchRecord
from edgetrack.box import Box
from edgetrack.bundle.manifest import PaperFigures
from edgetrack.processes import thread_environ
from edgetrack.system.machine import MachineRecord
from tests.builders import round_samples, scripted_manifest, write_scripted

SOURCE = "synthetic:drift?frames=6&size=96x64"


def fake_manifest(name, *, flops=1000, paper=None, **fields):
    paper = paper or PaperFigures(source="a paper", cpu_fps=37.0, cpu="a processor")
    return scripted_manifest(name, flops=flops, paper=paper, **fields)


@pytest.fixture
def make_bundle(tmp_path):
    """make_bundle(name, folder=..., target=..., ...) writes a bundle with constant outputs; returns its path."""

    def make(name, folder=None, **manifest):
        return write_scripted((folder or tmp_path) / name, fake_manifest(name, **manifest))

    return make


class ScriptedWorker:
    """Answers in this process; `log` collects (label, request)."""

    def __init__(self, label, log, ms=2.0, fail=None, restless=False):
        self.label, self.log, self.ms, self.fail, self.restless = label, log, ms, fail, restless
        self.closed = False

    def ask(self, request, expect, timeout_s):
        self.log.append((self.label, request))
        if self.fail is not None and self.fail(request):
            raise self.fail(request)
        if expect is Loaded:
            return Loaded(10.0, 5.0, request.threads, {"fake": "1"})
        if expect is PeakMemory:
            return PeakMemory(100.0 * self.ms)
        if expect is Ready:
            return Ready()
        if expect is Rate:
            return Rate(Roofline("fp32", 1, 0.001, "scripted", "a chain", 3))
        n, ms = request.frames, self.ms
        assert expect is RoundSamples
        spent = {"cpu_s": ms * n / 1000, "wall_s": ms * n / 500}
        if request.kind == "burst":
            return RoundSamples(kind="burst", threads_each=1, streams=[[2 * ms] * n] * 2, **spent)
        stages = {"crop": [0.25] * n, "graphs": [ms] * n, "decode": [0.75] * n, **spent}
        if request.kind in ("paced", "soak"):
            return RoundSamples(kind=request.kind, queued=[0.5] * n, whole=[ms + 1.5] * n, **stages)
        return RoundSamples(kind=request.kind, read=[1.0] * n, whole=[ms + 2] * n, **stages)

    def wait_idle(self):
        return not self.restless

    def close(self):
        self.closed = True


@pytest.fixture
def scripted():
    return ScriptedWorker


@pytest.fixture
def real_worker():
    """real_worker(command=...) starts a worker process that is not waited for between slices."""
    started = []

    def start(command=COMMAND, **options):
        worker = WorkerProcess(command, thread_environ(1), sleep=lambda seconds: None, **options)
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.close()


FRAMES = BenchFrames(SourceNote(spec="given", size=(96, 64), box=Box(1, 2, 3, 4), camera="decoded"), "read", 10, 10.0)
CONFIG = BenchConfig(threads=2, rounds=6, streams=1)
MACHINE = MachineRecord(
    os="an OS", kernel="1", architecture="x86_64", python="CPython", cpu_model="a CPU", usable_cores=2, packages={}
)


def samples(kind, graphs):
    n = len(graphs)
    return round_samples(
        kind, graphs, read=[3.0] * n, whole=[value + 4 for value in graphs], cpu_s=1.5 * n, wall_s=1.0 * n
    )


@pytest.fixture
def entry(make_bundle):
    """entry(name, ms, ...) is the measurement of a bundle whose graphs took `ms` a frame, compared with `torch`."""

    def make(name, ms, rounds=6, count=40, reference="torch", camera=True, **manifest):
        candidate = replace(opened(make_bundle(name, **manifest)), reference=reference)
        made = CandidateMeasurement(CONFIG, 60.0, candidate, FRAMES)
        made.loaded, made.peak = Loaded(70.0, 14.0, 2, {"fake": "1"}), PeakMemory(50.0 * ms)
        made.rounds["track"] = [samples("track", [ms] * count) for _ in range(rounds)]
        made.rounds["camera"] = [samples("camera", [ms] * count) for _ in range(rounds if camera else 0)]
        return made

    return make


def roofline(gflops, reason=None):
    made = RooflineMeasurement(CONFIG, 60.0, "fp32")
    made.roofline = Roofline("fp32", 2, gflops, "numpy", "a chain", 3, reason)
    return made


def recorded(*measurements, machine=MACHINE, complete=True):
    return BenchRecord(
        complete=complete,
        machine=machine,
        settings=CONFIG,
        source=FRAMES.note,
        results=results(measurements, machine),
        failures=failures(measurements),
    )
