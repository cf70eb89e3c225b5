"""What a request to train comes to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from edgetrack.errors import DeviceUnavailableError, EdgetrackError, UsageError, WeightsMismatchError
from edgetrack.exporting.recipe import find_recipe
from edgetrack.exporting.weights import fill
from edgetrack.models.base import find_model
from edgetrack.training.loop import Callbacks
from edgetrack.training.run import train
from edgetrack.training.settings import TrainRequest, find_device


def _request(pack: Path, folder: Path, **options: Any) -> TrainRequest:
    made: dict[str, Any] = {"phases": ("64:2",), "batch": 2, "held_out": 1, "device": "cpu", "workers": 0, **options}
    return TrainRequest(tracker="smat", data=(pack,), output=folder, **made)


def test_other_settings_are_refused_and_restart_starts_over(pack: Path, tmp_path: Path) -> None:
    train(_request(pack, tmp_path))
    with pytest.raises(UsageError, match=r"seed: was 0, now 5.*\n.*--restart"):
        train(_request(pack, tmp_path, seed=5))
    fresh = _request(pack, tmp_path, seed=5, restart=True)
    events: list[str] = []
    assert train(fresh, Callbacks(on_event=events.append)).step == 2
    assert any("from scratch with seed 5" in event for event in events)


def test_training_starts_from_the_official_format(pack: Path, tmp_path: Path, pilot_weights: Path) -> None:
    request = _request(pack, tmp_path, init=str(pilot_weights))
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
    request = _request(pack, tmp_path, init="default")
    train(request, Callbacks(stop=lambda: True))
    before, after = find_model("smat").Network(), find_model("smat").Network()
    fill(before, find_recipe("smat"), "default")
    fill(after, find_recipe("smat"), str(tmp_path / "weights.safetensors"))
    assert all(
        torch.equal(a, b) for a, b in zip(before.state_dict().values(), after.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(("field", "value"), [("held_out", -1), ("workers", -1), ("threads", 0)])
def test_numbers_that_make_no_sense(pack: Path, tmp_path: Path, field: str, value: int) -> None:
    with pytest.raises(UsageError, match=str(value)):
        train(_request(pack, tmp_path, **{field: value}))


def test_a_start_from_other_weights_is_refused(pack: Path, tmp_path: Path) -> None:
    from edgetrack.checkpoints import save_safetensors

    save_safetensors({"x": torch.zeros(1)}, tmp_path / "x.safetensors", {})
    with pytest.raises(WeightsMismatchError):
        train(_request(pack, tmp_path / "out", init=str(tmp_path / "x.safetensors")))


def test_devices() -> None:
    assert find_device("cpu") == torch.device("cpu")
    assert find_device(None).type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(DeviceUnavailableError, match="cuda:99"):
        find_device("cuda:99")
    for name in ("jetson", "meta"):
        with pytest.raises(UsageError, match="expected cpu or cuda:0"):
            find_device(name)


@pytest.mark.parametrize(
    ("flags", "precision", "warns"),
    [
        (("avx2", "fma"), "bf16", True),
        (("avx2", "fma"), "fp32", False),
        (("avx2", "avx512_bf16"), "bf16", False),
        (("asimd", "bf16"), "bf16", False),
        ((), "bf16", False),
    ],
)
def test_a_processor_without_bf16_is_named_with_what_to_type(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], precision: str, warns: bool
) -> None:
    monkeypatch.setattr("edgetrack.training.run.cpu_flags", lambda: flags)
    (tmp_path / "file").write_text("")
    events: list[str] = []
    request = _request(pack, tmp_path / "file", precision=precision)
    with pytest.raises(EdgetrackError, match="cannot be made"):  # before anything is trained
        train(request, Callbacks(on_event=events.append))
    assert any("--precision fp32 is faster here" in event for event in events) is warns


def test_an_output_that_cannot_be_made(pack: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    request = TrainRequest(tracker="smat", data=(pack,), output=tmp_path / "file")
    with pytest.raises(EdgetrackError, match="cannot be made"):
        train(request)
