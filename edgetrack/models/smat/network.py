"""SMAT (arXiv 2309.03979) as published: MobileViTv2 with mixed separable attention."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetrack.models.layers.center_head import SCORE_MIN, CenterHead
from edgetrack.models.layers.mobilevit import (
    ATTENTIONS,
    ConvLayer,
    InvertedResidual,
    MixedMobileViTBlock,
    attention_stack,
)

STRIDE = 16
FUSIONS = {"both": (True, True), "layer_3": (True, False), "layer_4": (False, True), "none": (False, False)}
"""Where template and search attend to one another: in layer_3, in layer_4."""
CORRELATIONS = ("gated", "plain", "depthwise")
HEADS = ("attention", "convolutional")


class Sizes(NamedTuple):
    """Pixels of the two crops, both on a side."""

    search: int
    template: int

    def grids(self, stride: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Cells of the search region's and the template's map, (height, width) each."""
        search, template = self.search // stride, self.template // stride
        return (search, search), (template, template)


def _check(sizes: Sizes, width: float, **chosen: tuple[str, Collection[str]]) -> None:
    for name, size in zip(("search_size", "template_size"), sizes, strict=True):
        if size < 2 * STRIDE or size % (2 * STRIDE):
            raise ValueError(f"{name} is {size}, expected a multiple of {2 * STRIDE}")
    if sizes.template**2 % (sizes.search * STRIDE):
        raise ValueError(
            f"template_size is {sizes.template}, whose square must be a multiple of {STRIDE} x search_size = "
            f"{STRIDE * sizes.search}: its tokens lie in rows as long as the search region's"
        )
    if not 0 < width <= 4 or (8 * width) % 1:
        raise ValueError(f"width is {width}, expected a multiple of 0.125 up to 4")
    for name, (value, known) in chosen.items():
        if value not in known:
            raise ValueError(f"{name} is {value!r}, expected one of {', '.join(known)}")


