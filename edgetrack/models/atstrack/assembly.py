"""ATSTrack's weights from the files that a user has: all in one, or CLIP's text tower in a file of its own."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from edgetrack.errors import CheckpointError

TOWER = "text."
# Top-level names of the text tower in CLIP's own file, and of what lies beside it there.
_CLIP_TEXT = (
    "positional_embedding",
    "text_projection",
    "logit_scale",
    "transformer.",
    "token_embedding.",
    "ln_final.",
)
_CLIP_REST = ("visual.", "input_resolution", "context_length", "vocab_size")


def assemble(tensors: Mapping[str, Tensor], source: str, *, reads: bool) -> dict[str, Tensor]:
    """The state dict from all tensors of the files.

    CLIP's names are taken as they are in its file. Without language (`reads` False) what belongs to it is left out, so
    that a checkpoint of the whole network gives the ablation without it.

    Args:
        tensors: of one file or two.
        source: the files' names, for messages.
        reads: whether the network has a language part.

    Raises:
        CheckpointError: the file is ODTrack's, which has no language part, or the text tower is missing.
    """
    state: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.startswith(_CLIP_REST):
            continue
        key = f"{TOWER}{name}" if name.startswith(_CLIP_TEXT) else name
        if reads or not key.startswith((TOWER, "fgm.", "lang_")):
            state[key] = tensor
    if reads and "backbone.cls_pos_embed" in state:
        _require_language(state, source)
    return state


def _require_language(state: Mapping[str, Tensor], source: str) -> None:
    parts = {prefix: any(name.startswith(prefix) for name in state) for prefix in (TOWER, "fgm.", "lang_")}
    if not parts["fgm."] and not parts["lang_"]:
        raise CheckpointError(
            f"{source} holds ODTrack's tensors alone, without ATSTrack's language part (fgm.*, lang_*); give a "
            'checkpoint of ATSTrack, or set attributes = "" in a copy of the recipe for the tracker without language'
        )
    if not parts[TOWER]:
        raise CheckpointError(
            f"{source} holds no text tower; give CLIP's file too, with a comma between them: "
            "--weights atstrack.pth.tar,clip-vit-b-32.pt (its state_dict, not the TorchScript archive)"
        )
