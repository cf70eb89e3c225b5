"""One annotated sequence, and the rules by which its data set scores it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgetrack.arrays import Boxes
from edgetrack.box import Box
from edgetrack.media import FrameSource, ImageSource, open_source
from edgetrack.runtime.prompt import Text

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class ScoringRules:
    """Where data sets differ in how they score.

    Attributes:
        bounded: AO and SR move both boxes into the frame first, as GOT-10k's toolkit does.
        over_frames: overall AO and SR are means over all frames, as in GOT-10k's toolkit; else over sequences.
        absent_fails: a frame without the target counts as a miss in AUC, P, P_norm and OP, as in LaSOT's toolkit
            (eval_tracker.m divides by all frames) and AVisT's; else it is left out.
    """

    bounded: bool = False
    over_frames: bool = False
    absent_fails: bool = False


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
    """

    name: str
    media: tuple[Path, ...] | str
    truth: Boxes
    visible: Flags
    rules: ScoringRules
    text: Text | None = None

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
        hashed.update(repr(self.media if isinstance(self.media, str) else [p.name for p in self.media]).encode())
        if self.text is not None:
            hashed.update(repr(self.text if isinstance(self.text, str) else sorted(self.text.items())).encode())
        return hashed.hexdigest()

    def open(self) -> FrameSource:
        """The frames.

        Raises:
            SourceError: they cannot be opened.
        """
        return open_source(self.media) if isinstance(self.media, str) else ImageSource(self.name, self.media, [])
