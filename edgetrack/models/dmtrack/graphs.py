"""DMTrack's graph as it ships: `step`, with room for the most templates there can be.

Derived from the published network by algebra alone (docs/decisions/0006-trackers-that-remember.md): the two modalities
are a batch of two through the shared weights; absent templates are switched off by a mask, exactly; the deep adapter's
attention of one query over two keys is a sigmoid; linear maps in a row are merged; the last block computes only what
the head reads.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetrack.bundle.manifest import TensorInfo
from edgetrack.models.base import GraphModule, Published, shipped, tensors
from edgetrack.models.dmtrack.network import (
    RANK,
    TEMPORAL_RANK,
    Block,
    DeepAdapter,
    DmTrack,
    ShallowAdapter,
    TemporalAdapter,
)
from edgetrack.models.layers.center_head import DeployedCenterHead, Maps
from edgetrack.models.layers.vit import MASKED, Mlp, PixelEmbed, Sizes, normalised


def _swapped(x: Tensor) -> Tensor:
    """(2, ..): each modality in the other's place."""
    return torch.cat([x[1:], x[:1]])


def _both(name: str, *modules: nn.Module) -> nn.Parameter:
    """A tensor of several modules, one after another along a new first dimension."""
    return nn.Parameter(torch.stack([module.get_parameter(name).detach() for module in modules]))


def _across(weight: Tensor) -> nn.Parameter:
    """Matrices (2, out, in) as what a row of tokens is multiplied by: (2, in, out), float32."""
    return nn.Parameter(weight.transpose(1, 2).contiguous().float())


