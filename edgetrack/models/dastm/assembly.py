"""DASTM's weights from a checkpoint of either form: as it was trained, or with its trunks re-parameterised already."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from edgetrack.errors import CheckpointError
from edgetrack.models.layers.mobileone import VARIANTS, MobileOne, untangled

_OUTPUT = re.compile(r"stage(\d)(?:\.\d+)?\.(?:rbr_conv\.0\.conv|reparam_conv)\.weight")


def assemble(
    variant: str, trunks: Mapping[str, MobileOne], tensors: Mapping[str, Tensor], source: str
) -> dict[str, Tensor]:
    """The state dict from a checkpoint's tensors.

    Args:
        variant: of MobileOne, which the recipe states.
        trunks: the network's, by name.
        tensors: as they lie in the file.
        source: the file's name, for messages.

    Raises:
        CheckpointError: the file is STMTrack's, MobileOne's alone, or of another variant of MobileOne.
    """
    _refuse_others(tensors, source)
    state = dict(tensors)
    for prefix, trunk in trunks.items():
        own = {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}
        _check_variant(variant, trunk, own, source)
        for name in own:
            del state[f"{prefix}.{name}"]
        state.update({f"{prefix}.{name}": tensor for name, tensor in untangled(trunk, own).items()})
    return state


def _refuse_others(tensors: Mapping[str, Tensor], source: str) -> None:
    if any(name.startswith(("stage0.", "module.stage0.")) for name in tensors):
        raise CheckpointError(
            f"{source} holds MobileOne alone, a start for training; give a checkpoint of the whole tracker, or "
            "--weights untrained"
        )
    if "basemodel_q.Conv2d_1a_3x3.conv.weight" in tensors:
        raise CheckpointError(
            f"{source} is STMTrack's, with an Inception trunk, expected MobileOne's (basemodel_q.stage0. ...); "
            "no official weights of this tracker exist: train it, or give --weights untrained"
        )


def _check_variant(variant: str, trunk: MobileOne, own: Mapping[str, Tensor], source: str) -> None:
    """Name the variant that a trunk's tensors are of, where it is another one."""
    channels = [0] * len(trunk.channels)
    for name, tensor in own.items():
        if (match := _OUTPUT.fullmatch(name)) and tensor.ndim == 4 and int(match[1]) < len(channels):
            channels[int(match[1])] = max(channels[int(match[1])], tensor.shape[0])
    if tuple(channels) == trunk.channels:
        return
    for other, kind in VARIANTS.items():
        if list(kind.channels) == channels:
            raise CheckpointError(
                f"{source} is of MobileOne-{other.upper()}, the recipe says variant = {variant!r}; set variant = "
                f"{other!r} in a copy of the recipe, [configuration], and export that file"
            )
