"""DASTM's per-frame procedure (docs/trackers/dastm.md): STMTrack's, with the weights of the attention gate reported.

Each tracked frame is encoded with its target and remembered; the next search reads some of what is remembered. Where a
gate selects, only the graph of the attention that it chose is run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal, cast

import cv2
import msgspec
import numpy as np

from edgetrack.arrays import Array, Images, all_finite
from edgetrack.box import Box
from edgetrack.bundle.manifest import Manifest
from edgetrack.errors import BundleError
from edgetrack.media.frames import Frame
from edgetrack.runtime.backends.base import CompiledGraph
from edgetrack.runtime.crop import Colour, Image, crop_warped, find_patch, target_rectangle
from edgetrack.runtime.decode import CellChooser, Found, Map, hann_closed, size_with_context
from edgetrack.runtime.memory import EncodedMemory, MemoryBank, MemoryEstimate, MemorySchedule, Retention
from edgetrack.runtime.trackers.base import (
    Decision,
    Factor,
    Fraction,
    Pattern,
    Pixels,
    Procedure,
    Side,
    StageTimer,
    Strength,
    Threshold,
    check_graphs,
    read_settings,
    shapes_of,
)

ATTENTIONS = ("se", "ca", "cbam")
GATES = (*ATTENTIONS, "identity")
CORNERS = 8
"""Bytes of a rectangle behind a remembered crop: four 16-bit numbers. Behind them is one for what chance chose."""
GateMode = Literal["soft", "hard", "select", "random", "none", "se", "ca", "cbam", "static"]
"""See `edgetrack.models.dastm.network.Mode`."""


class DastmSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The numbers of the procedure; `schedule` and `memory` as in `edgetrack.runtime.memory`.

    `newest_above`: the newest entry is read too where the last frame's windowed score was above it. `lost_below` is
    ours: a score under it flags the result as lost; the box is reported and followed all the same. `gate` is what the
    graphs were made with, `gate_seed` decides what `random` draws after each `init`.
    """

    search_factor: Factor
    search_size: Side
    window_influence: Fraction
    penalty_k: Strength
    size_rate: Fraction
    smallest_side: Pixels
    schedule: str
    newest_above: Threshold
    memory: str
    lost_below: Threshold
    gate: GateMode = "soft"
    gate_seed: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)] = 0

    def __post_init__(self) -> None:
        MemorySchedule.parse(self.schedule)
        Retention.parse(self.memory, fades=True)

    @property
    def gated(self) -> bool:
        """Whether graph `memory` returns the gate's weights."""
        return self.gate in ("soft", "hard", "select")

    @property
    def choosing(self) -> bool:
        """Whether each attention is a graph of its own, of which a frame runs one."""
        return self.gate in ("select", "random")

    @property
    def most(self) -> int:
        """The most memories that a frame reads: the schedule's and the newest."""
        return MemorySchedule.parse(self.schedule).most + 1


def _check_graphs(manifest: Manifest, settings: DastmSettings) -> None:
    size = settings.search_size
    codes = shapes_of(manifest.graph("step").inputs).get("memory", (0,))
    room = cast(int, codes[0])
    gates: Pattern = {"gates": (1, len(GATES))} if settings.gated else {}
    features: Pattern = {"features": codes[1:]}
    encoded: Pattern = {"map": (1, "channels", "cells", "cells")}
    memory: tuple[Pattern, Pattern] = (
        {"image": (size, size, 3), "target": (size, size)},
        {**(encoded if settings.choosing else features), **gates},
    )
    chosen = {part: (encoded, features) for part in ATTENTIONS if settings.choosing}
    step: tuple[Pattern, Pattern] = (
        {"search": (size, size, 3), "memory": codes, "present": (1, room)},
        {"score": (1, "cells", "cells"), "boxes": (1, "cells", "cells", 4)},
    )
    if check_graphs(manifest, {"memory": memory, **chosen, "step": step})["cells"] < 2:
        raise BundleError(
            f"the graphs of bundle {manifest.name!r} do not suit its procedure: one cell; export it again"
        )
    if settings.most > room:
        raise BundleError(
            f"schedule {settings.schedule!r} and the newest frame ask for up to {settings.most} memories, the graph of "
            f"bundle {manifest.name!r} has room for {room}; export it with memories = {settings.most} in the "
            "recipe's [configuration]"
        )