class Temporal(nn.Module):
    """Both modalities' temporal adapters; the filter is three shifted products."""

    def __init__(self, first: TemporalAdapter, second: TemporalAdapter, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        pair = (first, second)
        self.down = _across(_both("adapter_down.weight", *pair))
        self.down_bias = nn.Parameter(_both("adapter_down.bias", *pair).unsqueeze(1))
        self.up = _across(_both("adapter_up.weight", *pair))
        self.up_bias = nn.Parameter(_both("adapter_up.bias", *pair).unsqueeze(1))
        taps = _both("adapter_mid.weight", *pair).reshape(2, 1, 1, TEMPORAL_RANK, 3)
        self.before, self.here, self.after = (nn.Parameter(taps[..., tap].clone()) for tap in range(3))
        self.bias = nn.Parameter(_both("adapter_mid.bias", *pair).reshape(2, 1, 1, TEMPORAL_RANK))

    def forward(self, tokens: Tensor, frames: Tensor) -> Tensor:
        """Tokens (2, N, dim) and the mask of frames (1, T, 1, 1) to the same shape."""
        down = torch.matmul(tokens, self.down) + self.down_bias
        count = self.sizes.templates * self.sizes.template_tokens
        z, x = down[:, :count], down[:, count:]
        # An absent frame is the zero that the published filter pads with.
        z = z.reshape(2, self.sizes.templates, self.sizes.template_tokens, TEMPORAL_RANK) * frames
        filtered = z * self.here + self.bias
        if self.sizes.templates > 1:
            before, after = F.pad(z[:, :-1], (0, 0, 0, 0, 1, 0)), F.pad(z[:, 1:], (0, 0, 0, 0, 0, 1))
            filtered = filtered + before * self.before + after * self.after
        z = z + filtered
        merged = torch.cat([z.reshape(2, count, TEMPORAL_RANK), x], dim=1)
        return torch.matmul(merged, self.up) + self.up_bias


class Shallow(nn.Module):
    """The shallow adapter as one pair of rank 8."""

    def __init__(self, published: ShallowAdapter) -> None:
        super().__init__()
        down, mid = published.adapter_down, published.adapter_mid
        self.down = nn.Linear(down.in_features, RANK)
        with torch.no_grad():
            self.down.weight.copy_(mid.weight.double() @ down.weight.double())
            self.down.bias.copy_(mid.weight.double() @ down.bias.double() + mid.bias.double())
        self.up = published.adapter_up

    def forward(self, tokens: Tensor) -> Tensor:
        """(2, N, dim): what each modality gets from the other."""
        return self.up(_swapped(self.down(tokens)))


class Deep(nn.Module):
    """The deep adapter in closed form: with two keys, a softmax is a sigmoid of the difference of two logits.

    q asks k1 = q + kn and k2 = q r for v1 = q + vn and v2 = o: y = V1 + sigmoid(Q (K2 - K1)) (V2 - V1) by channel,
    since a head has one channel. The output projection and `adapter_up` are merged.
    """

    def __init__(self, published: DeepAdapter) -> None:
        super().__init__()
        self.down, self.judge = published.adapter_down, cast(Mlp, published.relation_judger[0])
        pair = (published.cross_attn_0_to_1, published.cross_attn_1_to_0)
        query, key, value = torch.split(_both("in_proj_weight", *pair).detach().double(), RANK, dim=1)
        biases = _both("in_proj_bias", *pair).detach().double().unsqueeze(1)
        query_bias, _, value_bias = torch.split(biases, RANK, dim=2)
        noise_k, noise_v = (e.weight.detach().double().unsqueeze(1) for e in (published.k_noise, published.v_noise))
        self.query, self.key, self.value = _across(query), _across(key), _across(value)
        shift = noise_v @ value.transpose(1, 2)
        self.query_bias = nn.Parameter(query_bias.float())
        self.key_shift = nn.Parameter((noise_k @ key.transpose(1, 2)).float())
        self.value_shift = nn.Parameter(shift.float())
        self.value_bias = nn.Parameter((shift + value_bias).float())
        up = published.adapter_up.weight.detach().double()
        out = _both("out_proj.weight", *pair).detach().double()
        out_bias = _both("out_proj.bias", *pair).detach().double().unsqueeze(1)
        self.up = _across(up @ out)
        self.up_bias = nn.Parameter((out_bias @ up.T + published.adapter_up.bias.detach().double()).float())

    def forward(self, tokens: Tensor) -> Tensor:
        own: Tensor = self.down(tokens)
        other = _swapped(own)
        relation = torch.softmax(self.judge(torch.cat([own, other], dim=-1)), dim=-1)
        query = torch.matmul(own, self.query) + self.query_bias
        gate = torch.sigmoid(query * (torch.matmul(own * relation - own, self.key) - self.key_shift))
        first = torch.matmul(own, self.value) + self.value_bias
        difference = torch.matmul(other - own, self.value) - self.value_shift
        return torch.matmul(first + gate * difference, self.up) + self.up_bias


def _deployed(adapter: ShallowAdapter | DeepAdapter | None) -> Shallow | Deep | None:
    if adapter is None:
        return None
    return Shallow(adapter) if isinstance(adapter, ShallowAdapter) else Deep(adapter)


class DeployedBlock(nn.Module):
    """A block on both modalities at once; large matrices are the published module's own."""

    def __init__(self, block: Block, sizes: Sizes) -> None:
        super().__init__()
        pair = block.over_time
        self.temporal = None if pair is None else Temporal(*pair, sizes)
        self.norm1, self.attn, self.norm2, self.mlp = block.norm1, block.attn, block.norm2, block.mlp
        self.first, self.second = _deployed(block.adap_t), _deployed(block.adap2_t)

    def forward(self, x: Tensor, frames: Tensor, keys: Tensor, first: int) -> Tensor:
        """Tokens (2, N, dim) to (2, N - first, dim): those from `first` on."""
        if self.temporal is not None:
            x = x + self.temporal(x, frames)
        normed = self.norm1(x)
        x = x[:, first:] + self.attn(normed, keys, first)
        if self.first is not None:
            x = x + self.first(normed[:, first:])
        normed = self.norm2(x)
        x = x + self.mlp(normed)
        return x if self.second is None else x + self.second(normed)


class StepGraph(nn.Module):
    """Search crops (2, S, S, 3), template crops (T, 2, s, s, 3), colour before X, BGR; which templates there are."""

    def __init__(self, network: DmTrack) -> None:
        super().__init__()
        backbone, self.sizes = network.backbone, network.sizes
        self.embed = PixelEmbed(backbone.patch_embed)
        self.position_z, self.position_x = backbone.pos_embed_z, backbone.pos_embed_x
        self.blocks = nn.ModuleList([DeployedBlock(cast(Block, block), self.sizes) for block in backbone.blocks])
        self.norm = backbone.norm
        self.head = DeployedCenterHead(network.box_head)

    def forward(self, search: Tensor, templates: Tensor, present: Tensor) -> Maps:
        """uint8 crops, or float ones of 0..255; `present` (1, T): 1 for each template from the first on, else 0."""
        sizes = self.sizes
        count = sizes.templates * sizes.template_tokens
        z = self.embed(templates.reshape(2 * sizes.templates, sizes.template, sizes.template, 3)) + self.position_z
        z = z.reshape(sizes.templates, 2, sizes.template_tokens, -1).permute(1, 0, 2, 3).reshape(2, count, -1)
        tokens = torch.cat([z, self.embed(search) + self.position_x], dim=1)
        frames = present.reshape(1, sizes.templates, 1, 1)
        absent = ((1 - frames) * MASKED).expand(1, sizes.templates, sizes.template_tokens, 1).reshape(1, 1, 1, count)
        keys = F.pad(absent, (0, sizes.search_cells**2))
        last = len(self.blocks) - 1
        for index, block in enumerate(self.blocks):
            tokens = block(tokens, frames, keys, count if index == last else 0)
        tokens = self.norm(tokens)
        features = (tokens[:1] + tokens[1:]).transpose(1, 2)
        return self.head(features.reshape(1, -1, sizes.search_cells, sizes.search_cells))


def signature(network: DmTrack) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    """Inputs and outputs of `step`."""
    _, search, template, templates = network.sizes
    cells = network.sizes.search_cells
    crops = tensors("uint8", search=(2, search, search, 3), templates=(templates, 2, template, template, 3))
    maps = tensors(score=(1, 1, cells, cells), size=(1, 2, cells, cells), offset=(1, 2, cells, cells))
    return (*crops, *tensors(present=(1, templates))), maps


def deploy(network: DmTrack) -> tuple[GraphModule, ...]:
    """Graph `step` that ships."""
    return (GraphModule("step", "step", shipped(StepGraph(network)), *signature(network)),)


def _published_step(network: DmTrack, search: Tensor, templates: Tensor, present: Tensor) -> Maps:
    # Nothing is marked where the arithmetic of a full memory is counted.
    held = templates[: int(present.sum()) or templates.shape[0]]
    crops = normalised(held.flatten(0, 1))
    return network(crops.reshape(-1, 2, *crops.shape[1:]), normalised(search))


def reference(network: DmTrack) -> tuple[GraphModule, ...]:
    """Graph `step` as published: as many template frames as there are, each modality for itself."""
    return (GraphModule("step", "step", Published(network, _published_step), *signature(network)),)
