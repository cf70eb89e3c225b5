"""NanoTrack's per-frame procedure (docs/trackers/nanotrack.md): template once, then distances, smoothed in size.

Two variants: `official`, the published Python loop, and `opencv`, `cv2.TrackerNano` to the pixel, which differs from it
in colours, roundings, window, one penalty and three constants.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from edgetrack.box import Box
from edgetrack.bundle.manifest import Manifest
from edgetrack.errors import BundleError
from edgetrack.media.frames import Frame
from edgetrack.runtime.backends.base import CompiledGraph
from edgetrack.runtime.crop import Image, PixelSquare, Scratch, crop_filled
from edgetrack.runtime.decode import (
    CellChooser,
    DistanceDecoder,
    Found,
    Map,
    hann_root,
    size_with_context,
)
from edgetrack.runtime.trackers.base import Decision, Pattern, Procedure, check_graphs, read_settings, shapes_of
from edgetrack.runtime.trackers.distances import ContextLoop, ContextSettings, TargetState, limited

OPENCV = {"window_influence": 0.455, "penalty_k": 0.055, "size_rate": 0.37}
OPENCV_CELLS = 16
# OpenCV's boxes are of 32-bit integers.
OPENCV_LARGEST = 2.0**30


class NanoTrackSettings(ContextSettings, frozen=True, kw_only=True):
    """The variant `opencv` is OpenCV's with OpenCV's constants, and no others."""

    variant: Literal["official", "opencv"]

    def __post_init__(self) -> None:
        super().__post_init__()
        found = {name: getattr(self, name) for name in OPENCV}
        if self.variant == "opencv" and found != OPENCV:
            raise ValueError(f"variant 'opencv' has fixed numbers: found {found}, expected {OPENCV}")


class OpenCv(ContextLoop):
    """`cv2.TrackerNano`: float32, RGB, whole pixels; its slips are kept (docs/trackers/nanotrack.md, Decoding)."""

    dtype = np.float32

    def __init__(self, settings: NanoTrackSettings) -> None:
        super().__init__(settings)
        self.origin = settings.search_size // 2
        self._bgr = np.empty((0, 0, 3), np.uint8)
        self._frame_size = (0, 0)

    @staticmethod
    def window(cells: int) -> NDArray[Any]:
        return hann_root(cells)

    def start(self, frame: Frame, box: Box) -> PixelSquare:
        self._frame_size = (frame.shape[0], frame.shape[1])
        # OpenCV takes boxes of whole pixels; others are truncated, as its results are.
        x, y, w, h = (float(int(value)) for value in box)
        self.reset(Box(x, y, max(1.0, w), max(1.0, h)))
        return self._around(int(size_with_context(self.target.w, self.target.h)))

    def reset(self, box: Box) -> None:
        limit = OPENCV_LARGEST
        cx, cy, w, h = (float(np.float32(max(-limit, min(v, limit)))) for v in (*box.center, box.w, box.h))
        self.target = TargetState(cx, cy, w, h)

    def search(self) -> PixelSquare:
        _, _, w, h = self.target
        context = 0.5 * int(np.float32(w + h))
        size = np.float32(math.sqrt(np.float32(np.float32(w + context) * np.float32(h + context))))
        self.scale = float(np.float32(self.settings.template_size) / size)
        return self._around(int(size * (self.settings.search_size // self.settings.template_size)))

    def _around(self, side: int) -> PixelSquare:
        side = max(1, side)
        x, y = (int(c) - (side + 1) // 2 for c in self.target[:2])
        return PixelSquare(x, y, side)

    def cut(self, frame: Frame, square: PixelSquare, out: Image, scratch: Scratch) -> None:
        if not square.is_inside(frame):
            blue, green, red, _ = cv2.mean(frame)
            self.fill = (round(blue), round(green), round(red))
        if self._bgr.shape != out.shape:
            self._bgr = np.empty_like(out)
        crop_filled(frame, square, self.fill, self._bgr, scratch)
        cv2.cvtColor(self._bgr, cv2.COLOR_BGR2RGB, dst=out)

    def expected(self) -> tuple[float, float]:
        cx, cy, w, h = self.target
        return size_with_context(max(cx, 0.0), max(cy, 0.0)), w / h

    def move(self, found: Found, frame_size: tuple[int, int]) -> float:
        f32 = np.float32
        scale, (cx, cy, w, h) = f32(self.scale), map(f32, self.target)
        rate = f32(found.weight) * f32(self.settings.size_rate)
        keep = f32(1) - rate
        moved = TargetState(
            float(cx + f32(found.x) / scale),
            float(cy + f32(found.y) / scale),
            float(f32(found.w) / scale * rate + keep * (w * scale / scale)),
            float(f32(found.h) / scale * rate + keep * (h * scale / scale)),
        )
        self.target = limited(moved, self._frame_size, self.settings.smallest_side)
        return found.windowed

    def box(self) -> Box:
        cx, cy, w, h = map(np.float32, self.target)
        return Box(*(float(int(value)) for value in (cx - w / 2, cy - h / 2, w, h)))


VARIANTS = {"official": ContextLoop, "opencv": OpenCv}


def _check_graphs(manifest: Manifest, settings: NanoTrackSettings) -> None:
    kernels = shapes_of(manifest.graph("template").outputs)
    template: Pattern = {"template": (settings.template_size, settings.template_size, 3)}
    search: Pattern = {"search": (settings.search_size, settings.search_size, 3)}
    maps: Pattern = {"cls": (1, 2, "cells", "cells"), "loc": (1, 4, "cells", "cells")}
    cells = check_graphs(manifest, {"template": (template, kernels), "step": ({**search, **kernels}, maps)})["cells"]
    settings.check_stride(manifest, cells)
    if settings.variant == "opencv" and cells != OPENCV_CELLS:
        raise BundleError(
            f"variant 'opencv' works on {OPENCV_CELLS} x {OPENCV_CELLS} cells, the graphs of bundle {manifest.name!r} "
            f'have {cells} x {cells}; export it with variant = "official"'
        )


class NanoTrackProcedure(Procedure):
    """Graphs `template` (crop -> kernels, once) and `step` (crop, kernels -> class logits, log-distances)."""

    settings_type = NanoTrackSettings
    chooser: CellChooser

    def __init__(self, manifest: Manifest, graphs: Mapping[str, CompiledGraph]) -> None:
        super().__init__(manifest, graphs)
        settings = read_settings(manifest.procedure, NanoTrackSettings)
        _check_graphs(manifest, settings)
        self.template = graphs["template"]
        self.template_crop = cast(Image, self.template.inputs["template"])
        self.search_crop = cast(Image, self.step.inputs["search"])
        # The decoder checks its maps itself, along with what it makes of them.
        self.cls, self.loc = (cast(Map, self.step.outputs[name]) for name in ("cls", "loc"))
        self.variant = VARIANTS[settings.variant](settings)
        self.chooser = CellChooser(
            self.variant.window(self.cls.shape[-1]),
            influence=settings.window_influence,
            penalty=settings.penalty_k,
            dtype=self.variant.dtype,
        )
        self.decoder = DistanceDecoder(self.chooser, stride=settings.stride, origin=self.variant.origin)
        self.lost_below = settings.lost_below
        self.scratch = Scratch()

    def init(self, frame: Frame, box: Box) -> None:
        square = self.variant.start(frame, box)
        self.variant.cut(frame, square, self.template_crop, self.scratch)
        self.template.run()
        for name, kernel in self.template.outputs.items():
            np.copyto(self.step.inputs[name], kernel)
        self.state = self.variant.box()

    def fill(self, frame: Frame) -> float:
        self.variant.cut(frame, self.variant.search(), self.search_crop, self.scratch)
        return self.variant.scale

    def decode(self, frame: Frame, scale: float) -> Decision | None:
        found = self.decoder(self.cls, self.loc, *self.variant.expected())
        if found is None:
            return None
        score = self.variant.move(found, (frame.shape[0], frame.shape[1]))
        return Decision(self.variant.box(), score)

    def reset_box(self, box: Box) -> None:
        self.variant.reset(box)
        self.state = self.variant.box()


PROCEDURE = NanoTrackProcedure
MEMBERS = ("nanotrack_v2", "nanotrack_v3")
