"""What a family's training is: the face that the training room sees of it, and how one is found.

A family declares it in one file, `edgetrack/training/trackers/<family>.py`, as `METHOD`, or a plug-in brings it (entry
point group `edgetrack.trainings`): what a sample holds, how it is cut, which tensors train, and the loss. The numbers
are the recipe's [training].
"""

from __future__ import annotations

import abc
import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgetrack.box import Box
from edgetrack.errors import InvalidTextError, SourceError, UsageError
from edgetrack.exporting.recipe import Recipe
from edgetrack.plugins import TRAININGS, load_plugin
from edgetrack.runtime.crop import CropMapping, CropRule, Image, crop_square, square_around
from edgetrack.training.catalog import Picture, TrainingClip
from edgetrack.training.losses import Losses, summed, tracking_loss

Words = NDArray[np.int64]


class Batch(NamedTuple):
    """Samples as tensors.

    Attributes:
        templates: uint8 (B, T, M, s, s, 3) BGR: T frames in which the target is known, M images a frame.
        template_boxes: float32 (B, T, 4): the target's centre x, y and width, height in fractions of the crop.
        searches: uint8 (B, R, M, S, S, 3) BGR: R frames, in order, in which it is sought.
        boxes: float32 (B, R, 4): the target in them.
        positive: bool (B,): whether the searched frames show it.
        words: int64 (B, A, L): what is said of it, as the method reads it; (B, 0, 0) for a tracker without language.
    """

    templates: Tensor
    template_boxes: Tensor
    searches: Tensor
    boxes: Tensor
    positive: Tensor
    words: Tensor


