"""A small training pack, a network that learns in milliseconds, and what tests of the loop need beside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import pytest
import torch
from torch import Tensor, nn

from edgetrack.exporting.recipe import find_recipe
from edgetrack.media import load_scene
from edgetrack.training.method import TrainingMethod, find_method
from edgetrack.training.settings import TrainConfig, TrainRequest, resolve
from tests.builders import pack_entry, pack_parts, picture, write_pack, write_tar


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two runs of the suite side by side would otherwise wait for each other at every layer."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Packing(NamedTuple):
    """Functions that make packs, good and bad."""

    parts: Callable[..., tuple[list[dict[str, Any]], dict[str, bytes]]] = pack_parts
    entry: Callable[..., dict[str, Any]] = pack_entry
    write: Callable[..., Path] = write_pack
    write_tar: Callable[..., Path] = write_tar


@pytest.fixture(scope="session")
def packing() -> Packing:
    """Make packs of one's own."""
    return Packing()


@pytest.fixture(scope="session")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard of 4 sequences of 12 frames (160x120) and 4 pictures without a box; not to be changed."""
    return write_pack(tmp_path_factory.mktemp("pack") / "train-000.tar", *pack_parts())


@pytest.fixture(scope="session")
def own_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder format: two sequences, one with its images in img/, and a folder without boxes."""
    root = tmp_path_factory.mktemp("videos")
    for number, place in enumerate(("street/img", "yard")):
        folder = root / place
        folder.mkdir(parents=True)
        scene = load_scene("drift", frames=6, size=(160, 120), seed=number)
        for index in range(6):
            cv2.imwrite(str(folder / f"{index}.jpg"), scene.frame(index))
        rows = [",".join(f"{v:.2f}" for v in scene.box(index)) for index in range(6)]
        rows[3] = "nan,nan,nan,nan"
        (root / place.split("/")[0] / "groundtruth.txt").write_text("\n".join(rows) + "\n")
    (root / "textures").mkdir()
    cv2.imwrite(str(root / "textures" / "a.png"), picture(5))
    return root


@pytest.fixture
def train_config() -> Callable[..., TrainConfig]:
    """train_config(phases=("64:4",), ...) -> SMAT's configuration with these overrides."""

    def make(**overrides: Any) -> TrainConfig:
        return resolve(find_recipe("smat"), TrainRequest(tracker="smat", **overrides))

    return make


@pytest.fixture
def smat_method() -> TrainingMethod:
    """What the configuration of `train_config` is trained by."""
    return find_method(find_recipe("smat"))


class TinyNetwork(nn.Module):
    """Template (B, 3, 128, 128) and search (B, 3, S, S) to maps of S/16 cells, with BatchNorm as real networks have."""

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Conv2d(3, 8, 16, 16)
        self.norm = nn.BatchNorm2d(8)
        self.score, self.size, self.offset = nn.Conv2d(8, 1, 1), nn.Conv2d(8, 2, 1), nn.Conv2d(8, 2, 1)

    def forward(self, z: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        template = self.look(z).mean(dim=(2, 3), keepdim=True)
        features = torch.relu(self.norm(self.look(x) + template))
        return self.score(features).sigmoid(), self.size(features).sigmoid(), self.offset(features)


@pytest.fixture
def tiny() -> Callable[[], nn.Module]:
    """tiny() -> a new TinyNetwork, always with the same weights."""

    def make() -> nn.Module:
        torch.manual_seed(0)
        return TinyNetwork()

    return make
