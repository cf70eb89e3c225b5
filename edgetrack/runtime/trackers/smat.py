"""SMAT's per-frame procedure (sheet 1.5): template once, then crop, step, decode, clip."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import msgspec
import numpy as np

from edgetrack.box import Box, clip
from edgetrack.bundle.manifest import Manifest
from edgetrack.errors import BundleError
from edgetrack.runtime.backends.base import CompiledGraph
from edgetrack.runtime.crop import CropRule, Image, Scratch, crop_square
from edgetrack.runtime.decode import Map, decode_center, map_back
from edgetrack.runtime.trackers.base import Decision, Frame, Mark, Procedure, read_settings
from edgetrack.runtime.window import hann_open


class SmatSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The numbers of the procedure.

    `lost_below` is ours, the published tracker reports no confidence: a score under it flags the result as lost; the
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


def _check_graphs(manifest: Manifest, settings: SmatSettings) -> None:
    """Hold the manifest's graphs against what the procedure reads and writes, before anything is written anywhere."""
    template, step = manifest.graph("template"), manifest.graph("step")
    found = [{t.name: t.shape for t in side} for side in (template.inputs, template.outputs, step.inputs, step.outputs)]
    features, score = found[1].get("template_features"), found[3].get("score", ())
    expected = [
        {"template": (settings.template_size, settings.template_size, 3)},
        {"template_features": features},
        {"search": (settings.search_size, settings.search_size, 3), "template_features": features},
        {"score": (1, 1, *score[2:]), "size": (1, 2, *score[2:]), "offset": (1, 2, *score[2:])},
    ]
    if found != expected or len(score) != 4 or score[2] != score[3]:
        raise BundleError(
            f"the graphs of bundle {manifest.name!r} do not suit SMAT's procedure: found {found}, expected {expected}; "
            "export it again"
        )


class SmatProcedure(Procedure):
    """Graphs `template` (crop -> features, once) and `step` (crop, features -> score, size, offset)."""

    def __init__(self, manifest: Manifest, graphs: Mapping[str, CompiledGraph]) -> None:
        super().__init__(manifest, graphs)
        settings = read_settings(manifest.procedure, SmatSettings)
        self.template_rule = CropRule(settings.template_factor, settings.template_size)
        self.search_rule = CropRule(settings.search_factor, settings.search_size)
        self.scratch = Scratch()
        self.margin = settings.clip_margin
        self.lost_below = settings.lost_below
        _check_graphs(manifest, settings)
        self.template, self.step = graphs["template"], graphs["step"]
        self.score, self.size, self.offset = (
            cast(Map, self.step.outputs[name]) for name in ("score", "size", "offset")
        )
        self.window = hann_open(self.score.shape[-1])
        self.response = np.empty_like(self.window)
        self.state = Box(0.0, 0.0, 0.0, 0.0)

    def init(self, frame: Frame, box: Box) -> None:
        crop_square(frame, box, self.template_rule, cast(Image, self.template.inputs["template"]), self.scratch)
        self.template.run()
        np.copyto(self.step.inputs["template_features"], self.template.outputs["template_features"])
        self.state = box

    def update(self, frame: Frame, mark: Mark) -> Decision:
        resize_factor = crop_square(
            frame, self.state, self.search_rule, cast(Image, self.step.inputs["search"]), self.scratch
        )
        mark("crop")
        self.step.run()
        mark("graphs")
        # A NaN or an infinity anywhere reaches the sum; one sum is cheaper than an array of truth values.
        with np.errstate(all="ignore"):
            sound = all(np.isfinite(values.sum()) for values in (self.score, self.size, self.offset))
        if not sound:
            return Decision(self.state, 0.0, "the graph returned NaN or infinity; the last box is kept")
        peak = decode_center(self.score, self.size, self.offset, self.window, self.response)
        box = map_back(peak, self.state, self.search_rule.size, resize_factor)
        self.state = clip(box, frame.shape[0], frame.shape[1], self.margin)
        mark("decode")
        reason = f"score {peak.score:.3f} is below {self.lost_below:g}" if peak.score < self.lost_below else None
        return Decision(self.state, peak.score, reason)

    def place(self, box: Box) -> None:
        self.state = box


PROCEDURE = SmatProcedure
