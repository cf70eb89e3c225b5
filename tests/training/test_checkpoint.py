from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from edgetrack.errors import CheckpointError
from edgetrack.exporting.recipe import find_recipe
from edgetrack.models.base import find_model
from edgetrack.training.checkpoint import (
    LogSegment,
    TrainLog,
    TrainPosition,
    find_state,
    forget_state,
    load_state,
    read_log,
    read_position,
    save_state,
)
from edgetrack.training.method import find_method
from edgetrack.training.optimization import WeightAverage, optimizer_of
from edgetrack.training.settings import TrainConfig

Make = Callable[..., TrainConfig]
Tiny = Callable[[], nn.Module]


KEPT = ("optimizer-exp_avg", "optimizer-exp_avg_sq", "optimizer-step")


def _begun(network: nn.Module, train_config: TrainConfig) -> tuple[torch.optim.Optimizer, WeightAverage]:
    return optimizer_of(network, find_method(find_recipe("smat")), train_config), WeightAverage(network, 10)


def _stepped(network: nn.Module, train_config: TrainConfig) -> tuple[torch.optim.Optimizer, WeightAverage]:
    optimizer, average = _begun(network, train_config)
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    average.update(network)
    return optimizer, average


def _save(
    folder: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage,
    position: TrainPosition,
    train_config: TrainConfig,
) -> None:
    save_state(folder, network, dict(network.named_parameters()), optimizer, average, position, train_config)


def test_a_state_comes_back_bit_for_bit(tmp_path: Path, tiny: Tiny, train_config: Make) -> None:
    network = tiny()
    optimizer, average = _stepped(network, train_config())
    position = TrainPosition(step=1, updates=1, samples=8, phase_done=1)
    _save(tmp_path, network, optimizer, average, position, train_config())
    state = find_state(tmp_path)
    assert state is not None
    position, before = read_position(state)
    assert before == train_config()
    other = nn.Module.to(tiny(), memory_format=torch.channels_last)
    other_optimizer, other_average = _begun(other, train_config())
    load_state(state, other, dict(other.named_parameters()), other_optimizer, other_average, position)
    assert (position.step, position.samples, position.averaged) == (1, 8, 1)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])
        assert torch.equal(average.tensors[name], other_average.tensors[name])
    for a, b in zip(network.parameters(), other.parameters(), strict=True):
        for key in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(optimizer.state[a][key], other_optimizer.state[b][key])


def test_nothing_is_pickled_and_files_are_small(tmp_path: Path, train_config: Make) -> None:
    network = find_model("smat").Network()
    optimizer, average = _stepped(network, train_config())
    _save(
        tmp_path,
        network,
        optimizer,
        average,
        TrainPosition(step=1, updates=1),
        train_config(),
    )
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "state").iterdir()}
    assert set(sizes) == {f"{n}.safetensors" for n in ("model", "average", *KEPT)} | {"state.json"}
    assert max(sizes.values()) < 16e6
    assert sum(sizes.values()) - sizes["average.safetensors"] < 48e6


def test_a_kill_between_two_renames_loses_nothing(tmp_path: Path, tiny: Tiny, train_config: Make) -> None:
    network = tiny()
    optimizer, average = _stepped(network, train_config())
    _save(
        tmp_path,
        network,
        optimizer,
        average,
        TrainPosition(step=1, updates=1),
        train_config(),
    )
    (tmp_path / "state").rename(tmp_path / ".state.old")
    (tmp_path / ".state.new").mkdir()
    found = find_state(tmp_path)
    assert found is not None
    assert read_position(found)[0].step == 1
    _save(
        tmp_path,
        network,
        optimizer,
        average,
        TrainPosition(step=2, updates=1),
        train_config(),
    )
    found = find_state(tmp_path)
    assert found is not None
    assert (found.name, read_position(found)[0].step) == ("state", 2)
    forget_state(tmp_path)
    assert find_state(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"schema": 1, "place": {"step": "x"}}', "\x00"])
def test_a_damaged_state_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "state.json").write_text(text)
    with pytest.raises(CheckpointError, match="--restart"):
        read_position(tmp_path / "state")


@pytest.mark.parametrize("file", ["model", "average", *KEPT])
def test_a_missing_or_foreign_part_is_named(tmp_path: Path, tiny: Tiny, train_config: Make, file: str) -> None:
    network = tiny()
    position = TrainPosition(step=1, updates=1)
    optimizer, average = _stepped(network, train_config())
    _save(tmp_path, network, optimizer, average, position, train_config())
    path = tmp_path / "state" / f"{file}.safetensors"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(CheckpointError, match=file):
        load_state(tmp_path / "state", network, dict(network.named_parameters()), optimizer, average, position)


def test_files_of_earlier_runs_keep_their_keys(tmp_path: Path, tiny: Tiny, train_config: Make) -> None:
    network = tiny()
    optimizer, average = _stepped(network, train_config())
    _save(
        tmp_path,
        network,
        optimizer,
        average,
        TrainPosition(step=1, updates=1),
        train_config(),
    )
    state = json.loads((tmp_path / "state" / "state.json").read_text())
    assert (state["place"]["step"], state["settings"]["tracker"], state["settings"]["schedule"]["gap"]) == (
        1,
        "smat",
        12,
    )
    segment = LogSegment(0, ["a.tar"], "1 sequence", ["held"], [], "cpu", 1, 0, "from scratch", {})
    TrainLog(train_config(), segments=[segment]).write(tmp_path)
    text = json.loads((tmp_path / "log.json").read_text())
    assert set(text) == {"settings", "schema", "pieces", "rows", "validations"}
    assert text["pieces"][0]["held_aside"] == ["held"]
    log = read_log(tmp_path)
    assert log is not None
    assert log.segments == [segment]
