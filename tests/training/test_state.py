from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from edgetrack.errors import CheckpointError
from edgetrack.models.base import find_model
from edgetrack.training.schedule import Average, optimizer_of
from edgetrack.training.settings import Settings
from edgetrack.training.state import Place, find_state, forget_state, load_state, read_place, save_state

Make = Callable[..., Settings]
Tiny = Callable[[], nn.Module]


def _stepped(network: nn.Module, settings: Settings) -> tuple[torch.optim.AdamW, Average]:
    optimizer, average = optimizer_of(network, settings), Average(network, 10)
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    average.update(network)
    return optimizer, average


def test_a_state_comes_back_bit_for_bit(tmp_path: Path, tiny: Tiny, settings: Make) -> None:
    network = tiny()
    optimizer, average = _stepped(network, settings())
    save_state(tmp_path, network, optimizer, average, Place(step=1, updates=1, samples=8, phase_done=1), settings())
    state = find_state(tmp_path)
    assert state is not None
    place, before = read_place(state)
    assert before == settings()
    other = nn.Module.to(tiny(), memory_format=torch.channels_last)
    other_optimizer, other_average = optimizer_of(other, settings()), Average(other, 10)
    load_state(state, other, other_optimizer, other_average, place)
    assert (place.step, place.samples, place.averaged) == (1, 8, 1)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])
        assert torch.equal(average.tensors[name], other_average.tensors[name])
    for a, b in zip(network.parameters(), other.parameters(), strict=True):
        for key in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(optimizer.state[a][key], other_optimizer.state[b][key])


def test_nothing_is_pickled_and_files_are_small(tmp_path: Path, settings: Make) -> None:
    network = find_model("smat").Network()
    optimizer, average = _stepped(network, settings())
    save_state(tmp_path, network, optimizer, average, Place(step=1, updates=1), settings())
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "state").iterdir()}
    assert set(sizes) == {f"{n}.safetensors" for n in ("model", "average", "moment1", "moment2")} | {"state.json"}
    assert max(sizes.values()) < 16e6
    assert sum(sizes.values()) - sizes["average.safetensors"] < 48e6


def test_a_kill_between_two_renames_loses_nothing(tmp_path: Path, tiny: Tiny, settings: Make) -> None:
    network = tiny()
    optimizer, average = _stepped(network, settings())
    save_state(tmp_path, network, optimizer, average, Place(step=1, updates=1), settings())
    (tmp_path / "state").rename(tmp_path / ".state.old")
    (tmp_path / ".state.new").mkdir()
    found = find_state(tmp_path)
    assert found is not None
    assert read_place(found)[0].step == 1
    save_state(tmp_path, network, optimizer, average, Place(step=2, updates=1), settings())
    found = find_state(tmp_path)
    assert found is not None
    assert (found.name, read_place(found)[0].step) == ("state", 2)
    forget_state(tmp_path)
    assert find_state(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"schema": 1, "place": {"step": "x"}}', "\x00"])
def test_a_damaged_state_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "state.json").write_text(text)
    with pytest.raises(CheckpointError, match="--restart"):
        read_place(tmp_path / "state")


@pytest.mark.parametrize("file", ["model", "average", "moment1", "moment2"])
def test_a_missing_or_foreign_part_is_named(tmp_path: Path, tiny: Tiny, settings: Make, file: str) -> None:
    network = tiny()
    optimizer, average = _stepped(network, settings())
    save_state(tmp_path, network, optimizer, average, Place(step=1, updates=1), settings())
    path = tmp_path / "state" / f"{file}.safetensors"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(CheckpointError, match=file):
        load_state(tmp_path / "state", network, optimizer, average, Place(step=1, updates=1))
