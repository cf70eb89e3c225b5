"""SMAT's graphs as they ship: `template` once per target, `step` per frame.

Derived from the published network by algebra alone (docs/decisions/0001-smat-graphs.md): BatchNorm and GroupNorm
affines folded; 1x1 convolutions without an activation between them merged (layer_1 into layer_2, layer_3.1 into
layer_4, the neck into the correlation, the correlation's 1x1 into the head's 3x3); the template is kept at the deepest
place where it does not yet depend on the search region, behind layer_3.1's local representation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from edgetrack.bundle.manifest import TensorInfo
from edgetrack.models.base import GraphModule, Published, bgr_image_to_rgb, shipped, tensors
from edgetrack.models.layers.center_head import SCORE_MIN, CenterHead, DeployedCenterHead
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
    DeployedAttention,
    InvertedResidual,
    MixedMobileViTBlock,
    deployed_stack,
    in_rows,
    normalise,
)
from edgetrack.models.smat.network import AttentionHead, PixelwiseCorrelation, Smat

# Strides of the maps whose positions are the tokens of layer_3 and layer_4.
NEAR, FAR = 8, 16
Grid = tuple[int, int]


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


class Stages(nn.Module):
    """What `template` and `step` share of the way from layer_3.1's tokens to layer_4.1's.

    Args:
        network: the published one.
        grids: whose tokens layer_3.1's attention takes at once.
        looks: whether that attention also returns where it looks.
    """

    def __init__(self, network: Smat, grids: Sequence[Grid], *, looks: bool = False) -> None:
        super().__init__()
        self.sizes, (self.mixed_3, self.mixed_4), self.looks = network.sizes, network.mixed, looks
        mixed_3, mixed_4 = _mixed(network)
        self.attention_3 = deployed_stack(mixed_3.global_rep, grids, looks=looks)
        expand, depthwise, reduce = _parts(network.backbone.layer_4[0])
        local, project = mixed_4.local_rep
        project_3 = after_group_norm(of_layer(mixed_3.conv_proj), cast(nn.GroupNorm, mixed_3.global_rep[-1]))
        self.expand = nn.Sequential(to_conv(chain(project_3, expand)), nn.ReLU())
        self.reduce = nn.Sequential(_depthwise(depthwise, 2), nn.ReLU(), to_conv(reduce))
        self.local_rep = nn.Sequential(_depthwise(of_layer(local)), nn.ReLU(), to_conv(of_layer(project)))

    def down(self, map_: Tensor) -> Tensor:
        """Behind layer_3.1's attention to before layer_4.1's, (1, 128, H, W) to (1, 192, H / 2, W / 2)."""
        return self.local_rep(self.reduce(self.expand(map_)))


def _mixed(network: Smat) -> tuple[MixedMobileViTBlock, MixedMobileViTBlock]:
    backbone = network.backbone
    return cast(MixedMobileViTBlock, backbone.layer_3[1]), cast(MixedMobileViTBlock, backbone.layer_4[1])


class TemplateStages(Stages):
    """The template alone, as far as it does not depend on the search region."""

    def __init__(self, network: Smat) -> None:
        super().__init__(network, network.sizes.grids(NEAR)[1:])
        _, mixed_4 = _mixed(network)
        self.attention_4 = None if self.mixed_4 else deployed_stack(mixed_4.global_rep, self.sizes.grids(FAR)[1:])

    def forward(self, template: Tensor) -> Tensor:
        """(1, 128, 16, 16) to (1, 192, 8, 8)."""
        tokens: Tensor = self.down(normalise(self.attention_3(template)))
        return tokens if self.attention_4 is None else normalise(self.attention_4(tokens))


class MixedBackbone(Stages):
    """Both sets of tokens from layer_3.1's attention to layer_4.1's, the closing affines left to what follows.

    A stage in which they are not mixed takes the search region's tokens alone; the template's pass it in `template`, or
    here where they were mixed before.
    """

    def __init__(self, network: Smat) -> None:
        near, far = network.sizes.grids(NEAR), network.sizes.grids(FAR)
        super().__init__(network, near if network.mixed[0] else near[:1], looks=network.attention_maps)
        _, mixed_4 = _mixed(network)
        self.attention_4 = deployed_stack(mixed_4.global_rep, far if self.mixed_4 else far[:1], looks=self.looks)
        apart = self.mixed_3 and not self.mixed_4
        self.template_4 = deployed_stack(mixed_4.global_rep, far[1:]) if apart else None

    def forward(self, search: Tensor, template: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """(1, 128, 32, 32) and what `template` gives to (1, 192, 16, 16), (1, 192, 4, 16) and the attention maps."""
        near, grid = self.sizes.grids(NEAR)
        tokens = torch.cat([search, template], dim=2) if self.mixed_3 else search
        tokens, looks = self._attend(self.attention_3, tokens)
        rows, columns = self.sizes.grids(FAR)[0]
        if self.mixed_3:
            # Parted before the expansion, where they are a quarter as wide.
            search = self.down(tokens[:, :, : near[0]])
            template = self.down(tokens[:, :, near[0] :].reshape(1, -1, *grid))
            if self.template_4 is not None:
                template = normalise(self.template_4(template))
            template = in_rows(template, columns)
        else:
            search = self.down(tokens)
        tokens = torch.cat([search, template], dim=2) if self.mixed_4 else search
        tokens, more = self._attend(self.attention_4, tokens)
        if self.mixed_4:
            return tokens[:, :, :rows], tokens[:, :, rows:], looks + more
        return tokens, template, looks + more

    def _attend(self, stack: nn.Module, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
        if not self.looks:
            return normalise(stack(tokens)), []
        tokens, look = stack(tokens)
        return normalise(tokens), [look]


def _projections(network: Smat) -> tuple[Affine, Affine]:
    """layer_4.1's closing affine, its projection and the neck's BatchNorm, for the search region and the template."""
    _, mixed = _mixed(network)
    project = after_group_norm(of_layer(mixed.conv_proj), cast(nn.GroupNorm, mixed.global_rep[-1]))
    return after_batch_norm(project, network.neck.BN_x), after_batch_norm(project, network.neck.BN_z)


class Correlation(nn.Module):
    """layer_4.1's projection, the neck and the pixel-wise correlation as one matrix product, then the channel gate.

    With x = Wx a + bx for the search and z = Wz b + bz for the template, x.z = a.(Wx'Wz b + Wx'bz) + bx.(Wz b + bz):
    the search tokens a are never projected to 384 channels.
    """

    def __init__(self, network: Smat, published: PixelwiseCorrelation) -> None:
        super().__init__()
        x, z = _projections(network)
        kernel = Affine((x.matrix.T @ z.matrix)[:, :, None, None], x.matrix.T @ z.bias)
        shift = Affine((x.bias @ z.matrix)[None, :, None, None], (x.bias @ z.bias)[None])
        self.kernel, self.shift = to_conv(kernel), to_conv(shift)
        self.gated = published.gated
        if self.gated:
            gate = published.CA_layer
            self.gate_1, self.gate_2 = to_conv(of_conv(gate.fc1)), to_conv(of_conv(gate.fc2))

    def forward(self, search: Tensor, template: Tensor) -> Tensor:
        """(1, 192, 16, 16) and (1, 192, 4, 16) to (1, 64, 16, 16)."""
        kernel, shift = self.kernel(template), self.shift(template).reshape(-1, 1)
        corr = torch.matmul(kernel.reshape(kernel.shape[1], -1).T, search.reshape(search.shape[1], -1)) + shift
        corr = corr.reshape(1, -1, *search.shape[2:])
        if not self.gated:
            return corr
        gate = torch.sigmoid(self.gate_2(torch.relu(self.gate_1(corr.mean(dim=(2, 3), keepdim=True)))))
        return corr * gate


class ProjectedCorrelation(nn.Module):
    """layer_4.1's projection and the neck, then the depth-wise correlation as it is."""

    def __init__(self, network: Smat) -> None:
        super().__init__()
        self.project_x, self.project_z = map(to_conv, _projections(network))
        self.grid = network.sizes.grids(FAR)[1]
        self.correlate = network.feature_fusor.pw_corr

    def forward(self, search: Tensor, template: Tensor) -> Tensor:
        """(1, 192, 16, 16) and (1, 192, 4, 16) to (1, 384, 16, 16)."""
        kernel = self.project_z(template)
        return cast(Tensor, self.correlate(self.project_x(search), kernel.reshape(1, kernel.shape[1], *self.grid)))


