"""NanoTrack's graphs as they ship: `template` once per target, `step` per frame (docs/trackers/nanotrack.md, Network).

Derived from the published network by algebra alone: BatchNorms folded; what the template contributes to the
correlations is computed once, together with the search side's projection, so that the pixel-wise correlation is one
matrix product; v3's depth-wise correlation is sixteen shifted products in place of a convolution whose weights are only
known at run time; its refinement's last 1x1 merged into the 1x1 behind the concatenation.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from edgetrack.bundle.manifest import TensorInfo
from edgetrack.models.base import GraphModule, Published, shipped, tensors
from edgetrack.models.layers.folding import Affine, after_batch_norm, chain, of_conv, to_conv
from edgetrack.models.nanotrack.network import (
    CELLS,
    KERNEL,
    Backbone,
    DepthwiseCorrelation,
    HeadV2,
    HeadV3,
    InvertedResidual,
    NanoTrack,
    PixelwiseCorrelation,
    SqueezeExcite,
    centre,
    pad_one,
)


def folded(layers: nn.Sequential) -> list[Affine | nn.Module]:
    """The layers in order, every BatchNorm folded into the convolution before it, identities left out."""
    found: list[Affine | nn.Module] = []
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            found.append(of_conv(layer))
        elif isinstance(layer, nn.BatchNorm2d):
            found[-1] = after_batch_norm(cast(Affine, found[-1]), layer)
        elif not isinstance(layer, nn.Identity):
            found.append(layer)
    return found


def depthwise(map_: Affine, stride: int = 1) -> nn.Conv2d:
    """A map with one filter for each channel as a convolution."""
    return to_conv(map_, stride=stride, groups=map_.weight.shape[0])


def _linear(layer: nn.Linear) -> nn.Conv2d:
    return to_conv(Affine(layer.weight.detach().double()[:, :, None, None], layer.bias.detach().double()))


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, gate: SqueezeExcite) -> None:
        super().__init__()
        squeeze, act, excite, limit = gate.fc
        self.fc = nn.Sequential(_linear(cast(nn.Linear, squeeze)), act, _linear(cast(nn.Linear, excite)), limit)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean(dim=(2, 3), keepdim=True))


class Block(nn.Module):
    """An inverted residual."""

    def __init__(self, block: InvertedResidual) -> None:
        super().__init__()
        self.residual = block.residual
        stride = max(layer.stride[0] for layer in block.conv if isinstance(layer, nn.Conv2d))
        self.layers = nn.Sequential()
        for layer in folded(block.conv):
            if isinstance(layer, SqueezeExcite):
                self.layers.append(Gate(layer))
            elif isinstance(layer, nn.Module):
                self.layers.append(layer)
            else:
                pointwise = layer.weight.shape[2] == 1
                self.layers.append(to_conv(layer) if pointwise else depthwise(layer, stride))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return x + out if self.residual else out


class Encoder(nn.Module):
    """uint8 (H, W, 3) BGR to features (1, C, H/16, W/16), rounded up; `template` and `step` hold one each."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        stem, *blocks = backbone.features
        convolution, act = folded(cast(nn.Sequential, stem))
        self.stem = nn.Sequential(to_conv(cast(Affine, convolution), stride=2), cast(nn.Module, act))
        self.blocks = nn.Sequential(*[Block(cast(InvertedResidual, block)) for block in blocks])

    def forward(self, image: Tensor) -> Tensor:
        """The only stage: no mean, no scale, colours as they come."""
        # In this order OpenVINO, which computes channels-last, moves nothing: 0.27 of 2.1 ms less than permuting first.
        return self.blocks(self.stem(image.unsqueeze(0).float().permute(0, 3, 1, 2)))


TEMPLATE, SEARCH = tensors("uint8", template=(127, 127, 3), search=(255, 255, 3))
BRANCHES = ("cls", "reg")


def _one(layers: nn.Module) -> Affine:
    """A projection, or a prediction, as one map."""
    (found,) = folded(cast(nn.Sequential, layers))
    return cast(Affine, found)


