"""The public functions do what the command line does: the same names, the same records, and not a word printed."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer.main
from typer.testing import CliRunner

import edgetrack
from edgetrack import api, errors
from edgetrack.benchmark.record import BenchRecord
from edgetrack.bundle import open_bundle
from edgetrack.cli.main import app
from edgetrack.evaluation.comparison import CompareRecord
from edgetrack.evaluation.results import EvalRecord
from edgetrack.exporting.isolated import Exported
from tests.builders import write_scripted
from tests.evaluation.conftest import plain_dataset, write_images, write_rows
from tests.exporting.conftest import one_thread, short_proof

__all__ = ["one_thread", "plain_dataset", "short_proof", "write_images", "write_rows"]
PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "python.md"
VERBS = {"export": api.export, "bench": api.bench, "eval": api.evaluate, "compare": api.compare}
# How a result is shown or judged, where else it is computed, and who is told.
SHOWN = {"json", "markdown", "verbose", "quiet", "debug", "dry_run", "percentile", "require", "plot", "host", "help"}
HERE_ALONE = {"progress", "options"}


def _option(parameter: Any) -> str:
    longest = max(parameter.opts, key=len)
    return str(longest.lstrip("-").replace("-", "_"))


@pytest.mark.parametrize("verb", VERBS)
def test_names_and_defaults_are_those_of_the_command_line(verb: str) -> None:
    command: Any = typer.main.get_command(app)
    command = command.commands[verb]
    # Not those of single targets, which `options` takes.
    own = {_option(one): one for one in command.params} if verb == "export" else {}
    own = own or {_option(one): one for one in command.get_params(command.context_class(command))}
    given = inspect.signature(VERBS[verb]).parameters
    assert set(given) - HERE_ALONE == set(own) - SHOWN
    for name, parameter in given.items():
        if name in HERE_ALONE or parameter.default is inspect.Parameter.empty:
            continue
        there = own[name].default
        # `None` of the command line stands for what is left out: an empty list, or the CPU.
        assert parameter.default == there or (there is None and parameter.default in ((), "cpu")), name


@pytest.mark.parametrize("verb", VERBS)
def test_every_parameter_is_typed_and_described(verb: str) -> None:
    function = VERBS[verb]
    assert inspect.signature(function).return_annotation in ("Exported", "BenchRecord", "EvalRecord", "CompareRecord")
    described = (function.__doc__ or "").partition("Args:")[2].partition("Raises:")[0]
    said = {name.strip() for line in re.findall(r"^ {8}(\w[\w, ]*):", described, re.M) for name in line.split(",")}
    assert said == set(inspect.signature(function).parameters)
    raised = (function.__doc__ or "").partition("Raises:")[2]
    for name in re.findall(r"\b(\w+Error)\b", raised):
        assert issubclass(getattr(errors, name), errors.EdgetrackError)


@pytest.fixture
def bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two bundles with constant outputs."""
    monkeypatch.chdir(tmp_path)
    return [str(write_scripted(tmp_path / "bundles" / name, size=size)) for name, size in (("a", 0.25), ("b", 0.15))]


def _printed(*arguments: object) -> Any:
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def _plain(record: object) -> Any:
    return json.loads(msgspec.json.encode(record))


