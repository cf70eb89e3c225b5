# ruff: noqa: F811 - fixtures of the gate are imported and named as parameters
from __future__ import annotations

import json
from xml.etree import ElementTree as Xml

import pytest
import typer
from typer.testing import CliRunner

from edgetrack.benchmark import run as benchmark
from edgetrack.cli import check as command
from edgetrack.errors import UsageError
from tests.gate.conftest import machine, make_bundle, simulated_start, source, steady  # noqa: F401


@pytest.fixture
def run(monkeypatch, tmp_path, machine, steady, simulated_start, source):
    """run(arguments) is `edgetrack check` on a simulated machine; `ratios` slow bundles down by label."""

    environment = benchmark.Environment

    def invoke(*arguments, ratios=None, budget="[limits]\nsize_mb = 1\n[regressions]\ntrack_p50_ratio = 1.05\n"):
        here = machine(0, **steady)

        def simulated(**given):
            return environment(**given, clock=here, start=simulated_start(here, ratios))

        monkeypatch.setattr(benchmark, "Environment", simulated)
        file = tmp_path / "budget.toml"
        file.write_text(f'schema = 1\nname = "mine"\n[measure]\nthreads = 1\nsource = "{source}"\n{budget}')
        app = typer.Typer()
        app.command()(command.check)
        return CliRunner().invoke(app, [*map(str, arguments), "--budget", str(file)])

    return invoke


def test_a_table_a_headline_and_the_exit_code(run, make_bundle):
    a, b = make_bundle("a"), make_bundle("b")
    passed = run(a, "--baseline", b)
    assert passed.exit_code == 0
    assert passed.stdout.splitlines()[-1] == "PASS: a against b, budget mine"
    assert "track_p50_ratio" in passed.stdout
    failed = run(a, "--baseline", b, ratios={"a": 1.2})
    assert failed.exit_code == 1
    assert failed.stdout.splitlines()[-1].startswith("FAIL: ")


def test_json_is_all_that_stdout_holds_and_the_files_say_the_same(run, make_bundle, tmp_path):
    report, junit = tmp_path / "report.json", tmp_path / "report.xml"
    a, b = make_bundle("a"), make_bundle("b")
    done = run(a, "--baseline", b, "--json", "-o", report, "--junit", junit)
    assert done.exit_code == 0
    printed = json.loads(done.stdout)
    assert printed == json.loads(report.read_text())
    assert (printed["schema"], printed["verdict"], printed["exit_code"]) == (1, "pass", 0)
    assert [finding["rule"] for finding in printed["findings"]] == ["size_mb", "track_p50_ratio"]
    assert len(list(Xml.fromstring(junit.read_bytes()).iter("testcase"))) == 2
    again = run(a, "--baseline", b, "--json", "-o", report)
    assert isinstance(again.exception, UsageError)
    assert run(a, "--baseline", b, "--json", "-o", report, "--overwrite").exit_code == 0


def test_github_gets_annotations_and_a_summary(run, make_bundle, tmp_path, monkeypatch):
    a, b = make_bundle("a"), make_bundle("b")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    assert "GITHUB_STEP_SUMMARY" in str(run(a, "--github").exception)
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    failed = run(a, "--baseline", b, "--github", ratios={"a": 1.2})
    assert failed.exit_code == 1
    (line,) = [line for line in failed.stdout.splitlines() if line.startswith("::")]
    assert line.startswith("::error title=edgetrack check%3A track\\_p50".replace("\\", ""))
    assert "FAIL: a against b" in summary.read_text()


def test_undecided_ends_with_the_code_that_was_asked_for(run, make_bundle):
    a = make_bundle("a")
    open_rule = "[limits]\ntrack_p99_ms = 25\n"
    assert run(a, "--max-time", "0.1", budget=open_rule).exit_code == 1
    assert run(a, "--max-time", "0.1", "--undecided-exit", "5", budget=open_rule).exit_code == 5
    passed = run(a, "--max-time", "0.1", "--undecided-exit", "0", "--markdown", budget=open_rule)
    assert passed.exit_code == 0
    assert passed.stdout.startswith("**UNDECIDED")
    assert "would probably decide" in passed.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--json", "--markdown"], "exclude each other"),
        (["--layout", "got10k"], "--dataset"),
        (["--box", "1,2"], "box"),
    ],
)
def test_options_that_cannot_be_followed(run, make_bundle, options, said):
    assert said in str(run(make_bundle("a"), *options).exception)
