"""The command in real processes, and what a request comes to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from edgetrack.errors import DeviceUnavailableError, UsageError, WeightsMismatchError
from edgetrack.export.recipe import find_recipe
from edgetrack.export.weights import fill
from edgetrack.models.base import find_model
from edgetrack.training.loop import Callbacks
from edgetrack.training.run import TrainRequest, train
from edgetrack.training.settings import TrainOverrides, find_device

SHORT = ("--phase", "64:2", "--batch", "2", "--threads", "1", "--workers", "0", "--held-out", "1", "--device", "cpu")


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error::RuntimeWarning", "-m", "edgetrack", "train", *arguments]


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_command(*arguments), capture_output=True, text=True, timeout=300, check=False)


def test_train_then_export_then_nothing_left_to_do(pack: Path, tmp_path: Path) -> None:
    done = _run("smat", "--data", str(pack), "--out", str(tmp_path), *SHORT, "--json")
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


def _request(pack: Path, folder: Path, **overrides: Any) -> TrainRequest:
    made = TrainOverrides(**{"phases": ("64:2",), "batch": 2, **overrides})
    return TrainRequest("smat", (pack,), folder, made, held_out=1, device="cpu", workers=0)


def test_other_settings_are_refused_and_restart_starts_over(pack: Path, tmp_path: Path) -> None:
    train(_request(pack, tmp_path))
    with pytest.raises(UsageError, match=r"seed: was 0, now 5.*\n.*--restart"):
        train(_request(pack, tmp_path, seed=5))
    request = _request(pack, tmp_path, seed=5)
    fresh = TrainRequest(**{**vars(request), "restart": True})
    events: list[str] = []
    assert train(fresh, Callbacks(on_event=events.append)).step == 2
    assert any("from scratch with seed 5" in event for event in events)


def test_training_starts_from_the_official_format(pack: Path, tmp_path: Path, pilot_weights: Path) -> None:
    request = TrainRequest(**{**vars(_request(pack, tmp_path)), "init": str(pilot_weights)})
    events: list[str] = []
    train(request, Callbacks(on_event=events.append, stop=lambda: True))
    assert any(f"started from {pilot_weights.name}, sha256" in event for event in events)
    before, after = find_model("smat").Network(), find_model("smat").Network()
    fill(before, find_recipe("smat"), str(pilot_weights))
    fill(after, find_recipe("smat"), str(tmp_path / "weights.safetensors"))
    assert all(
        torch.equal(a, b) for a, b in zip(before.state_dict().values(), after.state_dict().values(), strict=True)
    )


def test_training_starts_from_the_weights_that_ship(pack: Path, tmp_path: Path) -> None:
    request = TrainRequest(**{**vars(_request(pack, tmp_path)), "init": "default"})
    train(request, Callbacks(stop=lambda: True))
    before, after = find_model("smat").Network(), find_model("smat").Network()
    fill(before, find_recipe("smat"), "default")
    fill(after, find_recipe("smat"), str(tmp_path / "weights.safetensors"))
    assert all(
        torch.equal(a, b) for a, b in zip(before.state_dict().values(), after.state_dict().values(), strict=True)
    )


def test_what_cannot_be_done_says_so(pack: Path, tmp_path: Path) -> None:
    for arguments, code, says in (
        (("smat", "--data", str(tmp_path / "gone")), 2, "does not exist"),
        (("nobody", "--data", str(pack)), 2, "'nobody' is not known"),
        (("smat", "--data", str(pack), "--precision", "fp16"), 2, "expected bf16 or fp32"),
        (("smat", "--data", str(pack), "--init", "untrained"), 2, "leave --init out"),
    ):
        done = _run(*arguments, "--out", str(tmp_path / "out"), *SHORT)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert says in done.stderr
        assert "Traceback" not in done.stderr
    (tmp_path / "file").write_text("")
    request = TrainRequest("smat", (pack,), tmp_path / "file")
    with pytest.raises(UsageError, match="cannot be made"):
        train(request)


@pytest.mark.parametrize(("field", "value"), [("held_out", -1), ("workers", -1), ("threads", 0)])
def test_numbers_that_make_no_sense(pack: Path, tmp_path: Path, field: str, value: int) -> None:
    with pytest.raises(UsageError, match=str(value)):
        train(TrainRequest(**{**vars(_request(pack, tmp_path)), field: value}))


def test_a_start_from_other_weights_is_refused(pack: Path, tmp_path: Path) -> None:
    from edgetrack.checkpoints import save_safetensors

    save_safetensors({"x": torch.zeros(1)}, tmp_path / "x.safetensors", {})
    with pytest.raises(WeightsMismatchError):
        train(TrainRequest(**{**vars(_request(pack, tmp_path / "out")), "init": tmp_path / "x.safetensors"}))


def test_devices() -> None:
    assert find_device("cpu") == torch.device("cpu")
    assert find_device(None).type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(DeviceUnavailableError, match="cuda:99"):
        find_device("cuda:99")
    for name in ("jetson", "meta"):
        with pytest.raises(UsageError, match="expected cpu or cuda:0"):
            find_device(name)
