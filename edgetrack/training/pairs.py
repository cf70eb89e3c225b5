"""Samples: frames in which a target is known, frames in which it is sought, and its box in all, from a catalog.

    clip      frames of one object, up to `gap` apart
    still     one picture of an object, cut several times
    region    a random region of a picture without a box, as if it were an object
    paste     an object cut out and laid over another picture
    negative  templates of one object, search crops around another of another video: nothing to be found

How many frames and images there are, and how a crop is cut, the tracker's method says. Sample i is always the same: it
has random numbers of its own, from (seed, index), so it depends on neither the number of worker processes nor their
order.
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
from torch.utils.data import DataLoader, Dataset

from edgetrack.box import Box, jitter
from edgetrack.errors import SourceError, SourceInterruptedError
from edgetrack.processes import isolated_children
from edgetrack.runtime.crop import CropRule, Image
from edgetrack.training import augment
from edgetrack.training.augment import mirrored, paste
from edgetrack.training.catalog import Catalog, TrainingClip, View, load
from edgetrack.training.method import Batch, TrainingMethod, Words
from edgetrack.training.settings import TrainConfig

_T = TypeVar("_T")


class Pair(NamedTuple):
    """A sample: T template frames and R searched ones, M images a frame.

    Attributes:
        templates: uint8 (T, M, s, s, 3) BGR.
        template_boxes: float32 (T, 4): the target's centre x, y and width, height in fractions of the crop.
        searches: uint8 (R, M, S, S, 3) BGR.
        boxes: float32 (R, 4): the target in them.
        positive: whether the searched frames show the templates' object.
        words: what is said of it, see `TrainingMethod.read`.
    """

    templates: Image
    template_boxes: NDArray[np.float32]
    searches: Image
    boxes: NDArray[np.float32]
    positive: bool
    words: Words


class Look(NamedTuple):
    """A picture with a box, before anything is cut: uint8 (H, W, 3 M)."""

    image: Image
    box: Box


class Scenes(NamedTuple):
    """Templates and searched frames in order, and what is said of the target."""

    templates: tuple[Look, ...]
    searches: tuple[Look, ...]
    text: str = ""
    positive: bool = True


class PairMaker:
    """Draws samples; cheap to copy to a worker, since pictures are read when they are needed.

    Args:
        catalog: what to draw from.
        config: crops, jitters, augmentation, mix, gap and seed.
        search_size: pixels of the search crop.
        method: how many frames and images there are, and how they are cut.

    Raises:
        SourceError: no kind of sample with a weight can be made from the catalog.
    """

    def __init__(self, catalog: Catalog, config: TrainConfig, search_size: int, method: TrainingMethod) -> None:
        self.catalog, self.method = catalog, method
        self.seed, self.gap, self.augmentation = config.seed, config.schedule.gap, config.schedule.augmentation
        self.template_rule, self.search_rule = config.template, config.search_rule(search_size)
        self.centre_jitter, self.scale_jitter = config.jitter_at(search_size), config.scale_jitter
        self.moving = tuple(s for s in catalog.sequences if len(s.views) > 1)
        # Pictures of one object each; where there are only clips, their frames serve as stills.
        self.still = tuple(s for s in catalog.sequences if len(s.views) == 1) or catalog.sequences
        # Of a region nothing is said.
        self.unlabelled = () if method.reads_text else tuple(filter(method.takes, catalog.unlabelled))
        self.kinds = _possible(config.mix, catalog, bool(self.moving), bool(self.unlabelled))
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
        draw: dict[str, Callable[[np.random.Generator], Scenes]] = {
            "clip": self._clip,
            "still": self._still,
            "region": self._region,
            "paste": self._paste,
            "negative": self._negative,
        }
        return self._finish(draw[self.kind_of(rng)](rng), rng)

    def _clip(self, rng: np.random.Generator) -> Scenes:
        clip = _one_of(self.moving, rng)
        known, sought = self._places(len(clip.views), rng)
        looks = {place: self._look(clip.views[place]) for place in {*known, *sought}}
        return Scenes(tuple(looks[n] for n in known), tuple(looks[n] for n in sought), clip.text)

    def _places(self, length: int, rng: np.random.Generator) -> tuple[list[int], list[int]]:
        """Which frames of a clip: templates from the first towards the first searched one, searched ones on from there.

        The first template and the first searched frame lie up to `gap` apart, in either direction of time.
        """
        first = int(rng.integers(length))
        low, high = max(0, first - self.gap), min(length - 1, first + self.gap)
        second = int(rng.integers(low, high))
        second += second >= first
        way = 1 if second > first else -1
        known = [int(rng.integers(abs(second - first))) for _ in range(self.method.templates - 1)]
        sought = [second]
        for _ in range(self.method.searches - 1):
            room = length - 1 - sought[-1] if way > 0 else sought[-1]
            sought.append(sought[-1] + way * int(rng.integers(1, min(room, self.gap) + 1)) if room else sought[-1])
        return [first, *(first + way * step for step in sorted(known))], sought

    def _still(self, rng: np.random.Generator) -> Scenes:
        clip = _one_of(self.still, rng)
        return self._same(self._look(_one_of(clip.views, rng)), clip.text)

    def _same(self, look: Look, text: str) -> Scenes:
        return Scenes((look,) * self.method.templates, (look,) * self.method.searches, text)

    def _region(self, rng: np.random.Generator) -> Scenes:
        image = load(_one_of(self.unlabelled, rng), self.method.images)
        height, width = image.shape[:2]
        side = rng.uniform(0.12, 0.35) * min(height, width)
        stretch = np.exp(0.35 * rng.standard_normal())
        w, h = min(side * stretch, 0.8 * width), min(side / stretch, 0.8 * height)
        box = Box(rng.uniform(0, width - w), rng.uniform(0, height - h), w, h)
        return self._same(Look(image, box), "")

    def _paste(self, rng: np.random.Generator) -> Scenes:
        clip = _one_of(self.catalog.sequences, rng)
        look = self._look(_one_of(clip.views, rng))
        picture = _one_of(self.unlabelled or [view.picture for view in self._other(clip, rng).views], rng)
        pasted = Look(*paste(*look, load(picture, self.method.images), rng))
        return Scenes((look,) * self.method.templates, (pasted,) * self.method.searches, clip.text)

    def _negative(self, rng: np.random.Generator) -> Scenes:
        clip = _one_of(self.catalog.sequences, rng)
        known, sought = (self._look(_one_of(views, rng)) for views in (clip.views, self._other(clip, rng).views))
        return Scenes((known,) * self.method.templates, (sought,) * self.method.searches, clip.text, positive=False)

    def _other(self, sequence: TrainingClip, rng: np.random.Generator) -> TrainingClip:
        """Of another video; the first one in a random direction, so that one is always found."""
        every = self.catalog.sequences
        start = int(rng.integers(len(every)))
        turned = (every[(start + step) % len(every)] for step in range(len(every)))
        return next(s for s in turned if s.video != sequence.video)

    def _look(self, view: View) -> Look:
        return Look(load(view.picture, self.method.images), view.box)

    def _cut(self, look: Look, around: Box, rule: CropRule) -> Look:
        """The crop, (size, size, 3 M), and the target in fractions of it."""
        crops = []
        for first in range(0, 3 * self.method.images, 3):
            crop, mapping = self.method.crop(np.ascontiguousarray(look.image[..., first : first + 3]), around, rule)
            crops.append(crop)
        return Look(np.concatenate(crops, axis=2), Box(*(value / rule.size for value in mapping.to_crop(look.box))))

    def _finish(self, scenes: Scenes, rng: np.random.Generator) -> Pair:
        """Cut, mirror, recolour, blur, cover."""
        change, count = self.augmentation, len(scenes.templates)
        looks = [self._cut(look, look.box, self.template_rule) for look in scenes.templates]
        for look in scenes.searches:
            around = jitter(look.box, rng, self.centre_jitter, self.scale_jitter)
            looks.append(self._cut(look, around, self.search_rule))
        if rng.random() < change.flip:
            looks = [Look(cast(Image, cv2.flip(crop, 1)), mirrored(box)) for crop, box in looks]
        if rng.random() < change.grey:
            looks = [Look(augment.grey(crop), box) for crop, box in looks]
        if rng.random() < change.occlude:
            looks[count:] = [Look(augment.occluded(crop, box, rng), box) for crop, box in looks[count:]]
        crops = []
        for crop, _ in looks:
            crop = augment.recolour(crop, rng, change)
            crop = augment.blurred(crop, rng) if rng.random() < change.blur else crop
            crops.append(np.stack(np.split(crop, self.method.images, axis=2)))
        boxes = np.array([[*box.center, box.w, box.h] for _, box in looks], np.float32)
        words = self.method.read(scenes.text)
        return Pair(
            np.stack(crops[:count]), boxes[:count], np.stack(crops[count:]), boxes[count:], scenes.positive, words
        )


def _possible(mix: dict[str, float], catalog: Catalog, moving: bool, unlabelled: bool) -> dict[str, float]:
    several = len({sequence.video for sequence in catalog.sequences}) > 1
    can = {
        "clip": moving,
        "still": bool(catalog.sequences),
        "region": unlabelled,
        "paste": bool(catalog.sequences) and (several or unlabelled),
        "negative": several,
    }
    kinds = {kind: weight for kind, weight in mix.items() if weight > 0 and can[kind]}
    if not kinds or set(kinds) == {"negative"}:
        wanted = ", ".join(kind for kind, weight in mix.items() if weight > 0)
        raise SourceError(
            f"no samples can be made: {catalog.text()}; the mix asks for {wanted}. Give more data or another --mix"
        )
    return kinds


def _one_of(items: Sequence[_T], rng: np.random.Generator) -> _T:
    return items[int(rng.integers(len(items)))]


class _PairSet(Dataset[Pair | SourceInterruptedError]):
    """A maker of samples as an endless dataset; errors are passed on as values, so that they keep their message."""

    def __init__(self, maker: PairMaker) -> None:
        self.maker = maker

    def __getitem__(self, index: int) -> Pair | SourceInterruptedError:
        try:
            return self.maker(index)
        except SourceInterruptedError as error:
            return error


def _collate(items: list[Pair | SourceInterruptedError]) -> Batch | SourceInterruptedError:
    """Samples as one batch, or the first error among them."""
    pairs = []
    for item in items:
        if isinstance(item, SourceInterruptedError):
            return item
        pairs.append(item)
    return Batch(*(torch.from_numpy(np.stack(column)) for column in zip(*pairs, strict=True)))


def batches(maker: PairMaker, first: int, batch: int, workers: int, *, pinned: bool = False) -> Iterator[Batch]:
    """Batches without an end, from sample number `first` on.

    Workers are spawned, not forked: a fork of a process that has computed with threads can hang.

    Args:
        maker: what makes a sample.
        first: number of the first sample.
        batch: samples per batch.
        workers: number of processes; 0 makes samples in this one.
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
