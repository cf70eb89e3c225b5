"""`edgetrack report` as a process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import _run as run_in
from tests.report.conftest import SCENE, benchmark, contestant, write, write_comparison_with_runs


@pytest.fixture
def run():
    """Without the shared workplace: no bundle is needed."""
    return lambda *arguments, cwd: run_in(list(arguments), cwd)


@pytest.fixture
def bench_file(tmp_path: Path) -> Path:
    ones = [contestant("smat-openvino-fp32", 20.0, seed=1), contestant("smat-openvino-int8", 8.0, seed=2)]
    return write(tmp_path / "out" / "bench.json", benchmark(*ones))


def test_page_is_written_where_it_is_asked_and_not_replaced_unasked(run, bench_file: Path, tmp_path: Path) -> None:
    done = run("report", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "fastest: smat-openvino-int8" in done.stdout
    assert "make it with: edgetrack compare A B" in done.stderr
    made = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert made.startswith("<!doctype html>")
    again = run("report", "out", cwd=tmp_path)
    assert again.returncode == 2
    assert "--overwrite" in again.stderr
    assert run("report", "out", "--overwrite", "--title", "Mine", cwd=tmp_path).returncode == 0
    assert "<h1>Mine</h1>" in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_markdown_goes_to_stdout(run, bench_file: Path, tmp_path: Path) -> None:
    done = run("report", str(bench_file), "--markdown", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# edgetrack report\n")
    assert "| smat-openvino-int8 | openvino | int8 |" in done.stdout
    assert not (tmp_path / "out" / "report.html").exists()


def test_frames_are_those_of_the_data_set_that_is_given(run, tmp_path: Path) -> None:
    write_comparison_with_runs(tmp_path / "compare")
    done = run("report", "compare", "-o", "r.html", "--dataset", f"synthetic:{SCENE}?frames=12", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "data:image/jpeg" in (tmp_path / "r.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nothing"], 2, "does not exist"),
        (["."], 2, "edgetrack bench"),
        (["x.json"], 1, "x.json is no result"),
        (["out", "--layout", "otb"], 2, "--dataset"),
        (["out", "--markdown", "--dataset", "synthetic:drift"], 2, "Markdown shows none"),
        (["out", "--dataset", "synthetic:drift"], 2, "no comparison"),
        (["out", "-o", "/proc/report.html"], 1, "--output"),
    ],
)
def test_wrong_input_is_one_clear_line(run, tmp_path: Path, arguments, code: int, words: str) -> None:
    (tmp_path / "x.json").write_text("{}")
    if arguments[0] == "out":
        write(tmp_path / "out" / "bench.json", benchmark(contestant("smat-openvino-fp32", 20.0)))
    done = run("report", *arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_leaderboard_sets_machines_side_by_side(run, tmp_path: Path) -> None:
    ones = [contestant("smat-openvino-fp32", 20.0, seed=1)]
    write(tmp_path / "results" / "a" / "one.json", benchmark(*ones, date="2026-11-30T08:00:00Z"))
    write(tmp_path / "results" / "b" / "old.json", benchmark(*ones))
    done = run("report", "--leaderboard", "results/", "-o", "page.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "left out: results/b/old.json: it says no date" in done.stderr
    assert "smat on a CPU, 2 cores: smat-openvino-fp32, 4" in done.stdout
    assert "holds 1 benchmark of 1 machine" in done.stdout
    assert "<h1>edgetrack leaderboard</h1>" in (tmp_path / "page.html").read_text("utf-8")
    assert run("report", "--leaderboard", "results", "--markdown", cwd=tmp_path).returncode == 2
