"""`edgetrack ablate` from end to end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgetrack.cli.main import app


@pytest.fixture
def run(tiny_recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    monkeypatch.setattr("edgetrack.exporting.parity.DEFAULT_SOURCES", ("synthetic:drift?frames=2",))
    monkeypatch.setattr("edgetrack.exporting.parity.MOMENTS", (1,))

    def invoke(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["ablate", str(tiny_recipe("dastm")), "--target", "onnx", *arguments])
        return result.exit_code, result.output

    return invoke


def test_one_table_and_a_page(run: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    out = tmp_path / "table"
    wanted = (
        "--over",
        "gate=none,select",
        "--dataset",
        "synthetic:drift",
        "--frames",
        "3",
        "--no-bench",
        "-o",
        str(out),
    )
    code, text = run(*wanted)
    assert code == 0, text
    assert "gate=none" in text
    assert "untrained weights track nothing" in text
    page = (out / "report.html").read_text()
    assert "dastm-gate-select-onnx-fp32" in page
    code, text = run(*wanted, "--json")
    rows = json.loads(text[text.index("{\n") :])["rows"]
    assert [row["configuration"] for row in rows] == [["gate=none"], ["gate=select"]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--over", "gate=none", "--no-bench"), "neither accuracy nor speed"),
        (("--over", "gate=non"), "did you mean 'none'"),
        (("--over", "gate", "--json", "--markdown"), "exclude each other"),
    ],
)
def test_requests_that_do_not_fit_are_refused(
    run: Callable[..., tuple[int, str]], arguments: tuple[str, ...], words: str
) -> None:
    code, text = run(*arguments)
    assert code == 2
    assert words in text
