"""SPMTrack's weights from what is published: a file of what was trained, and DINOv2's (docs/trackers/spmtrack.md)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from edgetrack.errors import CheckpointError
from edgetrack.models.layers.patches import resized_grid

# In DINOv2's file; the tracker has no class token and masks nothing.
_UNUSED = ("cls_token", "mask_token")
_QKV = re.compile(r"(blocks\.\d+\.attn\.qkv)\.(weight|bias)")
_BLOCK = re.compile(r"blocks\.(\d+)\.")
_MAP = re.compile(r"(blocks\.\d+\.(?:attn\.proj|mlp\.(?:fc1|fc2|w12|w3)))\.(weight|bias)")


class Trunk(NamedTuple):
    """Width and layers of a transformer."""

    dim: int
    depth: int


PUBLISHED = {"B": Trunk(768, 12), "L": Trunk(1024, 24), "G": Trunk(1536, 40)}


def assemble(
    tensors: Mapping[str, Tensor], source: str, trunk: Trunk, cells: int, alpha: int, rsexpert: bool
) -> dict[str, Tensor]:
    """The state dict from all tensors of the files, or from those of a merged file, which are its own already.

    Args:
        tensors: of the published file and DINOv2's.
        source: the files' names, for messages.
        trunk: what the network was made with.
        cells: along the search region's side, for which position embeddings are resized.
        alpha, rsexpert: what the network was made with; the file's own must agree.

    Raises:
        CheckpointError: the weights are of another variant, the experts were trained with another scale, or DINOv2's
            part is not there.
    """
    _check_trunk(tensors, trunk, source)
    state: dict[str, Tensor] = {}
    scale = {"expert_alpha": alpha, "use_rsexpert": rsexpert}
    for name, tensor in tensors.items():
        if name in scale:
            _check_scale(name, tensor, scale[name], source)
        elif match := _QKV.fullmatch(name):
            prefix, leaf = match.groups()
            parts = tensor.chunk(3)
            state.update({f"{prefix}.{part}.linear.{leaf}": t.clone() for part, t in zip("qkv", parts, strict=False)})
        elif match := _MAP.fullmatch(name):
            state[f"{match[1]}.linear.{match[2]}"] = tensor
        elif name == "pos_embed" and tensor.ndim == 3 and tensor.shape[1] != cells * cells:
            state[name] = resized_grid(tensor.float(), cells)
        elif name not in _UNUSED:
            state[name] = tensor
    if "track_query" in state and "norm.weight" not in state:
        raise CheckpointError(
            f"{source} holds only what SPMTrack trained; the rest is DINOv2's: give both files with a comma between "
            "them, --weights model.bin,dinov2_vitb14_pretrain.pth"
        )
    return state


def _check_trunk(tensors: Mapping[str, Tensor], expected: Trunk, source: str) -> None:
    """Name the variant that the weights are of, where it is another one."""
    blocks = [int(match[1]) for name in tensors if (match := _BLOCK.match(name))]
    if "track_query" not in tensors or not blocks:
        return
    found = Trunk(tensors["track_query"].shape[-1], max(blocks) + 1)
    if found != expected:
        variant = next((f", which is SPMTrack-{name}" for name, trunk in PUBLISHED.items() if trunk == found), "")
        raise CheckpointError(
            f"{source} is of dim {found.dim} and depth {found.depth}{variant}; the recipe's network has dim "
            f"{expected.dim} and depth {expected.depth}; set dim, depth and heads in a copy of the recipe, "
            "[configuration], and export that file"
        )


def _check_scale(name: str, tensor: Tensor, expected: int, source: str) -> None:
    if tensor.numel() != 1 or tensor.item() != expected:
        found = tensor.item() if tensor.numel() == 1 else f"of shape {tuple(tensor.shape)}"
        key = {"expert_alpha": "alpha", "use_rsexpert": "rsexpert"}[name]
        raise CheckpointError(
            f"{source}: {name} is {found}, the recipe expects {expected}; set {key} in the recipe's [configuration] "
            "to what the weights were trained with"
        )
