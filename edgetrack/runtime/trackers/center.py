"""Trackers with a centre head: a padded square crop, maps of score, size and offset (docs/trackers/smat.md)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, cast

import msgspec
import numpy as np

from edgetrack.box import Box, clip
from edgetrack.bundle.manifest import Manifest
from edgetrack.media.frames import Frame
from edgetrack.runtime.backends.base import CompiledGraph
from edgetrack.runtime.crop import (
    BLACK,
    CropRule,
    Image,
    PixelSquare,
    Scratch,
    crop_filled,
    crop_square,
    square_around,
    whole_square_around,
)
from edgetrack.runtime.decode import Map, Peak, ScoreMaps, decode_center, hann_open, map_back
from edgetrack.runtime.memory import MemoryBank, MemoryEstimate, MemorySchedule, Retention
from edgetrack.runtime.trackers.base import (
    Decision,
    Factor,
    Fraction,
    Pattern,
    Pixels,
    Procedure,
    Side,
    StageTimer,
    Threshold,
    check_graphs,
    read_settings,
)
from edgetrack.runtime.trackers.roles import Templates, UpdatePolicy, check_roles, padding_mask

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

    template_factor: Factor
    template_size: Side
    search_factor: Factor
    search_size: Side
    clip_margin: Pixels
    lost_below: Threshold


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
        self.windowless = False
        self._flat = np.ones_like(self.window)
        self._response = np.empty_like(self.window)
        self._score = self.window

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
        peak = self.peak(score, size, offset)
        return clip(self.place(peak, previous, scale), frame.shape[0], frame.shape[1], self.margin), peak

    def peak(self, score: Map, size: Map, offset: Map) -> Peak:
        """The best cell, in fractions of the crop."""
        self._score = score[0, 0]
        return decode_center(score, size, offset, self._flat if self.windowless else self.window, self._response)

    @property
    def maps(self) -> ScoreMaps:
        """See `edgetrack.runtime.decode.Chooser`."""
        return ScoreMaps(self._score, self._response)

    def place(self, peak: Peak, previous: Box, scale: float) -> Box:
        """The peak's box in pixels of the frame, not clipped."""
        return map_back(peak, previous, self.rule.size, scale)


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
        self.chooser = self.decoder
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


class RoleSettings(CenterSettings, frozen=True, kw_only=True):
    """The settings of families whose graphs' inputs are named by role (`edgetrack.runtime.trackers.roles`).

    `crop`: `square`, the rule of the OSTrack family; `whole`, that of `cv2.TrackerVit`, on whole pixels. `clip_margin`
    is what stays of a box in the frame; `clip = false` leaves boxes as they are found. Where the score is below
    `lost_below`, `on_lost = "hold"` keeps the last box and `flag` follows the new one. `update`, `update_interval`,
    `update_above` and `score_decay` are the `UpdatePolicy`, `target_box` is how the template's box is written.
    """

    clip_margin: Pixels = 10.0
    lost_below: Threshold = 0.0
    clip: bool = True
    crop: Literal["square", "whole"] = "square"
    on_lost: Literal["flag", "hold"] = "flag"
    update: Literal["fixed", "interval", "best"] = "fixed"
    update_interval: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    update_above: Threshold = 0.0
    score_decay: Fraction = 1.0
    target_box: Literal["xyxy", "xywh"] = "xyxy"

    def __post_init__(self) -> None:
        if self.update == "fixed" and (self.update_interval or self.update_above):
            raise ValueError('update_interval and update_above need update = "interval" or "best"')
        if self.update != "fixed" and not (self.update_interval >= 1 and 0 < self.score_decay <= 1):
            raise ValueError(
                f'update = "{self.update}" needs update_interval of 1 or more and score_decay in 0..1, found '
                f"{self.update_interval} and {self.score_decay}"
            )

    @property
    def policy(self) -> UpdatePolicy:
        """When a later frame's crop becomes a template."""
        return UpdatePolicy(self.update, self.update_interval, self.update_above, self.score_decay)


