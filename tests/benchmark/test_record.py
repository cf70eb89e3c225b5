from __future__ import annotations

import json

import pytest

from edgetrack.benchmark.record import BenchRecord, save
from edgetrack.errors import EdgetrackError, WorkerError
from tests.benchmark.conftest import recorded, roofline


def test_a_record_survives_json(entry):
    found = recorded(entry("ours", 9.0), entry("torch", 19.0), roofline(1000.0))
    assert BenchRecord.from_json(found.to_json(), source="here") == found


def test_what_is_no_record(entry):
    for data in (b"", b"{}", b"\xff", b"[1]"):
        with pytest.raises(EdgetrackError, match="here is not"):
            BenchRecord.from_json(data, source="here")
    newer = json.loads(recorded().to_json()) | {"schema": 2}
    with pytest.raises(EdgetrackError, match="schema 2"):
        BenchRecord.from_json(json.dumps(newer), source="here")


def test_saving_replaces_the_whole_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "bench.json"
    save(recorded(complete=False), path)
    save(recorded(), path)
    assert BenchRecord.from_json(path.read_bytes(), source="here").complete
    assert [one.name for one in path.parent.iterdir()] == ["bench.json"]


def test_a_save_that_fails_keeps_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "bench.json"
    save(recorded(), path)
    before = path.read_bytes()

    def full(handle):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(EdgetrackError, match="cannot be written"):
        save(recorded(complete=False), path)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["bench.json"]


def test_the_keys_that_scripts_read(entry):
    failed = entry("broken", 9.0)
    failed.failure = WorkerError("gone")
    data = json.loads(recorded(entry("ours", 9.0), failed).to_json())
    assert set(data) == {
        "schema",
        "complete",
        "machine",
        "settings",
        "source",
        "results",
        "failures",
        "telemetry",
        "date",
    }
    assert list(data["settings"]) == [
        "scenario", "device", "threads", "warmup_s", "duration_s", "iterations", "rounds", "fps", "streams",
        "batched", "profile", "auto_threads",
    ]  # fmt: skip
    assert set(data["source"]) == {"spec", "size", "box", "camera"}
    assert data["failures"] == [
        {"contestant": "broken", "error": "WorkerError", "message": "gone", "rounds_done": 0},
    ]
    assert list(data["results"][0]) == [
        "bundle", "tracker", "target", "precision", "hint", "weights", "device", "threads", "versions", "latency_ms",
        "fps", "waterfall_ms", "memory_mb", "size_mb", "load_ms", "first_ms", "cores_busy", "vs_pytorch",
        "vs_pytorch_interval", "vs_paper", "roofline", "warnings", "samples_ms", "attainable", "overrides", "placement",
        "energy", "paced", "burst", "together", "soak", "thread_race",
    ]  # fmt: skip
