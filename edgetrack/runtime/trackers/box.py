"""Trackers whose graph returns the box itself: no map, no window (STARK, HiT, MixFormerV2 and their kind)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from edgetrack.box import clip
from edgetrack.bundle.manifest import Manifest
from edgetrack.errors import BundleError
from edgetrack.media.frames import Frame
from edgetrack.runtime.backends.base import CompiledGraph
from edgetrack.runtime.decode import Map, Peak, map_back
from edgetrack.runtime.trackers.base import Decision, read_settings
from edgetrack.runtime.trackers.center import RoleProcedure, RoleSettings
from edgetrack.runtime.trackers.roles import check_roles


class BoxFamily(RoleProcedure):
    """Inputs named by role, outputs `box` (4,) and perhaps `score` (1,) of `step`.

    `box` is centre, width and height in fractions of the search crop; width and height may come out negative, which
    the clip makes its margin. A tracker without `score` reports 1 and is never lost.
    """

    head = "box"

    settings_type = RoleSettings

    def __init__(self, manifest: Manifest, graphs: Mapping[str, CompiledGraph]) -> None:
        super().__init__(manifest, graphs)
        self.settings = settings = read_settings(manifest.procedure, RoleSettings)
        check_roles(
            manifest,
            template_size=settings.template_size,
            search_size=settings.search_size,
            policy=settings.policy,
            outputs={"box": (4,)},
        )
        for info in manifest.graph("step").outputs:
            wanted = {"box": (4,), "score": (1,)}.get(info.name)
            if info.shape != wanted:
                raise BundleError(
                    f"output {info.name!r} of bundle {manifest.name!r} has shape {info.shape}; expected box (4,) and "
                    "score (1,)"
                )
        if settings.crop == "whole" or not settings.clip:
            raise BundleError("family box keeps boxes as real numbers and clips them; leave out crop and clip")
        if "score" not in {info.name for info in manifest.graph("step").outputs} and (
            settings.lost_below > 0 or settings.update != "fixed"
        ):
            raise BundleError(
                f"bundle {manifest.name!r} has no output 'score', which lost_below and update need; leave them out"
            )
        self.take_roles(manifest, settings)
        self.box = cast(Map, self.step.outputs["box"])
        self.score = cast("Map | None", self.step.outputs.get("score"))
        self.maps = (self.box,) if self.score is None else (self.box, self.score)

    def decode(self, frame: Frame, scale: float) -> Decision:
        score = 1.0 if self.score is None else float(self.score[0])
        peak = Peak(score, score, *(float(value) for value in self.box))
        box = map_back(peak, self.state, self.search_rule.size, scale)
        return self.decided(clip(box, frame.shape[0], frame.shape[1], self.settings.clip_margin), score)


PROCEDURE = BoxFamily
