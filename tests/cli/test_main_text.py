"""What the verbs print: JSON that is nothing else, and text from outside that is only text."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from edgetrack.benchmark.record import CandidateFailure
from edgetrack.benchmark.warnings import BenchWarning
from edgetrack.capabilities import targets
from edgetrack.cli import doctor
from edgetrack.cli.console import stdout
from edgetrack.cli.main import app
from edgetrack.evaluation.results import EvalRecord
from edgetrack.presentation.table import show_all
from edgetrack.system.opencv import OpenCvBuild
from tests.builders import scripted_manifest, write_scripted
from tests.report.conftest import MACHINE, benchmark, comparison, contestant, evaluated, pair, sensitivity, side, write

POISON = "[/red]\x1b]0;t\x07\x9b2J\u202e\n::error::x\r\n  ::add-mask::y ##[error]z ##vso[a]|`<b>@me"
"""Markup, escape sequences, a turn of the writing's direction, commands of CI systems, Markdown and HTML."""
FOLDER = POISON.replace("/", "|").replace("<", "").replace("\r", "")
BUDGET = 'schema = 1\nname = "mine"\n[limits]\nsize_mb = 0.5\n'
Invoke = Callable[..., Any]


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """invoke(verb, ...) runs it in a folder with two bundles, a record of a benchmark and a budget."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    for name in ("a", "b"):
        write_scripted(tmp_path / "out" / name)
    write(tmp_path / "bench.json", benchmark(contestant("smat-onnx-fp32", 20.0)))
    (tmp_path / "budget.toml").write_text(BUDGET)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


CLIP = "synthetic:drift?frames=4&size=96x64"
JSON: dict[str, tuple[tuple[str, ...], int, str]] = {
    "export": (("smat", "--target", "torch", "--weights", "untrained", "--dry-run"), 0, "parity_sources"),
    "track": (("a", CLIP), 0, "frames"),
    "bench": (
        (
            "a",
            "--no-reference",
            "--rounds",
            "1",
            "--iterations",
            "3",
            "--duration",
            "0",
            "--warmup",
            "0",
            "--source",
            CLIP,
        ),
        0,
        "results",
    ),
    "eval": (("a", CLIP), 0, "results"),
    "compare": (("a", "b", "--dataset", CLIP), 0, "delta_ao"),
    "check": (("bench.json", "--budget", "budget.toml"), 1, "findings"),
    "inspect": (("a",), 0, "graphs"),
    "list": ((), 0, "items"),
    "doctor": ((), 0, "machine"),
}
ELSEWHERE = {
    "ablate": "test_ablate_command.py",
    "train": "test_train_command.py",
    "tune": "test_tune_command.py",
    "verify": "test_main_verbs.py",
}
"""Verbs whose --json takes a training pack a real bundle or processes, and where it is tested."""


@pytest.mark.parametrize("verb", JSON)
def test_json_is_one_document_on_stdout_and_nothing_else(invoke: Invoke, verb: str) -> None:
    arguments, code, key = JSON[verb]
    done = invoke(verb, *arguments, "--json")
    assert done.exit_code == code, done.output
    found = json.loads(done.stdout)
    assert found["schema"] == 1
    assert key in found


def test_every_verb_that_has_json_is_tested() -> None:
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    having = {name for name, verb in commands.items() if any("--json" in option.opts for option in verb.params)}
    assert having == {*JSON, *ELSEWHERE}
    for file in ELSEWHERE.values():
        assert '"--json"' in (Path(__file__).parent / file).read_text()


def check(text: str, commands: tuple[str, ...] = ()) -> None:
    """Nothing in what was printed steers a terminal or a CI system, but for those commands."""
    steering = {c for c in text if c != "\n" and (unicodedata.category(c)[0] == "C" or c in "\u2028\u2029")}
    assert not steering, text
    lines = text.split("\n")
    assert [line for line in lines if line.strip().startswith("::") and not line.startswith(commands or "\0")] == []
    assert "##[" not in text
    assert "##vso[" not in text


@pytest.fixture
def poisoned(invoke: Invoke, tmp_path: Path) -> Path:
    """A folder with poisoned names in everything that verbs read."""
    manifest = scripted_manifest(
        "p", title=POISON, weights={"origin": "untrained", "note": POISON}, tools={POISON: POISON}
    )
    write_scripted(tmp_path / "out" / "p", msgspec.convert(msgspec.to_builtins(manifest), type(manifest)))
    write_scripted(tmp_path / "out" / FOLDER, scripted_manifest("q"))
    frames = tmp_path / "data" / FOLDER / "img"
    frames.mkdir(parents=True)
    for index in range(3):
        (frames / f"{index}.jpg").write_bytes(cv2.imencode(".jpg", np.full((64, 96, 3), 90, np.uint8))[1].tobytes())
    (frames.parent / "groundtruth.txt").write_text("10,12,20,16\n" * 3)
    (tmp_path / "data" / "bad").mkdir()
    (tmp_path / "data" / "bad" / "groundtruth.txt").write_text(f"1,1,9,9\n{FOLDER.splitlines()[0]}\n")
    one = contestant(
        "smat-onnx-fp32",
        20.0,
        bundle=POISON,
        versions={POISON: POISON},
        warnings=[BenchWarning(POISON, POISON, POISON)],
    )
    failure = CandidateFailure(candidate=POISON, error=POISON, message=POISON, rounds_done=0)
    record = benchmark(one, failures=[failure])
    machine = msgspec.structs.replace(record.machine, cpu_model=POISON, packages={POISON: POISON})
    source = msgspec.structs.replace(record.source, spec=POISON, camera=POISON)
    write(tmp_path / "p.json", msgspec.structs.replace(record, machine=machine, source=source))
    found = evaluated(POISON, 0.7, (0.6, 0.8))
    write(tmp_path / "e.json", EvalRecord(results=[found]))
    named = msgspec.structs.replace(side("smat-onnx-fp32", 0.7), bundle=POISON)
    write(tmp_path / "c.json", comparison(named, named, None, [pair(POISON, [1.0] * 12)], dataset=POISON))
    write(tmp_path / "s.json", msgspec.structs.replace(sensitivity(), advice=POISON, dataset=POISON))
    return tmp_path


def verbs(place: Path) -> Iterator[tuple[tuple[str, ...], int]]:
    yield ("inspect", "p"), 0
    yield ("inspect", "p", "--json"), 0
    yield ("inspect", f"out/{FOLDER}"), 0
    yield ("list",), 0
    yield ("list", "--json"), 0
    yield ("verify", f"out/{FOLDER}"), 1
    yield ("track", f"out/{FOLDER}", f"data/{FOLDER}/img", "--box", "10,12,20,16"), 0
    yield ("track", "p", f"data/{FOLDER}/none"), 2
    yield ("track", "p", f"data/{FOLDER}/img", "--box", "10,12,20,16", "--json"), 0
    yield ("eval", "p", "data"), 1
    yield ("eval", "p", "data", "--markdown"), 1
    yield ("compare", "p", "a", "--dataset", "data", "--sequences", FOLDER), 0
    yield ("check", "p.json", "--budget", "budget.toml"), 1
    yield ("check", "p.json", "--budget", "budget.toml", "--json"), 1
    yield ("check", "p.json", "--budget", "budget.toml", "--markdown"), 1
    yield ("check", "p.json", "--budget", "budget.toml", "--github"), 1
    yield ("check", f"p.json:{POISON}x", "--budget", "budget.toml", "--github"), 2
    yield ("report", "p.json", "e.json", "c.json", "s.json", "-o", "page.html"), 0
    yield ("report", "p.json", "e.json", "c.json", "s.json", "--markdown"), 0
    yield ("export", f"{FOLDER}.toml"), 2
    yield ("export", POISON), 2
    yield ("export", "smat", "--target", POISON), 2
    yield ("calibrate", "show", POISON), 2
    yield ("pack", f"out/{FOLDER}"), 0
    yield ("bench", POISON), 2
    yield ("pull", POISON), 2
    yield ("push", f"out/{FOLDER}", POISON), 2


def test_text_from_outside_is_text_in_every_verb(poisoned: Path, invoke: Invoke) -> None:
    for arguments, code in verbs(poisoned):
        done = invoke(*arguments)
        assert done.exit_code == code, (arguments, done.output)
        check(done.output, ("::error title=edgetrack check%3A size_mb::",) if "--github" in arguments else ())
        assert "Traceback" not in done.output
        if "--json" not in arguments and "--markdown" not in arguments and "--github" not in arguments:
            assert any(mark in done.output for mark in ("[/red]", "[|red]", "0,")), (arguments, done.output)
    summary = (poisoned / "summary.md").read_text()
    check(summary)
    assert "\\[/red\\]" in summary
    assert "@me" not in summary
    assert "<b>" not in summary
    assert not any(character in (poisoned / "page.html").read_text() for character in "\x1b\x9b\u202e\x07")


def test_a_machine_that_calls_itself_names_is_shown_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    machine = msgspec.structs.replace(MACHINE, cpu_model=POISON, device_model=POISON, packages={POISON: POISON})
    opencv = OpenCvBuild(packages={POISON: POISON}, version=POISON, place=POISON, windows=POISON, problem=POISON)
    show_all(doctor.tables(machine, opencv, targets(), {"onnx": POISON}, [POISON]), stdout())
    shown = capsys.readouterr().out
    check(shown)
    assert "[/red]" in shown


@pytest.mark.parametrize("data", ["[" * 100_000, '{"a":' * 100_000], ids=["lists", "objects"])
def test_json_nested_without_end_is_one_line_wherever_it_is_read(invoke: Invoke, tmp_path: Path, data: str) -> None:
    (tmp_path / "deep.json").write_text(data)
    manifest = tmp_path / "out" / "deep"
    write_scripted(manifest)
    (manifest / "manifest.json").write_text(data)
    for arguments in (
        ("check", "deep.json", "--budget", "budget.toml"),
        ("check", "bench.json", "--budget", "budget.toml", "--baseline", "deep.json"),
        ("eval", "a", CLIP, "--fps", "30", "--latencies", "deep.json"),
        ("report", "deep.json"),
        ("inspect", "deep"),
        ("verify", "deep"),
        ("track", "deep", CLIP),
    ):
        done = invoke(*arguments)
        assert done.exit_code in (1, 2), (arguments, done.output)
        assert done.output.startswith("edgetrack: "), (arguments, done.output)
        assert done.output.count("\n") == 1, (arguments, done.output)
