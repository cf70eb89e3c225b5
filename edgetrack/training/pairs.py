"""Pairs of a template and a search crop with the target's box, drawn from a catalog, and their batches.

    clip      two frames of one object, up to `gap` apart
    still     one picture of an object, cut twice
    region    a random region of a picture without a box, as if it were an object
    paste     an object cut out and laid over another picture
    negative  template of one object, search crop around another of another video: nothing to be found

Sample i is always the same: it has random numbers of its own, from (seed, index), so it depends on neither the number
of worker processes nor their order.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from multiprocessing import util
from typing import NamedTuple, TypeVar, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from edgetrack.box import Box, jitter
from edgetrack.errors import SourceError, SourceInterruptedError
from edgetrack.processes import isolated_children
from edgetrack.runtime.crop import Image, square_around
from edgetrack.training import augment
from edgetrack.training.augment import Augmentation, cut, into_square, mirrored, paste
from edgetrack.training.catalog import Catalog, TrainingClip, View, load
from edgetrack.training.settings import TrainConfig

_T = TypeVar("_T")


class Pair(NamedTuple):
    """A training sample.

    Attributes:
        template, search: uint8 (size, size, 3) BGR.
        box: float32 (4,): the target's centre x, y and width, height in fractions of the search crop.
        positive: whether the search crop shows the template's object.
    """

    template: Image
    search: Image
    box: NDArray[np.float32]
    positive: bool


class _Scenes(NamedTuple):
    """Two pictures with a box in each, before anything is cut."""

    first: Image
    first_box: Box
    second: Image
    second_box: Box
    positive: bool = True


class PairMaker:
    """Draws pairs; cheap to copy to a worker, since pictures are read when they are needed.

    Args:
        catalog: what to draw from.
        config: crops, jitters, mix, gap and seed.
        search_size: pixels of the search crop.
        looks: augmentations.

    Raises:
        SourceError: no kind of pair with a weight can be made from the catalog.
    """

    def __init__(
        self, catalog: Catalog, config: TrainConfig, search_size: int, looks: Augmentation | None = None
    ) -> None:
        self.catalog = catalog
        self.looks = looks or Augmentation()
        self.seed, self.gap = config.seed, config.gap
        self.template_rule, self.search_rule = config.template, config.search_rule(search_size)
        self.centre_jitter, self.scale_jitter = config.jitter_at(search_size), config.scale_jitter
        self.moving = tuple(s for s in catalog.sequences if len(s.views) > 1)
        # Pictures of one object each; where there are only clips, their frames serve as stills.
        self.still = tuple(s for s in catalog.sequences if len(s.views) == 1) or catalog.sequences
        self.kinds = _possible(config.mix, catalog, self.moving)
        total = sum(self.kinds.values())
        self._bounds = np.cumsum([weight / total for weight in self.kinds.values()])

    def kind_of(self, rng: np.random.Generator) -> str:
        """A kind, drawn by the weights of those that can be made."""
        place = int(np.searchsorted(self._bounds, rng.random(), side="right"))
        return list(self.kinds)[min(place, len(self.kinds) - 1)]

    def __call__(self, index: int) -> Pair:
        """Sample number `index`.

        Raises:
            SourceInterruptedError: a picture can no longer be read.
        """
        rng = np.random.default_rng([self.seed, index])
        draw: dict[str, Callable[[np.random.Generator], _Scenes]] = {
            "clip": self._clip,
            "still": self._still,
            "region": self._region,
            "paste": self._paste,
            "negative": self._negative,
        }
        return self._finish(draw[self.kind_of(rng)](rng), rng)

    def _clip(self, rng: np.random.Generator) -> _Scenes:
        views = _one_of(self.moving, rng).views
        first = int(rng.integers(len(views)))
        low, high = max(0, first - self.gap), min(len(views) - 1, first + self.gap)
        second = int(rng.integers(low, high))
        second += second >= first
        return _Scenes(*_look(views[first]), *_look(views[second]))

    def _still(self, rng: np.random.Generator) -> _Scenes:
        image, box = _look(_one_of(_one_of(self.still, rng).views, rng))
        return _Scenes(image, box, image, box)

    def _region(self, rng: np.random.Generator) -> _Scenes:
        image = load(_one_of(self.catalog.unlabelled, rng))
        height, width = image.shape[:2]
        side = rng.uniform(0.12, 0.35) * min(height, width)
        stretch = np.exp(0.35 * rng.standard_normal())
        w, h = min(side * stretch, 0.8 * width), min(side / stretch, 0.8 * height)
        box = Box(rng.uniform(0, width - w), rng.uniform(0, height - h), w, h)
        return _Scenes(image, box, image, box)

    def _paste(self, rng: np.random.Generator) -> _Scenes:
        sequence = _one_of(self.catalog.sequences, rng)
        image, box = _look(_one_of(sequence.views, rng))
        if self.catalog.unlabelled:
            picture = _one_of(self.catalog.unlabelled, rng)
        else:
            picture = _one_of(self._other(sequence, rng).views, rng).picture
        return _Scenes(image, box, *paste(image, box, load(picture), rng))

    def _negative(self, rng: np.random.Generator) -> _Scenes:
        sequence = _one_of(self.catalog.sequences, rng)
        other = self._other(sequence, rng)
        return _Scenes(*_look(_one_of(sequence.views, rng)), *_look(_one_of(other.views, rng)), positive=False)

    def _other(self, sequence: TrainingClip, rng: np.random.Generator) -> TrainingClip:
        """Of another video; the first one in a random direction, so that one is always found."""
        every = self.catalog.sequences
        start = int(rng.integers(len(every)))
        turned = (every[(start + step) % len(every)] for step in range(len(every)))
        return next(s for s in turned if s.video != sequence.video)

    def _finish(self, scenes: _Scenes, rng: np.random.Generator) -> Pair:
        """Cut, mirror, recolour, blur, cover."""
        template, _ = cut(scenes.first, scenes.first_box, self.template_rule)
        around = jitter(scenes.second_box, rng, self.centre_jitter, self.scale_jitter)
        search, _ = cut(scenes.second, around, self.search_rule)
        box = into_square(scenes.second_box, square_around(around, self.search_rule.factor))
        if rng.random() < self.looks.flip:
            template, search = (cast(Image, cv2.flip(crop, 1)) for crop in (template, search))
            box = mirrored(box)
        if rng.random() < self.looks.grey:
            template, search = augment.grey(template), augment.grey(search)
        if rng.random() < self.looks.occlude:
            search = augment.occluded(search, box, rng)
        crops = []
        for crop in (template, search):
            crop = augment.recolour(crop, rng, self.looks)
            crops.append(augment.blurred(crop, rng) if rng.random() < self.looks.blur else crop)
        cx, cy = box.center
        return Pair(crops[0], crops[1], np.array([cx, cy, box.w, box.h], np.float32), scenes.positive)


def _possible(mix: dict[str, float], catalog: Catalog, moving: tuple[TrainingClip, ...]) -> dict[str, float]:
    several = len({sequence.video for sequence in catalog.sequences}) > 1
    can = {
        "clip": bool(moving),
        "still": bool(catalog.sequences),
        "region": bool(catalog.unlabelled),
        "paste": bool(catalog.sequences) and (several or bool(catalog.unlabelled)),
        "negative": several,
    }
    kinds = {kind: weight for kind, weight in mix.items() if weight > 0 and can[kind]}
    if not kinds or set(kinds) == {"negative"}:
        wanted = ", ".join(kind for kind, weight in mix.items() if weight > 0)
        raise SourceError(
            f"no pairs can be made: {catalog.text()}; the mix asks for {wanted}. Give more data or another --mix"
        )
    return kinds


def _one_of(items: Sequence[_T], rng: np.random.Generator) -> _T:
    return items[int(rng.integers(len(items)))]


def _look(view: View) -> tuple[Image, Box]:
    return load(view.picture), view.box


Batch = tuple[Tensor, Tensor, Tensor, Tensor]
"""Templates and searches, uint8 (B, size, size, 3) BGR; boxes float32 (B, 4); positive, bool (B,)."""


class _PairSet(Dataset[Pair | SourceInterruptedError]):
    """A pair maker as an endless dataset; errors are passed on as values, so that they keep their message."""

    def __init__(self, maker: PairMaker) -> None:
        self.maker = maker

    def __getitem__(self, index: int) -> Pair | SourceInterruptedError:
        try:
            return self.maker(index)
        except SourceInterruptedError as error:
            return error


def _collate(items: list[Pair | SourceInterruptedError]) -> Batch | SourceInterruptedError:
    """Pairs as one batch, or the first error among them."""
    pairs = []
    for item in items:
        if isinstance(item, SourceInterruptedError):
            return item
        pairs.append(item)
    templates, searches, boxes = (torch.from_numpy(np.stack([p[n] for p in pairs])) for n in range(3))
    return templates, searches, boxes, torch.tensor([p.positive for p in pairs])


def batches(maker: PairMaker, first: int, batch: int, workers: int, *, pinned: bool = False) -> Iterator[Batch]:
    """Batches without an end, from pair number `first` on.

    Workers are spawned, not forked: a fork of a process that has computed with threads can hang.

    Args:
        maker: what makes a pair.
        first: number of the first pair.
        batch: pairs per batch.
        workers: number of processes; 0 makes pairs in this one.
        pinned: keep batches in memory that a GPU copies from directly.

    Raises:
        SourceInterruptedError: a picture can no longer be read.
    """
    loader: Iterable[Batch | SourceInterruptedError] = DataLoader(
        _PairSet(maker),
        batch_sampler=(list(range(start, start + batch)) for start in count(first, batch)),
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pinned,
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=_start_worker,
        prefetch_factor=4 if workers else None,
    )
    with isolated_children():
        items = iter(loader)
    for item in items:
        if isinstance(item, SourceInterruptedError):
            raise item
        yield item


def _start_worker(_number: int) -> None:
    # Ctrl-C goes to the whole group; the main process decides what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    # The thread that sends batches through torch does not survive Python's shutdown: leave before it, last of all.
    util.Finalize(None, os._exit, args=(0,), exitpriority=-100)
