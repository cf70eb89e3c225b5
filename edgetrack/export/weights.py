"""Filling a network: from a checkpoint in the official format, or from names alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from edgetrack.bundle.manifest import WeightsInfo
from edgetrack.checkpoints import check_finite, load_into, read_checkpoint
from edgetrack.errors import CheckpointError
from edgetrack.export.recipe import DEFAULT, UNTRAINED, Recipe
from edgetrack.models.untrained import untrained_tensors


@runtime_checkable
class Assembled(Protocol):
    """A network whose published weights come in another form than its state dict, or in several files."""

    def assemble(self, tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
        """All tensors of the files to those of the state dict; `source` names the files in a message."""


def fill(network: nn.Module, recipe: Recipe, weights: str) -> WeightsInfo:
    """Load weights into a network, strictly: all that the recipe does not call unused must fit.

    Args:
        network: the published module.
        recipe: says where the tensors lie in the official file.
        weights: a path, several with commas between them where the recipe's `file` names several, `default` or
            `untrained`.

    Raises:
        CheckpointError: the file cannot be read, is unsafe, or holds other tensors.
        UsageError: `default`, and the tracker has none.
    """
    if weights == UNTRAINED:
        tensors = untrained_tensors(network, recipe.untrained.multipliers, recipe.untrained.overrides)
        load_into(network, tensors, source=UNTRAINED)
        return WeightsInfo(origin="untrained", note="deterministic numbers from the tensors' names: tracks nothing")
    if weights == DEFAULT:
        return _fill_default(network, recipe)
    paths = (Path(weights),) if Path(weights).exists() else tuple(map(Path, weights.split(",")))
    if len(paths) > 1 and not isinstance(network, Assembled):
        raise CheckpointError(f"{weights}: weights of tracker {recipe.name!r} are one file; give its path alone")
    files = [
        read_checkpoint(path, key=recipe.checkpoint.key if index == 0 else None) for index, path in enumerate(paths)
    ]
    unused = recipe.checkpoint.unused
    tensors = {name: t for file in files for name, t in file.tensors.items() if not name.startswith(unused)}
    source = ", ".join(path.name for path in paths)
    if isinstance(network, Assembled):
        tensors = network.assemble(tensors, source)
    check_finite(tensors, source=source)
    load_into(network, tensors, source=source)
    hashes = [file.sha256 for file in files]
    official = all(found in recipe.checkpoint.official_sha256 for found in hashes)
    note = "" if official else "a checkpoint of the official format, given by the user"
    if len(files) > 1:
        note = "; ".join(
            [note or "several files", *(f"{p.name} sha256 {h}" for p, h in zip(paths, hashes, strict=True))]
        )
    return WeightsInfo(
        origin="official" if official else "custom",
        sha256=hashes[0] if len(hashes) == 1 else _hash_of(paths),
        file=source,
        note=note,
    )


def _fill_default(network: nn.Module, recipe: Recipe) -> WeightsInfo:
    stated = recipe.require_default()
    file = read_checkpoint(stated.path)
    if file.sha256 != stated.sha256:
        raise CheckpointError(
            f"{stated.path} has sha256 {file.sha256}, the recipe states {stated.sha256}: the file was changed or cut "
            "short; reinstall edgetrack"
        )
    check_finite(file.tensors, source=stated.file)
    load_into(network, file.tensors, source=stated.file)
    return WeightsInfo(origin="trained-here", sha256=file.sha256, file=stated.file, note=stated.note)


def _hash_of(paths: Sequence[Path]) -> str:
    """SHA-256 of several files, one after the other."""
    whole = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                whole.update(piece)
    return whole.hexdigest()
