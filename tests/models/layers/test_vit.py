"""What of the template's tokens does not depend on the search region in the one-stream trackers (decision 0030)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgetrack.models.base import make_network, untrained_tensors

SIZE: dict[str, Any] = {"dim": 32, "depth": 3, "heads": 2}
PATCH_16 = {**SIZE, "search_size": 64, "template_size": 32, "head_channels": 16}
TRACKERS: dict[str, dict[str, Any]] = {
    "ostrack": {**PATCH_16, "elimination": False},
    "dmtrack": {**PATCH_16, "templates": 2},
    "atstrack": {**PATCH_16, "templates": 2, "attributes": ""},
    "spmtrack": {**SIZE, "search_size": 56, "template_size": 28, "templates": 2, "rank": 4, "experts": 2},
}


def run(network: Any, tracker: str, search: int, seed: int) -> None:
    """One step on templates that are always the same and a search region of the seed."""
    sizes, generator = network.sizes, torch.Generator().manual_seed(seed)
    fixed = torch.Generator().manual_seed(0)
    z = torch.rand(sizes.templates, 3, sizes.template, sizes.template, generator=fixed)
    x = torch.rand(1, 3, search, search, generator=generator)
    if tracker == "ostrack":
        network(z[:1], x)
    elif tracker == "dmtrack":
        network(torch.stack([z, z], dim=1), torch.cat([x, x]))
    elif tracker == "atstrack":
        network(z, x, torch.zeros(1, 1, SIZE["dim"]), None)
    else:
        network(z, torch.zeros(sizes.templates, sizes.template_tokens), x, torch.zeros(1, SIZE["dim"]))


@pytest.mark.parametrize("tracker", TRACKERS)
def test_the_templates_keys_are_the_same_for_every_search_region_in_the_first_layer_alone(tracker: str) -> None:
    network: Any = make_network(tracker, TRACKERS[tracker])
    network.load_state_dict(untrained_tensors(network, {}, {}))
    network.eval().requires_grad_(False)
    blocks = network.blocks if tracker == "spmtrack" else network.backbone.blocks
    sizes = network.sizes
    many, count = sizes.search_cells**2, sizes.template_tokens * sizes.templates
    seen: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        # What keys and values are linear maps of.
        seen.append(output[:, -(many + count) : -many].clone())

    for block in blocks:
        block.norm1.register_forward_hook(keep)
    for seed in (1, 2):
        run(network, tracker, sizes.search, seed)
    one, other = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    streams = len(one) // len(blocks)
    assert all(torch.equal(a, b) for a, b in zip(one[:streams], other[:streams], strict=True))
    for a, b in zip(one[streams:], other[streams:], strict=True):
        assert (a - b).abs().max() > 1e-4
