"""Trackers with a centre head: a padded square crop, maps of score, size and offset (docs/trackers/smat.md)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal, cast

import msgspec
import numpy as np

from edgetrack.box import Box, clip
from edgetrack.bundle.manifest import Manifest
from edgetrack.media.frames import Frame
from edgetrack.runtime.backends.base import CompiledGraph
from edgetrack.runtime.crop import CropRule, Image, Scratch, crop_square, square_around
from edgetrack.runtime.decode import Map, Peak, decode_center, hann_open, map_back
from edgetrack.runtime.memory import MemoryBank, MemoryEstimate, MemorySchedule, Retention
from edgetrack.runtime.trackers.base import Decision, Pattern, Procedure, StageTimer, read_settings

MAPS: Pattern = {
    "score": (1, 1, "cells", "cells"),
    "size": (1, 2, "cells", "cells"),
    "offset": (1, 2, "cells", "cells"),
}


class CenterSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The numbers of the procedure.

    `lost_below` is ours, the published trackers report no confidence: a score under it flags the result as lost; the
    box is reported and followed all the same, as published.
    """

    template_factor: float
    template_size: int
    search_factor: float
    search_size: int
    clip_margin: float
    lost_below: float

    def __post_init__(self) -> None:
        positive = (self.template_factor, self.template_size, self.search_factor, self.search_size, self.clip_margin)
        if not all(0 < value < math.inf for value in positive) or not math.isfinite(self.lost_below):
            raise ValueError(f"sizes, factors and margin must be positive and all numbers finite, found {self}")


class CenterDecoder:
    """From a centre head's maps to the next box: what the procedure and the validation of a training share.

    Args:
        rule: of the search crop.
        margin: pixels of a box that stay in the frame.
        cells: of a map, on each axis.
    """

    def __init__(self, rule: CropRule, margin: float, cells: int) -> None:
        self.rule, self.margin = rule, margin
        self.window = hann_open(cells)
        self._response = np.empty_like(self.window)

    def __call__(
        self, score: Map, size: Map, offset: Map, frame: Frame, previous: Box, scale: float
    ) -> tuple[Box, Peak]:
        """The box in pixels of the frame, clipped to it, and its peak; maps as in `decode_center`, all finite.

        Args:
            score, size, offset: the maps.
            frame: what was searched.
            previous: the box that the search crop was cut around.
            scale: crop pixels per frame pixel, as `crop_square` returned it.
        """
        peak = decode_center(score, size, offset, self.window, self._response)
        box = map_back(peak, previous, self.rule.size, scale)
        return clip(box, frame.shape[0], frame.shape[1], self.margin), peak


class CenterProcedure(Procedure):
    """Graph `step` (search crop, and what else the tracker feeds it -> score, size, offset).

    A subclass implements `init`; `reports` names the peak's score that is the tracker's confidence.
    """

    settings_type: ClassVar[type[CenterSettings]] = CenterSettings
    reports: ClassVar[Literal["score", "windowed"]] = "score"

    def __init__(self, manifest: Manifest, graphs: Mapping[str, CompiledGraph]) -> None:
        super().__init__(manifest, graphs)
        settings = read_settings(manifest.procedure, self.settings_type)
        self.check(manifest, settings)
        self.template_rule = CropRule(settings.template_factor, settings.template_size)
        self.search_rule = CropRule(settings.search_factor, settings.search_size)
        self.lost_below = settings.lost_below
        self.search = cast(Image, self.step.inputs["search"])
        self.score, self.size, self.offset = (cast(Map, self.step.outputs[name]) for name in MAPS)
        self.maps = (self.score, self.size, self.offset)
        self.decoder = CenterDecoder(self.search_rule, settings.clip_margin, cells=self.score.shape[-1])
        self.scratch = Scratch()

    def check(self, manifest: Manifest, settings: CenterSettings) -> None:
        """Check the manifest's graphs; see `check_graphs`."""
        raise NotImplementedError

    def crop(self, frame: Frame, rule: CropRule, out: Image) -> float:
        """The crop around the state into `out`; returns crop pixels per frame pixel."""
        return crop_square(frame, self.state, rule, out, self.scratch)

    def fill(self, frame: Frame) -> float:
        return self.crop(frame, self.search_rule, self.search)

    def search_region(self) -> Box:
        x, y, side = square_around(self.state, self.search_rule.factor)
        return Box(float(x), float(y), float(side), float(side))

    def decode(self, frame: Frame, scale: float) -> Decision:
        box, peak = self.decoder(self.score, self.size, self.offset, frame, self.state, scale)
        return Decision(box, peak.score if self.reports == "score" else peak.windowed)


class TemplateMemorySettings(CenterSettings, frozen=True):
    """And a memory of template crops; `schedule` and `memory` as in `edgetrack.runtime.memory`."""

    schedule: str
    memory: str

    def __post_init__(self) -> None:
        super().__post_init__()
        MemorySchedule.parse(self.schedule)
        Retention.parse(self.memory)

    @property
    def entry(self) -> tuple[int, ...]:
        """Shape of what is remembered of a frame: its template crop."""
        return self.template_size, self.template_size, 3

    def bank(self) -> MemoryBank:
        """An empty memory."""
        return MemoryBank(Retention.parse(self.memory), MemorySchedule.parse(self.schedule), self.entry, np.uint8)


class TemplateMemoryProcedure(CenterProcedure):
    """Reads the template crops of past frames that the schedule asks for, and keeps one of every frame."""

    remembers: ClassVar[bool] = True
    settings_type: ClassVar[type[TemplateMemorySettings]] = TemplateMemorySettings

    def __init__(self, manifest: Manifest, graphs: Mapping[str, CompiledGraph]) -> None:
        super().__init__(manifest, graphs)
        settings = read_settings(manifest.procedure, self.settings_type)
        self.templates = cast(Image, self.step.inputs["templates"])
        self.entry = np.empty(settings.entry, np.uint8)
        self.bank = settings.bank()

    @classmethod
    def memory_estimate(cls, manifest: Manifest) -> MemoryEstimate:
        return read_settings(manifest.procedure, cls.settings_type).bank().estimate

    def init(self, frame: Frame, box: Box) -> None:
        self.bank.clear()
        self.state = box
        self._keep(frame)

    def fill(self, frame: Frame) -> float:
        scale = super().fill(frame)
        self.recall()
        return scale

    def recall(self) -> int:
        """Write the past crops that this frame reads; returns how many there are."""
        chosen = self.bank.schedule.choose(self.bank.count)
        for slot, index in enumerate(chosen):
            self.bank.read(index, self.templates[slot])
        return len(chosen)

    def remember(self, frame: Frame, timer: StageTimer) -> None:
        # Also where the target was not found: entries are counted as frames.
        self._keep(frame)

    def _keep(self, frame: Frame) -> None:
        self.crop(frame, self.template_rule, self.entry)
        self.bank.append(self.entry)
