"""Calibration sets: lists of (clip, frame, box), where they come from, and how the tracker collects them.

A set holds no pixels. Each item says around which box of which frame a search region is cut, and with which template:
the same list gives the same crops wherever the clips are. A set is kept as TOML with its hash.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np

from edgetrack.box import Box, iou, jitter
from edgetrack.bundle.manifest import Name, Sha256
from edgetrack.errors import CalibrationError, UnknownNameError, UsageError
from edgetrack.evaluation.datasets import SYNTHETIC, Dataset, open_dataset
from edgetrack.evaluation.datasets.clip import Clip
from edgetrack.io import encode_json, read_toml, toml_value
from edgetrack.resources import data_folder
from edgetrack.runtime.frames import with_stand_in
from edgetrack.runtime.prompt import prepare_text
from edgetrack.runtime.trackers.base import Procedure

DEFAULT = "synthetic"
MAX_ITEMS = 20_000
_LARGEST = 16 << 20
FrameIndex = Annotated[int, msgspec.Meta(ge=0, le=10_000_000)]
Numbers = tuple[float, float, float, float]


class Item(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One search region.

    Attributes:
        clip: name of the sequence in its data set.
        template_frame, template: frame (from 0) and box (x, y, w, h in pixels) that the tracker is started with.
        frame: the frame that is searched, after `template_frame`.
        box: x, y, w, h in pixels of the box around which it is searched.
    """

    clip: str
    template_frame: FrameIndex
    template: Numbers
    frame: FrameIndex
    box: Numbers

    def __post_init__(self) -> None:
        for box in (self.template, self.box):
            if not (all(map(math.isfinite, box)) and box[2] > 0 and box[3] > 0):
                raise ValueError(f"box {box} of {self.clip!r} is not finite or has no area")
        if self.frame <= self.template_frame:
            raise ValueError(
                f"frame {self.frame} of {self.clip!r} does not follow its template's, {self.template_frame}"
            )


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The items of one data set: a folder, or `synthetic:`; `layout` as `edgetrack eval --layout` takes it."""

    dataset: str
    layout: str | None = None
    items: tuple[Item, ...]


class CalibrationSet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A list of search regions.

    Attributes:
        name: of the set.
        about: which tracker collected it, with which weights and seed.
        sha256: of the parts; a list that was changed by hand is refused.
    """

    schema: int = 1
    name: Name
    about: str = ""
    sha256: Sha256
    parts: tuple[Part, ...]

    @property
    def size(self) -> int:
        """How many items there are."""
        return sum(len(part.items) for part in self.parts)


def make_set(name: str, parts: tuple[Part, ...], about: str = "") -> CalibrationSet:
    """A set with its hash."""
    return CalibrationSet(name=name, about=about, sha256=digest(parts), parts=parts)


def digest(parts: tuple[Part, ...]) -> str:
    """SHA-256 of what a set lists."""
    return hashlib.sha256(encode_json(parts)).hexdigest()


def to_toml(value: CalibrationSet) -> str:
    """The set as TOML, one line an item; the same set gives the same text."""
    lines = [
        f"schema = {value.schema}",
        f"name = {toml_value(value.name)}",
        f"about = {toml_value(value.about)}",
        f'sha256 = "{value.sha256}"',
    ]
    for part in value.parts:
        lines += ["", "[[parts]]", f"dataset = {toml_value(part.dataset)}"]
        if part.layout is not None:
            lines.append(f"layout = {toml_value(part.layout)}")
        lines += ["# clip, template's frame and box, searched frame, box around which it is searched", "items = ["]
        lines += [f"  {toml_value(msgspec.to_builtins(item))}," for item in part.items]
        lines.append("]")
    return "\n".join(lines) + "\n"


