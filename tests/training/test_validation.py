from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgetrack.exporting.recipe import read_recipe
from edgetrack.models.base import GraphModule, find_model, make_network
from edgetrack.training import validation
from edgetrack.training.method import TrainingMethod, find_method, to_images
from edgetrack.training.sources import read_data
from edgetrack.training.validation import SHIFT, average_overlap
from tests.builders import jpeg, pack_parts, write_pack


class Stays(nn.Module):
    """Says that the target is where it was looked for, a quarter of the crop wide and high."""

    def forward(self, search: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        score = torch.zeros(1, 1, 16, 16)
        score[:, :, 8, 8] = 1
        return score, torch.full((1, 2, 16, 16), 0.25), torch.zeros(1, 2, 16, 16)


class Sees(Stays):
    """Finds the template's inner half in the search crop by squared differences, on a quarter of the pixels."""

    def forward(self, search: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        score, size, offset = super().forward(search, features)
        small, kernel = (
            nn.functional.avg_pool2d(to_images(image[None]), 2) for image in (search, TEMPLATE[32:96, 32:96])
        )
        score.zero_()
        energy = nn.functional.conv2d(small**2, torch.ones_like(kernel), padding=16)
        distance = energy - 2 * nn.functional.conv2d(small, kernel, padding=16)
        row, column = divmod(int(distance[0, 0, :128, :128].argmin()), 128)
        score[0, 0, row // 8, column // 8] = 1
        offset[0, :, row // 8, column // 8] = torch.tensor([column % 8 / 8, row % 8 / 8])
        return score, size, offset


TEMPLATE = torch.zeros(128, 128, 3, dtype=torch.uint8)


class Keeps(nn.Module):
    """A template graph that keeps the crop for `Sees`."""

    def __init__(self, features: tuple[int, ...]) -> None:
        super().__init__()
        self.features = features

    def forward(self, image: Tensor) -> Tensor:
        TEMPLATE.copy_(image)
        return torch.zeros(self.features)


@pytest.fixture
def with_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[nn.Module], None]:
    """with_step(module) -> SMAT is tracked with this in place of its network."""

    def replace(step: nn.Module) -> None:
        class Fake:
            def reference(self, network: nn.Module) -> tuple[GraphModule, ...]:
                template, published = find_model("smat").reference(network)
                keeps = Keeps(template.outputs[0].shape)
                return (
                    GraphModule("template", "init", keeps, template.inputs, template.outputs),
                    GraphModule("step", "step", step, published.inputs, published.outputs),
                )

        monkeypatch.setattr(validation, "find_model", lambda family: Fake())

    return replace


def _weights(method: TrainingMethod) -> dict[str, Tensor]:
    return make_network(method.recipe.family_name, method.recipe.configuration).state_dict()


def test_a_box_that_stays_put_is_shaken_off_and_one_that_is_found_again_is_not(
    pack: Path, smat_method: TrainingMethod, with_step: Callable[[nn.Module], None]
) -> None:
    clips, weights = read_data([pack]).sequences, _weights(smat_method)
    with_step(Stays())
    stays = average_overlap(smat_method, weights, clips, 0)
    with_step(Sees())
    sees = average_overlap(smat_method, weights, clips, 0)
    assert set(stays) == set(sees) == {clip.name for clip in clips}
    assert max(stays.values()) < 0.4
    # The block is 32x24, the answer is always square: 24*27.7 / (32*24 + 27.7*27.7 - 24*27.7) = 0.77 at best.
    assert min(sees.values()) > 0.6


def test_the_same_weights_get_the_same_figure(
    pack: Path, smat_method: TrainingMethod, with_step: Callable[[nn.Module], None]
) -> None:
    clips, weights = read_data([pack]).sequences[:2], _weights(smat_method)
    with_step(Stays())
    found = [average_overlap(smat_method, weights, clips, seed) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    assert average_overlap(smat_method, weights, (), 0) == {}
    assert SHIFT < 2


def test_maps_that_are_not_finite_leave_the_box_where_it_was(
    pack: Path, smat_method: TrainingMethod, with_step: Callable[[nn.Module], None]
) -> None:
    class Broken(Stays):
        def forward(self, search: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            score, size, offset = super().forward(search, features)
            return score, size * math.nan, offset

    with_step(Broken())
    found = average_overlap(smat_method, _weights(smat_method), read_data([pack]).sequences[:1], 0)
    assert all(0 <= value < 0.5 for value in found.values())


@pytest.mark.parametrize("name", ["dastm", "atstrack", "dmtrack", "spmtrack_b"])
def test_every_family_is_tracked_by_its_own_procedure(
    tiny_recipe: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    entries, files = pack_parts(sequences=1, frames=3, plain=0)
    for entry in entries:
        entry |= {"second": f"second/{entry['file']}", "text": "category=block"}
        files[entry["second"]] = jpeg(np.full((120, 160, 3), 90, np.uint8))
    clips = read_data([write_pack(tmp_path / "a.tar", entries, files)]).sequences
    method = find_method(read_recipe(tiny_recipe(name)))
    ((clip, overlap),) = average_overlap(method, _weights(method), clips, 0).items()
    assert clip == "v0-a"
    assert 0 <= overlap <= 1


def test_crops_reach_the_network_as_rgb_between_0_and_1() -> None:
    crops = torch.zeros(1, 2, 2, 3, dtype=torch.uint8)
    crops[..., 0], crops[..., 2] = 255, 51  # BGR
    images = to_images(crops)
    assert (images.shape, images.dtype) == ((1, 3, 2, 2), torch.float32)
    assert images[0, :, 0, 0].tolist() == pytest.approx([0.2, 0.0, 1.0])
    assert images.is_contiguous(memory_format=torch.channels_last)
