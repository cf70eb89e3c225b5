"""SMAT (arXiv 2309.03979) as published: MobileViTv2 with mixed separable attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgetrack.models.layers.mobilevit import (
    ConvLayer,
    InvertedResidual,
    MixedMobileViTBlock,
    attention_stack,
)

HEAD_DIM = 128
SCORE_MIN = 1e-4


class Backbone(nn.Module):
    """MobileViTv2-1.0 to stride 16; the template joins at `layer_3`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_1 = ConvLayer(3, 32, 3, stride=2)
        self.layer_1 = nn.Sequential(InvertedResidual(32, 64, 1))
        self.layer_2 = nn.Sequential(InvertedResidual(64, 128, 2), InvertedResidual(128, 128, 1))
        self.layer_3 = nn.ModuleList([InvertedResidual(128, 256, 2), MixedMobileViTBlock(256, 128, 2)])
        self.layer_4 = nn.ModuleList([InvertedResidual(256, 384, 2), MixedMobileViTBlock(384, 192, 4)])

    def stem(self, image: Tensor) -> Tensor:
        """RGB 0..1 (B, 3, H, W) to (B, 128, H/4, W/4): conv_1, layer_1, layer_2."""
        return self.layer_2(self.layer_1(self.conv_1(image)))

    def mixed(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Search (B, 128, 64, 64) and template (B, 128, 32, 32) to (B, 384, 16, 16) and (B, 384, 8, 8)."""
        for reduce, mix in (self.layer_3, self.layer_4):
            x, z = mix(reduce(x), reduce(z))
        return x, z


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
    """Every template position as a 1x1 filter over the search features, then a channel gate."""

    def __init__(self, positions: int) -> None:
        super().__init__()
        self.CA_layer = ChannelAttention(positions)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Search (B, C, H, W) and template (B, C, h, w) to (B, h*w, H, W)."""
        corr = torch.matmul(z.flatten(2).transpose(1, 2), x.flatten(2)).view(x.shape[0], -1, *x.shape[2:])
        return self.CA_layer(corr)


class FeatureFusor(nn.Module):
    """Pixel-wise correlation and a 1x1 convolution to the head's width."""

    def __init__(self, positions: int, channels: int) -> None:
        super().__init__()
        self.pw_corr = PixelwiseCorrelation(positions)
        self.adj_layer = nn.Conv2d(positions, channels, 1)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Search (B, C, H, W) and template (B, C, h, w) to (B, channels, H, W)."""
        return self.adj_layer(self.pw_corr(x, z))


def _conv_bn_relu(c_in: int, c_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, padding=1), nn.BatchNorm2d(c_out, eps=1e-5), nn.ReLU())


class SeparableHead(nn.Module):
    """Two attention branches (classification, regression) and three convolution towers."""

    towers = (("ctr", "cls", 1), ("offset", "reg", 2), ("size", "reg", 2))

    def __init__(self, dim: int = HEAD_DIM) -> None:
        super().__init__()
        self.pre_ssat_cls = ConvLayer(dim, dim, 3)
        self.pre_ssat_reg = ConvLayer(dim, dim, 3)
        self.global_rep_cls = attention_stack(dim, 2)
        self.global_rep_reg = attention_stack(dim, 4)
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
    """The published network: 371 state-dict entries, 3,767,409 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.neck = Neck(384)
        self.feature_fusor = FeatureFusor(64, HEAD_DIM)
        self.box_head = SeparableHead()

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

    def forward(self, z: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Both images at once, as while training: template (B, 3, 128, 128) and search (B, 3, 256, 256), RGB 0..1."""
        return self.step(x, self.template(z))
