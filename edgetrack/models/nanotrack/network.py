"""NanoTrack v2 and v3 (HonglinChu/SiamTrackers, Apache-2.0) as published; no paper, lineage SiamBAN and LightTrack."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetrack.models.smat.network import ChannelAttention


class BlockPlan(NamedTuple):
    """One inverted residual: `hidden` channels inside, `squeeze` in its channel gate (0: it has none)."""

    kernel: int
    hidden: int
    c_out: int
    squeeze: int
    swish: bool
    stride: int


STEM = 16
BLOCKS = (
    BlockPlan(3, 16, 16, 8, swish=False, stride=2),
    BlockPlan(3, 72, 24, 0, swish=False, stride=2),
    BlockPlan(3, 88, 24, 0, swish=False, stride=1),
    BlockPlan(5, 96, 40, 24, swish=True, stride=2),
    BlockPlan(5, 240, 40, 64, swish=True, stride=1),
    BlockPlan(5, 240, 40, 64, swish=True, stride=1),
    BlockPlan(5, 120, 48, 32, swish=True, stride=1),
    BlockPlan(5, 144, 48, 40, swish=True, stride=1),
)
# The ImageNet network has stride 2 here.
WIDER_BLOCK = BlockPlan(5, 288, 96, 72, swish=True, stride=1)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Every normalisation of the network."""
    return nn.BatchNorm2d(channels, eps=1e-5)


class SqueezeExcite(nn.Module):
    """A gate for each channel from the global mean; a hard sigmoid, unlike the head's."""

    def __init__(self, channels: int, squeeze: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(channels, squeeze), nn.ReLU(), nn.Linear(squeeze, channels), nn.Hardsigmoid())

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.fc(x.mean(dim=(2, 3)))
        return x * gate[:, :, None, None]


class InvertedResidual(nn.Module):
    """Expand (where `hidden` differs from `c_in`), filter, gate, project; adds its input where shape allows.

    The gate comes before the activation in blocks that expand and after it in the one that does not.
    """

    def __init__(self, c_in: int, plan: BlockPlan) -> None:
        super().__init__()
        kernel, hidden, c_out, squeeze, swish, stride = plan
        self.expands = hidden != c_in
        self.residual = stride == 1 and c_in == c_out
        gate = SqueezeExcite(hidden, squeeze) if squeeze else nn.Identity()
        act = nn.Hardswish if swish else nn.ReLU
        depthwise = nn.Conv2d(hidden, hidden, kernel, stride, (kernel - 1) // 2, groups=hidden, bias=False)
        filter_ = [depthwise, batch_norm(hidden)]
        project = [nn.Conv2d(hidden, c_out, 1, bias=False), batch_norm(c_out)]
        if self.expands:
            expand = [nn.Conv2d(c_in, hidden, 1, bias=False), batch_norm(hidden), act()]
            self.conv = nn.Sequential(*expand, *filter_, gate, act(), *project)
        else:
            self.conv = nn.Sequential(*filter_, act(), gate, *project)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return x + out if self.residual else out


class Backbone(nn.Module):
    """BGR 0..255 to features at stride 16; one set of weights for template and search region."""

    def __init__(self, blocks: tuple[BlockPlan, ...]) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, STEM, 3, 2, 1, bias=False), batch_norm(STEM), nn.Hardswish())
        inputs = [STEM, *(plan.c_out for plan in blocks[:-1])]
        bodies = [InvertedResidual(c_in, plan) for c_in, plan in zip(inputs, blocks, strict=True)]
        self.features = nn.Sequential(stem, *bodies)
        self.channels = blocks[-1].c_out

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, channels, H/16, W/16), rounded up."""
        return self.features(image)


def centre(features: Tensor, size: int) -> Tensor:
    """The middle `size` x `size` of (B, C, H, W)."""
    top, left = ((length - size) // 2 for length in features.shape[2:])
    return features[:, :, top : top + size, left : left + size]


def pad_one(features: Tensor) -> Tensor:
    """One row and column of zeros on every side."""
    return torch.nn.functional.pad(features, (1, 1, 1, 1))


CELLS = 64
"""Of the template's features, 8 x 8: channels of the pixel-wise correlation."""
HEAD_DIM = 96
TOWER_STAGES = 6
KERNEL = 4
"""Side of the template's middle that v3's depth-wise correlation takes."""


def _projection(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, channels, 1), batch_norm(channels))


class PixelwiseCorrelation(nn.Module):
    """Every template cell as a 1x1 filter over the search features, then a channel gate; v3 filters once more."""

    def __init__(self, channels: int, *, refines: bool) -> None:
        super().__init__()
        self.CA_layer = ChannelAttention(CELLS)
        self.conv_kernel = _projection(channels)
        self.conv_search = _projection(channels)
        self.conv: nn.Module = nn.Identity()
        if refines:
            self.conv = nn.Sequential(
                nn.Conv2d(CELLS, CELLS, 2, groups=CELLS, bias=False),
                batch_norm(CELLS),
                nn.ReLU6(),
                nn.Conv2d(CELLS, CELLS, 1),
                batch_norm(CELLS),
            )

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        """Template (1, C, 8, 8) and search (1, C, 16, 16) to (1, 64, n, n)."""
        kernel, search = self.conv_kernel(z), self.conv_search(x)
        corr = torch.matmul(kernel.flatten(2).transpose(1, 2), search.flatten(2)).view(1, CELLS, *search.shape[2:])
        return self.conv(self.CA_layer(corr))


