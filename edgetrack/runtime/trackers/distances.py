"""Trackers with an anchor-free head of scores and distances to the edges: LightTrack, Ocean and their kind.

NanoTrack runs the same loop with other roundings (`edgetrack.runtime.trackers.nanotrack`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, cast

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from edgetrack.box import Box
from edgetrack.bundle.manifest import Manifest
from edgetrack.errors import BundleError
from edgetrack.media.frames import Frame
from edgetrack.runtime.backends.base import CompiledGraph
from edgetrack.runtime.crop import Colour, CropRule, Image, PixelSquare, Scratch, crop_filled
from edgetrack.runtime.decode import CellChooser, DistanceDecoder, Found, Map, hann_closed, size_with_context
from edgetrack.runtime.trackers.base import (
    Decision,
    Fraction,
    Pattern,
    Pixels,
    Procedure,
    Side,
    Strength,
    Threshold,
    check_graphs,
    read_settings,
)
from edgetrack.runtime.trackers.roles import Templates, UpdatePolicy, check_roles


class ContextSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The numbers of the loop.

    A target of size (w, h) is cut with half of w + h more on both axes; `template_size` is that square's side in the
    template crop. `lost_below` is ours, the published trackers know no loss: a score under it flags the result as lost;
    the box is reported and followed all the same.
    """

    template_size: Side
    search_size: Side
    stride: Annotated[int, msgspec.Meta(ge=1, le=1024)]
    window_influence: Fraction
    penalty_k: Strength
    size_rate: Fraction
    smallest_side: Pixels
    lost_below: Threshold

    def __post_init__(self) -> None:
        if self.search_size < self.template_size:
            raise ValueError(f"search_size {self.search_size} is smaller than template_size {self.template_size}")

    def check_stride(self, manifest: Manifest, cells: int) -> None:
        """Raise BundleError unless that many cells lie in the search crop, two or more on each side."""
        if cells < 2 or self.stride * (cells - 1) >= self.search_size:
            raise BundleError(
                f"the graphs of bundle {manifest.name!r} do not suit its procedure: {cells} x {cells} cells of stride "
                f"{self.stride} in a search crop of {self.search_size} pixels, expected 2 or more on each side, within "
                "the crop; export it again"
            )

    def rounded_side(self, side: float) -> int:
        """Side of the search square in whole pixels."""
        return round(side)

    def rounded_origin(self, place: float) -> int:
        """First column or row of a square in whole pixels."""
        return math.floor(place + 0.5)

    def size_step(self, weight: float) -> float:
        """How far the size moves to the one found, 0..1; `weight` is penalty times score."""
        return weight * self.size_rate


class DistancesSettings(ContextSettings, frozen=True, kw_only=True):
    """The settings of family `distances`.

    `size_smoothing`: how often the size is smoothed with the rate, 2 in LightTrack and Ocean. `origin`: how a square's
    corner is rounded at exact halves. `lost_below` 0 flags nothing.
    """

    size_smoothing: Literal[1, 2] = 2
    origin: Literal["half-even", "half-up"] = "half-even"
    smallest_side: Pixels = 10.0
    lost_below: Threshold = 0.0

    def rounded_side(self, side: float) -> int:
        return math.floor(side + 0.5)

    def rounded_origin(self, place: float) -> int:
        return round(place) if self.origin == "half-even" else super().rounded_origin(place)

    def size_step(self, weight: float) -> float:
        return float((weight * self.size_rate) ** self.size_smoothing)


class TargetState(NamedTuple):
    """The state: centre and size in pixels of the frame."""

    cx: float
    cy: float
    w: float
    h: float