class Branch(nn.Module):
    """A head's branch: fusion's 1x1 and the 3x3 behind it as one convolution, attention, the closing GroupNorm.

    The closing GroupNorm's affine stays: zero-padded 3x3 convolutions follow, its shift would differ at the border.
    """

    bias: Tensor

    def __init__(self, adjust: Affine, local: ConvLayer, attention: nn.Sequential, grid: Grid) -> None:
        super().__init__()
        merged, bias = before_padded(adjust, of_layer(local), *grid)
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

    def __init__(self, network: Smat, head: AttentionHead) -> None:
        super().__init__()
        adjust, grid = of_conv(network.feature_fusor.adj_layer), network.sizes.grids(FAR)[0]
        self.cls = Branch(adjust, head.pre_ssat_cls, head.global_rep_cls, grid)
        self.reg = Branch(adjust, head.pre_ssat_reg, head.global_rep_reg, grid)
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
    """Template crop, uint8 (128, 128, 3) BGR, to its tokens: (1, 128, 8, 32) unless layer_3 leaves it alone."""

    def __init__(self, network: Smat) -> None:
        super().__init__()
        self.encoder = Encoder(network)
        mixed_at_once = network.mixed[0]
        self.columns = network.sizes.grids(NEAR if mixed_at_once else FAR)[0][1]
        self.stages = None if mixed_at_once else TemplateStages(network)

    def forward(self, template: Tensor) -> Tensor:
        return self.features(image_to_nchw(template))

    def features(self, image: Tensor) -> Tensor:
        """From (1, 3, 128, 128) BGR 0..255, float."""
        tokens = self.encoder(image)
        return in_rows(tokens if self.stages is None else self.stages(tokens), self.columns)


