from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edgetrack.cli.main import app
from edgetrack.exporting.recipe import find_recipe
from edgetrack.exporting.weights import fill
from edgetrack.models.base import find_model
from edgetrack.training.loop import Callbacks
from edgetrack.training.run import train
from edgetrack.training.settings import TrainRequest
from tests.builders import pack_parts, write_pack

SHORT = ("--phase", "64:2", "--batch", "2", "--threads", "1", "--workers", "0", "--held-out", "1", "--device", "cpu")


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard of 4 sequences of 12 frames (160x120) and 4 pictures without a box; not to be changed."""
    return write_pack(tmp_path_factory.mktemp("pack") / "train-000.tar", *pack_parts())


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error::RuntimeWarning", "-m", "edgetrack", "train", *arguments]


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_command(*arguments), capture_output=True, text=True, timeout=300, check=False)


def test_train_then_export_then_nothing_left_to_do(pack: Path, tmp_path: Path) -> None:
    done = _run("smat", "--data", str(pack), "--out", str(tmp_path), *SHORT, "--hold-aside", "1", "--json")
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert (outcome["schema"], outcome["complete"], outcome["step"]) == (1, True, 2)
    assert "started from scratch with seed 0" in done.stderr
    assert "step 1: loss" in done.stderr
    info = fill(find_model("smat").Network(), find_recipe("smat"), outcome["weights"])
    assert info.file == "weights.safetensors"
    again = _request(pack, tmp_path)
    events: list[str] = []
    assert train(again, Callbacks(on_event=events.append)).step == 2
    assert "nothing is left to do; --restart starts over" in events


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_training_can_be_resumed(pack: Path, tmp_path: Path, number: signal.Signals) -> None:
    endless = ("--phase", "64:100000", *SHORT[2:])
    process = subprocess.Popen(
        _command("smat", "--data", str(pack), "--out", str(tmp_path), *endless),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if "step 1: loss" in line:
            process.send_signal(number)
            break
    out, rest = process.communicate(timeout=120)
    assert process.returncode == 128 + number, [*seen, rest]
    assert "not complete, the same command resumes it" in out
    assert "Traceback" not in rest
    state = json.loads((tmp_path / "state" / "state.json").read_text())
    assert state["place"]["step"] >= 1
    assert (tmp_path / "log.json").is_file()
    request = _request(pack, tmp_path, phases=("64:100000",))
    events: list[str] = []
    steps = iter([False, True, True, True])
    outcome = train(request, Callbacks(on_event=events.append, stop=lambda: next(steps)))
    assert any(f"resumed at step {state['place']['step']}" in event for event in events)
    assert (outcome.step, outcome.complete) == (state["place"]["step"] + 1, False)


def _request(pack: Path, folder: Path, **options: Any) -> TrainRequest:
    made: dict[str, Any] = {"phases": ("64:2",), "batch": 2, "held_out": 1, "device": "cpu", "workers": 0, **options}
    return TrainRequest(tracker="smat", data=(pack,), output=folder, **made)


def test_what_cannot_be_done_says_so(pack: Path, tmp_path: Path) -> None:
    for arguments, code, says in (
        (("smat", "--data", str(tmp_path / "gone")), 2, "does not exist"),
        (("nobody", "--data", str(pack)), 2, "'nobody' is not known"),
        (("smat", "--data", str(pack), "--precision", "fp16"), 2, "expected one of: bf16, fp32"),
        (("smat", "--data", str(pack), "--init", "untrained"), 2, "leave --init out"),
        (("smat", "--data", str(pack), "--init", "a.pth", "--init-backbone", "b.pth"), 2, "leave one of them out"),
        (("nanotrack_v3", "--data", str(pack)), 2, "has no [training] section"),
        (("smat", "--data", str(pack), "--phase", "100:5"), 2, "takes multiples of 32"),
        (("dmtrack", "--data", str(pack), "--phase", "256:1"), 2, "has no second one: put as many thermal, depth"),
        (("atstrack", "--data", str(pack), "--phase", "384:1"), 2, "sequence v0-a has none; write a sentence into"),
        (("spmtrack_b", "--data", str(pack), "--phase", "256:1"), 2, "searches crops of 378 pixels, a phase says 256"),
        (("smat", "--data", str(pack), "--stop-after", "0"), 2, "expected a time above 0, such as 90 (minutes)"),
        (("smat", "--data", str(pack), "--minutes", "5d"), 2, "--minutes is '5d'"),
    ):
        short = SHORT if "--phase" not in arguments else SHORT[2:]
        done = CliRunner().invoke(app, ["train", *arguments, "--out", str(tmp_path / "out"), *short])
        assert (done.exit_code, done.stdout) == (code, ""), done.stderr
        assert says in done.stderr
        assert "Traceback" not in done.stderr
