"""SPMTrack's per-frame procedure (docs/trackers/spmtrack.md): past templates with masks, a token carried along."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgetrack.box import Box
from edgetrack.bundle.manifest import Manifest
from edgetrack.errors import BundleError
from edgetrack.media.frames import Frame
from edgetrack.runtime.backends.base import CompiledGraph
from edgetrack.runtime.crop import crop_aligned, mean_colour, touched
from edgetrack.runtime.decode import CellChooser, Map, hann_closed
from edgetrack.runtime.memory import MemoryBank, MemoryEstimate, MemorySchedule, Retention
from edgetrack.runtime.trackers.base import (
    Decision,
    Fraction,
    Pattern,
    Pixels,
    Procedure,
    Side,
    StageTimer,
    Threshold,
    check_graphs,
    read_settings,
    shapes_of,
)

# Crops are kept as 16-bit fractions of 255: half the memory of float32, wrong by 0.002 grey levels at most.
LEVELS = 257
# Less than 1 would cut into the box.
_ContextFactor = Annotated[float, msgspec.Meta(ge=1, le=100)]
MAPS = ("q", "k", "v", "proj", "mlp in", "mlp out")
"""The linear maps of a layer, each with experts and a router of its own."""


class SpmTrackSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The numbers of the procedure; `schedule` and `memory` as in `edgetrack.runtime.memory`.

    `schedule` is `fixed:3` as published; the authors' runs on LaSOT took `spread:3`. `cell` is the side in pixels of
    what one mask value covers. `lost_below` is ours: a confidence under it flags the result as lost; the box is
    reported and followed all the same.
    """

    template_factor: _ContextFactor
    template_size: Side
    search_factor: _ContextFactor
    search_size: Side
    cell: Annotated[int, msgspec.Meta(ge=1, le=4096)]
    window_influence: Fraction
    smallest_side: Pixels
    schedule: str
    memory: str
    lost_below: Threshold

    def __post_init__(self) -> None:
        if self.template_size % self.cell:
            raise ValueError(f"template_size {self.template_size} is no multiple of cell {self.cell}")
        schedule = MemorySchedule.parse(self.schedule)
        if schedule.rule not in ("fixed", "spread"):
            raise ValueError(f"schedule {self.schedule!r}: expected one of always as many entries, fixed or spread")
        Retention.parse(self.memory)

    @property
    def cells(self) -> int:
        """Mask values along a template's side."""
        return self.template_size // self.cell

    def bank(self) -> MemoryBank:
        """An empty memory: an entry is a crop and its mask."""
        shape = (self.template_size**2 * 3 + self.cells**2,)
        return MemoryBank(Retention.parse(self.memory), MemorySchedule.parse(self.schedule), shape, np.uint16)


def _check_graphs(manifest: Manifest, settings: SpmTrackSettings) -> None:
    count, state = (
        MemorySchedule.parse(settings.schedule).count,
        shapes_of(manifest.graph("step").inputs).get("token", ()),
    )
    inputs: Pattern = {
        "search": (settings.search_size, settings.search_size, 3),
        "templates": (count, settings.template_size, settings.template_size, 3),
        "masks": (count, settings.cells**2),
        "token": state,
    }
    outputs: dict[str, tuple[int | str, ...]] = {
        "score": (1, "cells", "cells"),
        "boxes": (1, "cells", "cells", 4),
        "next_token": state,
    }
    if any(t.name == "routes" for t in manifest.graph("step").outputs):
        outputs["routes"] = ("layers", len(MAPS), "experts")
    if check_graphs(manifest, {"step": (inputs, outputs)})["cells"] < 2:
        raise BundleError(
            f"the graphs of bundle {manifest.name!r} do not suit its procedure: one cell; export it again"
        )


