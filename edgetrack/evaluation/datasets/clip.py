"""One annotated sequence: its files and rows as data sets write them, and the rules by which they score it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgetrack.arrays import Boxes
from edgetrack.box import Box, annotated
from edgetrack.errors import EdgetrackError, InvalidTextError, SequenceError
from edgetrack.evaluation.datasets.pairs import Media, SecondFiles, SecondImages, open_media, paired
from edgetrack.io import read_text
from edgetrack.media import IMAGE_SUFFIXES, FrameSource, natural_key, open_source
from edgetrack.runtime.frames import PairedSource
from edgetrack.runtime.prompt import Text, parse_text

Columns = Literal["xywh", "corners", "diagonal", "region"]
"""`xywh`: x, y, w, h. `corners`: a number, x1, y1, x2, y2, then anything (NfS). `diagonal`: two opposite corners in any
order (GTOT). `region`: x, y, w, h or a polygon of x1, y1, ... x4, y4 (VOT), read as its axis-aligned bounding box."""

_EXPECTED: dict[Columns, str] = {
    "xywh": "four numbers x,y,w,h",
    "corners": "a frame number and four corners x1 y1 x2 y2",
    "diagonal": "two opposite corners x1 y1 x2 y2",
    "region": "four numbers x,y,w,h or the eight of a polygon (masks are not read)",
}
_SEPARATOR = re.compile(r"[,;\s]+")
TEXT_FILES = ("nlp.txt", "language.txt")
"""Names of the file beside the boxes that describes the target (LaSOT, TNL2K)."""
LONGEST_TEXT = 10_000
"""Bytes."""


class AttributeFile(NamedTuple):
    """A row of 0 and 1, one for each of `names`: which of the data set's attributes a sequence has."""

    path: Path
    names: tuple[str, ...]


@dataclass(frozen=True)
class ClipFiles:
    """Where the files of a sequence are; nothing is read yet.

    Attributes:
        name: of the sequence.
        frames: a folder of images, or, as text, what `edgetrack.media.open_source` takes.
        truth: the file of boxes; None where the source brings its own.
        columns: the columns of that file.
        absent: files with 1 for every frame without the target.
        cover: a file with 0 for every frame without the target.
        span: first and last image that have boxes, counted from 1, for folders that hold more images.
        hint: what may be the matter where there are no images.
        thinning: boxes per image where annotation may run at a higher rate than the images (NfS); None elsewhere.
        every: images per box where only every so manyth image is annotated (VTUAV).
        second: thermal, depth or event images beside the first ones.
        late: the frames before the first one with the target are left out (VisEvent).
        text: the file that describes the target; None where it lies beside the boxes, if anywhere.
        attributes: what the sequence is hard for; None where the data set does not say.
        tags: files of 0 and 1 for every frame, named for what holds of it, such as VOT's `occlusion.tag`.
    """

    name: str
    frames: Path | str
    truth: Path | None
    columns: Columns = "xywh"
    absent: tuple[Path, ...] = ()
    cover: Path | None = None
    span: tuple[int, int] | None = None
    thinning: int | None = None
    every: int = 1
    second: SecondFiles | None = None
    late: bool = False
    text: Path | None = None
    attributes: AttributeFile | None = None
    tags: tuple[Path, ...] = ()
    hint: str = ""


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


def read_clip(files: ClipFiles, rules: ScoringRules) -> Clip:
    """Read the boxes and flags of a sequence and list its images.

    Raises:
        SequenceError: something is missing or corrupt, frames and boxes do not fit, or the first frame has no target.
    """
    if isinstance(files.frames, str):
        truth = _truth_of_source(files.frames) if files.truth is None else read_boxes(files.truth, files.columns)
        clip = Clip(files.name, files.frames, truth, _visible(truth, files), rules)
        if files.second is not None:
            clip = replace(clip, second=SecondImages(files.second.modality, str(files.second.frames)))
    else:
        clip = replace(_of_images(files.frames, files, rules), text=_text(files.frames, files.truth, files.text))
    if np.isnan(clip.truth[0]).any():
        raise SequenceError(
            f"the first frame of {files.name} has no target (NaN or no area in {files.truth or files.frames}); "
            "one-pass evaluation starts there; cut the sequence so that it begins with the target"
        )
    return clip if files.attributes is None else replace(clip, attributes=_attributes(files.attributes))