def test_evaluate_returns_what_eval_prints(
    bundles: list[str], plain_dataset: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root, told = plain_dataset("x", "y", frames=6), []
    found = edgetrack.evaluate(
        Path(bundles[0]),
        root,
        sequences=["x"],
        frames=5,
        threads=1,
        anchors=2,
        output=tmp_path / "here.json",
        progress=lambda *step: told.append(step),
    )
    assert capfd.readouterr() == ("", "")
    assert isinstance(found, EvalRecord)
    assert [one.name for one in found.results[0].sequences] == ["x"]
    assert _plain(found) == json.loads((tmp_path / "here.json").read_text())
    printed = _printed("eval", bundles[0], root, "--sequences=x", "--frames=5", "--threads=1", "--anchors=2")
    assert printed == _plain(found)  # from the runs that were kept
    assert told
    assert all(1 <= step <= total for _, step, total in told)


def test_compare_returns_what_compare_prints(
    bundles: list[str], plain_dataset: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    root = plain_dataset("x", frames=6)
    found = edgetrack.compare(*bundles, dataset=root, anchors=2, anchor_length=2, threads=1)
    assert capfd.readouterr() == ("", "")
    assert isinstance(found, CompareRecord)
    assert found.delta_ao is not None
    words = ("--dataset", root, "--anchors=2", "--anchor-length=2", "--threads=1")
    assert _printed("compare", *bundles, *words) == _plain(found)


def test_bench_returns_and_keeps_its_record(
    bundles: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    told: list[str] = []
    found = edgetrack.bench(
        bundles[0],
        source="synthetic:drift?frames=6&size=96x64",
        box=(20, 20, 16, 16.5),
        threads=1,
        warmup=0,
        duration=0,
        iterations=8,
        rounds=2,
        no_reference=True,
        output=tmp_path / "bench.json",
        progress=lambda what, step, total: told.append(what),
    )
    assert capfd.readouterr() == ("", "")
    assert isinstance(found, BenchRecord)
    assert found.complete
    assert found.source.box == (20, 20, 16, 16.5)
    assert found.results[0].label == "a"
    assert BenchRecord.from_json((tmp_path / "bench.json").read_bytes(), source="bench.json") == found
    assert told


@pytest.mark.usefixtures("one_thread", "short_proof")
def test_export_writes_a_bundle_and_says_what_was_proven(
    tiny_recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe, told = tiny_recipe("dmtrack"), []
    found = edgetrack.export(
        recipe,
        target="torch",
        weights="untrained",
        set={"memory": "bounded:3"},
        progress=lambda *step: told.append(step),
    )
    assert capfd.readouterr() == ("", "")
    assert isinstance(found, Exported)
    assert Path(found.bundle).is_dir()
    assert found.overrides == {"memory": "bounded:3"}
    assert told
    assert {step[1:] for step in told} == {(0, 0)}
    manifest = open_bundle(found.bundle).manifest
    assert (manifest.name, manifest.target) == (Path(found.bundle).name, found.target)
    assert 0 <= found.worst.max_abs <= found.worst.atol + found.worst.rtol


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: api.export("smatt", target="onnx"), errors.UnknownNameError, "did you mean 'smat'"),
        (lambda: api.export("smat", target="onnx,torch"), errors.UsageError, "call edgetrack.export\\(\\) for each"),
        (lambda: api.export("smat", target="onnx", max_drop=0.5), errors.UsageError, "below fp32"),
        (lambda: api.export("smat", target="onnx", options={"no": "x"}), errors.UsageError, "has no option --no"),
        (lambda: api.export("smat", target="onnx", calib="clip"), errors.UsageError, r"write \['clip'\]"),
        (lambda: api.bench("none", streams=0), errors.UsageError, "--streams 0: expected 1 or more"),
        (lambda: api.bench("none", scenario="steam"), errors.UnknownNameError, "did you mean 'stream'"),
        (lambda: api.bench("none", box=(1, 2)), errors.UsageError, "box"),
        (lambda: api.bench("none", duration=-1.0), errors.UsageError, "expected a time"),
        (lambda: api.evaluate("none", "synthetic:drift"), errors.EdgetrackError, "none"),
        (lambda: api.evaluate("none", "synthetic:drift", device="cuda:x"), errors.UnknownNameError, "device"),
        (lambda: api.compare("none", "b", dataset="nowhere"), errors.DatasetError, "does not exist"),
    ],
)
def test_what_cannot_be_done_is_one_of_edgetracks_errors(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


def test_another_machine_is_left_to_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "edgetrack").mkdir()
    (tmp_path / "edgetrack" / "devices.toml").write_text('[lab]\nhost = "lab.example"\nprofile = "x86"\n')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(errors.UsageError, match=r"lab is another machine, lab\.example"):
        api.evaluate("none", "synthetic:drift", device="lab")


@pytest.mark.full
def test_the_pages_example_prints_what_the_page_says(tmp_path: Path) -> None:
    (example,), (said,) = (
        re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text("utf-8"), re.S) for kind in ("python", "text")
    )
    command = [sys.executable, "-W", "error", "-c", example]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    figures = re.compile(r"\d[\d.e-]*")
    assert figures.sub("N", done.stdout) == figures.sub("N", said)
