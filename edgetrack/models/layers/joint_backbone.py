"""The one-stream backbone of OSTrack's family: templates and search region are tokens of one ViT-B/16."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgetrack.models.layers.patches import PatchEmbed, Sizes
from edgetrack.models.layers.vit import layer_norm

PATCH = 16
# Positions of the image classifier that the weights came from; in checkpoints, without use.
CLASSIFIER_POSITIONS = 197


class JointBackbone(nn.Module):
    """Its parameters, by their published names; a tracker says how the layers are run.

    Args:
        sizes: of the crops; the patch is `PATCH`.
        dim: of a token.
        blocks: the layers.
    """

    def __init__(self, sizes: Sizes, dim: int, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, CLASSIFIER_POSITIONS, dim))
        self.pos_embed_z = nn.Parameter(torch.zeros(1, sizes.template_tokens, dim))
        self.pos_embed_x = nn.Parameter(torch.zeros(1, sizes.search_cells**2, dim))
        self.patch_embed = PatchEmbed(PATCH, dim)
        self.blocks = nn.ModuleList(blocks)
        self.norm = layer_norm(dim)

    def tokens(self, templates: Tensor, search: Tensor) -> Tensor:
        """Normalised RGB (T, 3, h, w) and (1, 3, H, W) to (1, N, dim): templates one after another, then the search."""
        z = self.patch_embed(templates) + self.pos_embed_z
        x = self.patch_embed(search) + self.pos_embed_x
        return torch.cat([z.reshape(1, -1, z.shape[-1]), x], dim=1)