def _attributes(file: AttributeFile) -> tuple[str, ...]:
    flags = read_flags(file.path)
    if len(flags) != len(file.names):
        raise SequenceError(
            f"{file.path} has {len(flags)} flags; expected a 0 or 1 for each of the {len(file.names)} attributes "
            f"{', '.join(file.names)}"
        )
    return tuple(name for name, flag in zip(file.names, flags, strict=True) if flag)


def _of_images(folder: Path, files: ClipFiles, rules: ScoringRules) -> Clip:
    images, second = _images(folder, files.hint), files.second
    others: list[Path] = []
    if second is not None:
        images, others = paired(images, _images(Path(second.frames), ""))
    images, truth = _fitted(images, files)
    visible = _visible(truth, files)
    start = int(visible.argmax()) if files.late else 0
    clip = Clip(files.name, tuple(images[start:]), truth[start:], visible[start:], rules, every=files.every)
    clip = replace(clip, tags={path.stem: _tags(path, len(images))[start:] for path in files.tags})
    if second is None:
        return clip
    own = None if second.truth is None else _second_truth(second.truth, files, len(truth), len(images))
    media = tuple(others[start : len(images)])
    return replace(clip, second=SecondImages(second.modality, media, None if own is None else own[start:]))


def _images(folder: Path, hint: str) -> list[Path]:
    images = images_in(folder)
    if not images:
        what = f"holds no images; expected files ending in {' '.join(sorted(IMAGE_SUFFIXES))}"
        what = what if folder.is_dir() else "does not exist"
        raise SequenceError(f"folder {folder} {what}" + (f"; {hint}" if hint else ""))
    return images


def _second_truth(path: Path, files: ClipFiles, rows: int, images: int) -> Boxes:
    own = read_boxes(path, files.columns)
    own = _spaced(own, files.every, images) if files.every > 1 else own
    # One row is short here and there; a missing one is scored by the first truth alone.
    if len(own) == rows - 1:
        own = np.append(own, np.full((1, 4), np.nan), axis=0)
    if len(own) < rows:
        raise SequenceError(
            f"{path} has {len(own)} boxes for {rows} frames; expected one box per frame, as in {files.truth}"
        )
    return own[:rows]


def _text(frames: Path, truth: Path | None, path: Path | None) -> Text | None:
    """One sentence, or ATTRIBUTE=PHRASE in each line; without `path`, in a folder that is this sequence's own."""
    if path is None and truth is not None and truth.parent in (frames, frames.parent):
        path = next((path for name in TEXT_FILES if (path := truth.parent / name).is_file()), None)
    if path is None:
        return None
    text = read_text(path, error=SequenceError, largest=LONGEST_TEXT)
    try:
        return parse_text([line.strip() for line in text.splitlines() if line.strip()])
    except InvalidTextError as error:
        raise SequenceError(f"{path} cannot be read as a description of the target: {error}") from error


