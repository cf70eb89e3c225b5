"""`edgetrack export --target a,b`: one command, a process for each, options to whom they are for."""

from __future__ import annotations

import json

import pytest
import typer

from edgetrack.cli.export import ExportCommand, _arguments, _given, export


def test_one_target_fails_with_its_own_message_and_the_other_finishes(run, tmp_path) -> None:
    wish = ["nanotrack_v2", "--target", "torch,tensorrt", "--compute-capability", "9.9", "--json"]
    done = run("export", *wish, cwd=tmp_path)
    found = json.loads(done.stdout)
    assert done.returncode == 1
    assert [result["target"] for result in found["results"]] == ["torch"]
    (failure,) = found["failures"]
    assert (failure["target"], failure["exit_code"]) in (("tensorrt", 2), ("tensorrt", 3))
    assert "9.9" in failure["message"] or "not installed" in failure["message"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["nanotrack_v2-torch-fp32"]
    assert "exporting nanotrack_v2-torch-fp32" in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--target", "all", "-o", "x"], "--output is for one target"),
        (["--target", "all", "--dry-run"], "--dry-run is for one target"),
        (["--target", "onnx,nothing"], "target 'nothing' is not known"),
        (["--target", "all", "--precision", "fp4"], "no target is exported to at precision 'fp4'"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_runs(run, tmp_path, options, words) -> None:
    done = run("export", "nanotrack_v2", *options, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert not any(path.name == "out" for path in tmp_path.iterdir())


def test_options_reach_the_targets_that_have_them() -> None:
    app = typer.Typer()
    app.command(cls=ExportCommand)(export)
    words = ["smat", "--target", "all", "--precision", "int8", "--calib", "a", "--calib", "b", "--per-tensor"]
    words += ["--compute-capability", "8.6,8.9", "--deployment-target", "iOS17", "--seed", "3", "--json"]
    given = _given(typer.main.get_command(app).make_context("export", words))
    common = ["--precision", "int8", "--calib", "a", "--calib", "b", "--per-tensor", "--seed", "3"]
    for target, own in (
        ("onnx", []),
        ("tensorrt", ["--compute-capability", "8.6,8.9"]),
        ("coreml", ["--deployment-target", "iOS17"]),
    ):
        arguments = _arguments(given, target)
        assert arguments[:3] == ["smat", "--target", target]
        assert arguments[-1] == "--json"
        assert sorted(arguments[3:-1]) == sorted([*common, *own])
