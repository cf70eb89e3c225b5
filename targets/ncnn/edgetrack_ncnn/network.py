"""What exporter and backend both know of a .param file: its first line, and how an input's shape is written."""

from __future__ import annotations

from edgetrack.bundle.manifest import TensorInfo

MAGIC = b"7767517\n"
"""The first line of every .param file."""
INPUT = "Input"
_DIMENSIONS = ("0", "1", "2")
"""Of an input layer: width, height, channels."""


def is_crop(tensor: TensorInfo) -> bool:
    """Whether it is a crop, uint8 (height, width, 3)."""
    return tensor.dtype == "uint8" and len(tensor.shape) == 3 and tensor.shape[2] == 3


def crop_shape(tensor: TensorInfo) -> tuple[int, ...]:
    """What a crop is in ncnn: float32 (1, 3, height, width)."""
    height, width, channels = tensor.shape
    return 1, channels, height, width


def sizes(shape: tuple[int, ...]) -> list[str]:
    """A shape (1, ...) as an input layer has it, the batch left out: `0=width 1=height 2=channels`."""
    return [f"{key}={size}" for key, size in zip(_DIMENSIONS, reversed(shape[1:]), strict=False)]


def stated_inputs(text: str) -> dict[str, list[str]]:
    """Inputs of a network and what it says of their sizes; ValueError where the text is none of a network."""
    found = {}
    for line in text.splitlines()[2:]:
        if line.split()[:1] == [INPUT]:
            _, _, _, _, name, *stated = line.split()
            found[name] = stated
    return found