def _fitted(images: list[Path], files: ClipFiles) -> tuple[list[Path], Boxes]:
    if files.truth is None or not files.truth.is_file():
        raise SequenceError(f"sequence {files.name} has no ground truth; expected the file {files.truth}")
    truth = read_boxes(files.truth, files.columns)
    if files.span is not None and len(images) != len(truth):
        first, last = files.span
        images = images[first - 1 : last]
    if files.thinning is not None:
        images, truth = _thinned(images, truth, files.thinning)
    if files.every > 1:
        truth = _spaced(truth, files.every, len(images))
    if files.second is not None and len(truth) > 1 and len(images) >= len(truth) - 1:
        # Toolkits of two images a frame cut both to the shorter; more than one missing image is a fault of the copy.
        images, truth = images[: len(truth)], truth[: len(images)]
    if len(truth) not in (1, len(images)):
        raise SequenceError(
            f"{files.frames} has {len(images)} images and {files.truth} has {len(truth)} boxes; expected one box per "
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


def _spaced(truth: Boxes, every: int, images: int) -> Boxes:
    """A row for each image, NaN between those that are annotated; as they are where every image is."""
    if len(truth) < 2 or not (len(truth) - 1) * every < images <= len(truth) * every:
        return truth
    rows = np.full((images, 4), np.nan)
    rows[::every] = truth
    return rows


def _visible(truth: Boxes, files: ClipFiles) -> Flags:
    visible: Flags = ~np.asarray(np.isnan(truth).any(axis=1))
    if len(truth) == 1:
        return visible
    for path in files.absent:
        visible &= ~_flags(path, len(truth))
    if files.cover is not None:
        visible &= _flags(files.cover, len(truth), late=files.late)
    return visible


def _flags(path: Path, frames: int, *, late: bool = False) -> Flags:
    flags = read_flags(path)
    if late and len(flags) > frames and not flags[:-frames].any():
        # Images and boxes were cut to the target's first frame, these flags were not.
        flags = flags[-frames:]
    if len(flags) != frames:
        raise SequenceError(f"{path} has {len(flags)} flags for {frames} frames; expected one per frame")
    return flags


def _tags(path: Path, frames: int) -> Flags:
    """Of every frame; those that the file does not reach have none, as in VOT's toolkit."""
    tags = read_flags(path)[:frames]
    return np.append(tags, np.zeros(frames - len(tags), np.bool_))


def _truth_of_source(spec: str) -> Boxes:
    try:
        with open_source(spec) as source:
            boxes = source.ground_truth or []
    except EdgetrackError as error:
        raise SequenceError(str(error)) from error
    return np.array([(np.nan,) * 4 if box is None else tuple(box) for box in boxes], np.float64).reshape(-1, 4)


def read_boxes(path: Path, columns: Columns = "xywh") -> Boxes:
    """float64 (rows, 4): x, y, w, h in pixels, as written: no data set's origin is shifted by one.

    Columns may be separated by commas, tabs, blanks or semicolons. A row of NaN, and a box whose width or height is not
    positive, is NaN throughout: the target is absent.

    Raises:
        SequenceError: the file cannot be read, is empty, or a row is not what it should be.
    """
    lines = _lines(path)
    if not lines:
        raise SequenceError(f"{path} is empty; expected one row per frame: {_EXPECTED[columns]}")
    return np.array([_row(line, columns, path, number) for number, line in enumerate(lines, 1)], np.float64)


def read_flags(path: Path) -> Flags:
    """bool (numbers,): whether each number is not zero; one per row, or all in one row.

    Raises:
        SequenceError: the file cannot be read or holds anything but numbers.
    """
    try:
        return np.array([float(part) != 0 for line in _lines(path) for part in _parts(line)], np.bool_)
    except ValueError as error:
        raise SequenceError(f"{path} holds something that is no number ({error}); expected 0 or 1 per frame") from None


def _lines(path: Path) -> list[str]:
    return read_text(path, error=SequenceError).rstrip().splitlines()


def _parts(line: str) -> list[str]:
    return [part for part in _SEPARATOR.split(line) if part]


def _row(line: str, columns: Columns, path: Path, number: int) -> tuple[float, ...]:
    parts = _parts(line)
    try:
        values = [float(part) for part in (parts[1:5] if columns == "corners" else parts)]
        box = annotated(*_xywh(values, columns))
    except ValueError:
        raise SequenceError(
            f"line {number} of {path} is {line[:80]!r}; expected {_EXPECTED[columns]} in pixels, or NaN in all of "
            "them for a frame without the target"
        ) from None
    return (np.nan,) * 4 if box is None else tuple(box)


def _xywh(values: list[float], columns: Columns) -> tuple[float, float, float, float]:
    if columns == "region" and len(values) == 8:
        if not np.isfinite(values).all():
            if not np.isnan(values).all():
                raise ValueError("a corner that is not finite")
            return (np.nan,) * 4
        xs, ys = values[0::2], values[1::2]
        return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
    a, b, c, d = values
    if columns == "diagonal":
        return min(a, c), min(b, d), abs(c - a), abs(d - b)
    return (a, b, c - a, d - b) if columns == "corners" else (a, b, c, d)


Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class ScoringRules:
    """Where data sets differ in how they score.

    Attributes:
        bounded: AO and SR move both boxes into the frame first, as GOT-10k's toolkit does.
        over_frames: overall AO and SR are means over all frames, as in GOT-10k's toolkit; else over sequences.
        absent_fails: a frame without the target counts as a miss in AUC, P, P_norm and OP, as in LaSOT's toolkit
            (eval_tracker.m divides by all frames) and AVisT's; else it is left out.
        pixels: the distance of the centres up to which P counts a frame, 0..50.
        long_term: precision, recall and F-score as VOT defines them for long-term tracking are computed, too.
    """

    bounded: bool = False
    over_frames: bool = False
    absent_fails: bool = False
    pixels: int = 20
    long_term: bool = False


@dataclass(frozen=True, eq=False)
class Clip:
    """A sequence: frames with a box for each.

    Attributes:
        name: unique in its data set.
        media: image files in order, or what `edgetrack.media.open_source` takes.
        truth: float64 (frames, 4): x, y, w, h in pixels, NaN where the target is absent. A single row for many frames,
            as in test sets whose annotation is withheld: the target in the first frame, and nothing can be scored.
        visible: bool (frames,): whether the frame is scored.
        rules: how it is scored.
        text: the description of the target, where there is one.
        second: thermal, depth or event images beside the first, where there are any.
        every: only every so manyth frame is annotated and scored; in between `truth` is NaN, whether or not the target
            is there.
        attributes: those of the data set's attributes that the sequence has; None where it does not say.
        tags: bool (frames,): the frames of which each of the data set's frame-wise attributes holds.
    """

    name: str
    media: Media
    truth: Boxes
    visible: Flags
    rules: ScoringRules
    text: Text | None = None
    second: SecondImages | None = None
    every: int = 1
    attributes: tuple[str, ...] | None = None
    tags: Mapping[str, Flags] = field(default_factory=dict)

    @property
    def images(self) -> int:
        """Images a frame: 1 or 2."""
        return 1 if self.second is None else 2

    @property
    def frames(self) -> int | None:
        """The number of frames; None for a video whose annotation is withheld."""
        if not isinstance(self.media, str):
            return len(self.media)
        return len(self.truth) if self.scored else None

    @property
    def scored(self) -> bool:
        """Whether there is ground truth beyond the first frame."""
        return len(self.truth) > 1

    @property
    def start(self) -> Box:
        """The target in the first frame."""
        return Box(*map(float, self.truth[0]))

    @property
    def digest(self) -> str:
        """SHA-256 of boxes, visibility, frame names and text: runs on another version of the clip do not share it."""
        hashed = hashlib.sha256(np.ascontiguousarray(self.truth, "<f8").tobytes())
        hashed.update(self.visible.tobytes())
        for media in (self.media,) if self.second is None else (self.media, self.second.media):
            hashed.update(repr(media if isinstance(media, str) else [p.name for p in media]).encode())
        if self.text is not None:
            hashed.update(repr(self.text if isinstance(self.text, str) else sorted(self.text.items())).encode())
        return hashed.hexdigest()

    def open(self, images: int = 1) -> FrameSource:
        """The frames: uint8 (H, W, 3), or (H, W, 6) with `images` of 2.

        Raises:
            SourceError: they cannot be opened.
            SequenceError: two images a frame are asked for, and there is one.
        """
        first = open_media(self.name, self.media)
        if images == 1:
            return first
        if self.second is None:
            raise SequenceError(f"{self.name} has one image a frame and the tracker takes two; give pairs of images")
        second = open_media(self.name, self.second.media)
        return PairedSource(first, second, depth=self.second.modality == "depth")
