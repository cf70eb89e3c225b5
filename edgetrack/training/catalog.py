"""What there is to train on: pictures, the boxes in them, and which of them are held out."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from edgetrack.arrays import Array
from edgetrack.box import Box
from edgetrack.errors import InvalidFrameError, SourceError, SourceInterruptedError
from edgetrack.io import open_regular
from edgetrack.media import quiet_cv2
from edgetrack.media.folders import decode
from edgetrack.resources import usable_cores
from edgetrack.runtime.crop import Image
from edgetrack.runtime.frames import as_input

LARGEST_PICTURE = 64 * 2**20
"""Bytes of one image file."""
MOST_BAD = 0.05
"""Share of unusable pictures from which on a collection is refused."""
HELD_FRAMES = 10
"""A held-out sequence has at least this many frames."""
_NAMED = 5


class Picture(NamedTuple):
    """An encoded image: `length` bytes of a file from `offset` on, and what to call it in messages.

    `second` is the thermal, depth or event image of the same moment, where there is one.
    """

    file: str
    offset: int
    length: int
    name: str
    second: Picture | None = None


class View(NamedTuple):
    """One look at an object: a picture and the object's box in it, in pixels."""

    picture: Picture
    box: Box


@dataclass(frozen=True)
class TrainingClip:
    """One object's views in order of time. Objects of one `video` may be in each other's pictures.

    `text` describes the object: a sentence, or lines `ATTRIBUTE=PHRASE`; empty where nothing is said.
    """

    name: str
    video: str
    views: tuple[View, ...]
    text: str = ""


@dataclass(frozen=True)
class Catalog:
    """Sequences, pictures without a box, and what was left out and why."""

    sequences: tuple[TrainingClip, ...] = ()
    unlabelled: tuple[Picture, ...] = ()
    skipped: tuple[str, ...] = ()

    @property
    def views(self) -> int:
        """Labelled pictures."""
        return sum(len(sequence.views) for sequence in self.sequences)

    def text(self) -> str:
        """For people, on one line."""
        bad = f"; {len(self.skipped)} unusable" if self.skipped else ""
        return (
            f"{len(self.sequences)} sequences of {self.views} pictures, {len(self.unlabelled)} pictures without a box"
            f"{bad}"
        )


class Labelled(NamedTuple):
    """A picture, the sequence and video that it is from, the object's box, if it has one, and what is said of it."""

    picture: Picture
    sequence: str
    video: str
    box: Box | None
    text: str = ""


def build_catalog(source: str, found: Iterable[Labelled | str]) -> Catalog:
    """The catalog of a collection's pictures; a text says why a picture cannot be used, and names it.

    Raises:
        SourceError: nothing in it, or more than 5 % unusable.
    """
    sequences: dict[tuple[str, str], list[View]] = {}
    texts: dict[tuple[str, str], str] = {}
    unlabelled, skipped = [], []
    for item in found:
        if isinstance(item, str):
            skipped.append(item)
        elif item.box is None:
            unlabelled.append(item.picture)
        else:
            sequences.setdefault((item.sequence, item.video), []).append(View(item.picture, item.box))
            texts.setdefault((item.sequence, item.video), item.text)
    clips = (TrainingClip(*key, tuple(views), texts[key]) for key, views in sequences.items())
    catalog = Catalog(tuple(clips), tuple(unlabelled), tuple(skipped))
    _refuse_if_bad(source, catalog)
    return catalog


def _refuse_if_bad(source: str, catalog: Catalog) -> None:
    bad, good = len(catalog.skipped), catalog.views + len(catalog.unlabelled)
    if bad > MOST_BAD * (bad + good):
        raise SourceError(
            f"{source}: {bad} of {bad + good} pictures cannot be used, more than {MOST_BAD:.0%}: "
            f"{'; '.join(catalog.skipped[:_NAMED])}{'; ...' if bad > _NAMED else ''}. Repair or remove them"
        )
    if not good:
        raise SourceError(f"{source} holds no pictures to train on; docs/train.md shows what is expected")


def implausible(box: Box, width: int, height: int) -> str | None:
    """Why a box cannot be a target in an image of that size in pixels, or None where it can."""
    if not (box.is_finite and box.w > 0 and box.h > 0 and math.isfinite(box.area)):
        return f"its box {tuple(box)} is not four finite numbers with a positive size"
    cx, cy = box.center
    if not (0 <= cx <= width and 0 <= cy <= height):
        return f"its box {tuple(box)} has its centre outside the image of {width}x{height} pixels"
    return None


