"""DASTM (arXiv 2503.16768), reimplemented: no official code or weights exist (docs/trackers/dastm.md).

A memory encoder with a dynamic attention block, a query encoder, a memory read and an anchor-free head: STMTrack's
network (arXiv 2104.00324) on MobileOne trunks. What the paper leaves open is assumed; the recipe says what.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetrack.errors import CheckpointError
from edgetrack.models.layers.mobileone import VARIANTS, MobileOne, untangled
from edgetrack.models.layers.vit import MEAN, STD

ATTENTIONS = ("se", "ca", "cbam")
PARTS = (*ATTENTIONS, "identity")
Mode = Literal["soft", "hard", "select", "random", "none", "se", "ca", "cbam", "static"]
"""What becomes of a map: a mixture by the gate's weights; the part of the largest weight, picked from all (`hard`) or
the only one computed (`select`); one at random; itself; one attention; all three, one after another (assumed)."""
GATED = ("soft", "hard", "select")
CHOOSING = ("select", "random")


class Reductions(NamedTuple):
    """By how much the hidden widths are smaller than the map's channels, and the least width of `coordinate`."""

    gate: int = 16
    squeeze: int = 16
    coordinate: int = 32
    combined: int = 16
    least: int = 8


def _hidden(channels: int, reduction: int, least: int = 1) -> int:
    if reduction < 1:
        raise ValueError(f"a reduction is {reduction}, expected 1 or more")
    return max(least, channels // reduction)


class Perceptron(nn.Module):
    """Two linear maps, ReLU between them."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(inputs, hidden), nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(torch.relu(self.fc1(x)))


class CoordinateAttention(nn.Module):
    """A gate for each channel and row, times one for each channel and column (Hou et al., CVPR 2021)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(channels, hidden, 1), nn.BatchNorm2d(hidden, eps=1e-5)
        self.conv_h, self.conv_w = nn.Conv2d(hidden, channels, 1), nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) to (B, C, H, 1) and (B, C, 1, W), 0..1."""
        rows, columns = x.mean(dim=3, keepdim=True), x.mean(dim=2, keepdim=True).transpose(2, 3)
        hidden = F.hardswish(self.bn(self.conv(torch.cat([rows, columns], dim=2))))
        above, beside = hidden[:, :, : x.shape[2]], hidden[:, :, x.shape[2] :].transpose(2, 3)
        return torch.sigmoid(self.conv_h(above)), torch.sigmoid(self.conv_w(beside))


class CombinedAttention(nn.Module):
    """CBAM's two gates, of channels and then of places (Woo et al., ECCV 2018)."""

    def __init__(self, channels: int, hidden: int, kernel: int) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"spatial_kernel is {kernel}, expected an odd number")
        self.fc1, self.fc2 = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        self.spatial = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mean, most = (self.fc2(torch.relu(self.fc1(pooled))) for pooled in (x.mean(dim=(2, 3)), x.amax(dim=(2, 3))))
        x = x * torch.sigmoid(mean + most)[:, :, None, None]
        planes = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.spatial(planes))


