"""`edgetrack recipe new` and `edgetrack inspect FILE.onnx`, from a file to a bundle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgetrack.cli.main import app
from tests.exporting.test_adapt import write

RUN = CliRunner()


@pytest.fixture(autouse=True)
def short_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgetrack.exporting.parity.DEFAULT_SOURCES", ("synthetic:drift?frames=2",))
    monkeypatch.setattr("edgetrack.exporting.parity.MOMENTS", (1,))


def test_from_a_file_to_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mine.onnx")
    shown = RUN.invoke(app, ["inspect", "mine.onnx", "--json"])
    assert shown.exit_code == 0, shown.output
    said = json.loads(shown.stdout)
    assert said["family"] == "center"
    assert [t["role"] for t in said["inputs"]] == ["template", "search"]
    made = RUN.invoke(app, ["recipe", "new", "--onnx", "mine.onnx", "-o", "mine.toml"])
    assert made.exit_code == 0, made.output
    again = RUN.invoke(app, ["recipe", "new", "--onnx", "mine.onnx", "-o", "mine.toml"])
    assert again.exit_code == 2
    exported = RUN.invoke(app, ["export", "mine.toml", "--onnx", "mine.onnx", "--target", "onnx"])
    assert exported.exit_code == 0, exported.output
    assert (tmp_path / "out" / "mine-onnx-fp32" / "manifest.json").is_file()


def test_table_names_tensors_and_roles(tmp_path: Path) -> None:
    shown = RUN.invoke(app, ["inspect", str(write(tmp_path / "mine.onnx"))])
    assert shown.exit_code == 0, shown.output
    assert "looks like family center" in shown.stdout
    assert "edgetrack recipe new --onnx" in shown.stdout.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "mine.yaml"], "ends in .toml"),
        (["-o", "mine.toml", "--family", "centre"], "family 'centre' is not known"),
        (["-o", "mine.toml", "--family", "box"], "look like family 'center', not 'box'"),
    ],
)
def test_what_cannot_be_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mine.onnx")
    result = RUN.invoke(app, ["recipe", "new", "--onnx", "mine.onnx", *arguments])
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())
    assert not (tmp_path / "mine.toml").exists()
