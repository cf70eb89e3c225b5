"""DMTrack's per-frame procedure (docs/trackers/dmtrack.md): crops of both images and of past frames, a centre head."""

from __future__ import annotations

from typing import ClassVar, Literal, cast

from edgetrack.bundle.manifest import Manifest
from edgetrack.errors import BundleError
from edgetrack.media.frames import Frame
from edgetrack.runtime.crop import CropRule, Image, crop_square
from edgetrack.runtime.trackers.base import Pattern, check_graphs
from edgetrack.runtime.trackers.center import MAPS, CenterSettings, TemplateMemoryProcedure, TemplateMemorySettings


class DmTrackSettings(TemplateMemorySettings, frozen=True):
    """The paper chooses templates by `uniform:3`, the authors' released code by `nearest:3` (`nearest:2` for depth).

    The paper's Table 9 also has `confident:3`, its first experiment a single template: `uniform:1`.
    """

    @property
    def entry(self) -> tuple[int, ...]:
        return 2, self.template_size, self.template_size, 3


class DmTrackProcedure(TemplateMemoryProcedure):
    """Graph `step` (search crops, template crops, which of them are there -> score, size, offset)."""

    modalities: ClassVar[int] = 2
    reports: ClassVar[Literal["score", "windowed"]] = "windowed"
    settings_type: ClassVar[type[TemplateMemorySettings]] = DmTrackSettings

    def check(self, manifest: Manifest, settings: CenterSettings) -> None:
        settings = cast(DmTrackSettings, settings)
        inputs: Pattern = {
            "search": (2, settings.search_size, settings.search_size, 3),
            "templates": ("room", *settings.entry),
            "present": (1, "room"),
        }
        room = check_graphs(manifest, {"step": (inputs, MAPS)})["room"]
        most = settings.entries().most
        if most > room:
            raise BundleError(
                f"schedule {settings.schedule!r} asks for up to {most} templates, the graph of bundle "
                f"{manifest.name!r} has room for {room}; export it with templates = {most} in the recipe's "
                "[configuration]"
            )

    def crop(self, frame: Frame, rule: CropRule, out: Image) -> float:
        """Both images' crops into `out` (2, size, size, 3)."""
        crop_square(frame[..., :3], self.state, rule, out[0], self.scratch)
        return crop_square(frame[..., 3:], self.state, rule, out[1], self.scratch)

    def recall(self) -> int:
        count = super().recall()
        present = self.step.inputs["present"]
        present[...] = 0
        present[0, :count] = 1
        return count


PROCEDURE = DmTrackProcedure