class DynamicAttention(nn.Module):
    """A map to what its mode makes of it and of its three attended forms; all modes have one state dict.

    Args:
        channels: of the map.
        reductions: of the hidden layers.
        kernel: of CBAM's spatial convolution.
        temperature: the gate's logits are divided by it; above 0.
        mode: see `Mode`. While they are trained, `hard` and `select` pass the gate the gradient of `soft` (assumed).
    """

    def __init__(
        self,
        channels: int,
        reductions: Reductions,
        *,
        kernel: int = 7,
        temperature: float = 1.0,
        mode: Mode = "soft",
    ) -> None:
        super().__init__()
        if not 0 < temperature < float("inf"):
            raise ValueError(f"temperature is {temperature}, expected a number above 0")
        if mode not in get_args(Mode):
            raise ValueError(f"gate is {mode!r}, expected {', '.join(get_args(Mode))}")
        self.temperature, self.mode = temperature, mode
        self.gate = Perceptron(channels, _hidden(channels, reductions.gate), len(PARTS))
        self.se = Perceptron(channels, _hidden(channels, reductions.squeeze), channels)
        self.ca = CoordinateAttention(channels, _hidden(channels, reductions.coordinate, reductions.least))
        self.cbam = CombinedAttention(channels, _hidden(channels, reductions.combined), kernel)

    def weigh(self, x: Tensor) -> Tensor:
        """The gate's weights of a map (B, C, H, W): (B, 4), which add up to 1, in the order of `PARTS`."""
        return torch.softmax(self.gate(x.mean(dim=(2, 3))) / self.temperature, dim=1)

    def attend(self, part: str, x: Tensor) -> Tensor:
        """One part's form of a map (B, C, H, W), of the same shape."""
        if part == "se":
            return x * torch.sigmoid(self.se(x.mean(dim=(2, 3))))[:, :, None, None]
        if part == "ca":
            rows, columns = self.ca(x)
            return x * (rows * columns)
        return self.cbam(x) if part == "cbam" else x

    def shares(self, x: Tensor) -> Tensor:
        """(B, 4) of a mode without a gate: which of `PARTS` it takes; `static` takes three, one after another."""
        if self.mode == "random":
            return F.one_hot(torch.randint(len(PARTS), (len(x),), device=x.device), len(PARTS)).to(x.dtype)
        used = ATTENTIONS if self.mode == "static" else ("identity" if self.mode == "none" else self.mode,)
        return x.new_tensor([float(part in used) for part in PARTS]).expand(len(x), -1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) to the same shape and the gate's weights (B, 4); without a gate, what `shares` says."""
        if self.mode not in (*GATED, "random"):
            shares = self.shares(x)
            for part in ATTENTIONS if self.mode == "static" else (self.mode,):
                x = self.attend(part, x)
            return x, shares
        weights = self.weigh(x) if self.mode in GATED else self.shares(x)
        return self.mix(x, self._picked(weights)), weights

    def _picked(self, weights: Tensor) -> Tensor:
        if self.mode not in ("hard", "select"):
            return weights
        largest = _largest(weights)
        return largest + weights - weights.detach() if self.training else largest

    def mix(self, x: Tensor, share: Tensor) -> Tensor:
        """A map (B, C, H, W) to the sum of its parts by their shares (B, 4)."""
        se, ca, cbam, identity = (share[:, index, None, None, None] for index in range(len(PARTS)))
        rows, columns = self.ca(x)
        channel = torch.sigmoid(self.se(x.mean(dim=(2, 3))))[:, :, None, None]
        # Three of the four are the map times something: one product in place of three.
        return x * (se * channel + ca * (rows * columns) + identity) + cbam * self.cbam(x)


def _largest(weights: Tensor) -> Tensor:
    """1 at the largest weight, the first of equal ones, 0 elsewhere; without an argmax."""
    best = (weights >= weights.amax(dim=1, keepdim=True)).to(weights.dtype)
    before = torch.matmul(best, torch.ones(len(PARTS), len(PARTS)).triu(1).to(weights))
    return best * (before < 0.5).to(weights.dtype)


STRIDE = 8
Normalisation = Literal["symmetric", "imagenet"]


class Geometry(NamedTuple):
    """Sizes in pixels of a crop and in cells of what is searched.

    Attributes:
        image: side of a crop, 8 n + 1.
        cells: of the middle of the trunk's map, along a side.
        memories: frames that are read at once.
    """

    image: int
    cells: int
    memories: int

    @property
    def crop(self) -> int:
        """Cells of the trunk's map that are left out at each side."""
        return ((self.image - 1) // STRIDE + 1 - self.cells) // 2

    def check(self) -> None:
        """Raise ValueError where the cells are not the middle of the map."""
        whole = (self.image - 1) // STRIDE + 1
        if self.image % STRIDE != 1 or not 2 <= self.cells <= whole or (whole - self.cells) % 2 or self.memories < 1:
            raise ValueError(
                f"image_size {self.image}, cells {self.cells}, memories {self.memories}: expected a multiple of "
                f"{STRIDE} plus 1, an even number of cells less than the {whole} of its map or all, and 1 or more"
            )

    def points(self) -> Tensor:
        """(cells, cells, 2): x and y of each cell's centre in pixels of the crop."""
        along = torch.arange(self.cells) * float(STRIDE) + self.crop * STRIDE
        rows, columns = torch.meshgrid(along, along, indexing="ij")
        return torch.stack([columns, rows], dim=-1)


class Adjustor(nn.Module):
    """The trunk's channels to the tracker's."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.adjustor = nn.Conv2d(c_in, c_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.adjustor(x)


class MemoryTrunk(MobileOne):
    """MobileOne that also sees where the target is: a map of 1 on it and 0 elsewhere, behind stage 0."""

    def __init__(self, variant: str, width: float, pairs: tuple[int, ...]) -> None:
        super().__init__(variant, width=width, pairs=pairs)
        self.proj_fg_bg_label_map = nn.Conv2d(1, self.channels[0], 3, 2, 1, bias=False)


class Scores(nn.Module):
    """A 1x1 convolution and a BatchNorm."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(c_in, c_out, 1), nn.BatchNorm2d(c_out, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class Tower(nn.Module):
    """3x3 convolutions with ReLU between them."""

    def __init__(self, c_in: int, width: int, further: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, width, 3, padding=1)
        layers: list[nn.Module] = []
        for _ in range(further):
            layers += [nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)]
        self.conv_layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, F, F) to (B, width, F, F)."""
        return self.conv_layers(self.conv1(x))


class Head(nn.Module):
    """Logits of class and centredness, and distances to the box's edges, of every cell.

    Args:
        dim: channels of the query's features; the head's input has twice as many.
        width, further: of the towers.
    """

    def __init__(self, dim: int, width: int, further: int) -> None:
        super().__init__()
        self.bi, self.si = nn.Parameter(torch.zeros(())), nn.Parameter(torch.ones(()))
        self.cls_ctr, self.reg = Tower(2 * dim, width, further), Tower(2 * dim, width, further)
        self.cls_score, self.ctr_score, self.reg_offsets = Scores(width, 1), Scores(width, 1), Scores(width, 4)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 2 dim, F, F) to class (B, 1, F, F), centredness (B, 1, F, F), left, top, right, bottom (B, 4, F, F)."""
        found, edges = self.cls_ctr(features), self.reg(features)
        distances = torch.exp(self.si * self.reg_offsets(edges) + self.bi) * STRIDE
        return self.cls_score(found), self.ctr_score(found), distances


