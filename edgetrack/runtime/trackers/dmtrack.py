"""DMTrack's per-frame procedure (sheet 2.2): crops of both images, past templates, step, decode, remember."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

import numpy as np

from edgetrack.box import Box, clip
from edgetrack.bundle.manifest import Manifest
from edgetrack.errors import BundleError
from edgetrack.runtime.backends.base import CompiledGraph
from edgetrack.runtime.crop import CropRule, Image, Scratch, crop_square
from edgetrack.runtime.decode import Map, all_finite, decode_center, map_back
from edgetrack.runtime.memory import Forecast, Schedule
from edgetrack.runtime.trackers.base import Decision, Frame, Mark, Procedure, read_settings
from edgetrack.runtime.trackers.template_memory import TemplateMemorySettings
from edgetrack.runtime.window import hann_open


class DmTrackSettings(TemplateMemorySettings, frozen=True):
    """The numbers of the procedure.

    The paper chooses templates by `uniform:3`, the authors' released code by `nearest:3` (`nearest:2` for depth).
    """

    @property
    def entry(self) -> tuple[int, ...]:
        """Shape of what is remembered of a frame: both images' template crops."""
        return 2, self.template_size, self.template_size, 3


def _check_graphs(manifest: Manifest, settings: DmTrackSettings) -> None:
    """Hold the manifest's graph against what the procedure reads and writes, before anything is written anywhere."""
    step = manifest.graph("step")
    found = [{t.name: t.shape for t in side} for side in (step.inputs, step.outputs)]
    room, score = found[0].get("templates", (0,))[0], found[1].get("score", ())
    expected: list[dict[str, tuple[int, ...]]] = [
        {
            "search": (2, settings.search_size, settings.search_size, 3),
            "templates": (room, *settings.entry),
            "present": (1, room),
        },
        {"score": (1, 1, *score[2:]), "size": (1, 2, *score[2:]), "offset": (1, 2, *score[2:])},
    ]
    if found != expected or len(score) != 4 or score[2] != score[3]:
        raise BundleError(
            f"the graphs of bundle {manifest.name!r} do not suit DMTrack's procedure: found {found}, expected "
            f"{expected}; export it again"
        )
    most = Schedule.parse(settings.schedule).most
    if most > room:
        raise BundleError(
            f"schedule {settings.schedule!r} asks for up to {most} templates, the graph of bundle {manifest.name!r} "
            f"has room for {room}; export it with templates = {most} in the recipe's [configuration]"
        )


class DmTrackProcedure(Procedure):
    """Graph `step` (search crops, template crops, which of them there are -> score, size, offset)."""

    modalities: ClassVar[int] = 2
    remembers: ClassVar[bool] = True

    def __init__(self, manifest: Manifest, graphs: Mapping[str, CompiledGraph]) -> None:
        super().__init__(manifest, graphs)
        settings = read_settings(manifest.procedure, DmTrackSettings)
        _check_graphs(manifest, settings)
        self.template_rule = CropRule(settings.template_factor, settings.template_size)
        self.search_rule = CropRule(settings.search_factor, settings.search_size)
        self.margin, self.lost_below = settings.clip_margin, settings.lost_below
        self.step = graphs["step"]
        self.search, self.templates = (cast(Image, self.step.inputs[name]) for name in ("search", "templates"))
        self.present = cast(Map, self.step.inputs["present"])
        self.score, self.size, self.offset = (
            cast(Map, self.step.outputs[name]) for name in ("score", "size", "offset")
        )
        self.window = hann_open(self.score.shape[-1])
        self.response = np.empty_like(self.window)
        self.scratch = Scratch()
        self.crops = np.empty(settings.entry, np.uint8)
        self.bank = settings.bank()
        self.state = Box(0.0, 0.0, 0.0, 0.0)

    @classmethod
    def forecast(cls, manifest: Manifest) -> Forecast:
        return read_settings(manifest.procedure, DmTrackSettings).bank().forecast

    def init(self, frame: Frame, box: Box) -> None:
        self.bank.clear()
        self.state = box
        self._remember(frame)

    def update(self, frame: Frame, mark: Mark) -> Decision:
        resize_factor = self._cut(frame, self.search_rule, self.search)
        self._recall()
        mark("crop")
        self.step.run()
        mark("graphs")
        if not all_finite(self.score, self.size, self.offset):
            # An entry all the same: entries are counted as frames.
            self._remember(frame)
            return Decision(self.state, 0.0, "the graph returned NaN or infinity; the last box is kept")
        peak = decode_center(self.score, self.size, self.offset, self.window, self.response)
        box = map_back(peak, self.state, self.search_rule.size, resize_factor)
        self.state = clip(box, frame.shape[0], frame.shape[1], self.margin)
        self._remember(frame)
        mark("decode")
        score = peak.windowed
        reason = f"score {score:.3f} is below {self.lost_below:g}" if score < self.lost_below else None
        return Decision(self.state, score, reason)

    def place(self, box: Box) -> None:
        self.state = box

    def _cut(self, frame: Frame, rule: CropRule, out: Image) -> float:
        """Both images' crops around the state into `out` (2, size, size, 3); returns crop pixels per frame pixel."""
        factor = 0.0
        for modality in (0, 1):
            half = frame[..., 3 * modality : 3 * modality + 3]
            factor = crop_square(half, self.state, rule, out[modality], self.scratch)
        return factor

    def _recall(self) -> None:
        chosen = self.bank.schedule.choose(self.bank.count)
        self.present[...] = 0
        self.present[0, : len(chosen)] = 1
        for slot, index in enumerate(chosen):
            self.bank.read(index, self.templates[slot])

    def _remember(self, frame: Frame) -> None:
        self._cut(frame, self.template_rule, self.crops)
        self.bank.append(self.crops)


PROCEDURE = DmTrackProcedure
