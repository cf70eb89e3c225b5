"""Filling a network: from a checkpoint in the official format, or from names alone."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from edgetrack.bundle.manifest import WeightsInfo
from edgetrack.checkpoints import check_finite, load_into, read_checkpoint
from edgetrack.export.recipe import Recipe
from edgetrack.models.untrained import untrained_tensors

UNTRAINED = "untrained"


def fill(network: nn.Module, recipe: Recipe, weights: str) -> WeightsInfo:
    """Load weights into a network, strictly: all that the recipe does not call unused must fit.

    Args:
        network: the published module.
        recipe: says where the tensors lie in the official file.
        weights: a path, or `untrained`.

    Raises:
        CheckpointError: the file cannot be read, is unsafe, or holds other tensors.
    """
    if weights == UNTRAINED:
        tensors = untrained_tensors(network, recipe.untrained.multipliers, recipe.untrained.overrides)
        load_into(network, tensors, source=UNTRAINED)
        return WeightsInfo(origin="untrained", note="deterministic numbers from the tensors' names: tracks nothing")
    path = Path(weights)
    checkpoint = read_checkpoint(path, key=recipe.checkpoint.key)
    unused = recipe.checkpoint.unused
    tensors = {name: tensor for name, tensor in checkpoint.tensors.items() if not name.startswith(unused)}
    check_finite(tensors, source=path.name)
    load_into(network, tensors, source=path.name)
    official = checkpoint.sha256 in recipe.checkpoint.official_sha256
    return WeightsInfo(
        origin="official" if official else "custom",
        sha256=checkpoint.sha256,
        file=path.name,
        note="" if official else "a checkpoint of the official format, given by the user",
    )
