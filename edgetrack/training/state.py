"""A training that can be resumed: a folder of safetensors and JSON, replaced as a whole.

    state/model.safetensors     the network as it is             fp32
    state/moment1.safetensors   AdamW's mean of gradients        fp32
    state/moment2.safetensors   AdamW's mean of their squares    fp32
    state/average.safetensors   the running average of weights   fp32
    state/state.json            where the training is, its settings

Everything is kept in full precision, so a resumed training computes what an uninterrupted one computes. Nothing is
pickled. Files are written to a sibling folder that then takes the name; a kill at any moment leaves the old state or
the new one.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import cast

import msgspec
import torch
from torch import Tensor, nn

from edgetrack.checkpoints import check_tensors, load_into, read_checkpoint, save_safetensors
from edgetrack.errors import CheckpointError
from edgetrack.training.schedule import Average
from edgetrack.training.settings import Settings

FOLDER = "state"
_NEW, _OLD = ".state.new", ".state.old"
_MOMENTS = {"moment1": "exp_avg", "moment2": "exp_avg_sq"}
_JSON = "state.json"
_LARGEST_JSON = 2**20


class Place(msgspec.Struct, forbid_unknown_fields=True):
    """Where a training is.

    Attributes:
        step: steps taken, in all phases.
        samples: pairs drawn, so also the number of the next one.
        phase, phase_done: the phase and how much of it is done, in its unit.
        updates: steps that changed the weights; those with an infinite gradient do not.
        averaged: updates that the weight average has seen since it was restarted.
        seconds: time spent in training steps and what goes with them.
        best: highest AO on the held-aside sequences so far.
    """

    step: int = 0
    samples: int = 0
    phase: int = 0
    phase_done: float = 0.0
    updates: int = 0
    averaged: int = 0
    seconds: float = 0.0
    best: float | None = None


class _State(msgspec.Struct, forbid_unknown_fields=True):
    schema: int
    place: Place
    settings: Settings


def save_state(
    folder: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Average,
    place: Place,
    settings: Settings,
) -> None:
    """Write all of it under `folder`/state.

    Raises:
        OSError: the folder cannot be written to, or is full; the last state stays.
    """
    place.averaged = average.updates
    new = folder / _NEW
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    parts = {"model": network.state_dict(), "average": average.tensors}
    for file, key in _MOMENTS.items():
        named = network.named_parameters()
        parts[file] = {name: cast(Tensor, optimizer.state[p][key]) for name, p in named if p in optimizer.state}
    for file, tensors in parts.items():
        save_safetensors(tensors, new / f"{file}.safetensors", {"tracker": settings.tracker, "step": str(place.step)})
    text = msgspec.json.format(msgspec.json.encode(_State(1, place, settings)), indent=2)
    with (new / _JSON).open("wb") as file_:
        file_.write(text)
        file_.flush()
        os.fsync(file_.fileno())
    _swap(folder)


def _swap(folder: Path) -> None:
    current, old = folder / FOLDER, folder / _OLD
    shutil.rmtree(old, ignore_errors=True)
    if current.exists():
        current.rename(old)
    (folder / _NEW).rename(current)
    shutil.rmtree(old, ignore_errors=True)


def find_state(folder: Path) -> Path | None:
    """The folder of the saved state; also one that a kill in the middle of saving left under its old name."""
    for name in (FOLDER, _OLD):
        if (folder / name / _JSON).is_file():
            return folder / name
    return None


def forget_state(folder: Path) -> None:
    """Remove every saved state of a training."""
    for name in (FOLDER, _OLD, _NEW):
        shutil.rmtree(folder / name, ignore_errors=True)


def read_place(state: Path) -> tuple[Place, Settings]:
    """Where the training is, and with which settings it was started.

    Raises:
        CheckpointError: not a state that this version wrote.
    """
    path = state / _JSON
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise CheckpointError(f"{path} is larger than {_LARGEST_JSON} bytes; it is no training state")
        found = msgspec.json.decode(path.read_bytes(), type=_State)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{path} is not a training state: {error}. Start over with --restart, or copy the folder again"
        ) from error
    return found.place, found.settings


def load_state(
    state: Path, network: nn.Module, optimizer: torch.optim.Optimizer, average: Average, place: Place
) -> None:
    """Put a saved state back.

    Raises:
        CheckpointError: a file is missing, damaged or of another step or network.
    """
    load_into(network, read_checkpoint(state / "model.safetensors"), source="model.safetensors")
    saved = read_checkpoint(state / "average.safetensors").tensors
    check_tensors({n: tuple(t.shape) for n, t in average.tensors.items()}, saved, source="average.safetensors")
    for name, tensor in average.tensors.items():
        tensor.copy_(saved[name])
    average.updates = place.averaged
    if place.updates == 0:
        return
    parameters = dict(network.named_parameters())
    for file, key in _MOMENTS.items():
        moments = read_checkpoint(state / f"{file}.safetensors").tensors
        check_tensors({n: tuple(p.shape) for n, p in parameters.items()}, moments, source=f"{file}.safetensors")
        for name, parameter in parameters.items():
            entry = optimizer.state[parameter]
            # AdamW counts its steps in a float32 scalar on the CPU.
            entry["step"] = torch.tensor(float(place.updates))
            entry[key] = torch.zeros_like(parameter).copy_(moments[name])
