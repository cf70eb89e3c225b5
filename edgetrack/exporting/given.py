"""What a recipe says of ONNX files as the world has them: which tensor plays which role, and how (docs/onnx.md)."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import msgspec

from edgetrack.bundle.manifest import Name
from edgetrack.errors import UnknownNameError

IMAGES = ("search", "template", "online_template", "templates")
MASKS = ("search_mask", "template_mask")
Triple = tuple[float, float, float]
Tensor = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]


class Normalisation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a network wants of a pixel: (value * scale - mean) / std, by channel in the order of `colour`."""

    colour: Literal["rgb", "bgr"] = "rgb"
    scale: float = 1 / 255
    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.scale, *self.mean, *self.std))) or 0 in self.std or self.scale <= 0:
            raise ValueError("scale must be above 0, mean finite and std finite and not 0")


class GivenInput(Normalisation, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An input of a bundle's graph and the tensor of a file that it feeds.

    Attributes:
        source: name of the tensor in the file; `file/name` where a graph is made of several files.
        layout: axes of an image tensor; `t` counts templates.
        dtype: of the tensor, where it is to be checked.
        repeat: how often the channels stand behind one another (2: the six channels of two images).
        reshape: whether a size that the file fixes may be changed, as convolutions allow.
        count: of `templates`, where the file leaves it open.
        compat: named normalisations; `[configuration] compat` chooses one.
    """

    source: Tensor
    layout: Literal["nchw", "nhwc", "chw", "hwc", "ntchw"] = "nchw"
    dtype: Literal["float32", "float16", "uint8"] | msgspec.UnsetType = msgspec.UNSET
    repeat: Literal[1, 2] = 1
    reshape: bool = False
    count: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    compat: dict[str, Normalisation] = {}

    def pixels(self, compat: str) -> Normalisation:
        """The normalisation in force.

        Raises:
            UnknownNameError: there is none of that name.
        """
        if compat in ("", "none") or not self.compat:
            return self
        if compat not in self.compat:
            raise UnknownNameError.of("compat", compat, ("none", *self.compat))
        return self.compat[compat]

    def shape(self, size: int) -> tuple[int, ...]:
        """Of an image of `size` x `size` pixels in the file."""
        sizes = {"n": 1, "t": self.count, "c": 3 * self.repeat, "h": size, "w": size}
        return tuple(sizes[axis] for axis in self.layout)


class GivenOutput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An output of a bundle's graph and the tensor of a file that it is made of.

    Attributes:
        source: name of the tensor, or its index among the outputs of the last file.
        activation: what the file leaves out, or `log` where the family takes logarithms.
        format: of a box; `divisor` makes it fractions of the crop.
    """

    source: Tensor | Annotated[int, msgspec.Meta(ge=0)]
    activation: Literal["none", "sigmoid", "softmax", "exp", "log"] = "none"
    format: Literal["cxcywh", "xyxy", "xywh"] = "cxcywh"
    divisor: Annotated[float, msgspec.Meta(gt=0)] = 1.0


class GivenGraph(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A graph of the bundle and the files that it is made of, each fed by those before it through `links`.

    `links` maps an input of a file to an output of an earlier one, as `file/tensor`; `constants` fills an input with
    one value.
    """

    files: tuple[Tensor, ...] = ("model",)
    links: dict[Tensor, Tensor] = {}
    inputs: dict[Name, GivenInput]
    outputs: dict[Name, GivenOutput]
    constants: dict[Tensor, float] = {}
