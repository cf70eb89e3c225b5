from __future__ import annotations

import json

import pytest

from edgetrack.benchmark.messages import Bursted, Loaded, Paced, Peak, Rate, Ready, Slice
from edgetrack.benchmark.process import COMMAND, WorkerProcess, worker_environ
from edgetrack.benchmark.roofline import Roofline
from edgetrack.bundle import BundleWriter
from edgetrack.bundle.manifest import GraphInfo, Manifest, PaperFigures, TensorInfo, WeightsInfo

PROCEDURE = {
    "template_factor": 2.0,
    "template_size": 128,
    "search_factor": 4.0,
    "search_size": 256,
    "clip_margin": 10.0,
    "lost_below": 0.1,
}
SOURCE = "synthetic:drift?frames=6&size=96x64"


def tensor(name, *shape, dtype="float32"):
    return TensorInfo(name=name, dtype=dtype, shape=shape)


def fake_manifest(name, *, target="fake", tracker="smat", weights=None, flops=1000, paper=None):
    maps = (tensor("score", 1, 1, 16, 16), tensor("size", 1, 2, 16, 16), tensor("offset", 1, 2, 16, 16))
    features = tensor("template_features", 1, 4, 1, 4)
    return Manifest(
        name=name,
        tracker=tracker,
        title="SMAT",
        target=target,
        precision="fp32",
        weights=weights or WeightsInfo(origin="untrained"),
        graphs=(
            GraphInfo(
                name="template",
                role="init",
                file="template.json",
                inputs=(tensor("template", 128, 128, 3, dtype="uint8"),),
                outputs=(features,),
            ),
            GraphInfo(
                name="step",
                role="step",
                file="step.json",
                inputs=(tensor("search", 256, 256, 3, dtype="uint8"), features),
                outputs=maps,
                flops=flops,
            ),
        ),
        procedure=PROCEDURE,
        paper=paper or PaperFigures(source="a paper", cpu_fps=37.0, cpu="a processor"),
    )


@pytest.fixture
def make_bundle(tmp_path):
    """make_bundle(name, folder=..., target=..., ...) writes a bundle with constant outputs; returns its path."""

    def make(name, folder=None, **manifest):
        with BundleWriter((folder or tmp_path) / name) as writer:
            (writer.folder / "template.json").write_text(json.dumps({"template_features": 1.0}))
            (writer.folder / "step.json").write_text(json.dumps({"score": 0.5, "size": 0.25, "offset": 0.5}))
            return writer.commit(fake_manifest(name, **manifest))

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