class CorrelationKernel(nn.Module):
    """Template features to what they do to search features, the search side's projection included.

    With K = Wk z + bk for the template and S = Ws x + bs for the search, K'S = (Ws'K)'x + K'bs.
    """

    def __init__(self, correlation: PixelwiseCorrelation) -> None:
        super().__init__()
        kernel, search = _one(correlation.conv_kernel), _one(correlation.conv_search)
        rows = Affine(search.matrix.T[:, :, None, None], torch.zeros(search.matrix.shape[1], dtype=torch.float64))
        shift = Affine(search.bias[None, :, None, None], torch.zeros(1, dtype=torch.float64))
        self.rows, self.shift = to_conv(chain(kernel, rows)), to_conv(chain(kernel, shift))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(1, C, 8, 8) to a matrix (1, 64, C) and a shift (1, 64, 1)."""
        return self.rows(z).flatten(2).transpose(1, 2), self.shift(z).flatten(2).transpose(1, 2)


class Pixelwise(nn.Module):
    """The pixel-wise correlation with a template's matrix and shift, its gate and v3's 2x2 filter."""

    def __init__(self, correlation: PixelwiseCorrelation) -> None:
        super().__init__()
        gate = correlation.CA_layer
        self.fc1, self.fc2 = to_conv(of_conv(gate.fc1)), to_conv(of_conv(gate.fc2))
        self.filter: nn.Module = nn.Identity()
        if isinstance(correlation.conv, nn.Sequential):
            taps, act, _ = folded(correlation.conv)
            # Two by two without padding: `to_conv` pads odd kernels.
            convolution = nn.Conv2d(CELLS, CELLS, 2, groups=CELLS)
            with torch.no_grad():
                convolution.weight.copy_(cast(Affine, taps).weight)
                cast(Tensor, convolution.bias).copy_(cast(Affine, taps).bias)
            self.filter = nn.Sequential(convolution, cast(nn.Module, act))

    def forward(self, x: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
        """(1, C, 16, 16), (1, 64, C), (1, 64, 1) to (1, 64, n, n)."""
        corr = (torch.matmul(matrix, x.flatten(2)) + shift).reshape(1, CELLS, *x.shape[2:])
        gate = torch.sigmoid(self.fc2(torch.relu(self.fc1(corr.mean(dim=(2, 3), keepdim=True)))))
        return self.filter(corr * gate)


class Depthwise(nn.Module):
    """v3's correlation with the template's middle as a filter for each channel."""

    def __init__(self, correlation: DepthwiseCorrelation) -> None:
        super().__init__()
        self.project = to_conv(_one(correlation.conv_search))

    def forward(self, x: Tensor, kernel: Tensor) -> Tensor:
        """(1, C, 16, 16) and (1, C, 4, 4) to (1, C, 15, 15)."""
        padded = pad_one(self.project(x))
        rows, columns = (length - KERNEL + 1 for length in padded.shape[2:])
        total = torch.zeros(())
        for u in range(KERNEL):
            for v in range(KERNEL):
                part = padded[:, :, u : u + rows, v : v + columns] * kernel[:, :, u : u + 1, v : v + 1]
                total = part if u == v == 0 else total + part
        return total


class BranchKernels(nn.Module):
    """All that one branch (classification or regression) takes from the template's features."""

    def __init__(self, head: HeadV2 | HeadV3, branch: str) -> None:
        super().__init__()
        self.pixelwise = CorrelationKernel(cast(PixelwiseCorrelation, head.get_submodule(f"corr_pw_{branch}")))
        self.depthwise: nn.Module | None = None
        if isinstance(head, HeadV3):
            correlation = cast(DepthwiseCorrelation, head.get_submodule(f"corr_dw_{branch}"))
            self.depthwise = to_conv(_one(correlation.conv_kernel))

    def forward(self, z: Tensor) -> tuple[Tensor, ...]:
        """(1, C, 8, 8) to matrix, shift and, for v3, (1, C, 4, 4)."""
        kernels: tuple[Tensor, ...] = self.pixelwise(z)
        return kernels if self.depthwise is None else (*kernels, self.depthwise(centre(z, KERNEL)))


class Branch(nn.Module):
    """One branch from search features to its map."""

    def __init__(self, head: HeadV2 | HeadV3, branch: str) -> None:
        super().__init__()
        pixelwise = cast(PixelwiseCorrelation, head.get_submodule(f"corr_pw_{branch}"))
        self.pixelwise = Pixelwise(pixelwise)
        self.depthwise: nn.Module | None = None
        if isinstance(head, HeadV3):
            self.depthwise = Depthwise(cast(DepthwiseCorrelation, head.get_submodule(f"corr_dw_{branch}")))
            *_, refined = folded(cast(nn.Sequential, pixelwise.conv))
            self.down = to_conv(_behind_first(cast(Affine, refined), _one(head.get_submodule(f"down_{branch}"))))
        tower, prediction = head.tower(branch)
        self.tower = _as_convolutions([*folded(tower), *folded(prediction)])

    def forward(self, x: Tensor, matrix: Tensor, shift: Tensor, *kernel: Tensor) -> Tensor:
        """(1, C, 16, 16) and what `BranchKernels` returned to (1, 2 or 4, n, n)."""
        features = self.pixelwise(x, matrix, shift)
        if self.depthwise is not None:
            features = self.down(torch.cat([features, self.depthwise(x, *kernel)], dim=1))
        return self.tower(features)