def choose_box(score: Map, boxes: Map, expected: tuple[float, float], chooser: CellChooser) -> Found | None:
    """The best cell's box (docs/trackers/dastm.md, Decoding); None where what decides is NaN or infinite.

    Args:
        score: (1, F, F), 0..1.
        boxes: (1, F, F, 4), x1, y1, x2, y2 in pixels of the crop; a box from pixel 3 to pixel 5 is 3 wide.
        expected: width and height in pixels of the crop that carry no penalty.
        chooser: of F x F cells.

    Returns:
        The box with its centre in pixels of the crop, from the crop's corner.
    """
    x1, y1, x2, y2 = boxes.reshape(-1, 4).astype(np.float64).T
    with np.errstate(all="ignore"):
        w, h = x2 - x1 + 1, y2 - y1 + 1
        aspect = float(np.float64(expected[0]) / np.float64(expected[1]))
        best = chooser.choose(score.reshape(-1).astype(np.float64), w, h, size_with_context(*expected), aspect)
        cell = best.cell
        x, y = (x1[cell] + x2[cell]) / 2, (y1[cell] + y2[cell]) / 2
    found = Found(*map(float, (best.score, best.windowed, best.weight, x, y, w[cell], h[cell])))
    return found if all(map(math.isfinite, found)) else None


def followed(state: Box, found: Found, scale: float, frame_size: tuple[int, int], settings: DastmSettings) -> Box:
    """The state moved to a chosen box: its centre in the frame, its sides between the least and the frame's.

    Args:
        state: in pixels of the frame, as it was.
        found: in pixels of the crop.
        scale: crop pixels per frame pixel.
        frame_size: width and height.
    """
    rate = found.weight * settings.size_rate
    w, h = (
        max(settings.smallest_side, min(float(limit), old * (1 - rate) + new / scale * rate))
        for old, new, limit in zip((state.w, state.h), (found.w, found.h), frame_size, strict=True)
    )
    middle = settings.search_size // 2
    cx, cy = (
        max(0.0, min(float(limit), (new - middle) / scale + old))
        for old, new, limit in zip(_centre(state), (found.x, found.y), frame_size, strict=True)
    )
    return Box(cx - (w - 1) / 2, cy - (h - 1) / 2, w, h)


def _entry_bytes(settings: DastmSettings) -> int:
    """Of a crop, the target's rectangle in it, and what chance chose."""
    return settings.search_size**2 * 3 + CORNERS + 1