class ContextLoop:
    """The loop of trackers that search around the target with context: where to cut, what to expect, where to go."""

    dtype: type[np.floating[Any]] = np.float64

    def __init__(self, settings: ContextSettings) -> None:
        self.settings = settings
        self.target = TargetState(0.0, 0.0, 0.0, 0.0)
        self.scale = 1.0
        self.fill: Colour = (0, 0, 0)
        self.origin = 0

    @staticmethod
    def window(cells: int) -> NDArray[Any]:
        """Added to the score."""
        return hann_closed(cells)

    def start(self, frame: Frame, box: Box) -> PixelSquare:
        """Take over a target; the template's square."""
        blue, green, red, _ = cv2.mean(frame)
        self.fill = (int(blue), int(green), int(red))
        self.reset(box)
        return self._around(round(size_with_context(self.target.w, self.target.h)))

    def reset(self, box: Box) -> None:
        """Continue from a box."""
        self.target = TargetState(*box.center, box.w, box.h)

    def search(self) -> PixelSquare:
        """The square of the search region."""
        size = size_with_context(self.target.w, self.target.h)
        self.scale = self.settings.template_size / size
        side = size * (self.settings.search_size / self.settings.template_size)
        return self._around(self.settings.rounded_side(side))

    def _around(self, side: int) -> PixelSquare:
        side = max(1, side)
        x, y = (self.settings.rounded_origin(c - (side + 1) / 2) for c in self.target[:2])
        return PixelSquare(x, y, side)

    def cut(self, frame: Frame, square: PixelSquare, out: Image, scratch: Scratch) -> None:
        """Cut a square as the network wants it: BGR, around the frame the first frame's mean, truncated."""
        crop_filled(frame, square, self.fill, out, scratch)

    def expected(self) -> tuple[float, float]:
        """Size with context, in pixels of the crop, and aspect that carry no penalty."""
        _, _, w, h = self.target
        return size_with_context(w * self.scale, h * self.scale), w / h

    def move(self, found: Found, frame_size: tuple[int, int]) -> float:
        """Take over the cell that was chosen; returns the confidence, 0..1."""
        rate = self.settings.size_step(found.weight)
        cx, cy, w, h = self.target
        moved = TargetState(
            cx + found.x / self.scale,
            cy + found.y / self.scale,
            (1 - rate) * w + rate * (found.w / self.scale),
            (1 - rate) * h + rate * (found.h / self.scale),
        )
        self.target = limited(moved, frame_size, self.settings.smallest_side)
        return found.score

    def box(self) -> Box:
        """What is reported; its centre lies in the frame, its edges may not."""
        return Box.from_center(*self.target)


def limited(target: TargetState, frame_size: tuple[int, int], smallest: float) -> TargetState:
    """Centre in the frame, sides between `smallest` and the frame's."""
    height, width = frame_size
    return TargetState(
        max(0.0, min(target.cx, width)),
        max(0.0, min(target.cy, height)),
        max(smallest, min(target.w, width)),
        max(smallest, min(target.h, height)),
    )


class DistancesFamily(Procedure):
    """Inputs named by role, outputs `score` (1, 1, n, n) and `reg` (1, 4, n, n) of `step`.

    `score` is the probability of the target, `reg` the distances of a cell to left, top, right and lower edge in
    pixels of the search crop; activations are in the graph. Sides stay within the first frame's.
    """

    head = "distances"

    settings_type = DistancesSettings
    chooser: CellChooser

    def __init__(self, manifest: Manifest, graphs: Mapping[str, CompiledGraph]) -> None:
        super().__init__(manifest, graphs)
        settings = read_settings(manifest.procedure, DistancesSettings)
        maps: Pattern = {"score": (1, 1, "cells", "cells"), "reg": (1, 4, "cells", "cells")}
        check_roles(
            manifest,
            template_size=settings.template_size,
            search_size=settings.search_size,
            policy=UpdatePolicy(),
            outputs=maps,
        )
        inputs: Pattern = {info.name: info.shape for info in manifest.graph("step").inputs}
        if unfit := [name for name in inputs if name in ("target_box", "search_mask", "template_mask")]:
            raise BundleError(f"family distances fills no input {unfit[0]!r}; bundle {manifest.name!r} has one")
        settings.check_stride(manifest, check_graphs(manifest, {"step": (inputs, maps)})["cells"])
        self.search_crop = cast(Image, self.step.inputs["search"])
        self.score, self.reg = (cast(Map, self.step.outputs[name]) for name in ("score", "reg"))
        self.maps = (self.score, self.reg)
        self.loop = ContextLoop(settings)
        window = self.loop.window(self.score.shape[-1])
        self.chooser = CellChooser(window, influence=settings.window_influence, penalty=settings.penalty_k)
        self.decoder = DistanceDecoder(self.chooser, stride=settings.stride)
        self.lost_below = settings.lost_below
        self.scratch = Scratch()
        roles = {info.name: info.role for info in manifest.graphs}
        rule = CropRule(1.0, settings.template_size)
        self.templates = Templates(graphs, roles, rule, self._cut_template, UpdatePolicy())
        self._first_size = (0, 0)

    def _cut_template(self, frame: Frame, box: Box, rule: CropRule, out: Image) -> PixelSquare:
        square = self.loop.start(frame, box)
        self.loop.cut(frame, square, out, self.scratch)
        return square

    def init(self, frame: Frame, box: Box) -> None:
        self._first_size = (frame.shape[0], frame.shape[1])
        self.templates.start(frame, box)
        self.state = self.loop.box()

    def fill(self, frame: Frame) -> float:
        self.loop.cut(frame, self.loop.search(), self.search_crop, self.scratch)
        return self.loop.scale

    def decode(self, frame: Frame, scale: float) -> Decision | None:
        found = self.decoder.of_distances(self.score, self.reg, *self.loop.expected())
        if found is None:
            return None
        score = self.loop.move(found, self._first_size)
        return Decision(self.loop.box(), score)

    def reset_box(self, box: Box) -> None:
        self.loop.reset(box)
        self.state = self.loop.box()


PROCEDURE = DistancesFamily
