"""SMAT's graphs as they ship: `template` once per target, `step` per frame.

Derived from the published network by algebra alone (docs/decisions/0001-smat-graphs.md): BatchNorm and GroupNorm
affines folded; 1x1 convolutions without an activation between them merged (layer_1 into layer_2, layer_3.1 into
layer_4, the neck into the correlation, the correlation's 1x1 into the head's 3x3); the template is kept at the deepest
place where it does not yet depend on the search region, behind layer_3.1's local representation.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from edgetrack.models.base import GraphModule, Published, bgr_image_to_rgb, shipped, tensors
from edgetrack.models.layers.folding import (
    Affine,
    after_batch_norm,
    after_group_norm,
    before_padded,
    chain,
    of_conv,
    of_layer,
    to_conv,
    to_tower,
)
from edgetrack.models.layers.mobilevit import (
    ConvLayer,
    InvertedResidual,
    MixedMobileViTBlock,
    deployed_stack,
    in_rows,
    normalise,
)
from edgetrack.models.smat.network import SCORE_MIN, Smat

TEMPLATE, SEARCH = tensors("uint8", template=(128, 128, 3), search=(256, 256, 3))
(FEATURES,) = tensors(template_features=(1, 128, 8, 32))
# The published per-target cache: the template behind layer_2.
(PUBLISHED_FEATURES,) = tensors(template_features=(1, 128, 32, 32))
MAPS = tensors(score=(1, 1, 16, 16), size=(1, 2, 16, 16), offset=(1, 2, 16, 16))
# (search, template) grids of tokens at strides 8 and 16; both lie in rows as long as the search grid's.
GRIDS_3 = ((32, 32), (16, 16))
GRIDS_4 = ((16, 16), (8, 8))


def _parts(block: nn.Module) -> tuple[Affine, Affine, Affine]:
    """Expansion, depthwise and reduction of an inverted residual."""
    layers = cast(InvertedResidual, block).block
    expand, depthwise, reduce = (of_layer(layer) for layer in layers.children())
    return expand, depthwise, reduce


def _depthwise(map_: Affine, stride: int = 1) -> nn.Conv2d:
    return to_conv(map_, stride=stride, groups=map_.weight.shape[0])


class Encoder(nn.Module):
    """An image to layer_3.1's tokens; `template` and `step` hold one each, with the same weights."""

    def __init__(self, network: Smat) -> None:
        super().__init__()
        backbone = network.backbone
        stem = of_layer(backbone.conv_1)
        # 0..255 BGR instead of 0..1 RGB: channels flipped and scaled in the first kernel. Padding stays zero.
        self.conv_1 = to_conv(Affine(stem.weight.flip(1) / 255.0, stem.bias), stride=2)
        expand_1, depthwise_1, reduce_1 = _parts(backbone.layer_1[0])
        expand_2, depthwise_2, reduce_2 = _parts(backbone.layer_2[0])
        expand_r, depthwise_r, reduce_r = _parts(backbone.layer_2[1])
        expand_3, depthwise_3, reduce_3 = _parts(backbone.layer_3[0])
        mixed = cast(MixedMobileViTBlock, backbone.layer_3[1])
        local, project = mixed.local_rep
        self.layer_1 = nn.Sequential(to_conv(expand_1), nn.ReLU(), _depthwise(depthwise_1), nn.ReLU())
        self.layer_2 = nn.Sequential(
            to_conv(chain(reduce_1, expand_2)), nn.ReLU(), _depthwise(depthwise_2, 2), nn.ReLU(), to_conv(reduce_2)
        )
        self.layer_2_residual = nn.Sequential(
            to_conv(expand_r), nn.ReLU(), _depthwise(depthwise_r), nn.ReLU(), to_conv(reduce_r)
        )
        self.layer_3 = nn.Sequential(
            to_conv(expand_3), nn.ReLU(), _depthwise(depthwise_3, 2), nn.ReLU(), to_conv(reduce_3)
        )
        self.local_rep = nn.Sequential(_depthwise(of_layer(local)), nn.ReLU(), to_conv(of_layer(project)))

    def forward(self, image: Tensor) -> Tensor:
        """(1, 3, H, W) BGR 0..255 to (1, 128, H / 8, W / 8)."""
        x: Tensor = self.layer_2(self.layer_1(torch.relu(self.conv_1(image))))
        x = x + self.layer_2_residual(x)
        return self.local_rep(self.layer_3(x))


