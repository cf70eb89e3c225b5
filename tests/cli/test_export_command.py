"""`edgetrack export`: its plan, what it refuses, lower precisions, and several targets at once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from edgetrack.bundle import open_bundle
from edgetrack.cli.export import ExportCommand, _arguments, export
from edgetrack.cli.options import given_words

CLIP = "synthetic:drift?frames=10&size=320x240"


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


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--target", "all", "-o", "x"], "--output is for one target"),
        (["--target", "all", "--dry-run"], "--dry-run is for one target"),
        (["--target", "onnx,nothing"], "target 'nothing' is not known"),
        (["--target", "all", "--precision", "fp4"], "no target is exported to at precision 'fp4'"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_runs(inside, tmp_path, options, words) -> None:
    done = inside("export", "nanotrack_v2", *options, cwd=tmp_path)
    assert done.exit_code == 2
    assert words in done.stderr
    assert not any(path.name == "out" for path in tmp_path.iterdir())


def test_options_reach_the_targets_that_have_them() -> None:
    app = typer.Typer()
    app.command(cls=ExportCommand)(export)
    words = ["smat", "--target", "all", "--precision", "int8", "--calib", "a", "--calib", "b", "--per-tensor"]
    words += ["--compute-capability", "8.6,8.9", "--deployment-target", "iOS17", "--seed", "3", "--json"]
    given = given_words(typer.main.get_command(app).make_context("export", words))
    common = ["--precision=int8", "--calib=a", "--calib=b", "--per-tensor", "--seed=3"]
    for target, own in (
        ("onnx", []),
        ("tensorrt", ["--compute-capability=8.6,8.9"]),
        ("coreml", ["--deployment-target=iOS17"]),
    ):
        arguments = _arguments(given, target)
        assert arguments[:3] == ["smat", "--target", target]
        assert arguments[-1] == "--json"
        assert sorted(arguments[3:-1]) == sorted([*common, *own])


def test_dry_run_prints_the_plan_and_writes_nothing(inside, tmp_path) -> None:
    done = inside("export", "smat", "--target", "onnx", "--dry-run", cwd=tmp_path)
    assert done.exit_code == 0
    assert "onnx, fp32" in done.stdout
    assert "weights    default" in done.stdout
    assert not (tmp_path / "out").exists()


def test_export_refuses_to_replace_a_bundle_unasked(inside) -> None:
    done = inside("export", "smat", "--target", "openvino")
    assert done.exit_code == 2
    assert "--overwrite" in done.stderr


def test_failed_parity_leaves_nothing_and_says_what_would_pass(inside, tmp_path) -> None:
    done = inside("export", "nanotrack_v2", "--target", "onnx", "--atol", "1e-12", "--rtol", "0", cwd=tmp_path)
    assert done.exit_code == 1
    assert "smallest --atol" in done.stderr
    assert list((tmp_path / "out").glob("*")) == []


def test_dry_run_prints_the_plan_as_json(inside, tmp_path) -> None:
    done = inside("export", "smat", "--target", "onnx", "--dry-run", "--json", "--atol", "0.5", cwd=tmp_path)
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {
        "schema": 1,
        "tracker": "smat",
        "weights": "default",
        "target": "onnx",
        "precision": "fp32",
        "opset": 17,
        "batch": 1,
        "reference": "PyTorch",
        "overrides": {},
        "atol": 0.5,
        "rtol": 0.0001,
        "parity_sources": [],
        "memory_mib": 722,
        "output": "out/smat-onnx-fp32",
        "replaces": False,
    }
    assert not (tmp_path / "out").exists()


@pytest.mark.full
def test_int8_with_accuracy_control_from_end_to_end(run, exported: Callable[..., Path], tmp_path: Path) -> None:
    bundle, path, output = exported("onnx", tracker="nanotrack_v2"), tmp_path / "few.toml", tmp_path / "int8"
    assert run("calibrate", "collect", str(bundle), CLIP, "-o", str(path), "--calib-size", "4").returncode == 0
    wish = ("export", "nanotrack_v2", "--target", "onnx", "--precision", "int8", "--weights", "untrained")
    control = ("--max-drop", "100", "--val", CLIP, "--anchors", "3", "--anchor-length", "3")
    made = run(*wish, "--calib", str(path), *control, "-o", str(output))
    assert made.returncode == 0, made.stderr
    assert "int8 against fp32 on" in made.stderr
    # It ends with what was made: INT8's own difference from FP32, and what was allowed.
    parity = made.stdout.splitlines()[1]
    assert re.fullmatch(
        r"parity: 18 comparisons with FP32 pass; largest difference \S+, allowed \S+ \(int8 .*\)", parity
    )
    with open_bundle(output) as opened:
        found = json.loads(opened.path("sensitivity.json").read_bytes())
    assert (found["precision"], found["met"], found["max_drop"]) == ("int8", True, 1.0)
    assert "calibration" in run("inspect", str(output)).stdout


def test_requests_that_do_not_fit_are_refused_before_anything_is_done(inside) -> None:
    export = ("export", "nanotrack_v2", "--target", "onnx")
    for wish, said in (
        (("--max-drop", "1", "--val", CLIP), "precisions below fp32"),
        (("--precision", "int8", "--max-drop", "1"), "both --max-drop POINTS and --val"),
        (
            ("--precision", "int8", "--max-drop", "1", "--val", CLIP, "--on-drop", "cry"),
            "expected one of: revert, fail",
        ),
        (("--precision", "int8", "--calib-method", "kl"), "'kl' is not known"),
        (("--precision", "int8", "--keep", "nose"), "stage 'nose' is not known"),
        (
            (
                "--precision",
                "int4",
            ),
            "the precision 'int4' is not known",
        ),
    ):
        done = inside(*export, *wish)
        assert (done.exit_code, said in done.stderr) == (2, True), done.stderr
