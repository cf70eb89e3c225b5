from __future__ import annotations

import pytest

from edgetrack.benchmark.messages import Bursted, Loaded, Paced, Peak, Rate, Ready, Slice
from edgetrack.benchmark.process import COMMAND, WorkerProcess, worker_environ
from edgetrack.benchmark.roofline import Roofline
from edgetrack.bundle.manifest import PaperFigures
from tests.builders import scripted_manifest, write_scripted

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
        if expect is Peak:
            return Peak(100.0 * self.ms)
        if expect is Ready:
            return Ready()
        if expect is Rate:
            return Rate(Roofline("fp32", 1, 0.001, "scripted", "a chain", 3))
        n, ms = request.frames, self.ms
        if expect is Paced:
            return Paced([0.25] * n, [ms] * n, [0.75] * n, [0.5] * n, [ms + 1.5] * n, 0, ms * n / 1000, ms * n / 500)
        if expect is Bursted:
            return Bursted(1, [[2 * ms] * n] * request.streams, 2 * ms * n / 1000)
        return Slice(
            request.kind, [0.25] * n, [ms] * n, [0.75] * n, [1.0] * n, [ms + 2] * n, ms * n / 1000, ms * n / 500
        )

    def rest(self):
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

    def start(command=COMMAND):
        worker = WorkerProcess(command, worker_environ(1), sleep=lambda seconds: None)
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.close()