def read_set(path: Path) -> CalibrationSet:
    """Read and check a set.

    Raises:
        CalibrationError: not TOML, not a set, empty, too long, or not what its hash says.
    """
    found = read_toml(path, CalibrationSet, "calibration set", error=CalibrationError, largest=_LARGEST)
    if found.schema != 1:
        raise CalibrationError(f"{path} has schema {found.schema}, expected 1; use a newer edgetrack")
    if not 1 <= found.size <= MAX_ITEMS:
        raise CalibrationError(f"{path} lists {found.size} items; expected 1 to {MAX_ITEMS}")
    if digest(found.parts) != found.sha256:
        raise CalibrationError(
            f"{path} was changed after it was made: its items do not have the hash that it states; "
            "make it again with: edgetrack calibrate collect"
        )
    return found


def set_names() -> list[str]:
    """The sets that come with edgetrack."""
    return sorted(path.stem for path in data_folder("calibration").glob("*.toml"))


def find_set(name: str) -> CalibrationSet:
    """A set by its name, or a file that ends in `.toml`.

    Raises:
        UnknownNameError: no such set. CalibrationError: the file is not a set.
    """
    if name.endswith(".toml"):
        return read_set(Path(name))
    if name not in set_names():
        raise UnknownNameError.of("calibration set", name, set_names(), "or a set's path, which ends in .toml")
    return read_set(data_folder("calibration") / f"{name}.toml")


LOST_IOU = 0.3
"""Below this overlap with the truth the tracker is put back: calibration is to see what one that follows sees."""
FEWEST_PER_CLIP = 4
"""Where a data set has many clips, some of them are visited often enough rather than all of them once."""
DIGITS = 3


@dataclass(frozen=True)
class CropSampling:
    """How to collect.

    Attributes:
        size: items in all, spread evenly over the clips.
        seed: of frames and jitter.
        centre_jitter, scale_jitter: of every second item's box, as `edgetrack.box.jitter` takes them; the other items
            are where the tracker really was.
    """

    size: int = 300
    seed: int = 0
    centre_jitter: float = 3.0
    scale_jitter: float = 0.25

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UsageError(f"--calib-size {self.size}: expected 1 or more")