class DastmProcedure(Procedure):
    """Graphs `memory` (crop, target's place -> features, gate weights) and `step` (crop, memories -> score, boxes).

    Where one attention is chosen, `memory` returns a map, and `se`, `ca` and `cbam` make features of it.
    """

    settings_type = DastmSettings
    chooser: CellChooser
    remembers = True
    fades = True

    def __init__(self, manifest: Manifest, graphs: Mapping[str, CompiledGraph]) -> None:
        super().__init__(manifest, graphs)
        self.settings = settings = read_settings(manifest.procedure, DastmSettings)
        _check_graphs(manifest, settings)
        self.lost_below = settings.lost_below
        self.encoder = graphs["memory"]
        self.image, self.target = cast(Image, self.encoder.inputs["image"]), cast(Map, self.encoder.inputs["target"])
        self.encoded = cast(Map, self.encoder.outputs["map" if settings.choosing else "features"])
        self.gates = (
            cast(Map, self.encoder.outputs["gates"]) if settings.gated else np.zeros((1, len(GATES)), np.float32)
        )
        self.chance = np.random.default_rng(settings.gate_seed)
        self.search = cast(Image, self.step.inputs["search"])
        self.score, self.boxes = self.maps = tuple(cast(Map, self.step.outputs[name]) for name in ("score", "boxes"))
        window = hann_closed(self.score.shape[-1])
        self.chooser = CellChooser(window, influence=settings.window_influence, penalty=settings.penalty_k)
        self.entry: Images = np.zeros(_entry_bytes(settings), np.uint8)
        self.schedule = MemorySchedule.parse(settings.schedule)
        self.memory = EncodedMemory(
            Retention.parse(settings.memory, fades=True),
            self.schedule,
            self.entry,
            self.step.inputs["memory"],
            self.step.inputs["present"],
            self._encode,
        )
        self.code = np.zeros_like(self.step.inputs["memory"][0])
        self.first = np.zeros_like(self.code)
        self.padding: Colour = (0, 0, 0)
        # Whether the last frame's windowed score was high enough for its memory to be read next.
        self.confident = True

    @classmethod
    def memory_estimate(cls, manifest: Manifest) -> MemoryEstimate:
        settings = read_settings(manifest.procedure, DastmSettings)
        codes = next((t for t in manifest.graph("step").inputs if t.name == "memory"), None)
        code_bytes = 0 if codes is None else 4 * math.prod(codes.shape[1:])
        retention = Retention.parse(settings.memory, fades=True)
        entry_bytes = _entry_bytes(settings) if retention.keeps_sources else code_bytes
        return MemoryEstimate(entry_bytes, retention, MemorySchedule.parse(settings.schedule))

    @property
    def bank(self) -> MemoryBank:
        """What is kept."""
        return self.memory.bank

    def init(self, frame: Frame, box: Box) -> None:
        blue, green, red, _ = cv2.mean(frame)
        self.padding = (int(blue), int(green), int(red))
        self.state, self.confident = box, True
        self.chance = np.random.default_rng(self.settings.gate_seed)
        self.memory.clear()
        self._crop_target(frame)
        self._keep()

    def fill(self, frame: Frame) -> float:
        return self._cut(frame, self.search)

    def run(self) -> None:
        # Recalling runs the encoder where a memory's code is gone: it is part of the graphs' time.
        self.memory.recall(self._wanted())
        self.confident = False
        self.step.run()

    def decode(self, frame: Frame, scale: float) -> Decision | None:
        settings, state = self.settings, self.state
        boxes = self.boxes * np.float32(settings.search_size)
        found = choose_box(self.score, boxes, (state.w * scale, state.h * scale), self.chooser)
        if found is None:
            return None
        self.confident = found.windowed > settings.newest_above
        return Decision(followed(state, found, scale, (frame.shape[1], frame.shape[0]), settings), found.score)

    def remember(self, frame: Frame, timer: StageTimer) -> None:
        self._crop_target(frame)
        timer("decode")
        self._keep()
        timer("graphs")

    def _cut(self, frame: Frame, out: Image) -> float:
        """The crop around the state; returns crop pixels per frame pixel."""
        wanted = math.sqrt(self.state.w * self.state.h) * self.settings.search_factor
        patch = find_patch(_centre(self.state), wanted, self.settings.search_size)
        crop_warped(frame, patch, self.padding, out)
        return patch.scale(self.settings.search_size)

    def _wanted(self) -> tuple[int, ...]:
        """Which memories the next search reads."""
        t = self.bank.count
        newest = (t - 1,) if self.confident and t > self.schedule.count else ()
        return (*self.bank.chosen(), *newest)

    def _crop_target(self, frame: Frame) -> None:
        """Crop and rectangle of the target as the newest entry."""
        scale, pixels = self._cut(frame, self.image), self.image.size
        self.entry[:pixels] = self.image.reshape(-1)
        corners = target_rectangle(self.state.w * scale, self.state.h * scale, self.settings.search_size)
        self.entry[pixels : pixels + CORNERS] = np.array(corners, np.uint16).view(np.uint8)
        if self.settings.gate == "random":
            self.entry[-1] = self.chance.integers(len(GATES))

    def _encode(self, entry: Array, out: Array) -> None:
        pixels = self.image.size
        np.copyto(self.image, entry[:pixels].reshape(self.image.shape))
        x1, y1, x2, y2 = map(int, entry[pixels : pixels + CORNERS].copy().view(np.uint16))
        self.target[...] = 0
        self.target[y1 : y2 + 1, x1 : x2 + 1] = 1
        self.encoder.run()
        if self.settings.gate == "random":
            self.gates[0] = np.arange(len(GATES)) == entry[-1]
        if self.settings.choosing:
            self._attend(out)
        else:
            np.copyto(out, self.encoded)

    def _attend(self, out: Array) -> None:
        """The map as features, through the attention of the largest weight alone; NaN where the weights are."""
        if not all_finite(self.gates):
            out[...] = np.nan
            return
        part = GATES[int(self.gates[0].argmax())]
        if part not in ATTENTIONS:
            np.copyto(out, self.encoded[0].reshape(out.shape[::-1]).T)
            return
        graph = self.graphs[part]
        np.copyto(graph.inputs["map"], self.encoded)
        graph.run()
        np.copyto(out, graph.outputs["features"])

    def _keep(self) -> None:
        """Encode and keep the newest entry; the gate's weights for it are this frame's diagnostics."""
        self._encode(self.entry, self.code)
        if self.bank.count == 0:
            np.copyto(self.first, self.code)
        self.memory.append(self.entry, self.code)
        self.diagnostics = {"memory": {"cosine": cosine(self.first, self.code)}}
        if self.settings.gated or self.settings.choosing:
            self.diagnostics["gate"] = dict(zip(GATES, map(float, self.gates[0]), strict=True))


def cosine(a: Array, b: Array) -> float:
    """Of two arrays as vectors, -1..1; NaN where one is all zeros or not finite."""
    with np.errstate(all="ignore"):
        return float(np.vdot(a, b) / np.sqrt(np.vdot(a, a) * np.vdot(b, b)))


def _centre(box: Box) -> tuple[float, float]:
    """Of the pixels from the first to the last, as published."""
    return box.x + (box.w - 1) / 2, box.y + (box.h - 1) / 2


PROCEDURE = DastmProcedure
