from __future__ import annotations

import io
import os
import sys

import msgspec
import pytest

from edgetrack.benchmark import protocol
from edgetrack.benchmark.protocol import (
    Failure,
    Load,
    Loaded,
    LoadRoofline,
    Measure,
    Memory,
    PeakMemory,
    Probe,
    RoundSamples,
)
from edgetrack.benchmark.worker import WorkerServer, serve
from edgetrack.box import Box
from edgetrack.errors import BackendMissingError, WorkerError
from edgetrack.io import encode_line

LOAD = Load(
    threads=1, bundle="a-bundle", hint=None, source="a-source", box=Box(1, 2, 3, 4), keep_frames=10, keep_mb=10.0
)


class FakeRun:
    def __init__(self, request):
        self.closed = False

    def first(self):
        print("a library's greeting")
        return Loaded(1.0, 2.0, 1, {})

    def memory(self, frames):
        raise ZeroDivisionError

    def measure(self, request):
        raise BackendMissingError("install it")

    def close(self):
        self.closed = True


def talk(*requests, worker=None):
    replies = io.BytesIO()
    serve(io.BytesIO(b"".join(requests)), replies, worker or WorkerServer(open_run=FakeRun))
    return [protocol.decode_reply(line) for line in replies.getvalue().splitlines()]


def test_errors_are_answers_and_the_worker_goes_on(capfd):
    asked = [LOAD, Memory(3), Measure("track", 0, 1, 0), LOAD]
    replies = talk(*map(encode_line, asked))
    assert [type(reply) for reply in replies] == [Loaded, Failure, Failure, Loaded]
    assert replies[1].error == "ZeroDivisionError"
    assert replies[2] == Failure("BackendMissingError", "install it")
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_rubbish_is_answered_too():
    (reply,) = talk(b"rubbish\n")
    assert reply.error == "WorkerError"


@pytest.mark.parametrize("request_", [Memory(1), Measure("track", 0, 1, 0), Probe(0.1)])
def test_nothing_runs_before_it_is_loaded(request_):
    (reply,) = talk(encode_line(request_))
    assert "before anything was loaded" in reply.message


def test_the_tracker_is_closed_at_the_end():
    opened = []

    def open_run(request):
        opened.append(FakeRun(request))
        return opened[0]

    talk(encode_line(LOAD), worker=WorkerServer(open_run=open_run))
    assert opened[0].closed


def test_a_real_worker_tracks_a_bundle_and_prints_to_stderr_only(make_bundle, real_worker, tmp_path):
    import cv2
    import numpy as np

    images = tmp_path / "images"
    images.mkdir()
    for index in range(4):
        cv2.imwrite(str(images / f"{index}.jpg"), np.full((64, 96, 3), 40 * index, np.uint8))
    program = (
        "import os, sys; from edgetrack.benchmark import worker; first = worker.TrackerRun.first\n"
        "def loud(self): os.write(1, b'noise'); print('noise', flush=True); return first(self)\n"
        "worker.TrackerRun.first = loud; worker.main()"
    )
    worker = real_worker([sys.executable, "-c", program])
    load = msgspec.structs.replace(LOAD, bundle=str(make_bundle("a-fake")), source=str(images), box=Box(20, 20, 30, 20))
    loaded = worker.ask(load, Loaded, 60)
    assert loaded.load_ms > 0
    assert loaded.first_ms > 0
    assert loaded.versions == {}
    assert worker.ask(Memory(3), PeakMemory, 60).peak_rss_mb > 10
    found = worker.ask(Measure("track", 0, 7, 2), RoundSamples, 60)
    assert len(found.crop) == len(found.graphs) == len(found.decode) == len(found.whole) == 7
    assert all(value > 0 for value in found.graphs)
    with pytest.raises(WorkerError, match="before anything"):
        worker.ask(Probe(0.1), protocol.Rate, 60)


def test_a_worker_ends_with_its_parents_pipe(real_worker):
    worker = real_worker()
    worker.close()
    with pytest.raises(ProcessLookupError):
        os.kill(worker.pid, 0)


def test_the_roofline_is_searched_in_a_worker(monkeypatch):
    from edgetrack.benchmark import roofline

    monkeypatch.setattr(roofline, "CHAINS", (roofline.Chain(2, (4, 4)),))
    found = roofline.RooflineSearch
    monkeypatch.setattr(
        "edgetrack.benchmark.worker.RooflineSearch",
        lambda precision, threads: found(precision, threads, engine="numpy"),
    )
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    _, rate = talk(encode_line(LoadRoofline("fp32", 1)), encode_line(Probe(0.0)))
    assert rate.roofline.gflops > 0
