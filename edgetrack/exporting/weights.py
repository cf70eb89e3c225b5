"""Filling a network: from a checkpoint in the official format, or from names alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import msgspec
import torch
from torch import Tensor, nn

from edgetrack.bundle.manifest import LicenceInfo, WeightsInfo
from edgetrack.checkpoints import (
    check_finite,
    load_into,
    read_checkpoint,
    resemblance,
    unwrapped,
    with_counters,
    without_wrapper,
)
from edgetrack.errors import CheckpointError, UnknownNameError, WeightsMismatchError
from edgetrack.exporting.recipe import DEFAULT, UNTRAINED, Recipe, find_recipe, shipped_names
from edgetrack.io import open_regular
from edgetrack.models.base import make_network, untrained_tensors

_ALIKE = 0.9
"""Share of tensors equal in name and shape from which weights are taken for those of another tracker."""


@runtime_checkable
class Assembled(Protocol):
    """A network whose published weights come in another form than its state dict, or in several files."""

    def assemble(self, tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
        """All tensors of the files to those of the state dict; `source` names the files in a message."""


def fill(network: nn.Module, recipe: Recipe, weights: str) -> WeightsInfo:
    """Load weights into a network, strictly: all that the recipe does not call unused must fit.

    Prefixes that trainers put before names are left out, and batch counters, which inference does not use, may be
    absent; the note says what was left out.

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
    source = ", ".join(path.name for path in paths)
    read = {name: tensor for file in files for name, tensor in file.tensors.items()}
    try:
        tensors, prefixes = _named(network, recipe, read, source)
        check_finite(tensors, source=source)
        load_into(network, tensors, source=source)
    except CheckpointError:
        if other := _resembled(recipe, read, source):
            raise WeightsMismatchError(
                f"{source}: this looks like the weights of {other}, not of {recipe.name}; type {other!r} as the tracker"
            ) from None
        raise
    adapted = [f"tensors found under {file.key!r}" for file in files if file.key and file.key != recipe.checkpoint.key]
    adapted += [f"prefix {prefix!r} left out" for prefix in prefixes]
    hashes = [file.sha256 for file in files]
    official = all(found in recipe.checkpoint.official_sha256 for found in hashes)
    note = "" if official else "a checkpoint of the official format, given by the user"
    if len(files) > 1:
        note = "; ".join(
            [note or "several files", *(f"{p.name} sha256 {h}" for p, h in zip(paths, hashes, strict=True))]
        )
    note = "; ".join(filter(None, [note, *adapted]))
    return WeightsInfo(
        origin="official" if official else "custom",
        sha256=hashes[0] if len(hashes) == 1 else _hash_of(paths),
        file=source,
        note=note,
    )


def _named(
    network: nn.Module, recipe: Recipe, read: Mapping[str, Tensor], source: str
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of the files by the names of the network's state dict, and the prefixes that were left out."""
    state, unused = network.state_dict(), recipe.checkpoint.unused
    assembled = isinstance(network, Assembled)
    fits = without_wrapper if assembled else lambda name: name in state or name.startswith(unused)
    tensors, prefixes = unwrapped(read, fits, source)
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(unused)}
    if isinstance(network, Assembled):
        tensors = network.assemble(tensors, source)
    return with_counters(tensors, state), prefixes


def _resembled(recipe: Recipe, read: Mapping[str, Tensor], source: str) -> str | None:
    """The tracker of ours whose weights these are, if there is one beside the recipe's."""
    best, nearest = _ALIKE, None
    for other in map(find_recipe, shipped_names()):
        if other.name == recipe.name or other.onnx:  # graphs of ONNX files have no weights of their own
            continue
        try:
            with torch.device("meta"):
                network = make_network(other.family_name, other.configuration)
            tensors, _ = _named(network, other, read, source)
        except (CheckpointError, UnknownNameError):  # an UnknownNameError: a family of ONNX files alone
            continue
        share = resemblance({name: tuple(value.shape) for name, value in network.state_dict().items()}, tensors)
        if share > best:
            best, nearest = share, other.name
    return nearest


def _fill_default(network: nn.Module, recipe: Recipe) -> WeightsInfo:
    stated = recipe.require_default()
    file = read_checkpoint(stated.path)
    if file.sha256 != stated.sha256:
        raise CheckpointError(
            f"{stated.path} has sha256 {file.sha256}, the recipe states {stated.sha256}: the file was changed or cut "
            f"short; reinstall {stated.package}"
        )
    check_finite(file.tensors, source=stated.file)
    load_into(network, file.tensors, source=stated.file)
    terms = msgspec.UNSET if stated.licence is None else LicenceInfo(name=stated.licence)
    return WeightsInfo(origin="trained-here", sha256=file.sha256, file=stated.file, note=stated.note, licence=terms)


def _hash_of(paths: Sequence[Path]) -> str:
    """SHA-256 of several files, one after the other."""
    whole = hashlib.sha256()
    for path in paths:
        with open_regular(path) as file:
            while piece := file.read(1 << 20):
                whole.update(piece)
    return whole.hexdigest()