def _behind_first(first: Affine, joined: Affine) -> Affine:
    """`first` on the leading channels of a concatenation, then `joined` on all of them, as one 1x1 map."""
    count = first.weight.shape[0]
    leading = chain(first, Affine(joined.weight[:, :count], joined.bias))
    return Affine(torch.cat([leading.weight, joined.weight[:, count:]], dim=1), leading.bias)


def _as_convolutions(layers: list[Affine | nn.Module]) -> nn.Sequential:
    tower = nn.Sequential()
    for layer in layers:
        if isinstance(layer, nn.Module):
            tower.append(layer)
        else:
            tower.append(to_conv(layer) if layer.weight.shape[2] == 1 else depthwise(layer))
    return tower


class TemplateGraph(nn.Module):
    """Template crop, uint8 (127, 127, 3) BGR, to the kernels of all correlations."""

    def __init__(self, network: NanoTrack) -> None:
        super().__init__()
        self.encoder = Encoder(network.backbone)
        self.cls, self.reg = (BranchKernels(network.ban_head, branch) for branch in BRANCHES)

    def forward(self, template: Tensor) -> tuple[Tensor, ...]:
        z = self.encoder(template)
        return (*self.cls(z), *self.reg(z))


class StepGraph(nn.Module):
    """Search crop, uint8 (255, 255, 3) BGR, and the template's kernels to class logits and log-distances."""

    def __init__(self, network: NanoTrack) -> None:
        super().__init__()
        self.encoder = Encoder(network.backbone)
        self.cls, self.reg = (Branch(network.ban_head, branch) for branch in BRANCHES)

    def forward(self, search: Tensor, *kernels: Tensor) -> tuple[Tensor, Tensor]:
        """All stages in order; the first half of `kernels` is the classification's."""
        x, half = self.encoder(search), len(kernels) // 2
        return self.cls(x, *kernels[:half]), self.reg(x, *kernels[half:])


def maps(network: NanoTrack) -> tuple[TensorInfo, ...]:
    """The outputs of `step`: class logits (background, target) and logarithms of distances in pixels of the crop."""
    cells = network.ban_head.cells
    return tensors(cls=(1, 2, cells, cells), loc=(1, 4, cells, cells))


def deploy(network: NanoTrack) -> tuple[GraphModule, ...]:
    """Graphs `template` and `step` that ship."""
    template, step = shipped(TemplateGraph(network)), shipped(StepGraph(network))
    channels = network.backbone.channels
    shapes: dict[str, tuple[int, ...]] = {}
    for branch in BRANCHES:
        shapes |= {f"k_{branch}": (1, CELLS, channels), f"shift_{branch}": (1, CELLS, 1)}
        if isinstance(network.ban_head, HeadV3):
            shapes[f"kd_{branch}"] = (1, channels, KERNEL, KERNEL)
    kernels = tensors(**shapes)
    return (
        GraphModule("template", "init", template, (TEMPLATE,), kernels),
        GraphModule("step", "step", step, (SEARCH, *kernels), maps(network)),
    )


def _image(crop: Tensor) -> Tensor:
    """uint8 (H, W, 3) to float32 (1, 3, H, W), values and colours as they are."""
    return crop.permute(2, 0, 1).unsqueeze(0).float()


def _published_template(network: NanoTrack, template: Tensor) -> Tensor:
    return network.template(_image(template))


def _published_step(network: NanoTrack, search: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    return network.step(_image(search), features)


def reference(network: NanoTrack) -> tuple[GraphModule, ...]:
    """Graphs `template` and `step` as published.

    The per-target cache is the published one, the template's features; `loc` is taken before the published
    exponential, as the shipped graphs return it.
    """
    features = tensors(template_features=(1, network.backbone.channels, 8, 8))
    template, step = Published(network, _published_template), Published(network, _published_step)
    return (
        GraphModule("template", "init", template, (TEMPLATE,), features),
        GraphModule("step", "step", step, (SEARCH, *features), maps(network)),
    )