class StepGraph(nn.Module):
    """Search crop, uint8 (256, 256, 3) BGR, and template tokens to score, size and offset maps, then attention's."""

    def __init__(self, network: Smat) -> None:
        super().__init__()
        published, head = network.feature_fusor.pw_corr, network.box_head
        self.encoder = Encoder(network)
        self.mixed = MixedBackbone(network)
        self.correlation = (
            Correlation(network, published)
            if isinstance(published, PixelwiseCorrelation)
            else ProjectedCorrelation(network)
        )
        # The attention's branches take the 1x1 convolution of the fusion into their first one.
        self.adjust = network.feature_fusor.adj_layer if isinstance(head, CenterHead) else nn.Identity()
        self.head = DeployedCenterHead(head) if isinstance(head, CenterHead) else Head(network, head)

    def forward(self, search: Tensor, template_features: Tensor) -> tuple[Tensor, ...]:
        return self.maps(image_to_nchw(search), template_features)

    def maps(self, image: Tensor, template_features: Tensor) -> tuple[Tensor, ...]:
        """From (1, 3, 256, 256) BGR 0..255, float."""
        search, template, looks = self.mixed(self.encoder(image), template_features)
        return (*self.head(self.adjust(self.correlation(search, template))), *looks)


Signature = tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]


def signatures(network: Smat, features: tuple[int, ...]) -> dict[str, Signature]:
    """Inputs and outputs of `template` and `step`; `features` is the shape of what the first hands to the second."""
    sizes = network.sizes
    images = tensors("uint8", template=(sizes.template, sizes.template, 3), search=(sizes.search, sizes.search, 3))
    kept = tensors(template_features=features)
    cells = sizes.grids(FAR)[0]
    maps = tensors(score=(1, 1, *cells), size=(1, 2, *cells), offset=(1, 2, *cells))
    if network.attention_maps:
        grids = [sizes.grids(stride)[0] for stride in (NEAR, FAR)]
        maps += tensors(**{f"attention_{rows}x{columns}": (1, rows, columns) for rows, columns in grids})
    return {"template": (images[:1], kept), "step": ((images[1], *kept), maps)}


def _graphs(network: Smat, features: tuple[int, ...], template: nn.Module, step: nn.Module) -> tuple[GraphModule, ...]:
    sides = signatures(network, features)
    return (
        GraphModule("template", "init", template, *sides["template"]),
        GraphModule("step", "step", step, *sides["step"]),
    )


def deploy(network: Smat) -> tuple[GraphModule, ...]:
    """Graphs `template` and `step` that ship."""
    stage, stride = (0, NEAR) if network.mixed[0] else (1, FAR)
    (_, columns), (height, width) = network.sizes.grids(stride)
    features = (1, network.backbone.dims[stage], height * width // columns, columns)
    return _graphs(network, features, shipped(TemplateGraph(network)), shipped(StepGraph(network)))


def deploy_channels_last(network: Smat) -> tuple[GraphModule, ...]:
    """The same graphs, with attention in the form for engines that keep the channels of a map last."""
    graphs = deploy(network)
    for module in (module for graph in graphs for module in graph.module.modules()):
        if isinstance(module, DeployedAttention):
            module.channels_last = True
    return graphs


def _published_template(network: Smat, template: Tensor) -> Tensor:
    return network.template(bgr_image_to_rgb(template))


def _published_step(network: Smat, search: Tensor, features: Tensor) -> tuple[Tensor, ...]:
    image = bgr_image_to_rgb(search)
    maps = network.step(image, features)
    return (*maps, *network.looks(image, features)) if network.attention_maps else maps


def reference(network: Smat) -> tuple[GraphModule, ...]:
    """Graphs `template` and `step` as published: what every export is compared with, in numbers and in speed."""
    side = network.sizes.template // 4
    # The published per-target cache: the template behind layer_2.
    template, step = Published(network, _published_template), Published(network, _published_step)
    return _graphs(network, (1, network.backbone.stem_channels, side, side), template, step)
