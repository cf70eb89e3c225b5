"""From where a sequence lies to what is in it: frames held against boxes."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgetrack.errors import EdgetrackError, InvalidTextError, SequenceError
from edgetrack.evaluation.annotations import Columns, read_boxes, read_flags
from edgetrack.evaluation.sequence import Boxes, Flags, Protocol, Sequence
from edgetrack.media import IMAGE_SUFFIXES, natural_key, open_source
from edgetrack.runtime.text import Text, parse_text

TEXT_FILES = ("nlp.txt", "language.txt")
"""What is said of a target lies beside its boxes under one of these names (LaSOT, TNL2K)."""
LONGEST_TEXT = 10_000


@dataclass(frozen=True)
class Entry:
    """Where a sequence lies; nothing of it is read yet.

    Attributes:
        name: of the sequence.
        frames: a folder of images, or, as text, what `edgetrack.media.open_source` takes.
        truth: the file of boxes; None where the source brings its own.
        columns: how a row of it is to be read.
        absent: files with 1 for every frame without the target.
        cover: a file with 0 for every frame without the target.
        span: first and last image that the boxes speak of, counted from 1, for folders that hold more.
        thinning: boxes per image where annotation may run at a higher rate than the images (NfS); None elsewhere.
    """

    name: str
    frames: Path | str
    truth: Path | None
    columns: Columns = "xywh"
    absent: tuple[Path, ...] = ()
    cover: Path | None = None
    span: tuple[int, int] | None = None
    thinning: int | None = None


def images_in(folder: Path) -> list[Path]:
    """The image files of a folder, frame 2 before frame 10; empty where there are none or no folder.

    Raises:
        SequenceError: the folder cannot be listed.
    """
    if not folder.is_dir():
        return []
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if not e.name.startswith(".") and e.is_file()]
    except OSError as error:
        raise SequenceError(f"folder {folder} cannot be listed: {error.strerror or error}") from error
    return sorted((folder / n for n in names if Path(n).suffix.lower() in IMAGE_SUFFIXES), key=natural_key)


def read_sequence(entry: Entry, protocol: Protocol) -> Sequence:
    """Read an entry's boxes and flags and list its images.

    Raises:
        SequenceError: something is missing or corrupt, frames and boxes do not fit, or the first frame has no target.
    """
    if isinstance(entry.frames, str):
        truth = _truth_of_source(entry.frames) if entry.truth is None else read_boxes(entry.truth, entry.columns)
        sequence = Sequence(entry.name, entry.frames, truth, _visible(truth, entry), protocol)
    else:
        images = images_in(entry.frames)
        if not images:
            endings = " ".join(sorted(IMAGE_SUFFIXES))
            raise SequenceError(f"folder {entry.frames} holds no images; expected files ending in {endings}")
        images, truth = _fitted(images, entry)
        sequence = Sequence(entry.name, tuple(images), truth, _visible(truth, entry), protocol)
        sequence = replace(sequence, text=_text(entry.frames, entry.truth))
    if np.isnan(sequence.truth[0]).any():
        raise SequenceError(
            f"the first frame of {entry.name} has no target (NaN or no area in {entry.truth or entry.frames}); "
            "one-pass evaluation starts there; cut the sequence so that it begins with the target"
        )
    return sequence


def _text(frames: Path, truth: Path | None) -> Text | None:
    """One sentence, or ATTRIBUTE=PHRASE in each line; of a folder that is this sequence's own."""
    if truth is None or truth.parent not in (frames, frames.parent):
        return None
    path = next((path for name in TEXT_FILES if (path := truth.parent / name).is_file()), None)
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            data = file.read(LONGEST_TEXT + 1)
        if len(data) > LONGEST_TEXT:
            raise SequenceError(f"{path} is longer than {LONGEST_TEXT} bytes; expected a sentence about the target")
        return parse_text([line.strip() for line in data.decode("utf-8-sig").splitlines() if line.strip()])
    except (OSError, UnicodeDecodeError, InvalidTextError) as error:
        raise SequenceError(f"{path} cannot be read as what is said of a target: {error}") from error


def _fitted(images: list[Path], entry: Entry) -> tuple[list[Path], Boxes]:
    if entry.truth is None or not entry.truth.is_file():
        raise SequenceError(f"sequence {entry.name} has no ground truth; expected the file {entry.truth}")
    truth = read_boxes(entry.truth, entry.columns)
    if entry.span is not None and len(images) != len(truth):
        first, last = entry.span
        images = images[first - 1 : last]
    if entry.thinning is not None:
        images, truth = _thinned(images, truth, entry.thinning)
    if len(truth) not in (1, len(images)):
        raise SequenceError(
            f"{entry.frames} has {len(images)} images and {entry.truth} has {len(truth)} boxes; expected one box per "
            "image, or one for the first; copy the missing files, or cut the longer of the two"
        )
    return images, truth


def _thinned(images: list[Path], truth: Boxes, thinning: int) -> tuple[list[Path], Boxes]:
    """NfS annotates at 240 Hz what it also ships at 30 Hz, and is one row long or short here and there."""
    if abs(len(truth) / len(images) - thinning) < 1:
        truth = truth[::thinning]
    if abs(len(images) - len(truth)) == 1:
        shorter = min(len(images), len(truth))
        return images[:shorter], truth[:shorter]
    return images, truth


def _visible(truth: Boxes, entry: Entry) -> Flags:
    visible: Flags = ~np.asarray(np.isnan(truth).any(axis=1))
    if len(truth) == 1:
        return visible
    for path in entry.absent:
        visible &= ~_flags(path, len(truth))
    if entry.cover is not None:
        visible &= _flags(entry.cover, len(truth))
    return visible


def _flags(path: Path, frames: int) -> Flags:
    flags = read_flags(path)
    if len(flags) != frames:
        raise SequenceError(f"{path} has {len(flags)} flags for {frames} frames; expected one per frame")
    return flags


def _truth_of_source(spec: str) -> Boxes:
    try:
        with open_source(spec) as source:
            boxes = source.ground_truth or []
    except EdgetrackError as error:
        raise SequenceError(str(error)) from error
    return np.array([(np.nan,) * 4 if box is None else tuple(box) for box in boxes], np.float64).reshape(-1, 4)