class DepthwiseCorrelation(nn.Module):
    """The template's middle as a filter of its own for every channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_kernel = _projection(channels)
        self.conv_search = _projection(channels)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        """Template (1, C, 8, 8) and search (1, C, 16, 16) to (1, C, 15, 15); the padding follows `conv_search`."""
        kernel = self.conv_kernel(centre(z, KERNEL))
        return F.conv2d(pad_one(self.conv_search(x)), kernel.transpose(0, 1), groups=kernel.shape[1])


def _separable_v2(c_in: int) -> list[nn.Module]:
    """No normalisation or activation between the two convolutions."""
    depthwise = nn.Conv2d(c_in, c_in, 3, padding=1, groups=c_in, bias=False)
    return [depthwise, nn.Conv2d(c_in, HEAD_DIM, 1, bias=False), batch_norm(HEAD_DIM), nn.ReLU6()]


def _separable_v3() -> list[nn.Module]:
    """Linear behind the second convolution."""
    depthwise = nn.Conv2d(HEAD_DIM, HEAD_DIM, 3, padding=1, groups=HEAD_DIM, bias=False)
    pointwise = nn.Conv2d(HEAD_DIM, HEAD_DIM, 1, bias=False)
    return [depthwise, batch_norm(HEAD_DIM), nn.ReLU6(), pointwise, batch_norm(HEAD_DIM)]


def _prediction(outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(HEAD_DIM, outputs, 1))


class HeadV2(nn.Module):
    """Correlation and a tower for each of classification and regression, on `cells` x `cells` places."""

    cells = 16

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.corr_pw_reg = PixelwiseCorrelation(channels, refines=False)
        self.corr_pw_cls = PixelwiseCorrelation(channels, refines=False)
        widths = [CELLS, *[HEAD_DIM] * (TOWER_STAGES - 1)]
        self.cls_pw_tower = nn.Sequential(*[layer for width in widths for layer in _separable_v2(width)])
        self.bbox_pw_tower = nn.Sequential(*[layer for width in widths for layer in _separable_v2(width)])
        self.cls_pred = _prediction(2)
        self.bbox_pred = _prediction(4)

    def forward(self, z: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Template and search features to class logits and logarithms of distances."""
        cls: Tensor = self.cls_pred(self.cls_pw_tower(self.corr_pw_cls(z, x)))
        loc: Tensor = self.bbox_pred(self.bbox_pw_tower(self.corr_pw_reg(z, x)))
        return cls, loc

    def tower(self, branch: str) -> tuple[nn.Sequential, nn.Sequential]:
        """Tower and prediction of `cls` or `reg`."""
        return (self.cls_pw_tower, self.cls_pred) if branch == "cls" else (self.bbox_pw_tower, self.bbox_pred)


class HeadV3(nn.Module):
    """As v2's with both correlations side by side and other towers."""

    cells = 15

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.corr_dw_reg = DepthwiseCorrelation(channels)
        self.corr_pw_reg = PixelwiseCorrelation(channels, refines=True)
        self.corr_dw_cls = DepthwiseCorrelation(channels)
        self.corr_pw_cls = PixelwiseCorrelation(channels, refines=True)
        self.cls_tower = nn.Sequential(*[layer for _ in range(TOWER_STAGES) for layer in _separable_v3()])
        self.bbox_tower = nn.Sequential(*[layer for _ in range(TOWER_STAGES) for layer in _separable_v3()])
        self.cls_logits = _prediction(2)
        self.bbox_pred = _prediction(4)
        self.down_reg = nn.Sequential(nn.Conv2d(CELLS + channels, HEAD_DIM, 1))
        self.down_cls = nn.Sequential(nn.Conv2d(CELLS + channels, HEAD_DIM, 1))

    def forward(self, z: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Template and search features to class logits and logarithms of distances."""
        both = torch.cat([self.corr_pw_cls(z, x), self.corr_dw_cls(z, x)], dim=1)
        cls: Tensor = self.cls_logits(self.cls_tower(self.down_cls(both)))
        both = torch.cat([self.corr_pw_reg(z, x), self.corr_dw_reg(z, x)], dim=1)
        loc: Tensor = self.bbox_pred(self.bbox_tower(self.down_reg(both)))
        return cls, loc

    def tower(self, branch: str) -> tuple[nn.Sequential, nn.Sequential]:
        """Tower and prediction of `cls` or `reg`."""
        return (self.cls_tower, self.cls_logits) if branch == "cls" else (self.bbox_tower, self.bbox_pred)


class NanoTrack(nn.Module):
    """Backbone and head; the published computation does not use the checkpoint's `neck`, which is not here.

    Version 2: 292 state-dict entries used of the checkpoint's 298, 334,078 parameters, 16 x 16 cells. Version 3: 432 of
    438, 541,446 parameters, 15 x 15 cells.
    """

    ban_head: HeadV2 | HeadV3

    def __init__(self, version: int = 2) -> None:
        super().__init__()
        if version not in (2, 3):
            raise ValueError(f"version {version}: expected 2 or 3")
        self.backbone = Backbone(BLOCKS if version == 2 else (*BLOCKS, WIDER_BLOCK))
        self.ban_head = (HeadV2 if version == 2 else HeadV3)(self.backbone.channels)

    def template(self, z: Tensor) -> Tensor:
        """Template crop, BGR 0..255 (1, 3, 127, 127), to the published per-target cache (1, C, 8, 8)."""
        return self.backbone(z)

    def step(self, x: Tensor, template: Tensor) -> tuple[Tensor, Tensor]:
        """Search crop, BGR 0..255 (1, 3, 255, 255), and `template()`'s result to the maps, n x n cells.

        Returns:
            cls (1, 2, n, n): logits of background and target. loc (1, 4, n, n): logarithms of the distances from the
            cell to the box's left, top, right and lower edge, in pixels of the crop; the published head ends with
            their exponential.
        """
        return self.ban_head(template, self.backbone(x))

    def forward(self, z: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.step(x, self.template(z))