class MixedBackbone(nn.Module):
    """Both sets of tokens from layer_3.1's attention to layer_4.1's, the closing affines left to what follows."""

    def __init__(self, network: Smat) -> None:
        super().__init__()
        mixed_3 = cast(MixedMobileViTBlock, network.backbone.layer_3[1])
        mixed_4 = cast(MixedMobileViTBlock, network.backbone.layer_4[1])
        expand, depthwise, reduce = _parts(network.backbone.layer_4[0])
        local, project = mixed_4.local_rep
        self.attention_3 = deployed_stack(mixed_3.global_rep, GRIDS_3)
        project_3 = after_group_norm(of_layer(mixed_3.conv_proj), cast(nn.GroupNorm, mixed_3.global_rep[-1]))
        self.expand = nn.Sequential(to_conv(chain(project_3, expand)), nn.ReLU())
        self.reduce = nn.Sequential(_depthwise(depthwise, 2), nn.ReLU(), to_conv(reduce))
        self.local_rep = nn.Sequential(_depthwise(of_layer(local)), nn.ReLU(), to_conv(of_layer(project)))
        self.attention_4 = deployed_stack(mixed_4.global_rep, GRIDS_4)

    def _down(self, map_: Tensor) -> Tensor:
        return self.local_rep(self.reduce(self.expand(map_)))

    def forward(self, search: Tensor, template: Tensor) -> tuple[Tensor, Tensor]:
        """(1, 128, 32, 32) and (1, 128, 8, 32) to (1, 192, 16, 16) and (1, 192, 4, 16)."""
        (rows, _), grid = GRIDS_3
        tokens = normalise(self.attention_3(torch.cat([search, template], dim=2)))
        # Parted before the expansion, where they are a quarter as wide.
        search = self._down(tokens[:, :, :rows])
        template = self._down(tokens[:, :, rows:].reshape(1, -1, *grid))
        rows, columns = GRIDS_4[0]
        tokens = normalise(self.attention_4(torch.cat([search, in_rows(template, columns)], dim=2)))
        return tokens[:, :, :rows], tokens[:, :, rows:]


class Correlation(nn.Module):
    """layer_4.1's projection, the neck and the pixel-wise correlation as one matrix product, then the channel gate.

    With x = Wx a + bx for the search and z = Wz b + bz for the template, x.z = a.(Wx'Wz b + Wx'bz) + bx.(Wz b + bz):
    the search tokens a are never projected to 384 channels.
    """

    def __init__(self, network: Smat) -> None:
        super().__init__()
        mixed = cast(MixedMobileViTBlock, network.backbone.layer_4[1])
        project = after_group_norm(of_layer(mixed.conv_proj), cast(nn.GroupNorm, mixed.global_rep[-1]))
        x, z = after_batch_norm(project, network.neck.BN_x), after_batch_norm(project, network.neck.BN_z)
        kernel = Affine((x.matrix.T @ z.matrix)[:, :, None, None], x.matrix.T @ z.bias)
        shift = Affine((x.bias @ z.matrix)[None, :, None, None], (x.bias @ z.bias)[None])
        self.kernel, self.shift = to_conv(kernel), to_conv(shift)
        gate = network.feature_fusor.pw_corr.CA_layer
        self.gate_1, self.gate_2 = to_conv(of_conv(gate.fc1)), to_conv(of_conv(gate.fc2))

    def forward(self, search: Tensor, template: Tensor) -> Tensor:
        """(1, 192, 16, 16) and (1, 192, 4, 16) to (1, 64, 16, 16)."""
        kernel, shift = self.kernel(template), self.shift(template).reshape(-1, 1)
        corr = torch.matmul(kernel.reshape(kernel.shape[1], -1).T, search.reshape(search.shape[1], -1)) + shift
        corr = corr.reshape(1, -1, *GRIDS_4[0])
        gate = torch.sigmoid(self.gate_2(torch.relu(self.gate_1(corr.mean(dim=(2, 3), keepdim=True)))))
        return corr * gate