class SpmTrackProcedure(Procedure):
    """Graph `step` (search crop, template crops, their masks, state -> score, boxes, next state)."""

    settings_type = SpmTrackSettings
    chooser: CellChooser
    remembers = True

    def __init__(self, manifest: Manifest, graphs: Mapping[str, CompiledGraph]) -> None:
        super().__init__(manifest, graphs)
        self.settings = settings = read_settings(manifest.procedure, SpmTrackSettings)
        _check_graphs(manifest, settings)
        self.lost_below = settings.lost_below
        self.search, self.templates, self.masks, self.state_in = (
            cast(Map, self.step.inputs[name]) for name in ("search", "templates", "masks", "token")
        )
        self.score, self.boxes, self.next_state = self.maps = tuple(
            cast(Map, self.step.outputs[name]) for name in ("score", "boxes", "next_token")
        )
        # Layers, maps, experts; None in a bundle that was not exported with them.
        self.routes = cast("Map | None", self.step.outputs.get("routes"))
        self.carried = np.zeros_like(self.next_state)
        window = hann_closed(self.score.shape[-1]).astype(np.float32)
        self.chooser = CellChooser(window, influence=settings.window_influence, dtype=np.float32)
        self.bank = settings.bank()
        self.crop = np.empty((settings.template_size, settings.template_size, 3), np.float32)
        self.entry: NDArray[np.uint16] = np.zeros(self.crop.size + settings.cells**2, np.uint16)
        self.looked = (self.carried, self.entry)
        self.read: NDArray[np.uint16] = np.empty_like(self.entry)
        self.padding: NDArray[np.float32] = np.zeros(3, np.float32)

    @classmethod
    def memory_estimate(cls, manifest: Manifest) -> MemoryEstimate:
        return read_settings(manifest.procedure, SpmTrackSettings).bank().estimate

    def init(self, frame: Frame, box: Box) -> None:
        self.bank.clear()
        self.padding = mean_colour(frame)
        self.carried[...] = 0
        self.state = box
        self._encode(frame, box)
        self.bank.append(self.entry)

    def fill(self, frame: Frame) -> float:
        settings = self.settings
        # The published code enlarges small boxes around their centre before it cuts.
        sides = max(self.state.w, settings.smallest_side), max(self.state.h, settings.smallest_side)
        around = Box.from_center(*self.state.center, *sides)
        self.mapping = crop_aligned(frame, around, settings.search_factor, self.padding, self.search)
        # Written just before the graph runs: who records what it is fed reads it afterwards.
        np.copyto(self.state_in, self.carried)
        pixels = self.crop.size
        for slot, index in enumerate(self.bank.schedule.choose(self.bank.count)):
            self.bank.read(index, self.read)
            np.divide(self.read[:pixels].reshape(self.crop.shape), np.float32(LEVELS), out=self.templates[slot])
            self.masks[slot] = self.read[pixels:]
        return self.mapping.scale_x

    def decode(self, frame: Frame, scale: float) -> Decision:
        np.copyto(self.carried, self.next_state)
        size = self.settings.search_size
        score, found = choose_box(self.score, self.boxes, self.chooser)
        box = _inside(self.mapping.to_frame(Box(*(value * size for value in found))), frame)
        if not (box.w > 0 and box.h > 0):
            return Decision(self.state, score, "the box found has no area inside the frame; the last box is kept")
        self._encode(frame, box)
        return Decision(box, score)

    def remember(self, frame: Frame, timer: StageTimer) -> None:
        # Also where the target was not found: entries are counted as frames.
        self.bank.append(self.entry)
        if self.routes is not None:
            self.diagnostics = {
                f"layer {layer} {name}": {f"expert {number}": float(w) for number, w in enumerate(weights, 1)}
                for layer, maps in enumerate(self.routes, 1)
                for name, weights in zip(MAPS, maps, strict=True)
            }

    def _encode(self, frame: Frame, box: Box) -> None:
        """Crop and mask around a box as the newest entry; the one before stays where the box covers no cell.

        The published code stops there with an assertion. Where a box reaches over the crop's left or upper edge, that
        code marks the cells of a slice with a negative start, counted from the end: the last ones, or none. Kept, since
        the official boxes follow from it (golden sequence, frame 3).
        """
        settings, cells = self.settings, self.settings.cells
        mapping = crop_aligned(frame, box, settings.template_factor, mean_colour(frame), self.crop)
        target = mapping.to_crop(box)
        covered = touched(Box(*(value / settings.cell for value in target)))
        if covered.is_empty:
            return
        pixels = self.crop.size
        np.rint(self.crop.reshape(-1) * LEVELS, out=self.entry[:pixels], casting="unsafe")
        mask: NDArray[Any] = self.entry[pixels:].reshape(cells, cells)
        mask[...] = 0
        mask[covered.y1 : covered.y2, covered.x1 : covered.x2] = 1


def choose_box(score: Map, boxes: Map, chooser: CellChooser) -> tuple[float, Box]:
    """The best cell's probability and box in fractions of the crop (docs/trackers/spmtrack.md, Decoding).

    Args:
        score: (1, F, F) logits.
        boxes: (1, F, F, 4), x1, y1, x2, y2 as fractions of the crop.
        chooser: of F x F cells.
    """
    best = chooser.choose((1 / (1 + np.exp(-np.clip(score[0], -80, 80)))).reshape(-1))
    x1, y1, x2, y2 = map(float, boxes.reshape(-1, 4)[best.cell])
    return best.score, Box(x1, y1, x2 - x1, y2 - y1)


def _inside(box: Box, frame: Frame) -> Box:
    """Every edge moved into the frame."""
    height, width = frame.shape[:2]
    x1, x2 = (min(max(0.0, value), float(width)) for value in (box.x, box.x + box.w))
    y1, y2 = (min(max(0.0, value), float(height)) for value in (box.y, box.y + box.h))
    return Box(x1, y1, x2 - x1, y2 - y1)


PROCEDURE = SpmTrackProcedure
MEMBERS = ("spmtrack_b",)
