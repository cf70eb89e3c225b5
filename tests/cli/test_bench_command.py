from __future__ import annotations

import json
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from edgetrack.benchmark import protocol
from edgetrack.benchmark import run as benchmark
from edgetrack.cli import bench as command
from edgetrack.errors import UsageError, WorkerError
from edgetrack.processes import python_command

QUICK = [
    *("--source", "synthetic:drift?frames=6&size=96x64", "--threads", "1", "--warmup", "0", "--duration", "0"),
    *("--iterations", "8", "--rounds", "2", "--no-reference"),
]


@pytest.fixture
def run(monkeypatch, scripted):
    """run(arguments) is `edgetrack bench` with scripted workers; `failing` names those that die."""

    def invoke(*arguments, failing=()):
        def start(label, threads):
            error = WorkerError("killed by SIGKILL") if label in failing else None
            return scripted(label, [], fail=lambda request: error)

        environment = benchmark.Environment
        monkeypatch.setattr(
            "edgetrack.requests.benchmark.Environment", lambda **given: environment(**given, start=start)
        )
        app = typer.Typer()
        app.command()(command.bench)
        return CliRunner().invoke(app, [*QUICK, *map(str, arguments)])

    return invoke


def test_json_is_all_that_stdout_holds(run, make_bundle):
    done = run(make_bundle("a"), "--json")
    assert done.exit_code == 0
    assert [result["bundle"] for result in json.loads(done.stdout)["results"]] == ["a"]


def test_markdown_is_a_table(run, make_bundle):
    done = run(make_bundle("a"), make_bundle("b"), "--markdown", "--percentile", "90")
    assert done.exit_code == 0
    assert [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("|")][2:] == ["a", "b"]
    assert "track p90" in done.stdout


def test_a_table_is_the_default(run, make_bundle):
    done = run(make_bundle("a"))
    assert done.exit_code == 0
    assert "track ms" in done.stdout


def test_a_failure_is_printed_beside_the_results_and_the_exit_code_is_1(run, make_bundle, tmp_path):
    done = run(make_bundle("a"), make_bundle("b"), "-o", tmp_path / "bench.json", failing=["b"])
    assert done.exit_code == 1
    assert "FAILED: b: WorkerError: killed by SIGKILL" in done.stdout
    assert [result["bundle"] for result in json.loads((tmp_path / "bench.json").read_bytes())["results"]] == ["a"]


@pytest.mark.parametrize(
    "wrong",
    [("--json", "--markdown"), ("--percentile", "50"), ("--box", "1,2,3"), ("--scenario", "x"), ("--duration", "1d")],
)
def test_usage_errors(run, make_bundle, wrong):
    done = run(make_bundle("a"), *wrong)
    assert isinstance(done.exception, UsageError)
    assert not done.stdout


@pytest.mark.parametrize("option", ["--threads", "--rounds", "--streams"])
def test_a_number_that_is_left_out_is_not_zero(run, make_bundle, option):
    done = run(make_bundle("a"), "--scenario", "burst", f"{option}=0")
    assert isinstance(done.exception, UsageError)
    assert f"{option} 0: expected 1 or more" in str(done.exception)


def test_auto_threads_are_asked_for_and_anything_else_is_refused(run, make_bundle, monkeypatch):
    asked = []
    monkeypatch.setattr("edgetrack.benchmark.run.Runner.run", lambda self, after: asked.append(self._measurements))
    bundle = make_bundle("a")
    run(bundle, "--threads", "auto")
    assert asked[0][0].config.auto_threads
    done = run(bundle, "--threads", "many")
    assert "--threads many: expected 1 or more, or auto" in str(done.exception)


def test_an_interrupted_run_exits_with_130(run, make_bundle, monkeypatch):
    def interrupt(self, after_round):
        raise KeyboardInterrupt

    monkeypatch.setattr("edgetrack.benchmark.run.Runner.run", interrupt)
    done = run(make_bundle("a"), "--json")
    assert done.exit_code == 130
    assert json.loads(done.stdout)["complete"] is False


def test_the_command_is_imported_without_anything_heavy():
    code = (
        "import sys, edgetrack.cli.bench; print(sorted({'numpy', 'cv2', 'rich.progress', 'psutil'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_workers_are_started_with_their_threads(monkeypatch):
    seen = []
    monkeypatch.setattr(protocol, "WorkerProcess", lambda command, environ: seen.append((command, environ)))
    protocol.start_worker("a", 3)
    ((arguments, environ),) = seen
    assert arguments[1:] == python_command("edgetrack.benchmark.worker")[1:]
    assert environ["OMP_NUM_THREADS"] == "3"
