"""MobileOne (arXiv 2206.04040): a stack of convolutions that is trained with several branches and runs with one.

Official parameter names, in both forms: `rbr_conv`, `rbr_scale`, `rbr_skip` while it is trained, `reparam_conv` after
re-parameterisation, which is algebra: all branches of a block are linear and end in one sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from edgetrack.models.layers.folding import Affine, after_batch_norm, of_conv, padded_to, to_conv, unit_map


class Variant(NamedTuple):
    """A published size: channels of stages 0 to 3, branches of a block, gated pairs at the end of stage 3."""

    channels: tuple[int, int, int, int]
    branches: int
    gated: int = 0


VARIANTS = {
    "s0": Variant((48, 48, 128, 256), 4),
    "s1": Variant((64, 96, 192, 512), 1),
    "s2": Variant((64, 96, 256, 640), 1),
    "s3": Variant((64, 128, 320, 768), 1),
    "s4": Variant((64, 192, 448, 896), 1, gated=5),
}
PAIRS = (2, 8, 10)
"""Depthwise and pointwise blocks of stages 1 to 3, as published."""
GATE_REDUCTION = 16
EPS = 1e-5


class SqueezeExcite(nn.Module):
    """A gate for each channel from the mean over the map, (B, C, H, W) to the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, max(1, channels // GATE_REDUCTION), 1)
        self.expand = nn.Conv2d(max(1, channels // GATE_REDUCTION), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = torch.sigmoid(self.expand(torch.relu(self.reduce(x.mean(dim=(2, 3), keepdim=True)))))
        return x * gate


class _ConvNorm(nn.Module):
    """A convolution without bias and its BatchNorm."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(c_out, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))

    @property
    def affine(self) -> Affine:
        """Both as one map."""
        return after_batch_norm(of_conv(self.conv), self.bn)


class MobileOneBlock(nn.Module):
    """The trained form: the sum of its branches, a gate where there is one, ReLU.

    Args:
        skip: a branch without a convolution; c_in and c_out must be equal and the stride 1.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        branches: int = 1,
        skip: bool = False,
        gated: bool = False,
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.groups = kernel, stride, groups
        if gated:
            self.se = SqueezeExcite(c_out)
        if skip:
            self.rbr_skip = nn.BatchNorm2d(c_in, eps=EPS)
        self.rbr_conv = nn.ModuleList([_ConvNorm(c_in, c_out, kernel, stride, groups) for _ in range(branches)])
        if kernel > 1:
            self.rbr_scale = _ConvNorm(c_in, c_out, 1, stride, groups)

    @property
    def gate(self) -> SqueezeExcite | None:
        """What follows the sum."""
        return cast("SqueezeExcite | None", self._modules.get("se"))

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.rbr_conv[0](x)
        for branch in self.rbr_conv[1:]:
            total = total + branch(x)
        for name in ("rbr_scale", "rbr_skip"):
            if name in self._modules:
                total = total + self.get_submodule(name)(x)
        return torch.relu(total if self.gate is None else self.gate(total))

    @property
    def affine(self) -> Affine:
        """The sum of all branches as one map."""
        maps = [cast(_ConvNorm, branch).affine for branch in self.rbr_conv]
        if "rbr_scale" in self._modules:
            maps.append(padded_to(self.rbr_scale.affine, self.kernel))
        if "rbr_skip" in self._modules:
            unit = unit_map(self.rbr_skip.num_features, self.groups, self.kernel)
            maps.append(after_batch_norm(unit, self.rbr_skip))
        return Affine(torch.stack([m.weight for m in maps]).sum(0), torch.stack([m.bias for m in maps]).sum(0))


class MobileOne(nn.Module):
    """Stages 0 to 3 of MobileOne: (B, 3, 8n+1, 8n+1) to (B, C3, n+1, n+1) at total stride 8.

    The published network is strided once more, at stage 3; with `stride_3 = 2` this one is.

    Args:
        variant: s0 to s4.
        width: factor on all channels.
        pairs: depthwise and pointwise blocks of stages 1 to 3.
        stride_3: of stage 3. At 1 its first block keeps the tensors that it has at 2: no skip branch.
    """

    def __init__(
        self, variant: str = "s0", *, width: float = 1.0, pairs: tuple[int, ...] = PAIRS, stride_3: int = 1
    ) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"MobileOne variant is {variant!r}, expected one of: {', '.join(VARIANTS)}")
        if not 0 < width <= 4 or len(pairs) != 3 or min(pairs) < 1:
            raise ValueError(f"width {width} and pairs {pairs}: expected a width of 0..4 and three counts of 1 or more")
        kind = VARIANTS[variant]
        self.channels = tuple(max(1, round(c * width)) for c in kind.channels)
        self.stage0 = MobileOneBlock(3, self.channels[0], 3, stride=2)
        for index, (count, stride) in enumerate(zip(pairs, (2, 2, stride_3), strict=True), start=1):
            gated = min(kind.gated, count) if index == 3 else 0
            stage = _stage(self.channels[index - 1], self.channels[index], count, stride, kind.branches, gated)
            self.add_module(f"stage{index}", stage)

    def blocks(self) -> Iterator[tuple[str, MobileOneBlock]]:
        """All blocks in order, by name."""
        return ((name, block) for name, block in self.named_modules() if isinstance(block, MobileOneBlock))

    def forward(self, image: Tensor, hint: Tensor | None = None) -> Tensor:
        """Normalised RGB to features; `hint` (B, C0, H/2, W/2) is added behind stage 0."""
        x: Tensor = self.stage0(image)
        x = x if hint is None else x + hint
        for index in (1, 2, 3):
            x = self.get_submodule(f"stage{index}")(x)
        return x


def _stage(c_in: int, c_out: int, pairs: int, stride: int, branches: int, gated: int) -> nn.Sequential:
    blocks = []
    for index in range(pairs):
        has_gate, first = index >= pairs - gated, index == 0
        # Never a skip in the first depthwise block, which is strided as published.
        depthwise = MobileOneBlock(
            c_in,
            c_in,
            3,
            stride=stride if first else 1,
            groups=c_in,
            branches=branches,
            skip=not first,
            gated=has_gate,
        )
        pointwise = MobileOneBlock(c_in, c_out, 1, branches=branches, skip=c_in == c_out, gated=has_gate)
        blocks += [depthwise, pointwise]
        c_in = c_out
    return nn.Sequential(*blocks)


class DeployedBlock(nn.Module):
    """One convolution, the gate, ReLU. With `padding` 0, a map that is smaller by a pixel at each side."""

    def __init__(self, block: MobileOneBlock, affine: Affine | None = None, padding: int | None = None) -> None:
        super().__init__()
        merged = block.affine if affine is None else affine
        self.conv = to_conv(merged, stride=block.stride, groups=block.groups, padding=padding)
        self.gate = block.gate

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv(x)
        return torch.relu(out if self.gate is None else self.gate(out))


class DeployedMobileOne(nn.Module):
    """The re-parameterised network, which computes no more than the middle of its last map.

    Where `crop` pixels at each side of the output are not wanted, the last depthwise blocks run without padding, each
    on a map that is smaller by one pixel at each side: the same numbers as computing all and cutting. What no block is
    left for is cut; a gate, which reads the whole map, ends it.

    Args:
        trunk: the trained form.
        crop: pixels at each side of the output that are left out.
        stem: stage 0's map where something is merged into it.
    """

    def __init__(self, trunk: MobileOne, crop: int = 0, stem: Affine | None = None) -> None:
        super().__init__()
        blocks = [block for _, block in trunk.blocks()]
        bare = _without_padding(blocks, crop)
        self.cut = crop - len(bare)
        self.stage0 = DeployedBlock(blocks[0], stem)
        self.stages = nn.Sequential(
            *(DeployedBlock(block, padding=0 if block in bare else None) for block in blocks[1:])
        )

    def forward(self, image: Tensor, hint: Tensor | None = None) -> Tensor:
        x = self.stage0(image)
        out: Tensor = self.stages(x if hint is None else x + hint)
        return out[:, :, self.cut : -self.cut, self.cut : -self.cut] if self.cut else out


def _without_padding(blocks: list[MobileOneBlock], crop: int) -> list[MobileOneBlock]:
    found: list[MobileOneBlock] = []
    for block in reversed(blocks[1:]):
        if len(found) == crop or block.gate is not None or block.stride > 1:
            break
        if block.kernel > 1:
            found.append(block)
    return found


def untangled(trunk: MobileOne, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the re-parameterised form (`reparam_conv`) as those of the trained form, which computes the same.

    The first branch takes the convolution, its BatchNorm the bias; all other branches give zero.

    Args:
        trunk: where they belong; it is not changed.
        tensors: by names within the trunk, both tensors of each block; others are handed on.

    Returns:
        All tensors of the trained form for each block whose convolution is there.
    """
    state = dict(tensors)
    for name, block in trunk.blocks():
        weight, bias = (tensors.get(f"{name}.reparam_conv.{leaf}") for leaf in ("weight", "bias"))
        if weight is None or bias is None:
            continue
        del state[f"{name}.reparam_conv.weight"], state[f"{name}.reparam_conv.bias"]
        for key, value in block.state_dict().items():
            if not key.startswith("se."):
                state[f"{name}.{key}"] = _silent(key, value)
        state[f"{name}.rbr_conv.0.conv.weight"] = weight
        state[f"{name}.rbr_conv.0.bn.bias"] = bias
        state[f"{name}.rbr_conv.0.bn.weight"] = torch.full_like(bias, math.sqrt(1 + EPS))
    return state


def _silent(key: str, like: Tensor) -> Tensor:
    """A tensor of a branch that gives zero."""
    return torch.ones_like(like) if key.endswith("running_var") else torch.zeros_like(like)