class CenterFamilySettings(RoleSettings, frozen=True, kw_only=True):
    """The settings of family `center`.

    `window`: what the score is multiplied with; `none` for a graph that does it itself. `reports`: which score is the
    confidence, that of the chosen cell before the window or with it. `state = "whole"` keeps boxes of whole pixels,
    rounded down, as `cv2.TrackerVit` does; `map_back` is then the side that fractions of the crop are mapped back with:
    the crop's own, or `root`, search_factor times the whole root of the area (OpenCV before 4.12).
    """

    window: Literal["hann-open", "none"] = "hann-open"
    reports: Literal["score", "windowed"] = "score"
    state: Literal["float", "whole"] = "float"
    map_back: Literal["crop", "root"] = "crop"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.state == "whole" and (self.crop != "whole" or self.clip):
            raise ValueError('state = "whole" needs crop = "whole" and clip = false')
        if self.map_back == "root" and self.state != "whole":
            raise ValueError('map_back = "root" needs state = "whole"')


class RoleCropper:
    """The square crops of a family's settings, and the search crop's mask where a graph takes one."""

    def __init__(self, settings: RoleSettings) -> None:
        self.whole = settings.crop == "whole"
        self.scratch = Scratch()

    def __call__(self, frame: Frame, box: Box, rule: CropRule, out: Image) -> PixelSquare:
        """Cut the square around a box into `out`; returns the square."""
        if self.whole:
            square = whole_square_around(box, rule.factor)
            crop_filled(frame, square, BLACK, out, self.scratch)
            return square
        crop_square(frame, box, rule, out, self.scratch)
        return square_around(box, rule.factor)


class RoleProcedure(Procedure):
    """What the families do alike whose graphs' inputs are named by role: crops, masks, templates, who is held."""

    search: Image
    search_rule: CropRule

    def take_roles(self, manifest: Manifest, settings: RoleSettings) -> None:
        """Prepare the templates and the search crop; once the graphs are found."""
        roles = {info.name: info.role for info in manifest.graphs}
        rule = CropRule(settings.template_factor, settings.template_size)
        cut = RoleCropper(settings)
        self.templates = Templates(self.graphs, roles, rule, cut, settings.policy, settings.target_box)
        self.remembers = settings.update != "fixed"
        self.holds = settings.on_lost == "hold"
        self.lost_below = settings.lost_below
        self.search_rule = CropRule(settings.search_factor, settings.search_size)
        self.search = cast(Image, self.step.inputs["search"])
        self.mask = self.step.inputs.get("search_mask")
        self.square = PixelSquare(0, 0, 1)
        self.found: float | None = None

    def init(self, frame: Frame, box: Box) -> None:
        self.reset_box(box)
        self.templates.start(frame, self.state)

    def fill(self, frame: Frame) -> float:
        self.found = None
        self.square = self.templates.cut(frame, self.state, self.search_rule, self.search)
        if self.mask is not None:
            padding_mask(self.square, frame, self.mask)
        return self.search_rule.size / self.square.side

    def search_region(self) -> Box:
        return Box(self.square.x, self.square.y, self.square.side, self.square.side)

    def decided(self, box: Box, score: float) -> Decision:
        """The box, or the last one where it is held."""
        self.found = score
        return Decision(self.state if self.holds and score < self.lost_below else box, score)

    def remember(self, frame: Frame, timer: StageTimer) -> None:
        self.templates.after(frame, self.state, self.found)


