"""Both networks with the recipe's numbers and with the official ones, and the golden inputs."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgetrack.exporting.recipe import find_recipe
from edgetrack.exporting.weights import fill
from edgetrack.models.base import make_network, recipe_normal, untrained_tensors

NetworkMaker = Callable[..., nn.Module]


@pytest.fixture(scope="session")
def untrained_network() -> NetworkMaker:
    """untrained_network("nanotrack_v2") -> the published network with the golden weights; not to be changed."""

    @cache
    def make(tracker: str) -> nn.Module:
        module = make_network(tracker, {})
        module.load_state_dict(untrained_tensors(module, find_recipe(tracker).untrained.multipliers))
        return module.eval().requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def official_network(shared: Path) -> NetworkMaker:
    """official_network("nanotrack_v2") -> the published network with the author's weights; not to be changed."""

    @cache
    def make(tracker: str) -> nn.Module:
        recipe = find_recipe(tracker)
        path = shared / "data" / "peers" / "nanotrack" / recipe.checkpoint.file
        if not path.is_file():
            pytest.skip(f"REFERENCE FILES ABSENT: no file {path}")
        module = make_network(tracker, {})
        assert fill(module, recipe, str(path)).origin == "official"
        return module.eval().requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def images() -> dict[str, torch.Tensor]:
    """`template` (1, 3, 127, 127) and `search` (1, 3, 255, 255), float32 0..255, as the golden files were made from."""
    shapes = {"template": (1, 3, 127, 127), "search": (1, 3, 255, 255)}
    values = {key: np.clip(np.rint(128 + 48 * recipe_normal(f"input:{key}", s)), 0, 255) for key, s in shapes.items()}
    return {key: torch.from_numpy(value.astype(np.float32)) for key, value in values.items()}
