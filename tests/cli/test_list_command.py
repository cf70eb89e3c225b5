"""`edgetrack list`: tables for people, numbers, booleans and null in JSON."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edgetrack.cli.main import app
from tests.builders import write_scripted


def listed(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["list", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def items(key: str, *arguments: str) -> dict[str, dict[str, Any]]:
    found = json.loads(listed(*arguments, "--json"))
    assert found["schema"] == 1
    return {row[key]: row for row in found["items"]}


def test_bundles_are_listed_with_their_problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = write_scripted(tmp_path / "good")
    shutil.copytree(good, tmp_path / "bad[red]")
    (tmp_path / "bad[red]" / "manifest.json").write_text("{")
    rows = items("bundle", str(tmp_path))
    sound, broken = rows[str(good)], rows[str(tmp_path / "bad[red]")]
    assert (sound["tracker"], sound["target"], sound["problem"]) == ("smat", "fake", None)
    assert sound["size"] == sum(file.stat().st_size for file in good.iterdir())
    assert "not JSON" in broken["problem"]
    assert broken["tracker"] is None
    monkeypatch.chdir(tmp_path)
    text = listed(".")
    assert "0.0 MiB" in text
    assert "bad[red]" in text, "a name is no markup"


def test_an_empty_folder_says_how_to_make_a_bundle(tmp_path: Path) -> None:
    assert "edgetrack export" in listed(str(tmp_path))
    assert items("bundle", str(tmp_path)) == {}


@pytest.mark.parametrize(
    ("option", "word"),
    [
        ("--trackers", "smat"),
        ("--targets", "openvino"),
        ("--scenes", "synthetic:drift"),
        ("--devices", "jetson-xavier-nx"),
    ],
)
def test_everything_else_is_listed(option: str, word: str) -> None:
    assert word in listed(option)


def test_json_holds_numbers_and_booleans() -> None:
    drift = items("scene", "--scenes")["synthetic:drift"]
    assert (drift["frames"], drift["size"]) == (150, [640, 360])
    openvino = items("target", "--targets")["openvino"]
    assert (openvino["installed"], openvino["install"], openvino["hints"]) == (True, None, ["bf16", "fp16"])
    assert "fp32" in openvino["precisions"]
    assert items("device", "--devices")["jetson"]["runs"]["tensorrt"] == "cuda:0"