class Branch(nn.Module):
    """A head's branch: fusion's 1x1 and the 3x3 behind it as one convolution, attention, the closing GroupNorm.

    The closing GroupNorm's affine stays: zero-padded 3x3 convolutions follow, its shift would differ at the border.
    """

    bias: Tensor

    def __init__(self, adjust: Affine, local: ConvLayer, attention: nn.Sequential) -> None:
        super().__init__()
        merged, bias = before_padded(adjust, of_layer(local), *GRIDS_4[0])
        self.local = to_conv(merged, bias=False)
        self.register_buffer("bias", bias.float())
        self.attention = deployed_stack(attention)
        norm = cast(nn.GroupNorm, attention[-1])
        self.gain = nn.Parameter(norm.weight.detach().view(1, -1, 1, 1).clone())
        self.shift = nn.Parameter(norm.bias.detach().view(1, -1, 1, 1).clone())

    def forward(self, fused: Tensor) -> Tensor:
        """(1, 64, 16, 16) to (1, 128, 16, 16)."""
        tokens = self.attention(torch.relu(self.local(fused) + self.bias))
        return normalise(tokens) * self.gain + self.shift


class Head(nn.Module):
    """Fused features to the three maps."""

    def __init__(self, network: Smat) -> None:
        super().__init__()
        head, adjust = network.box_head, of_conv(network.feature_fusor.adj_layer)
        self.cls = Branch(adjust, head.pre_ssat_cls, head.global_rep_cls)
        self.reg = Branch(adjust, head.pre_ssat_reg, head.global_rep_reg)
        self.score, self.size, self.offset = (to_tower(head.tower(name)) for name in ("ctr", "size", "offset"))

    def forward(self, fused: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(1, 64, 16, 16) to score, size, offset."""
        cls, reg = self.cls(fused), self.reg(fused)
        limit = 1 - SCORE_MIN
        score = torch.clamp(torch.sigmoid(self.score(cls)), SCORE_MIN, limit)
        return score, torch.clamp(torch.sigmoid(self.size(reg)), SCORE_MIN, limit), self.offset(reg)


def image_to_nchw(image: Tensor) -> Tensor:
    """uint8 (H, W, 3) to float32 (1, 3, H, W), values as they are."""
    return image.unsqueeze(0).permute(0, 3, 1, 2).float()


class TemplateGraph(nn.Module):
    """Template crop, uint8 (128, 128, 3) BGR, to its tokens (1, 128, 8, 32)."""

    def __init__(self, network: Smat) -> None:
        super().__init__()
        self.encoder = Encoder(network)

    def forward(self, template: Tensor) -> Tensor:
        return self.features(image_to_nchw(template))

    def features(self, image: Tensor) -> Tensor:
        """From (1, 3, 128, 128) BGR 0..255, float."""
        return in_rows(self.encoder(image), GRIDS_3[0][1])


class StepGraph(nn.Module):
    """Search crop, uint8 (256, 256, 3) BGR, and template tokens to the score, size and offset maps."""

    def __init__(self, network: Smat) -> None:
        super().__init__()
        self.encoder = Encoder(network)
        self.mixed = MixedBackbone(network)
        self.correlation = Correlation(network)
        self.head = Head(network)

    def forward(self, search: Tensor, template_features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.maps(image_to_nchw(search), template_features)

    def maps(self, image: Tensor, template_features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From (1, 3, 256, 256) BGR 0..255, float."""
        search, template = self.mixed(self.encoder(image), template_features)
        return self.head(self.correlation(search, template))


def deploy(network: Smat) -> tuple[GraphModule, ...]:
    """Graphs `template` and `step` that ship."""
    template, step = shipped(TemplateGraph(network)), shipped(StepGraph(network))
    return (
        GraphModule("template", "init", template, (TEMPLATE,), (FEATURES,)),
        GraphModule("step", "step", step, (SEARCH, FEATURES), MAPS),
    )


def _published_template(network: Smat, template: Tensor) -> Tensor:
    return network.template(bgr_image_to_rgb(template))


def _published_step(network: Smat, search: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return network.step(bgr_image_to_rgb(search), features)


def reference(network: Smat) -> tuple[GraphModule, ...]:
    """Graphs `template` and `step` as published: what every export is compared with, in numbers and in speed."""
    template, step = Published(network, _published_template), Published(network, _published_step)
    return (
        GraphModule("template", "init", template, (TEMPLATE,), (PUBLISHED_FEATURES,)),
        GraphModule("step", "step", step, (SEARCH, PUBLISHED_FEATURES), MAPS),
    )
