"""DASTM's per-frame procedure (sheet 4.4): STMTrack's, with the weights of the attention gate reported.

Each tracked frame is encoded with its target and remembered; the next search reads some of what is remembered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from edgetrack.box import Box
from edgetrack.bundle.manifest import Manifest
from edgetrack.errors import BundleError
from edgetrack.runtime.backends.base import CompiledGraph
from edgetrack.runtime.crop import Colour, Image
from edgetrack.runtime.decode import Map, all_finite
from edgetrack.runtime.encoded_memory import EncodedMemory, forecast_of
from edgetrack.runtime.memory import Bank, Forecast, Retention, Schedule
from edgetrack.runtime.scored_boxes import Chosen, choose_box
from edgetrack.runtime.trackers.base import Decision, Frame, Mark, Procedure, read_settings
from edgetrack.runtime.warped_crop import crop_warped, find_patch, target_rectangle
from edgetrack.runtime.window import hann_closed

GATES = ("se", "ca", "cbam", "identity")
CORNERS = 8
"""Bytes of a rectangle behind a remembered crop: four 16-bit numbers."""


class DastmSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The numbers of the procedure; `schedule` and `memory` as in `edgetrack.runtime.memory`.

    `newest_above`: the newest entry is read too where the last frame's windowed score was above it. `lost_below` is
    ours: a score under it flags the result as lost; the box is reported and followed all the same.
    """

    search_factor: float
    search_size: int
    window_influence: float
    penalty_k: float
    size_rate: float
    smallest_side: float
    schedule: str
    newest_above: float
    memory: str
    lost_below: float

    def __post_init__(self) -> None:
        shares = (self.window_influence, self.size_rate)
        if not (
            all(0 < value < math.inf for value in (self.search_factor, self.smallest_side))
            and 2 <= self.search_size <= 4096
            and all(0 <= value <= 1 for value in shares)
            and 0 <= self.penalty_k < math.inf
            and all(map(math.isfinite, (self.newest_above, self.lost_below)))
        ):
            raise ValueError(
                "search_factor and smallest_side must be positive, search_size 2..4096, window_influence and size_rate "
                f"0..1, penalty_k at least 0 and all numbers finite, found {self}"
            )
        Schedule.parse(self.schedule)
        Retention.parse(self.memory)

    @property
    def most(self) -> int:
        """The most memories that a frame reads: the schedule's and the newest."""
        return Schedule.parse(self.schedule).most + 1


def _check_graphs(manifest: Manifest, settings: DastmSettings) -> None:
    """Hold the manifest's graphs against what the procedure reads and writes, before anything is written anywhere."""
    memory, step = manifest.graph("memory"), manifest.graph("step")
    found = [{t.name: t.shape for t in side} for side in (memory.inputs, memory.outputs, step.inputs, step.outputs)]
    size, codes, score = settings.search_size, found[2].get("memory", (0,)), found[3].get("score", (0,))
    expected: list[dict[str, tuple[int, ...]]] = [
        {"image": (size, size, 3), "target": (size, size)},
        {"features": codes[1:], "gates": (1, len(GATES))},
        {"search": (size, size, 3), "memory": codes, "present": (1, codes[0])},
        {"score": (1, score[-1], score[-1]), "boxes": (1, score[-1], score[-1], 4)},
    ]
    if found != expected or score[-1] < 2:
        raise BundleError(
            f"the graphs of bundle {manifest.name!r} do not suit DASTM's procedure: found {found}, expected "
            f"{expected}; export it again"
        )
    if settings.most > codes[0]:
        raise BundleError(
            f"schedule {settings.schedule!r} and the newest frame ask for up to {settings.most} memories, the graph of "
            f"bundle {manifest.name!r} has room for {codes[0]}; export it with memories = {settings.most} in the "
            "recipe's [configuration]"
        )


def followed(state: Box, found: Chosen, scale: float, frame_size: tuple[int, int], settings: DastmSettings) -> Box:
    """The state moved to a chosen box: its centre in the frame, its sides between the least and the frame's.

    Args:
        state: in pixels of the frame, as it was.
        found: in pixels of the crop.
        scale: crop pixels per frame pixel.
        frame_size: width and height.
    """
    rate = found.penalty * found.score * settings.size_rate
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
    """Of a crop and the target's rectangle in it."""
    return settings.search_size**2 * 3 + CORNERS


