from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgetrack.benchmark.config import BenchConfig
from edgetrack.benchmark.run import Environment, measure
from edgetrack.benchmark.scenarios import SCENARIOS, resolve
from edgetrack.benchmark.table import bench_table
from edgetrack.errors import UsageError
from edgetrack.resources import usable_cores
from tests.builders import bench_request

JITTER = """
from __future__ import annotations

import msgspec

from edgetrack.benchmark.scenarios import SCENARIOS
from edgetrack.benchmark.scenarios.stream import Stream


class Jitter(Stream):
    name = "jitter"
    kinds = ("track", "camera", "jitter")

    def measure(self, request, rig):
        if request.kind != self.name:
            return super().measure(request, rig)
        found = super().measure(msgspec.structs.replace(request, kind="track"), rig)
        return msgspec.structs.replace(found, kind=self.name)

    def summarize(self, result, rounds, timeline):
        return {"found": {"frames": sum(one.frames for one in rounds.get(self.name, ()))}}

    @classmethod
    def notes(cls, result):
        if result.found:
            yield f"{result.found['frames']} frames with jitter"


SCENARIOS["jitter"] = Jitter
"""
"""A scenario as someone would add it: its file, and its row in `SCENARIOS`."""


def test_a_fifth_scenario_is_one_file_and_one_row(make_bundle, real_worker, scripted, tmp_path, monkeypatch):
    (tmp_path / "jitter.py").write_text(JITTER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("edgetrack.benchmark.scenarios.SCENARIOS", SCENARIOS)
    monkeypatch.setitem(SCENARIOS, "jitter", None)  # so that it is gone after the test
    exec(compile(JITTER, "jitter.py", "exec"), {"__name__": "jitter"})
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import jitter; from edgetrack.benchmark import worker"
    )

    def start(label, threads):
        command = [sys.executable, "-c", f"{program}; worker.main()"]
        return scripted(label, []) if label.startswith("roofline") else real_worker(command)

    environment = Environment(
        export=None, notify=lambda line: None, progress=lambda *step: None, start=start, folder=tmp_path / "out"
    )
    request = bench_request(
        make_bundle("a"),
        scenario="jitter",
        source="synthetic:drift?frames=6&size=96x64",
        threads=1,
        warmup_s=0.0,
        duration_s=0.0,
        iterations=8,
        rounds=2,
        with_reference=False,
        output=tmp_path / "bench.json",
    )
    found = measure(request, environment)
    assert not found.failures
    assert found.results[0].found == {"frames": 8}
    assert type(found).from_json(Path(tmp_path / "bench.json").read_bytes(), source="here") == found
    assert "a: 8 frames with jitter" in bench_table(found).markdown()


def test_a_result_of_the_four_has_no_other_field(make_bundle, scripted, tmp_path):
    environment = Environment(
        export=None,
        notify=lambda line: None,
        progress=lambda *step: None,
        start=lambda label, threads: scripted(label, []),
        folder=tmp_path / "out",
    )
    request = bench_request(make_bundle("a"), source="synthetic:drift?frames=6&size=96x64", with_reference=False)
    assert b'"found"' not in measure(request, environment).to_json()


def test_defaults():
    assert resolve(BenchConfig()) == BenchConfig(threads=usable_cores(), rounds=6, streams=1)
    assert resolve(BenchConfig(scenario="paced")).fps == 30.0
    assert resolve(BenchConfig(scenario="burst")).streams == 2
    assert resolve(BenchConfig(scenario="soak")).fps is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"scenario": "streams"},
        {"scenario": "stream", "fps": 30.0},
        {"scenario": "burst", "fps": 30.0},
        {"scenario": "paced", "streams": 2},
        {"scenario": "paced", "fps": -1.0},
        {"scenario": "paced", "fps": float("nan")},
        {"scenario": "burst", "streams": 65},
    ],
)
def test_values_that_a_scenario_has_no_use_for(wrong):
    with pytest.raises(UsageError):
        resolve(BenchConfig(**wrong))


def test_a_soaks_windows_are_at_most_a_minute():
    assert resolve(BenchConfig(scenario="soak", duration_s=600.0)).rounds == 20
    assert resolve(BenchConfig(scenario="soak", duration_s=3600.0)).rounds == 60
    assert resolve(BenchConfig(scenario="paced", duration_s=3600.0)).rounds == 6


def test_a_soak_is_longer_where_nothing_is_said():
    assert [scenario.default_duration_s for scenario in SCENARIOS.values()] == [6.0, 6.0, 6.0, 600.0]