def read_memory(memory: Tensor, query: Tensor, faded: Tensor | None = None) -> Tensor:
    """What each of the query's cells finds: memory (B, C, T, F, F), query (B, C, F, F) to (B, C, F, F).

    `faded` (T,) is the logarithm of each memory's weight, where they differ.
    """
    keys, asked = memory.flatten(2), query.flatten(2)
    alike = torch.matmul(keys.transpose(1, 2), asked) / math.sqrt(keys.shape[1])
    if faded is not None:
        alike = alike + faded.repeat_interleave(keys.shape[2] // len(faded))[None, :, None]
    weights = torch.softmax(alike, dim=1)
    return torch.matmul(keys, weights).reshape(query.shape)


class Found(NamedTuple):
    """What a search returns: score (B, F, F) in 0..1, boxes (B, F, F, 4) x1, y1, x2, y2 in pixels of the crop."""

    score: Tensor
    boxes: Tensor


class Dastm(nn.Module):
    """The network; with the defaults 20.7 million parameters as it is trained, 15.8 as it ships.

    Args:
        image_size, cells, memories: see `Geometry`.
        variant, width, blocks: the trunk, see `MobileOne`; `blocks` as `2,8,10`.
        dim: channels of features.
        head_width, head_depth: channels and 3x3 convolutions of a tower.
        normalisation: of pixels: `symmetric` to -1..1, or by ImageNet's mean and deviation.
        gate, temperature, spatial_kernel: of the attention block, see `DynamicAttention`.
        gate_reduction, se_reduction, ca_reduction, cbam_reduction: see `Reductions`.
    """

    def __init__(
        self,
        *,
        image_size: int = 289,
        cells: int = 25,
        memories: int = 6,
        variant: str = "s0",
        width: float = 1.0,
        blocks: str = "2,8,10",
        dim: int = 512,
        head_width: int = 256,
        head_depth: int = 7,
        normalisation: Normalisation = "symmetric",
        gate: Mode = "soft",
        temperature: float = 1.0,
        spatial_kernel: int = 7,
        gate_reduction: int = 16,
        se_reduction: int = 16,
        ca_reduction: int = 32,
        cbam_reduction: int = 16,
    ) -> None:
        super().__init__()
        if normalisation not in ("symmetric", "imagenet"):
            raise ValueError(f"normalisation is {normalisation!r}, expected symmetric or imagenet")
        if head_depth < 1:
            raise ValueError(f"head_depth is {head_depth}, expected 1 or more")
        self.geometry, self.normalisation, self.variant = Geometry(image_size, cells, memories), normalisation, variant
        self.geometry.check()
        pairs = tuple(int(count) for count in blocks.split(","))
        reductions = Reductions(gate_reduction, se_reduction, ca_reduction, cbam_reduction)
        self.basemodel_m = MemoryTrunk(variant, width, pairs)
        self.basemodel_q = MobileOne(variant, width=width, pairs=pairs)
        channels = self.basemodel_q.channels[-1]
        self.neck_m, self.neck_q = Adjustor(channels, dim), Adjustor(channels, dim)
        self.dab = DynamicAttention(dim, reductions, kernel=spatial_kernel, temperature=temperature, mode=gate)
        self.head = Head(dim, head_width, head_depth - 1)

    def assemble(self, tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
        """The state dict from a checkpoint's tensors, whose trunks may be re-parameterised.

        Raises:
            CheckpointError: the file is STMTrack's, MobileOne's alone, or of another variant of MobileOne.
        """
        _refuse_others(tensors, source)
        state = dict(tensors)
        for prefix, trunk in (("basemodel_m", self.basemodel_m), ("basemodel_q", self.basemodel_q)):
            own = {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}
            _check_variant(self.variant, trunk, own, source)
            for name in own:
                del state[f"{prefix}.{name}"]
            state.update({f"{prefix}.{name}": tensor for name, tensor in untangled(trunk, own).items()})
        return state

    def pixel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation of RGB values of 0..255."""
        if self.normalisation == "imagenet":
            return tuple(255 * value for value in MEAN), tuple(255 * value for value in STD)
        return (127.5,) * 3, (127.5,) * 3

    def normalised(self, image: Tensor) -> Tensor:
        """BGR (H, W, 3) of 0..255 to normalised RGB (1, 3, H, W)."""
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in self.pixel_statistics())
        return (image.permute(2, 0, 1).flip(0).unsqueeze(0).float() - mean) / std

    def _middle(self, features: Tensor) -> Tensor:
        crop = self.geometry.crop
        return features[:, :, crop : features.shape[2] - crop, crop : features.shape[3] - crop]

    def encode(self, image: Tensor, target: Tensor) -> Tensor:
        """Image (B, 3, S, S), map of the target (B, 1, S, S) to a map (B, dim, F, F), before any attention."""
        trunk = self.basemodel_m
        return self.neck_m(self._middle(trunk(image, trunk.proj_fg_bg_label_map(target))))

    def memorise(self, image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Image (B, 3, S, S), map of the target (B, 1, S, S) to features (B, dim, F, F) and gate weights (B, 4)."""
        return self.dab(self.encode(image, target))

    def search(self, image: Tensor, memory: Tensor, faded: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Image (B, 3, S, S) and features (B, dim, T, F, F) to what the head returns; `faded` as in `read_memory`."""
        query = self.neck_q(self._middle(self.basemodel_q(image)))
        return self.head(torch.cat([read_memory(memory, query, faded), query], dim=1))

    def forward(self, image: Tensor, memory: Tensor, faded: Tensor | None = None) -> Found:
        """Image (B, 3, S, S) and features (B, dim, T, F, F) to scores and boxes; `faded` as in `read_memory`."""
        cls, ctr, distances = self.search(image, memory, faded)
        points, edges = self.geometry.points(), distances.permute(0, 2, 3, 1)
        boxes = torch.cat([points - edges[..., :2], points + edges[..., 2:]], dim=-1)
        return Found((torch.sigmoid(cls) * torch.sigmoid(ctr))[:, 0], boxes)


_OUTPUT = re.compile(r"stage(\d)(?:\.\d+)?\.(?:rbr_conv\.0\.conv|reparam_conv)\.weight")


def _refuse_others(tensors: Mapping[str, Tensor], source: str) -> None:
    if any(name.startswith(("stage0.", "module.stage0.")) for name in tensors):
        raise CheckpointError(
            f"{source} holds MobileOne alone, a start for training; give a checkpoint of the whole tracker, or "
            "--weights untrained"
        )
    if "basemodel_q.Conv2d_1a_3x3.conv.weight" in tensors:
        raise CheckpointError(
            f"{source} is STMTrack's, with an Inception trunk, expected MobileOne's (basemodel_q.stage0. ...); "
            "no official weights of this tracker exist: train it (docs/train.md), or give --weights untrained"
        )


def _check_variant(variant: str, trunk: MobileOne, own: Mapping[str, Tensor], source: str) -> None:
    """Name the variant that a trunk's tensors are of, where it is another one."""
    channels = [0] * len(trunk.channels)
    for name, tensor in own.items():
        if (match := _OUTPUT.fullmatch(name)) and tensor.ndim == 4 and int(match[1]) < len(channels):
            channels[int(match[1])] = max(channels[int(match[1])], tensor.shape[0])
    if tuple(channels) == trunk.channels:
        return
    for other, kind in VARIANTS.items():
        if list(kind.channels) == channels:
            raise CheckpointError(
                f"{source} is of MobileOne-{other.upper()}, the recipe says variant = {variant!r}; set variant = "
                f"{other!r} in a copy of the recipe, [configuration], and export that file"
            )
