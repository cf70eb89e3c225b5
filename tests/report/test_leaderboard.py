"""Several machines side by side: what may stand there, in which order, and never one over another."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import msgspec
import pytest

from edgetrack.benchmark.config import SourceNote
from edgetrack.benchmark.record import BenchRecord
from edgetrack.box import Box
from edgetrack.errors import UsageError
from edgetrack.report.leaderboard import FEWEST_FRAMES, admitted, by_tracker, contents, lines, page, unfit
from edgetrack.report.model import read_file, read_results
from edgetrack.system.machine import Gpu
from tests.report.conftest import MACHINE, benchmark, contestant, write

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "docs/schemas/bench.json").read_text("utf-8"))
LARGEST = 4 << 20
BOARD = msgspec.structs.replace(MACHINE, cpu_model="Cortex-A78AE", device_model="A board <b>", usable_cores=6)
HOSTILE = "<script>alert(1)</script>"


def entry(*results, **changes) -> BenchRecord:
    return benchmark(*results, **{"date": "2026-11-30T08:00:00Z", **changes})


def one(name: str = "smat-onnx-fp32", ms: float = 20.0, **changes):
    return contestant(name, ms, **changes)


@pytest.fixture
def results(tmp_path):
    write(
        tmp_path / "desk" / "a.json",
        entry(one(), one("smat-torch-fp32", 60.0), one("nanotrack_v2-onnx-fp32", 5.0), machine=MACHINE),
    )
    write(tmp_path / "board" / "a.json", entry(one(ms=47.0), machine=BOARD))
    write(tmp_path / "board" / "b.json", entry(one("smat-tensorrt-fp16", 11.0), machine=BOARD))
    write(tmp_path / "board" / "old.json", entry(one(ms=31.0), machine=BOARD, date=None))
    return admitted(read_results([tmp_path]))


def shape(record: BenchRecord) -> None:
    """A submission, as docs/results.md asks for it: by the kept schema, and by what the leaderboard wants."""
    jsonschema.validate(json.loads(record.to_json()), SCHEMA)
    assert unfit(record) is None


def test_every_submission_keeps_to_the_schema() -> None:
    for path in sorted((ROOT / "results").rglob("*")):
        name = path.relative_to(ROOT / "results").as_posix()
        if path.is_dir() or name == "README.md":
            continue
        assert re.fullmatch(r"[a-z0-9-]+/[a-z0-9-]+\.json", name), name
        assert path.stat().st_size <= LARGEST, name
        record = read_file(path)
        assert isinstance(record, BenchRecord), name
        jsonschema.validate(json.loads(path.read_text("utf-8")), SCHEMA)
        assert unfit(record) is None, f"{name}: {unfit(record)}"


def test_a_record_of_the_benchmark_is_a_submission() -> None:
    shape(entry(one(), one("smat-torch-fp32", 60.0)))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**json.loads(entry(one()).to_json()), "complete": "yes"}, SCHEMA)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (entry(one(), complete=False), "not complete"),
        (entry(one(), date=None), "no date"),
        (entry(), "no result"),
        (entry(one(), machine=msgspec.structs.replace(MACHINE, cpu_model=None)), "neither processor nor device"),
        (
            entry(one(), source=SourceNote(spec="/home/me/a.mp4", size=(4, 4), box=Box(1, 1, 2, 2), camera="decoded")),
            "leave --source out",
        ),
        (entry(one(rounds=3)), f"smat-onnx-fp32: fewer than {FEWEST_FRAMES} frames"),
    ],
)
def test_what_cannot_stand_beside_others_is_left_out_with_the_reason(tmp_path, record, said) -> None:
    assert said in (unfit(record) or "")
    bad, good = write(tmp_path / "bad.json", record), write(tmp_path / "good.json", entry(one()))
    found = admitted(read_results([bad, good]))
    assert [bench.source for bench in found.benchmarks] == [str(good)]
    assert said in page(found, "title")
    with pytest.raises(UsageError, match=r"no benchmark for a leaderboard(.|\n)*left out: .*bad\.json"):
        admitted(read_results([bad]))


def test_machines_stand_side_by_side_fastest_first(results) -> None:
    found = {
        system: [(one.machine, one.result.label) for one in entries] for system, entries in by_tracker(results).items()
    }
    board, desk = "A board <b>, 6 cores", "a CPU, 2 cores"
    assert found == {
        "nanotrack_v2": [(desk, "nanotrack_v2-onnx-fp32")],
        "smat": [
            (board, "smat-tensorrt-fp16"),
            (board, "smat-onnx-fp32"),
            (desk, "smat-onnx-fp32"),
            (desk, "smat-torch-fp32"),
        ],
    }
    assert contents(results) == "3 benchmarks of 2 machines"
    assert list(lines(results))[1].startswith(f"smat on {board}: smat-tensorrt-fp16, 88.")


def test_no_figure_is_divided_by_another_machines(results) -> None:
    """Every number of the page's tables is one machine's own: as it stands in its record."""
    own = {
        f"{value:.{digits}f}"
        for bench in results.benchmarks
        for r in bench.value.results
        for value, digits in (
            (r.fps.track, 1),
            (r.latency_ms.track.p50, 2),
            (r.latency_ms.track.p99, 2),
            (r.memory_mb.peak_rss, 0),
        )
    }
    made = page(results, "title")
    numbers = re.findall(r'<td class="n[^"]*" data-value="[^"]*">([^<]+)', made)
    assert len(numbers) == 4 * 5
    assert set(numbers) <= own


def test_the_page_is_text_and_the_same_every_time(results) -> None:
    made = page(results, HOSTILE)
    assert made == page(results, HOSTILE)
    assert HOSTILE not in made
    assert "A board &lt;b&gt;" in made
    assert "A board <b>" not in made
    assert "old.json" in made
    assert made.startswith("<!doctype html>")
    assert made.count("<script>") == 1


def test_a_gpu_makes_another_machine() -> None:
    with_gpu = msgspec.structs.replace(MACHINE, gpus=(Gpu(name="a GPU", driver=None, memory_mib=None),))
    records = [entry(one()), entry(one(), machine=with_gpu)]
    from edgetrack.report.model import Results, Sourced

    found = Results(benchmarks=tuple(Sourced(f"{i}.json", record) for i, record in enumerate(records)))
    assert contents(found) == "2 benchmarks of 2 machines"
