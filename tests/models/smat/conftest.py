"""SMAT filled with the recipe's numbers, and the golden inputs."""

from __future__ import annotations

import pytest
import torch

from edgetrack.models.base import recipe_normal, untrained_tensors
from edgetrack.models.smat import Network

# As golden/smat.npz says; a test holds the two against one another.
MULTIPLIERS = {"neck.BN_z.weight": 0.02, "neck.BN_z.bias": 0.02}


@pytest.fixture(scope="session")
def network() -> Network:
    """The published network with the golden weights; not to be changed."""
    module = Network()
    module.load_state_dict(untrained_tensors(module, MULTIPLIERS))
    return module.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def images() -> dict[str, torch.Tensor]:
    """`template` (1, 3, 128, 128) and `search` (1, 3, 256, 256), float32 RGB, as the golden files were made from."""
    shapes = {"template": (1, 3, 128, 128), "search": (1, 3, 256, 256)}
    return {key: torch.from_numpy(recipe_normal(f"input:{key}", shape)).float() for key, shape in shapes.items()}
