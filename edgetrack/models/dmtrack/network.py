"""DMTrack as published: OSTrack's ViT-B/16 on two modalities, weights shared, adapters in every block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn

from edgetrack.errors import CheckpointError
from edgetrack.models.dmtrack.adapters import DeepAdapter, ShallowAdapter, TemporalAdapter
from edgetrack.models.layers.center_head import CenterHead, Maps
from edgetrack.models.layers.joint_backbone import PATCH, JointBackbone
from edgetrack.models.layers.patches import Sizes
from edgetrack.models.layers.vit import Attention, Mlp, layer_norm


class Block(nn.Module):
    """One transformer layer for both modalities: (a, b), each (1, N, dim), to the same shapes."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = layer_norm(dim)
        self.attn = Attention(nn.Linear(dim, 3 * dim), nn.Linear(dim, dim), heads)
        self.norm2 = layer_norm(dim)
        self.mlp = Mlp(nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim))
        self.adap_t = ShallowAdapter(dim)
        self.adap2_t = DeepAdapter(dim)
        self.adap_tem1 = TemporalAdapter(dim)
        self.adap_tem2 = TemporalAdapter(dim)

    def forward(self, a: Tensor, b: Tensor, frames: int, search: int) -> tuple[Tensor, Tensor]:
        """`frames` templates' tokens, then `search` places."""
        a, b = a + self.adap_tem1(a, frames, search), b + self.adap_tem2(b, frames, search)
        na, nb = self.norm1(a), self.norm1(b)
        a, b = a + self.attn(na) + self.adap_t(nb), b + self.attn(nb) + self.adap_t(na)
        ma, mb = self.norm2(a), self.norm2(b)
        da, db = self.adap2_t(ma, mb)
        return a + self.mlp(ma) + da, b + self.mlp(mb) + db


class Backbone(JointBackbone):
    """Images of both modalities to the sum of their search features."""

    def __init__(self, sizes: Sizes, dim: int, depth: int, heads: int) -> None:
        super().__init__(sizes, dim, [Block(dim, heads) for _ in range(depth)])

    def forward(self, templates: Tensor, search: Tensor) -> Tensor:
        """(T, 2, 3, h, w) and (2, 3, H, W), normalised RGB, modality in the dimension of 2, to (1, dim, F, F)."""
        a, b = (self.tokens(templates[:, modality], search[modality : modality + 1]) for modality in (0, 1))
        count = self.pos_embed_x.shape[1]
        for block in self.blocks:
            a, b = block(a, b, templates.shape[0], count)
        features = self.norm(a) + self.norm(b)
        cells = round(count**0.5)
        return cast(Tensor, features[:, -count:].transpose(1, 2).reshape(1, -1, cells, cells))


class DmTrack(nn.Module):
    """The published network: 674 state-dict entries, 93,304,965 parameters.

    Args:
        search_size, template_size: pixels, multiples of 16.
        templates: the most template frames at once; 4 for the paper's uniform choice of 3 intervals and the first.
        dim, depth, heads: of the transformer; dim is a multiple of heads.
        head_channels: of the head's first convolutions, a multiple of 8.
    """

    def __init__(
        self,
        *,
        search_size: int = 256,
        template_size: int = 128,
        templates: int = 4,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        head_channels: int = 256,
    ) -> None:
        super().__init__()
        self.sizes = Sizes(PATCH, search_size, template_size, templates)
        self.backbone = Backbone(self.sizes, dim, depth, heads)
        self.box_head = CenterHead(dim, head_channels)

    def assemble(self, tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
        """The state dict is the file's tensors as they are.

        Raises:
            CheckpointError: they are those of a tracker of one image a frame, without the adapters.
        """
        if "backbone.pos_embed_x" in tensors and not any(".adap" in name for name in tensors):
            raise CheckpointError(
                f"{source} is of a tracker of one image a frame (OSTrack's tensors, without DMTrack's adapters adap*); "
                "give DMTrack's checkpoint for RGB-T, RGB-E or RGB-D, or --weights untrained"
            )
        return dict(tensors)

    def forward(self, templates: Tensor, search: Tensor) -> Maps:
        """Template crops (T, 2, 3, 128, 128) and search crop (2, 3, 256, 256), normalised RGB, colour before X.

        Returns:
            score (1, 1, 16, 16) and size (1, 2, 16, 16) in 1e-4..1-1e-4, size as fractions of the crop; offset
            (1, 2, 16, 16) in cells.
        """
        maps: Maps = self.box_head(self.backbone(templates, search))
        return maps
