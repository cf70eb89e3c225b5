"""Frames with both trackers' boxes, where it matters: at the start, where they diverge, where they overlap least.

A comparison's record holds overlaps, no boxes. The boxes lie in the runs that `edgetrack compare` keeps beside it, and
are taken only where they give back the recorded overlap in every frame; the frames come from the data set that the
user names, never from a path in a file.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from edgetrack.box import Box
from edgetrack.errors import EdgetrackError
from edgetrack.evaluation.comparison import CompareRecord, CompareSide, SequencePair
from edgetrack.evaluation.datasets import Dataset
from edgetrack.evaluation.datasets.clip import Clip
from edgetrack.evaluation.execution.ledger import SavedRun, plain_name
from edgetrack.evaluation.metrics import divergence
from edgetrack.evaluation.protocols.one_pass import OnePassRun
from edgetrack.io import BAD_JSON, read_bytes
from edgetrack.media import Frame
from edgetrack.report.model import side_identity
from edgetrack.report.plots import most_different

MOST_SEQUENCES = 6
_WIDTH = 300
_QUALITY = 78
_A, _B, _DARK = (230, 160, 40), (60, 190, 255), (20, 20, 20)
"""Blue-green for A and amber for B (BGR): apart for those who see no red and green."""


@dataclass(frozen=True)
class Thumbnail:
    """A frame with both boxes, as a `data:` address of a JPEG; `iou` is that of the two boxes."""

    frame: int
    iou: float
    moment: str
    address: str
    width: int
    height: int


@dataclass(frozen=True)
class Strip:
    """The thumbnails of a sequence."""

    sequence: str
    thumbnails: tuple[Thumbnail, ...]


@dataclass(frozen=True)
class ContactSheet:
    """Strips of those sequences that differ most, and why others that were wanted are not there."""

    strips: tuple[Strip, ...]
    notes: tuple[str, ...]


def contact_sheet(found: CompareRecord, source: Path, dataset: Dataset) -> ContactSheet:
    """The sequences in which A and B differ most.

    Args:
        found: the comparison.
        source: its file; the runs are looked for where `edgetrack compare` keeps them, with and without --output.
        dataset: the frames.
    """
    strips, notes = [], []
    entries = {entry.name: entry for entry in dataset.entries}
    for one in most_different(found.sequences, MOST_SEQUENCES):
        entry = entries.get(one.name)
        if entry is None:
            notes.append(f"{one.name}: not in {dataset.name}")
            continue
        boxes = _boxes(found, one, source)
        if boxes is None:
            notes.append(f"{one.name}: the runs that the comparison was made from are not beside {source}")
            continue
        try:
            strips.append(Strip(one.name, tuple(_thumbnails(one, boxes, dataset.read(entry)))))
        except EdgetrackError as error:
            notes.append(f"{one.name}: {error}")
    return ContactSheet(tuple(strips), tuple(notes))


def moments(one: SequencePair) -> list[tuple[int, str]]:
    """Frames that tell the story, in order: start, first diverged, least overlap, agreeing again, end."""
    iou = one.iou
    told = {1 if len(iou) > 1 else 0: "start", len(iou) - 1: "end"}
    told[int(np.argmin(iou))] = "least overlap"
    if one.first_divergence is not None:
        told[one.first_divergence] = "first diverged"
    if one.recovery is not None:
        told[one.recovery] = "agreeing again"
    middle = len(iou) // 2
    if len(told) < 4 and middle not in told:
        told[middle] = "middle"
    return sorted(told.items())


def _boxes(found: CompareRecord, one: SequencePair, source: Path) -> tuple[list[Box], list[Box]] | None:
    """A's and B's boxes: of all runs that are kept, the two whose overlap is the recorded one in every frame."""
    ours, theirs = (list(_runs(side, found, one.name, source)) for side in (found.a, found.b))
    for a in ours:
        for b in theirs:
            if len(a.boxes) == len(b.boxes) == len(one.iou):
                curve = divergence(a.boxes, b.boxes).iou
                if np.allclose(curve, one.iou, rtol=0, atol=1e-6):
                    return a.boxes, b.boxes
    return None


def _runs(side: CompareSide, found: CompareRecord, sequence: str, source: Path) -> Iterator[OnePassRun]:
    names = {plain_name(side_identity(side).label), plain_name(side.bundle)}
    folders = [source.parent / name for name in sorted(names)]
    # Without --output, comparisons lie in out/compare/A_vs_B/DATASET and runs in out/eval/BUNDLE/DATASET.
    kept = Path("eval", plain_name(side.bundle), plain_name(found.dataset))
    folders += [out / kept for out in source.absolute().parents[3:4]]
    for folder in folders:
        for path in sorted(folder.glob(f"{plain_name(sequence)}-*.json")):
            run = _run(path, sequence)
            if run is not None:
                yield run


def _run(path: Path, sequence: str) -> OnePassRun | None:
    try:
        saved = msgspec.json.decode(read_bytes(path), type=SavedRun)
        return msgspec.json.decode(saved.run, type=OnePassRun) if saved.sequence == sequence else None
    except (OSError, *BAD_JSON):
        return None


def _thumbnails(one: SequencePair, boxes: tuple[list[Box], list[Box]], clip: Clip) -> Iterator[Thumbnail]:
    wanted = dict(moments(one))
    with clip.open() as frames:
        for index, frame in zip(range(max(wanted) + 1), frames, strict=False):
            if index in wanted:
                image = _drawn(frame, [side[index] for side in boxes])
                height, width = image.shape[:2]
                yield Thumbnail(index, one.iou[index], wanted[index], _address(image), width, height)


def _drawn(frame: Frame, boxes: Sequence[Box]) -> Frame:
    """The frame at the sheet's width with A's and B's box; each has a dark edge, to be seen on any ground."""
    import cv2

    scale = _WIDTH / frame.shape[1]
    height = max(1, round(frame.shape[0] * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    image: Frame = np.ascontiguousarray(cv2.resize(frame, (_WIDTH, height), interpolation=method))
    for box, colour in zip(boxes, (_A, _B), strict=True):
        corners = [min(max(v * scale, -9.0), 9.0 + _WIDTH + height) for v in box.xyxy] if box.is_finite else []
        if corners:
            x1, y1, x2, y2 = map(round, corners)
            cv2.rectangle(image, (x1, y1), (x2, y2), _DARK, 4)
            cv2.rectangle(image, (x1, y1), (x2, y2), colour, 2)
    return image


def _address(image: Frame) -> str:
    import cv2

    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode('ascii')}"