class Backbone(nn.Module):
    """MobileViTv2 to stride 16; the template joins at `layer_3`.

    Args:
        width: all channels are so many times those of MobileViTv2-1.0.
        mixed: whether template and search attend to one another in `layer_3` and in `layer_4`.
        kind: of attention.
    """

    def __init__(self, width: float = 1.0, mixed: tuple[bool, bool] = (True, True), kind: str = "separable") -> None:
        super().__init__()
        c1, c2, c3, c4, c5, d3, d4 = (int(channels * width) for channels in (32, 64, 128, 256, 384, 128, 192))
        self.stem_channels, self.dims = c3, (d3, d4)
        self.conv_1 = ConvLayer(3, c1, 3, stride=2)
        self.layer_1 = nn.Sequential(InvertedResidual(c1, c2, 1))
        self.layer_2 = nn.Sequential(InvertedResidual(c2, c3, 2), InvertedResidual(c3, c3, 1))
        mix_3, mix_4 = (
            MixedMobileViTBlock(channels, dim, blocks, mixed=mixes, kind=kind)
            for channels, dim, blocks, mixes in ((c4, d3, 2, mixed[0]), (c5, d4, 4, mixed[1]))
        )
        self.layer_3 = nn.ModuleList([InvertedResidual(c3, c4, 2), mix_3])
        self.layer_4 = nn.ModuleList([InvertedResidual(c4, c5, 2), mix_4])

    def stem(self, image: Tensor) -> Tensor:
        """RGB 0..1 (B, 3, H, W) to (B, 128, H/4, W/4): conv_1, layer_1, layer_2."""
        return self.layer_2(self.layer_1(self.conv_1(image)))

    def mixed(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Search (B, 128, 64, 64) and template (B, 128, 32, 32) to (B, 384, 16, 16) and (B, 384, 8, 8)."""
        for reduce, mix in (self.layer_3, self.layer_4):
            x, z = mix(reduce(x), reduce(z))
        return x, z

    def looks(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """The attention in the search region, (B, 32, 32) and (B, 16, 16), from the inputs of `mixed`."""
        found = []
        for reduce, mix in (self.layer_3, self.layer_4):
            x, z = reduce(x), reduce(z)
            found.append(cast(MixedMobileViTBlock, mix).look(x, z))
            x, z = mix(x, z)
        return found[0], found[1]


class Neck(nn.Module):
    """One BatchNorm for the search features, one for the template's."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.BN_x = nn.BatchNorm2d(channels, eps=1e-5)
        self.BN_z = nn.BatchNorm2d(channels, eps=1e-5)


class ChannelAttention(nn.Module):
    """Gate per channel from the global mean."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels, 1)
        self.fc2 = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=(2, 3), keepdim=True)
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(mean))))


class PixelwiseCorrelation(nn.Module):
    """Every template position as a 1x1 filter over the search features, then, where it is gated, a channel gate."""

    def __init__(self, positions: int, *, gated: bool = True) -> None:
        super().__init__()
        if gated:
            self.CA_layer = ChannelAttention(positions)
        self.gated = gated

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Search (B, C, H, W) and template (B, C, h, w) to (B, h*w, H, W)."""
        corr = torch.matmul(z.flatten(2).transpose(1, 2), x.flatten(2)).view(x.shape[0], -1, *x.shape[2:])
        return self.CA_layer(corr) if self.gated else corr


class DepthwiseCorrelation(nn.Module):
    """The template as a filter over the search features, each channel by itself, padded to keep the map's size."""

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Search (B, C, H, W) and template (B, C, h, w) to (B, C, H, W), the mean over the h x w products."""
        (batch, channels), (height, width) = x.shape[:2], z.shape[2:]
        top, left = (height - 1) // 2, (width - 1) // 2
        padded = F.pad(x, (left, width - 1 - left, top, height - 1 - top))
        corr = F.conv2d(
            padded.reshape(1, -1, *padded.shape[2:]), z.reshape(-1, 1, height, width), groups=batch * channels
        )
        return corr.view(x.shape) / (height * width)


class FeatureFusor(nn.Module):
    """Correlation and a 1x1 convolution to the head's width; `kind` is one of `CORRELATIONS`."""

    def __init__(self, positions: int, features: int, channels: int, kind: str = "gated") -> None:
        super().__init__()
        depthwise = kind == "depthwise"
        self.pw_corr = DepthwiseCorrelation() if depthwise else PixelwiseCorrelation(positions, gated=kind == "gated")
        self.adj_layer = nn.Conv2d(features if depthwise else positions, channels, 1)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Search (B, C, H, W) and template (B, C, h, w) to (B, channels, H, W)."""
        return self.adj_layer(self.pw_corr(x, z))


def _conv_bn_relu(c_in: int, c_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, padding=1), nn.BatchNorm2d(c_out, eps=1e-5), nn.ReLU())


class AttentionHead(nn.Module):
    """Two attention branches (classification, regression) and three convolution towers."""

    towers = (("ctr", "cls", 1), ("offset", "reg", 2), ("size", "reg", 2))

    def __init__(self, dim: int, kind: str = "separable") -> None:
        super().__init__()
        self.pre_ssat_cls = ConvLayer(dim, dim, 3)
        self.pre_ssat_reg = ConvLayer(dim, dim, 3)
        self.global_rep_cls = attention_stack(dim, 2, kind)
        self.global_rep_reg = attention_stack(dim, 4, kind)
        for name, _, outputs in self.towers:
            self.add_module(f"conv1_{name}", _conv_bn_relu(dim, dim))
            self.add_module(f"conv2_{name}", _conv_bn_relu(dim, dim // 2))
            self.add_module(f"conv3_{name}", _conv_bn_relu(dim // 2, dim // 4))
            self.add_module(f"conv4_{name}", nn.Conv2d(dim // 4, outputs, 1))

    def tower(self, name: str) -> tuple[nn.Module, ...]:
        """The four stages of one tower, in order."""
        return tuple(self.get_submodule(f"conv{stage}_{name}") for stage in (1, 2, 3, 4))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 128, 16, 16) to score (B, 1, 16, 16), size and offset (B, 2, 16, 16)."""
        batch, dim, height, width = features.shape
        branches: dict[str, Tensor] = {}
        for branch in ("cls", "reg"):
            local = self.get_submodule(f"pre_ssat_{branch}")(features)
            tokens = self.get_submodule(f"global_rep_{branch}")(local.reshape(batch, dim, 1, height * width))
            branches[branch] = tokens.reshape(batch, dim, height, width)
        maps: dict[str, Tensor] = {}
        for name, branch, _ in self.towers:
            maps[name] = branches[branch]
            for stage in self.tower(name):
                maps[name] = stage(maps[name])
        limit = 1 - SCORE_MIN
        return (
            maps["ctr"].sigmoid().clamp(SCORE_MIN, limit),
            maps["size"].sigmoid().clamp(SCORE_MIN, limit),
            maps["offset"],
        )


class Smat(nn.Module):
    """The network; as published it has 371 state-dict entries, 3,767,409 parameters.

    Args:
        search_size, template_size: pixels, multiples of 32.
        width: channels as a multiple of the published ones.
        fusion: where template and search attend to one another, one of `FUSIONS`.
        correlation: of template and search behind the neck, one of `CORRELATIONS`.
        head: `attention`, or `convolutional`: three towers on the fused features, none of attention.
        attention: `separable` or `standard`, in backbone and head.
        attention_maps: whether the graphs return where the last attention of `layer_3` and `layer_4` looks.

    Raises:
        ValueError: there is no such size or kind.
    """

    def __init__(
        self,
        *,
        search_size: int = 256,
        template_size: int = 128,
        width: float = 1.0,
        fusion: str = "both",
        correlation: str = "gated",
        head: str = "attention",
        attention: str = "separable",
        attention_maps: bool = False,
    ) -> None:
        super().__init__()
        self.sizes = Sizes(search_size, template_size)
        _check(
            self.sizes,
            width,
            fusion=(fusion, FUSIONS),
            correlation=(correlation, CORRELATIONS),
            head=(head, HEADS),
            attention=(attention, ATTENTIONS),
        )
        self.attention_maps = attention_maps
        self.mixed = FUSIONS[fusion]
        features, dim = int(384 * width), int(128 * width)
        self.backbone = Backbone(width, self.mixed, attention)
        self.neck = Neck(features)
        self.feature_fusor = FeatureFusor((template_size // STRIDE) ** 2, features, dim, correlation)
        self.box_head = AttentionHead(dim, attention) if head == "attention" else CenterHead(dim, 2 * dim)

    def template(self, z: Tensor) -> Tensor:
        """Template crop, RGB 0..1 (B, 3, 128, 128), to the published per-target cache (B, 128, 32, 32)."""
        return self.backbone.stem(z)

    def step(self, x: Tensor, template: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Search crop, RGB 0..1 (B, 3, 256, 256), and `template()`'s result to the score, size and offset maps.

        Returns:
            score (B, 1, 16, 16) in 1e-4..1-1e-4, size (B, 2, 16, 16) in 1e-4..1-1e-4 as fractions of the crop,
            offset (B, 2, 16, 16) in cells.
        """
        features, kernel = self.backbone.mixed(self.backbone.stem(x), template)
        return self.box_head(self.feature_fusor(self.neck.BN_x(features), self.neck.BN_z(kernel)))

    def looks(self, x: Tensor, template: Tensor) -> tuple[Tensor, Tensor]:
        """Where `step`, given the same, looks in the search region: (B, 32, 32) and (B, 16, 16)."""
        return self.backbone.looks(self.backbone.stem(x), template)

    def forward(self, z: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Both images at once, as while training: template (B, 3, 128, 128) and search (B, 3, 256, 256), RGB 0..1."""
        return self.step(x, self.template(z))