class TrainingMethod(abc.ABC):
    """How the trackers of a family are trained.

    Attributes:
        templates, searches: frames of a sample in which the target is known, and in which it is sought.
        images: images a frame, 1 or 2.
        reads_text: whether a sample needs a description of its target.
        terms: names of the terms of the loss, which the recipe weighs.
        stride: search crops are a multiple of it where the network takes several sizes, None where it takes one.
    """

    templates: int = 1
    searches: int = 1
    images: ClassVar[int] = 1
    reads_text: bool = False
    terms: ClassVar[tuple[str, ...]] = ()
    stride: ClassVar[int | None] = None

    def __init__(self, recipe: Recipe) -> None:
        """Check that the recipe weighs the terms of the loss.

        Raises:
            UsageError: it weighs others.
        """
        self.recipe = recipe
        self.weights: Mapping[str, float] = {} if recipe.training is None else recipe.training.loss
        if set(self.weights) != set(self.terms):
            raise UsageError(
                f"[training] of recipe {recipe.name!r} weighs the loss terms {', '.join(self.weights) or 'none'}; "
                f"expected {', '.join(self.terms)}"
            )

    def crop(self, frame: Image, around: Box, rule: CropRule) -> tuple[Image, CropMapping]:
        """The crop around a box, uint8 (size, size, 3), and where pixels of the frame lie in it."""
        out = np.empty((rule.size, rule.size, 3), np.uint8)
        scale = crop_square(frame, around, rule, out)
        square = square_around(around, rule.factor)
        return out, CropMapping(scale, scale, -square.x * scale, -square.y * scale)

    def read(self, text: str) -> Words:
        """A description as numbers, (A, L), the same shape for each.

        Raises:
            InvalidTextError: it cannot be read.
        """
        return np.zeros((0, 0), np.int64)

    def trains(self, name: str) -> bool:
        """Whether a parameter changes in the course of the training."""
        return True

    def backbone(self, network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A pretrained backbone's tensors under the network's names; names that are no tensor's are left out later."""
        state, prefix = network.state_dict(), "" if self.recipe.training is None else self.recipe.training.backbone
        return {name if name in state else f"{prefix}{name}": tensor for name, tensor in tensors.items()}

    @abc.abstractmethod
    def loss(self, network: nn.Module, batch: Batch) -> Losses:
        """The loss of a batch that is on the network's device."""

    def check_size(self, size: int) -> None:
        """Raise UsageError where the network cannot search crops of this size."""
        published = int(self.recipe.procedure["search_size"])
        if self.stride is None and size != published:
            raise UsageError(
                f"{self.recipe.name} searches crops of {published} pixels, a phase says {size}; give --phase "
                f"{published}:LENGTH"
            )
        if self.stride is not None and (size % self.stride or size < 2 * self.stride):
            raise UsageError(
                f"a phase says {size} pixels; {self.recipe.name} takes multiples of {self.stride}, {2 * self.stride} "
                "or more"
            )

    def takes(self, picture: Picture) -> bool:
        """Whether a picture holds the images that a frame needs."""
        return self.images == 1 or picture.second is not None

    def check_clips(self, clips: tuple[TrainingClip, ...]) -> None:
        """Raise SourceError where a sequence lacks a second image or a description that the family needs."""
        for clip in clips:
            for view in clip.views:
                if not self.takes(view.picture):
                    raise SourceError(
                        f"{self.recipe.name} is trained on two images a frame, and {view.picture.name} has no second "
                        f"one: put as many thermal, depth or event images into {clip.name}/infrared (or depth, event), "
                        'or name them in the shard\'s index as "second"; docs/train.md shows how'
                    )
            if self.reads_text:
                try:
                    self.read(clip.text)
                except InvalidTextError as error:
                    raise SourceError(
                        f"{self.recipe.name} is trained on descriptions, and that of sequence {clip.name} cannot be "
                        f'used: {error}; write it into {clip.name}/nlp.txt, or into the shard\'s index as "text"'
                        if clip.text
                        else f"{self.recipe.name} is trained on descriptions, and sequence {clip.name} has none; write "
                        f'a sentence into {clip.name}/nlp.txt, or into the shard\'s index as "text"'
                    ) from None


class CenterMethod(TrainingMethod):
    """Of trackers with a centre head: focal, l1 and generalised IoU loss on its maps."""

    terms = ("focal", "l1", "giou")

    @abc.abstractmethod
    def maps(self, network: nn.Module, batch: Batch) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Score, size and offset maps of each searched frame, in order."""

    def loss(self, network: nn.Module, batch: Batch) -> Losses:
        found = [
            tracking_loss(maps, batch.boxes[:, frame], batch.positive, self.weights)
            for frame, maps in enumerate(self.maps(network, batch))
        ]
        return summed(found)


def find_method(recipe: Recipe) -> TrainingMethod:
    """The method of a recipe's family: `METHOD` in our file of that name, or a plug-in's.

    Raises:
        UsageError: there is none, the plug-in cannot be used, or the recipe does not suit it.
    """
    family = recipe.family_name
    name = f"edgetrack.training.trackers.{family}"
    found: Any = None
    if family.isidentifier() and importlib.util.find_spec(name) is not None:
        found = getattr(importlib.import_module(name), "METHOD", None)
    found = found or load_plugin(TRAININGS, family)
    if found is None:
        raise UsageError(
            f"tracker {recipe.name!r} cannot be trained: its family {family!r} declares no training (docs/train.md)"
        )
    if not (isinstance(found, type) and issubclass(found, TrainingMethod)):
        raise UsageError(
            f"the plug-in for tracker {family!r} gives {found!r}, expected a subclass of {__name__}.TrainingMethod "
            f"(entry point group {TRAININGS!r})"
        )
    return found(recipe)


def to_images(crops: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) BGR to float32 (B, 3, H, W) RGB, 0..1, channels last in memory."""
    return crops.flip(3).permute(0, 3, 1, 2).float() / 255.0


def inside(boxes: Tensor, points: Tensor) -> Tensor:
    """Which of the points (F, F, 2) lie in each box, (B, F, F) bool; where none does, the one nearest to its centre.

    Args:
        boxes: (B, 4), centre and size.
        points: x and y, in the boxes' unit.
    """
    away = (points - boxes[:, None, None, :2]).abs()
    found = (away <= boxes[:, None, None, 2:] / 2).all(dim=-1)
    distance = (away**2).sum(dim=-1).flatten(1)
    nearest = torch.zeros_like(distance, dtype=torch.bool).scatter_(1, distance.argmin(dim=1, keepdim=True), value=True)
    return torch.where(found.flatten(1).any(dim=1)[:, None, None], found, nearest.view_as(found))