def collect(
    clips: Sequence[Clip],
    procedure: Procedure,
    sampling: CropSampling,
    progress: Callable[[str], None] = lambda what: None,
) -> tuple[Item, ...]:
    """Run a tracker over clips and list the search regions that it cuts.

    The same clips, tracker and sampling give the same items.

    Raises:
        CalibrationError: no clip has a second frame.
        SourceError, SourceInterruptedError: a clip cannot be read.
    """
    if not clips:
        raise CalibrationError("there is no clip to calibrate on; give a folder that holds sequences with boxes")
    chosen = _spread(clips, max(1, min(len(clips), sampling.size // FEWEST_PER_CLIP)))
    items: list[Item] = []
    for index, clip in enumerate(chosen):
        progress(f"calibration: tracking {clip.name} ({index + 1} of {len(chosen)})")
        share = sampling.size * (index + 1) // len(chosen) - sampling.size * index // len(chosen)
        items.extend(_of_clip(clip, procedure, share, sampling))
    if not items:
        raise CalibrationError(f"none of {len(chosen)} clips has a second frame to search in; give longer ones")
    return tuple(items)


def _of_clip(clip: Clip, procedure: Procedure, share: int, sampling: CropSampling) -> Iterator[Item]:
    # Of the clip's name, so that a data set may grow without changing what the old clips give.
    rng = np.random.default_rng([sampling.seed, zlib.crc32(clip.name.encode())])
    prepare_text(procedure, clip.text)
    with clip.open(min(clip.images, procedure.modalities)) as frames:
        length = len(clip.truth) if len(clip.truth) > 1 else frames.length
        wanted = _frames(length, share)
        start = Box(*map(float, clip.truth[0]))
        state = start
        for index, plain in enumerate(frames):
            frame = with_stand_in(plain, procedure.modalities)
            if index == 0:
                procedure.init(frame, start)
                continue
            if index in wanted:
                moved = bool(rng.integers(2))
                box = jitter(state, rng, sampling.centre_jitter, sampling.scale_jitter) if moved else state
                yield Item(clip.name, 0, _rounded(start), index, _rounded(box))
            if index >= max(wanted, default=0):
                return
            state = procedure.update(frame, lambda stage: None).box
            truth = Box(*map(float, clip.truth[index])) if index < len(clip.truth) else None
            if truth is not None and truth.w > 0 and truth.h > 0 and iou(state, truth) < LOST_IOU:
                procedure.reset_box(truth)
                state = truth


def _frames(length: int | None, share: int) -> frozenset[int]:
    """Frames 1 to `length` - 1, evenly spread; a stream of unknown length gives its first ones."""
    if length is None:
        return frozenset(range(1, share + 1))
    return (
        frozenset(int(i) for i in np.linspace(1, length - 1, min(share, length - 1)).round())
        if length > 1
        else frozenset()
    )


def _spread(clips: Sequence[Clip], count: int) -> list[Clip]:
    return [clips[int(i)] for i in np.linspace(0, len(clips) - 1, count).round()]


def _rounded(box: Box) -> tuple[float, float, float, float]:
    x, y, w, h = (round(float(value), DIGITS) for value in box)
    return x, y, max(w, 10**-DIGITS), max(h, 10**-DIGITS)


@dataclass(frozen=True)
class CalibrationSources:
    """What `--calib` named, in order: sets by name or file, and data sets; `sampling.size` is shared by the latter.

    Attributes:
        names: at least one.
        layout: of the data sets; found out where None.
    """

    names: tuple[str, ...] = (DEFAULT,)
    layout: str | None = None
    sampling: CropSampling = field(default_factory=CropSampling)

    def check(self) -> None:
        """Check that all of them are there, before anything is computed for them.

        Raises:
            CalibrationError, DatasetError, UnknownNameError: one of them is not what it should be.
        """
        for name in self.names:
            for part in find_set(name).parts if _is_set(name) else ():
                open_dataset(part.dataset, part.layout)
            if not _is_set(name):
                open_dataset(name, self.layout)

    def choose(self, procedure: Procedure, progress: Callable[[str], None]) -> CalibrationSet:
        """The items of all of them as one set.

        Raises:
            CalibrationError, DatasetError, UnknownNameError: one of them is not what it should be.
        """
        if len(self.names) == 1 and _is_set(self.names[0]):
            return find_set(self.names[0])
        parts: list[Part] = []
        collected = [name for name in self.names if not _is_set(name)]
        for name in self.names:
            if _is_set(name):
                parts.extend(find_set(name).parts)
            else:
                size = max(1, self.sampling.size // len(collected))
                sampling = replace(self.sampling, size=size)
                dataset = open_dataset(name, self.layout)
                items = collect(_sequences(dataset), procedure, sampling, progress)
                parts.append(Part(dataset=dataset.where, layout=_layout(dataset), items=items))
        about = f"collected by running the tracker, seed {self.sampling.seed}"
        return make_set("collected", tuple(parts), about)

    def clips(self, part: Part) -> Mapping[str, Clip]:
        """The clips of a part that it names.

        Raises:
            DatasetError, SequenceError: the data set is not there, or a sequence of it cannot be read.
        """
        dataset = open_dataset(part.dataset, part.layout)
        wanted = {item.clip for item in part.items}
        return {entry.name: dataset.read(entry) for entry in dataset.entries if entry.name in wanted}


def _is_set(name: str) -> bool:
    return name.endswith(".toml") or (name in set_names() and not Path(name).exists())


def _layout(dataset: Dataset) -> str | None:
    return None if dataset.where.startswith(SYNTHETIC) else dataset.layout


def _sequences(dataset: Dataset) -> Sequence[Clip]:
    return [dataset.read(entry) for entry in dataset.entries]