class CenterFamily(RoleProcedure, CenterProcedure):
    """Any tracker with a centre head, its inputs named by role, outputs `score`, `size` and `offset` of `step`.

    Maps are fractions of the crop (size) and of a cell (offset), score is 0..1, activations are in the graph.
    """

    head = "center"

    settings_type: ClassVar[type[CenterSettings]] = CenterFamilySettings

    def __init__(self, manifest: Manifest, graphs: Mapping[str, CompiledGraph]) -> None:
        super().__init__(manifest, graphs)
        self.settings = read_settings(manifest.procedure, CenterFamilySettings)
        self.take_roles(manifest, self.settings)
        if self.settings.window == "none":
            self.decoder.window[...] = 1.0

    def check(self, manifest: Manifest, settings: CenterSettings) -> None:
        settings = cast(CenterFamilySettings, settings)
        check_roles(
            manifest,
            template_size=settings.template_size,
            search_size=settings.search_size,
            policy=settings.policy,
            outputs=MAPS,
        )
        inputs: Pattern = {info.name: info.shape for info in manifest.graph("step").inputs}
        check_graphs(manifest, {"step": (inputs, MAPS)})

    def reset_box(self, box: Box) -> None:
        self.state = self._whole(box) if self.settings.state == "whole" else box

    @staticmethod
    def _whole(box: Box) -> Box:
        return Box(float(int(box.x)), float(int(box.y)), float(max(1, int(box.w))), float(max(1, int(box.h))))

    def decode(self, frame: Frame, scale: float) -> Decision:
        if self.settings.clip:
            box, peak = self.decoder(self.score, self.size, self.offset, frame, self.state, scale)
        else:
            peak = self.decoder.peak(self.score, self.size, self.offset)
            box = (
                self._map_whole(peak) if self.settings.state == "whole" else self.decoder.place(peak, self.state, scale)
            )
        return self.decided(box, peak.windowed if self.settings.reports == "windowed" else peak.score)

    def _map_whole(self, peak: Peak) -> Box:
        """Fractions of the crop to whole pixels of the frame, from the square's corner."""
        x, y, w, h = self.state
        root = self.settings.map_back == "root"
        side = self.search_rule.factor * math.floor(math.sqrt(w * h)) if root else self.square.side
        left, top = int(x) + int((w - side) / 2), int(y) + int((h - side) / 2)
        return Box(
            float(math.floor((peak.cx - peak.w / 2) * side + left)),
            float(math.floor((peak.cy - peak.h / 2) * side + top)),
            float(max(1, math.floor(peak.w * side))),
            float(max(1, math.floor(peak.h * side))),
        )


PROCEDURE = CenterFamily


class TemplateMemorySettings(CenterSettings, frozen=True):
    """And a memory of template crops; `schedule` and `memory` as in `edgetrack.runtime.memory`."""

    schedule: str
    memory: str

    def __post_init__(self) -> None:
        self.entries()
        Retention.parse(self.memory)

    @property
    def entry(self) -> tuple[int, ...]:
        """Shape of what is remembered of a frame: its template crop."""
        return self.template_size, self.template_size, 3

    def entries(self) -> MemorySchedule:
        """Which past crops a frame reads."""
        return MemorySchedule.parse(self.schedule, scored=True)

    def bank(self) -> MemoryBank:
        """An empty memory."""
        return MemoryBank(Retention.parse(self.memory), self.entries(), self.entry, np.uint8)


class TemplateMemoryProcedure(CenterProcedure):
    """Reads the template crops of past frames that the schedule asks for, and keeps one of every frame."""

    remembers = True
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
        self._keep(frame, math.inf)

    def fill(self, frame: Frame) -> float:
        scale = super().fill(frame)
        self.recall()
        return scale

    def recall(self) -> int:
        """Write the past crops that this frame reads; returns how many there are."""
        chosen = self.bank.chosen()
        for slot, index in enumerate(chosen):
            self.bank.read(index, self.templates[slot])
        return len(chosen)

    def remember(self, frame: Frame, timer: StageTimer) -> None:
        # Also where the target was not found: entries are counted as frames.
        self._keep(frame, self.confidence)

    def _keep(self, frame: Frame, score: float) -> None:
        self.crop(frame, self.template_rule, self.entry)
        self.bank.append(self.entry, score)
