"""What a pickle becomes: references to tensors and storages, and placeholders for everything unknown."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from edgetrack.checkpoints.policy import Global, shown
from edgetrack.errors import CheckpointError


class Inert:
    """What stands for an object of an unknown class: it takes any state and any items, and keeps none of it."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


@dataclass(frozen=True)
class StorageRef:
    """A storage the pickle refers to: `numel` elements of `dtype`, None if the type `name` is not supported."""

    key: str
    numel: int
    dtype: torch.dtype | None
    name: str

    @property
    def element(self) -> torch.dtype:
        """The dtype; CheckpointError if the type is not supported."""
        if self.dtype is None:
            supported = "float16/32/64, bfloat16, int8/16/32/64, uint8 and bool"
            raise CheckpointError(f"it is kept in a {shown(self.name)}, and only {supported} tensors can be read")
        return self.dtype

    @property
    def nbytes(self) -> int:
        """Size in bytes; CheckpointError if the type is not supported."""
        return self.numel * self.element.itemsize


@dataclass(frozen=True)
class TensorRef:
    """A tensor the pickle describes: sizes, strides and offset count elements and are not checked yet."""

    storage: StorageRef
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def malformed(what: str) -> CheckpointError:
    """The error for a pickle that no writer of weights produces."""
    return CheckpointError(f"damaged or not a weights file: {what}. Download or copy it again")


def describe(value: object) -> str:
    """What kind of value this is, for a message; never its contents."""
    if isinstance(value, Inert):
        return f"an object of {shown(value.name)}"
    if isinstance(value, Global):
        return f"the name {shown(value.qualified)}"
    if isinstance(value, TensorRef):
        return "a tensor"
    return "None" if value is None else f"a {type(value).__name__}"