def load(picture: Picture, images: int = 1) -> Image:
    """Decode: uint8 (H, W, 3) BGR; with 2 images (H, W, 6), the second one's channels behind the first's.

    Raises:
        SourceInterruptedError: not there, cut short, too large or not an image, or the two differ in size.
    """
    first = _decoded(picture, cv2.IMREAD_COLOR).astype(np.uint8, copy=False)
    if images == 1 or picture.second is None:
        return first
    try:
        return as_input(first, _decoded(picture.second, cv2.IMREAD_UNCHANGED), images)
    except InvalidFrameError as error:
        raise SourceInterruptedError(f"pictures {picture.name} and {picture.second.name}: {error}") from error


def _decoded(picture: Picture, flags: int) -> Array:
    try:
        with open_regular(Path(picture.file)) as file:
            file.seek(picture.offset)
            data = file.read(picture.length)
        if len(data) != picture.length or not data:
            raise SourceError(f"only {len(data)} of {picture.length} bytes are there")
    except (OSError, SourceError) as error:
        raise SourceInterruptedError(f"picture {picture.name} cannot be read: {error}") from error
    return decode(data, f"picture {picture.name}", flags)


def verified(catalog: Catalog, source: str, images: int = 1) -> Catalog:
    """The catalog without the pictures that cannot be decoded or whose box has its centre outside; all are decoded.

    `images` are read of each, as `load` does.

    Raises:
        SourceError: more than 5 % of the pictures are unusable.
    """
    views = [(view.picture, view.box) for sequence in catalog.sequences for view in sequence.views]
    every: list[tuple[Picture, Box | None]] = [*views, *((picture, None) for picture in catalog.unlabelled)]
    check = partial(_problem, images)
    with quiet_cv2(), ThreadPoolExecutor(usable_cores()) as pool:
        found = list(pool.map(check, *zip(*every, strict=True), chunksize=16)) if every else []
    rest = iter(found)
    sequences = tuple(replace(s, views=tuple(v for v in s.views if next(rest) is None)) for s in catalog.sequences)
    unlabelled = tuple(picture for picture in catalog.unlabelled if next(rest) is None)
    skipped = (*catalog.skipped, *(problem for problem in found if problem is not None))
    result = Catalog(tuple(s for s in sequences if s.views), unlabelled, skipped)
    _refuse_if_bad(source, result)
    return result


def _problem(images: int, picture: Picture, box: Box | None) -> str | None:
    try:
        height, width = load(picture, images).shape[:2]
    except SourceInterruptedError as error:
        return str(error)
    reason = None if box is None else implausible(box, width, height)
    return None if reason is None else f"{picture.name}: {reason}"


def merge(catalogs: Iterable[Catalog]) -> Catalog:
    """Several catalogs as one."""
    parts = list(catalogs)
    return Catalog(
        tuple(s for part in parts for s in part.sequences),
        tuple(p for part in parts for p in part.unlabelled),
        tuple(reason for part in parts for reason in part.skipped),
    )


def hold_out(catalog: Catalog, count: int) -> tuple[Catalog, tuple[TrainingClip, ...]]:
    """Take `count` sequences out, with all that comes from the same videos; which ones depends on their names alone.

    Returns:
        What is left to train on, and the sequences to track: of at least 10 frames, no two from one video.

    Raises:
        SourceError: nothing labelled and nothing unlabelled is left.
    """
    chosen: list[TrainingClip] = []
    videos: set[str] = set()
    for clip in sorted(catalog.sequences, key=lambda s: (zlib.crc32(s.name.encode()), s.name)):
        if len(chosen) < count and len(clip.views) >= HELD_FRAMES and clip.video not in videos:
            chosen.append(clip)
            videos.add(clip.video)
    left = tuple(s for s in catalog.sequences if s.video not in videos)
    if not left and not catalog.unlabelled:
        raise SourceError(
            f"holding {len(chosen)} sequences out leaves nothing to train on; give more data or --held-out 0"
        )
    return Catalog(left, catalog.unlabelled, catalog.skipped), tuple(chosen)
