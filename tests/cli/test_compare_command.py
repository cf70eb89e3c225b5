"""`edgetrack compare` as a user runs it."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from edgetrack.cli.main import app
from tests.builders import write_scripted


@pytest.fixture
def make_bundle(tmp_path):
    """make_bundle("name", size=0.5) writes a bundle with constant outputs; returns its folder."""

    def make(name="scripted", **rules):
        return write_scripted(tmp_path / "bundles" / name, **rules)

    return make


@pytest.fixture
def command(make_bundle, plain_dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bundles = [str(make_bundle("a")), str(make_bundle("b", size=0.15))]
    root = str(plain_dataset("x", frames=6))

    def run(*arguments):
        common = ["--dataset", root, "--anchors", "2", "--anchor-length", "2", "--threads", "1"]
        return CliRunner().invoke(app, ["compare", *bundles, *common, *arguments])

    return run


def test_the_command_prints_json_that_keeps_its_contract_and_its_exit_code_is_the_requirement(command) -> None:
    done = command("--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["schema"] == 1
    assert {"value", "low", "high"} <= set(found["delta_ao"])
    assert {"iou_above_0.9", "first_divergence"} <= set(found["agreement"])
    assert found["a"]["bundle"] == "a"
    worse = found["delta_ao"]["verdict"] == "worse"
    done = command("--require", "equal", "--markdown")
    assert done.exit_code == 1
    assert "--require equal is not met" in done.stderr
    assert command("--require", "not-worse", "--margin", "100").exit_code == 0
    assert command("--require", "not-worse", "--margin", "0").exit_code == (1 if worse else 0)
    done = command("--anchors", "6", "--frames", "1", "--require", "equal")
    assert done.exit_code == 1
    assert "too few anchored runs" in done.stderr


def test_an_output_in_json_is_a_file_and_any_other_a_folder(command, tmp_path) -> None:
    assert command("-o", "cmp.json").exit_code == 0
    assert json.loads((tmp_path / "cmp.json").read_text())["a"]["bundle"] == "a"
    assert command("-o", "kept").exit_code == 0
    assert (tmp_path / "kept" / "comparison.json").is_file()
    done = CliRunner().invoke(app, ["eval", str(tmp_path / "bundles" / "a"), str(tmp_path / "data"), "-o", "e.json"])
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "e.json").read_text())["results"][0]["bundle"] == "a"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--json", "--markdown"], "exclude each other"),
        (["--require", "better"], "equal, not-worse"),
        (["--margin", "-1"], "half a point"),
        (["--sequences", "nope"], "nope"),
    ],
)
def test_wrong_input_is_one_clear_message(command, arguments, words) -> None:
    done = command(*arguments)
    assert done.exit_code == 2
    assert words in done.stderr


@pytest.mark.parametrize("option", ["--anchors", "--anchor-length", "--jobs", "--frames"])
def test_numbers_below_one_are_refused(command, option) -> None:
    done = command(option, "0")
    assert done.exit_code == 2
    assert option in done.stderr