class DastmProcedure(Procedure):
    """Graphs `memory` (crop, target's place -> features, gate weights) and `step` (crop, memories -> score, boxes)."""

    remembers: ClassVar[bool] = True

    def __init__(self, manifest: Manifest, graphs: Mapping[str, CompiledGraph]) -> None:
        super().__init__(manifest, graphs)
        self.settings = settings = read_settings(manifest.procedure, DastmSettings)
        _check_graphs(manifest, settings)
        self.encoder, self.step = graphs["memory"], graphs["step"]
        self.image, self.target = cast(Image, self.encoder.inputs["image"]), cast(Map, self.encoder.inputs["target"])
        self.features, self.gates = (cast(Map, self.encoder.outputs[name]) for name in ("features", "gates"))
        self.search = cast(Image, self.step.inputs["search"])
        self.score, self.boxes = (cast(Map, self.step.outputs[name]) for name in ("score", "boxes"))
        self.window = hann_closed(self.score.shape[-1])
        self.entry: NDArray[np.uint8] = np.zeros(_entry_bytes(settings), np.uint8)
        self.schedule = Schedule.parse(settings.schedule)
        self.memory = EncodedMemory(
            Retention.parse(settings.memory),
            self.schedule,
            self.entry,
            self.step.inputs["memory"],
            self.step.inputs["present"],
            self._encode,
        )
        self.code = np.zeros_like(self.features)
        self.fill: Colour = (0, 0, 0)
        self.state = Box(0.0, 0.0, 1.0, 1.0)
        self.confident = True

    @classmethod
    def forecast(cls, manifest: Manifest) -> Forecast:
        settings = read_settings(manifest.procedure, DastmSettings)
        code = next((t for t in manifest.graph("memory").outputs if t.name == "features"), None)
        code_bytes = 0 if code is None else 4 * math.prod(code.shape)
        retention, schedule = Retention.parse(settings.memory), Schedule.parse(settings.schedule)
        return forecast_of(retention, schedule, _entry_bytes(settings), code_bytes)

    @property
    def bank(self) -> Bank:
        """What is kept."""
        return self.memory.bank

    def init(self, frame: Frame, box: Box) -> None:
        blue, green, red, _ = cv2.mean(frame)
        self.fill = (int(blue), int(green), int(red))
        self.state, self.confident = box, True
        self.memory.clear()
        self._look(frame)
        self._remember()

    def update(self, frame: Frame, mark: Mark) -> Decision:
        scale = self._cut(frame, self.search)
        mark("crop")
        self.memory.recall(self._wanted())
        self.step.run()
        mark("graphs")
        score, reason = self._move(frame, scale)
        self._look(frame)
        mark("decode")
        gates = self._remember()
        mark("graphs")
        return Decision(self.state, score, reason, {"gate": gates})

    def place(self, box: Box) -> None:
        self.state = box

    def _move(self, frame: Frame, scale: float) -> tuple[float, str | None]:
        """The graph's maps to the next state; score and why the target counts as lost."""
        settings, state = self.settings, self.state
        found = None
        if all_finite(self.score, self.boxes):
            found = choose_box(
                self.score,
                self.boxes * np.float32(settings.search_size),
                (state.w * scale, state.h * scale),
                self.window,
                influence=settings.window_influence,
                penalty_k=settings.penalty_k,
            )
        if found is None:
            self.confident = False
            return 0.0, "the graph returned NaN or infinity; the last box is kept"
        self.state = followed(state, found, scale, (frame.shape[1], frame.shape[0]), settings)
        self.confident = found.windowed > settings.newest_above
        reason = f"score {found.score:.3f} is below {settings.lost_below:g}"
        return found.score, reason if found.score < settings.lost_below else None

    def _wanted(self) -> tuple[int, ...]:
        """Which memories the next search reads."""
        t = self.bank.count
        newest = (t - 1,) if self.confident and t > self.schedule.count else ()
        return (*self.schedule.choose(t), *newest)

    def _cut(self, frame: Frame, out: Image) -> float:
        """The crop around the state; returns crop pixels per frame pixel."""
        wanted = math.sqrt(self.state.w * self.state.h) * self.settings.search_factor
        patch = find_patch(_centre(self.state), wanted, self.settings.search_size)
        crop_warped(frame, patch, self.fill, out)
        return patch.scale(self.settings.search_size)

    def _look(self, frame: Frame) -> None:
        """Crop and rectangle of the target as the newest entry."""
        scale, pixels = self._cut(frame, self.image), self.image.size
        self.entry[:pixels] = self.image.reshape(-1)
        corners = target_rectangle(self.state.w * scale, self.state.h * scale, self.settings.search_size)
        self.entry[pixels:] = np.array(corners, np.uint16).view(np.uint8)

    def _encode(self, entry: NDArray[Any], out: NDArray[Any]) -> None:
        pixels = self.image.size
        np.copyto(self.image, entry[:pixels].reshape(self.image.shape))
        x1, y1, x2, y2 = map(int, entry[pixels:].copy().view(np.uint16))
        self.target[...] = 0
        self.target[y1 : y2 + 1, x1 : x2 + 1] = 1
        self.encoder.run()
        np.copyto(out, self.features)

    def _remember(self) -> dict[str, float]:
        """Encode and keep the newest entry; the gate's weights for it."""
        self._encode(self.entry, self.code)
        self.memory.append(self.entry, self.code)
        return dict(zip(GATES, map(float, self.gates[0]), strict=True))


def _centre(box: Box) -> tuple[float, float]:
    """Of the pixels from the first to the last, as published."""
    return box.x + (box.w - 1) / 2, box.y + (box.h - 1) / 2


PROCEDURE = DastmProcedure
