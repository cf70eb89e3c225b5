from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgetrack.training.settings import TrainConfig, TrainDevice, to_images
from edgetrack.training.sources import read_data
from edgetrack.training.validation import SHIFT, average_overlap

Make = Callable[..., TrainConfig]
MACHINE = TrainDevice(torch.device("cpu"), "fp32")


class Stays(nn.Module):
    """Says that the target is where it was looked for, a quarter of the crop wide and high."""

    def forward(self, z: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        batch, cells = x.shape[0], x.shape[-1] // 16
        score = torch.zeros(batch, 1, cells, cells)
        score[:, :, cells // 2, cells // 2] = 1
        return score, torch.full((batch, 2, cells, cells), 0.25), torch.zeros(batch, 2, cells, cells)


class Sees(Stays):
    """Finds the template's inner half in the search crop by squared differences, on a quarter of the pixels."""

    def forward(self, z: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        score, size, offset = super().forward(z, x)
        small, kernel = (nn.functional.avg_pool2d(image, 2) for image in (x, z[:, :, 32:96, 32:96]))
        score.zero_()
        for n, (image, block) in enumerate(zip(small, kernel, strict=True)):
            energy = nn.functional.conv2d(image[None] ** 2, torch.ones_like(block)[None], padding=16)
            distance = energy - 2 * nn.functional.conv2d(image[None], block[None], padding=16)
            row, column = divmod(int(distance[0, 0, :128, :128].argmin()), 128)
            score[n, 0, row // 8, column // 8] = 1
            offset[n, :, row // 8, column // 8] = torch.tensor([column % 8 / 8, row % 8 / 8])
        return score, size, offset


def test_a_box_that_stays_put_is_shaken_off_and_one_that_is_found_again_is_not(pack: Path, train_config: Make) -> None:
    clips = read_data([pack]).sequences
    stays = average_overlap(Stays(), clips, train_config(), MACHINE)
    sees = average_overlap(Sees(), clips, train_config(), MACHINE)
    assert set(stays) == set(sees) == {clip.name for clip in clips}
    assert max(stays.values()) < 0.4
    # The block is 32x24, the answer is always square: 24*27.7 / (32*24 + 27.7*27.7 - 24*27.7) = 0.77 at best.
    assert min(sees.values()) > 0.6


def test_the_same_weights_get_the_same_figure_and_the_mode_is_left_alone(pack: Path, train_config: Make) -> None:
    network = Stays().train()
    clips = read_data([pack]).sequences[:2]
    assert average_overlap(network, clips, train_config(), MACHINE) == average_overlap(
        network, clips, train_config(), MACHINE
    )
    assert network.training
    assert average_overlap(network, (), train_config(), MACHINE) == {}
    assert SHIFT < 2


def test_crops_reach_the_network_as_rgb_between_0_and_1() -> None:
    crops = np.zeros((1, 2, 2, 3), np.uint8)
    crops[..., 0], crops[..., 2] = 255, 51  # BGR
    images = to_images(crops, torch.device("cpu"))
    assert (images.shape, images.dtype) == ((1, 3, 2, 2), torch.float32)
    assert images[0, :, 0, 0].tolist() == pytest.approx([0.2, 0.0, 1.0])
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_maps_that_are_not_finite_leave_the_box_where_it_was(pack: Path, train_config: Make) -> None:
    class Broken(Stays):
        def forward(self, z: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            score, size, offset = super().forward(z, x)
            return score, size * math.nan, offset

    found = average_overlap(Broken(), read_data([pack]).sequences[:1], train_config(), MACHINE)
    assert all(0 <= value < 0.5 for value in found.values())
