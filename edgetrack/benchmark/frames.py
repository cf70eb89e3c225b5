"""The frames that a benchmark runs on: changing, and the same ones for all that are compared."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path

from edgetrack import box as boxes
from edgetrack.benchmark.config import SourceNote
from edgetrack.box import Box
from edgetrack.errors import EdgetrackError, SourceError, UsageError
from edgetrack.media.ahead import ReadAhead
from edgetrack.media.frames import Frame
from edgetrack.media.sources import FrameSource, open_source
from edgetrack.runtime.frames import with_stand_in

KEEP_FRAMES = 200
KEEP_MB = 600.0
"""Most frames, and MiB, that one process keeps decoded."""
_LEAST_FRAMES = 3
_JPEG_QUALITY = 95
_SCENE = "synthetic:"

Shots = Generator[tuple[Frame, bool], None, None]
"""Endless frames; the flag marks those on which the tracker is to be started again."""


@dataclass(frozen=True)
class BenchFrames:
    """What all candidates track.

    Attributes:
        note: the source as it was asked for, with its first frame's size and the target's box.
        path: what the workers open in its place.
        keep_frames, keep_mb: most frames, and MiB, that one process keeps decoded.
    """

    note: SourceNote
    path: str
    keep_frames: int = KEEP_FRAMES
    keep_mb: float = KEEP_MB


def memory_for_frames(available_mib: int | None, candidates: int) -> float:
    """MiB of decoded frames for each candidate: all stay loaded, and half of the free memory is for them."""
    return KEEP_MB if available_mib is None else min(KEEP_MB, available_mib / (2 * candidates))


def prepare_frames(
    spec: str, box: Box | None, folder: Path, *, keep_frames: int = KEEP_FRAMES, keep_mb: float = KEEP_MB
) -> BenchFrames:
    """Find the target's first box and make the source one that several processes can read again and again.

    A synthetic scene is written to `folder` as JPEG images: computing it takes longer than decoding it, and the camera
    speed is about a camera.

    Args:
        spec: as `open_source` takes it; no live source.
        box: the target in the first frame, or None for the source's ground truth.
        folder: an existing, empty folder.
        keep_frames, keep_mb: see `BenchFrames`.

    Raises:
        UsageError: fewer than 3 frames, or no box.
        InvalidBoxError: the box lies outside the first frame.
        SourceError: the source is live or cannot be opened.
    """
    with open_source(spec) as source:
        frames = iter(source)
        head = list(islice(frames, _LEAST_FRAMES))
        if len(head) < _LEAST_FRAMES:
            raise UsageError(f"{spec} has {len(head)} frames; speed is measured on at least {_LEAST_FRAMES}")
        height, width = head[0].shape[:2]
        target = boxes.validate(box or _first_box(source, spec), (height, width))
        path, about = spec, "decoded from the source"
        if spec.startswith(_SCENE):
            _write(chain(head, frames), folder)
            path, about = str(folder), f"decoded from JPEG images of quality {_JPEG_QUALITY}"
    note = SourceNote(spec=spec, size=(width, height), box=target, camera=about)
    return BenchFrames(note, path, keep_frames, keep_mb)


def _first_box(source: FrameSource, spec: str) -> Box:
    truth = source.truth_at(0)
    if truth is None:
        raise UsageError(f"{spec} has no ground truth for its first frame; give the target with --box x,y,w,h")
    return truth


def _write(frames: Iterator[Frame], folder: Path) -> None:
    import cv2

    for index, frame in enumerate(frames):
        done = cv2.imwrite(str(folder / f"{index:06d}.jpg"), frame, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        if not done:
            raise EdgetrackError(f"image {index} of the scene cannot be written to {folder}: the disk is probably full")


def decoded(spec: str, *, most_frames: int = KEEP_FRAMES, most_mb: float = KEEP_MB) -> list[Frame]:
    """The first frames of a source: as many as the bounds allow, and no fewer than 3 where it has them."""
    kept: list[Frame] = []
    used = 0.0
    with open_source(spec) as source:
        for frame in source:
            used += frame.nbytes / 2**20
            if len(kept) >= _LEAST_FRAMES and (len(kept) >= most_frames or used > most_mb):
                break
            kept.append(frame)
    return kept


def back_and_forth(frames: Sequence[Frame]) -> Shots:
    """0, 1, ... n-1, n-2, ... 1, 0, ...: no jump between neighbours; started again on each frame 0."""
    while True:
        for index in chain(range(len(frames)), range(len(frames) - 2, 0, -1)):
            yield frames[index], index == 0


def streamed(spec: str) -> Shots:
    """Frames as they are read and decoded, from the beginning again after the last; started again on each first one.

    Raises:
        SourceError: the source has no frames any more.
    """
    while True:
        count = 0
        with open_source(spec) as source:
            for count, frame in enumerate(source, start=1):
                yield frame, count == 1
        if count == 0:
            raise SourceError(f"{spec} gave no frames; was it removed during the benchmark?")


def _read_ahead(shots: Shots) -> Shots:
    with ReadAhead(shots, lambda shot: shot[0].nbytes) as reader:
        for taken in reader:
            yield taken.frame


class FrameFeed:
    """A worker's frames; what a tracker of two images a frame is given as the second is made while they are read.

    Args:
        path: what is opened.
        modalities: how many images a frame the tracker takes.
        keep_frames, keep_mb: most frames, and MiB of them, that stay decoded.
    """

    def __init__(self, path: str, modalities: int, keep_frames: int, keep_mb: float) -> None:
        self._path = path
        self._modalities = modalities
        self._most = keep_frames, keep_mb / modalities

    def from_source(self, *, ahead: bool = False) -> Shots:
        """Frames as they are read and decoded: in the thread that tracks, or ahead of it in one of their own."""
        shots = ((with_stand_in(frame, self._modalities), first) for frame, first in streamed(self._path))
        return _read_ahead(shots) if ahead else shots

    def from_memory(self) -> Shots:
        """Decoded frames, back and forth."""
        return back_and_forth(self._kept)

    def endless(self) -> Iterator[Frame]:
        """The same without any start: neighbours in time are neighbours in the scene."""
        return (frame for frame, _ in self.from_memory())

    @cached_property
    def _kept(self) -> list[Frame]:
        frames, mb = self._most
        found = decoded(self._path, most_frames=frames, most_mb=mb)
        return [with_stand_in(frame, self._modalities) for frame in found]
