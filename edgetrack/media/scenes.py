"""Synthetic scenes with exact ground truth, so that demos, tests and benches need no download."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edgetrack.box import Box
from edgetrack.errors import UnknownNameError, UsageError
from edgetrack.media.frames import Frame
from edgetrack.media.raster import (
    BAR_MM,
    DISTRACTOR_MM,
    TARGET_MM,
    Appearance,
    DepthPlane,
    Pose,
    Region,
    bar_skin,
    depth_behind,
    events,
    generator,
    mean_coverage,
    object_skin,
    paint,
    paint_bar,
    pyramid,
    shown,
    span_coverage,
    stand,
    surroundings,
    union,
)

DEFAULT_SIZE = (640, 360)
MIN_SIDE, MAX_SIDE = 64, 8192
MAX_FRAMES = 1_000_000
_HIDDEN_BELOW = 1.0
"""Square pixels of target in sight under which it counts as gone: no tracker could be held to less."""


@dataclass(frozen=True)
class Scene:
    """A clip that is computed on demand: a textured object over moving, textured surroundings.

    Any frame may be asked for at any time; its bytes depend only on the scene's fields and the frame number (given the
    same OpenCV and NumPy). Motion depends on the frame number alone, so a shorter scene is the beginning of a longer
    one. Textures are made on first use and kept.

    Attributes:
        name: one of `scene_names()`.
        width, height: of every frame, in pixels.
        length: number of frames.
        fps: frames per second at which it is meant to be shown.
        seed: distinguishes scenes of one name: other textures, other phases of the motion.
    """

    name: str
    width: int
    height: int
    length: int
    fps: float
    seed: int

    def frame(self, index: int, *, with_target: bool = True, view: str = "colour") -> Frame:
        """Frame `index` (0 .. length-1): a new uint8 array, (height, width, 3), BGR; with or without the target.

        Args:
            index: of the frame.
            with_target: whether the target is there.
            view: one of `VIEWS`. A thermal frame is grey, one of depth shows `depth` in grey, one of events shows what
                changed since the frame before: red where it grew brighter, blue where darker, white elsewhere.

        Raises:
            IndexError: an index outside 0 .. length-1.
        """
        self._check(index)
        if view == "thermal":
            return self._painted(self._heat, index, with_target)
        if view == "depth":
            return shown(self.depth(index, with_target=with_target))
        now = self._painted(self._look, index, with_target)
        return events(now, self._painted(self._look, index - 1, with_target)) if view == "event" else now

    def depth(self, index: int, *, with_target: bool = True) -> DepthPlane:
        """Millimetres from the camera in frame `index`: a new uint16 array, (height, width).

        A pixel belongs to what covers half of it or more; a target in motion blur stands where it is in the middle of
        the exposure.

        Raises:
            IndexError: an index outside 0 .. length-1.
        """
        self._check(index)
        plane = depth_behind(self._behind(self._look, index))
        usual = self._stage.pose(0, 0).a
        for motion in self._plan.distractors:
            stand(plane, motion(index), DISTRACTOR_MM * usual / motion(index).a)
        if with_target:
            stand(plane, self._plan.target(index), TARGET_MM * usual / self._plan.target(index).a)
        for left, width in self._bars_at(index):
            plane[:, span_coverage(left, left + width, 0, self.width) >= 0.5] = BAR_MM
        return np.rint(plane).astype(np.uint16)

    def _behind(self, look: Appearance, index: int) -> Frame:
        import cv2

        return cv2.getRectSubPix(look.surroundings, (self.width, self.height), self._view(index)).astype(np.uint8)

    def _painted(self, look: Appearance, index: int, with_target: bool) -> Frame:
        canvas = self._behind(look, index)
        for levels, motion in zip(look.distractors, self._plan.distractors, strict=True):
            paint(canvas, levels, (motion(index),))
        if with_target:
            paint(canvas, look.target, self._plan.exposure(index))
        for skin, (left, width) in zip(look.bars, self._bars_at(index), strict=True):
            paint_bar(canvas, skin, left, width)
        return canvas

    def box(self, index: int) -> Box | None:
        """The axis-aligned bounds of the whole target, in pixels, or None where none of it is visible.

        It is the extent without occlusion and is not clipped: it may stick out of the frame, and it spans what an
        occluder hides. Pixel (i, j) covers [i, i+1) x [j, j+1). Where the target is motion-blurred, its bounds are
        those of the smear.

        Raises:
            IndexError: an index outside 0 .. length-1.
        """
        return None if self.visibility(index) == 0 else union(self._plan.exposure(index))

    def visibility(self, index: int) -> float:
        """The share of the target's area in sight, 0..1: inside the frame and not behind an occluder.

        0 where less than one square pixel is in sight.

        Raises:
            IndexError: an index outside 0 .. length-1.
        """
        self._check(index)
        poses = self._plan.exposure(index)
        whole = Region.around(union(poses))
        inside = whole.within(self.width, self.height)
        if inside is None:
            return 0.0
        alpha = mean_coverage(poses, whole)
        seen = alpha[inside.slices_in(whole)]
        for left, width in self._bars_at(index):
            seen = seen * (1 - span_coverage(left, left + width, inside.x0, inside.x1))
        area = float(seen.sum())
        return area / float(alpha.sum()) if area >= _HIDDEN_BELOW else 0.0

    def _check(self, index: int) -> None:
        if not 0 <= index < self.length:
            raise IndexError(f"frame {index} of scene {self.name!r}, which has frames 0 to {self.length - 1}")

    def _view(self, index: int) -> tuple[float, float]:
        height, width = self._look.surroundings.shape[:2]
        pan_x, pan_y = self._stage.pan(index)
        return (width - 1) / 2 + pan_x, (height - 1) / 2 + pan_y

    def _bars_at(self, index: int) -> list[tuple[float, float]]:
        pan_x, _ = self._stage.pan(index)
        return [(left - pan_x, width) for left, width in self._plan.bars]

    @cached_property
    def _stage(self) -> Stage:
        return stage_for(self.width, self.height, generator(self.seed, self.name, "motion"))

    @cached_property
    def _plan(self) -> Plan:
        build, _ = PLANS[self.name]
        return build(self._stage)

    @cached_property
    def _look(self) -> Appearance:
        unit = self._stage.unit
        reach_x, reach_y = self._stage.reach
        width, height = self.width + 2 * math.ceil(reach_x + 1), self.height + 2 * math.ceil(reach_y + 1)
        rng = generator(self.seed, self.name, "bars")
        return Appearance(
            surroundings(generator(self.seed, self.name, "surroundings"), width, height, unit),
            self._object_skin("target"),
            tuple(self._object_skin(f"distractor {k}") for k in range(len(self._plan.distractors))),
            tuple(bar_skin(rng, math.ceil(width) + 4, self.height, unit) for _, width in self._plan.bars),
        )

    @cached_property
    def _heat(self) -> Appearance:
        return self._look.heated()

    def _object_skin(self, who: str) -> tuple[Frame, ...]:
        pose = self._stage.pose(0, 0, scale=2.0)
        size = math.ceil(2 * pose.a), math.ceil(2 * pose.b)
        return pyramid(object_skin(generator(self.seed, self.name, who), *size))


def scene_names() -> list[str]:
    """The scenes, the easiest first."""
    return list(PLANS)


def load_scene(
    name: str, *, frames: int | None = None, size: tuple[int, int] | None = None, seed: int | None = None
) -> Scene:
    """A synthetic scene, 30 frames per second.

    Args:
        name: one of `scene_names()`: `drift` moves smoothly; `scale` grows and shrinks from 0.5x to 2x; `blur` moves
            fast with motion blur; `occlusion` passes behind a bar; `exit` leaves the frame and returns; `distractors`
            moves among look-alikes; `all` mixes them over a longer clip.
        frames: length, 1 to 1,000,000; 150 where none is given, 600 for `all`. Events come at fixed frames: a clip
            that is cut short may end before them.
        size: (width, height) in pixels, 64 to 8192 each; 640x360 where none is given.
        seed: 0 or above, other textures and phases; 0 where none is given.

    Raises:
        UnknownNameError: no such scene.
        UsageError: a length, size or seed outside its range.
    """
    if name not in PLANS:
        raise UnknownNameError.of("scene", name, PLANS)
    length = PLANS[name][1] if frames is None else frames
    width, height = DEFAULT_SIZE if size is None else size
    if not 1 <= length <= MAX_FRAMES:
        raise UsageError(f"a scene of {length} frames was asked for; give 1 to {MAX_FRAMES} frames")
    if not (MIN_SIDE <= width <= MAX_SIDE and MIN_SIDE <= height <= MAX_SIDE):
        raise UsageError(
            f"a scene of {width}x{height} pixels was asked for; each side must be {MIN_SIDE} to {MAX_SIDE}"
        )
    if seed is not None and seed < 0:
        raise UsageError(f"seed {seed} was given for a scene; give a whole number of 0 or above")
    return Scene(name, int(width), int(height), int(length), 30.0, 0 if seed is None else int(seed))


Motion = Callable[[float], Pose]
_MAX_EXPOSURES = 8


def wave(time: float, period: float, phase: float = 0.0) -> float:
    """A sine of that period in frames, -1..1; `phase` in turns."""
    return math.sin(2 * math.pi * (time / period + phase))


def bump(time: float, center: float, half: float, every: float) -> float:
    """A smooth rise to 1 at `center` and back to 0 within `half` frames each way, repeated every `every` frames."""
    distance = abs(time % every - center) / half
    return 0.5 * (1 + math.cos(math.pi * distance)) if distance < 1 else 0.0


@dataclass(frozen=True)
class Stage:
    """The frame that a scene plays in, and the phases (turns, 0..1) by which its seed tells it from others."""

    width: int
    height: int
    phases: tuple[float, ...]

    @property
    def unit(self) -> float:
        """The shorter side in pixels; sizes are shares of it."""
        return float(min(self.width, self.height))

    @property
    def reach(self) -> tuple[float, float]:
        """The most pixels that the camera pans from the middle, (x, y)."""
        return 0.06 * self.width, 0.05 * self.height

    def pan(self, time: float) -> tuple[float, float]:
        """Where the camera looks, as an offset (x, y) in pixels from the middle; 0 in x at the start."""
        reach_x, reach_y = self.reach
        return reach_x * wave(time, 240), reach_y * wave(time, 310, self.phases[0])

    def pose(self, x: float, y: float, scale: float = 1.0, angle: float = 0.0) -> Pose:
        """A pose from shares of the frame: `x`, `y` of its width and height, `angle` in radians."""
        size = scale * self.unit
        return Pose(x * self.width, y * self.height, 0.115 * size, 0.09 * size, angle)


@dataclass(frozen=True)
class Plan:
    """The target, look-alikes behind it, bars in front of it, and the share of a frame that the shutter is open."""

    target: Motion
    distractors: tuple[Motion, ...] = ()
    bars: tuple[tuple[float, float], ...] = ()
    """(left, width) of each bar where the camera looks at the middle."""
    shutter: float = 0.0

    def exposure(self, index: int) -> tuple[Pose, ...]:
        """The target's poses that frame `index` averages; one where the shutter is instant or the target rests."""
        if self.shutter == 0:
            return (self.target(index),)
        first, last = self.target(index - self.shutter / 2), self.target(index + self.shutter / 2)
        travel = math.hypot(last.cx - first.cx, last.cy - first.cy)
        count = min(max(math.ceil(travel / 1.5), 1), _MAX_EXPOSURES)
        return tuple(self.target(index + self.shutter * ((k + 0.5) / count - 0.5)) for k in range(count))


def _drift(stage: Stage) -> Plan:
    _, p1, p2, p3, *_ = stage.phases

    def target(t: float) -> Pose:
        x, y = 0.5 + 0.2 * wave(t, 200, p1), 0.5 + 0.2 * wave(t, 160, p2)
        return stage.pose(x, y, 1 + 0.08 * wave(t, 130, p3), 0.1 * wave(t, 110, p1))

    return Plan(target)


def _scale(stage: Stage) -> Plan:
    _, p1, p2, *_ = stage.phases

    def target(t: float) -> Pose:
        x, y = 0.5 + 0.12 * wave(t, 190, p1), 0.5 + 0.1 * wave(t, 150, p2)
        return stage.pose(x, y, 2 ** wave(t, 150), 0.1 * wave(t, 120, p1))

    return Plan(target)


def _blur(stage: Stage) -> Plan:
    _, p1, p2, *_ = stage.phases

    def target(t: float) -> Pose:
        return stage.pose(0.5 + 0.28 * wave(t, 40, p1), 0.5 + 0.2 * wave(t, 29, p2), 1.0, 0.1 * wave(t, 70, p1))

    return Plan(target, shutter=0.5)


def _bar(stage: Stage, at: float, objects: float) -> tuple[float, float]:
    width = objects * 2 * stage.pose(0, 0).a
    return at * stage.width - width / 2, width


def _occlusion(stage: Stage) -> Plan:
    _, p1, p2, *_ = stage.phases

    def target(t: float) -> Pose:
        return stage.pose(0.5 - 0.34 * wave(t, 150, 0.25), 0.5 + 0.12 * wave(t, 170, p1), 1.0, 0.06 * wave(t, 90, p2))

    return Plan(target, bars=(_bar(stage, 0.5, 1.8),))


def _exit(stage: Stage) -> Plan:
    _, p1, p2, *_ = stage.phases

    def target(t: float) -> Pose:
        x = 0.3 + 0.9 * bump(t, 85, 55, 150)
        return stage.pose(x, 0.5 + 0.14 * wave(t, 170, p1), 1.0, 0.08 * wave(t, 100, p2))

    return Plan(target)


def _lookalikes(stage: Stage, count: int) -> tuple[Motion, ...]:
    def motion(k: int) -> Motion:
        p, q = stage.phases[4 + 2 * k], stage.phases[5 + 2 * k]

        def pose(t: float) -> Pose:
            x, y = 0.5 + 0.36 * wave(t, 170 + 40 * k, p), 0.5 + 0.3 * wave(t, 140 + 30 * k, q)
            return stage.pose(x, y, 0.9 + 0.1 * k, 0.15 * wave(t, 120, q))

        return pose

    return tuple(motion(k) for k in range(count))


def _distractors(stage: Stage) -> Plan:
    return Plan(_drift(stage).target, distractors=_lookalikes(stage, 3))


def _all(stage: Stage) -> Plan:
    _, p1, p2, p3, *_ = stage.phases

    def target(t: float) -> Pose:
        hurry = bump(t, 260, 70, 600)
        x = 0.5 - 0.3 * wave(t, 200, 0.25) + bump(t, 400, 60, 600) + 0.1 * hurry * wave(t, 24, p1)
        y = 0.5 + 0.1 * wave(t, 170, p2) + 0.12 * hurry * wave(t, 31, p3)
        return stage.pose(x, y, 2 ** (0.8 * wave(t, 240)), 0.12 * wave(t, 130, p3))

    return Plan(target, _lookalikes(stage, 2), (_bar(stage, 0.54, 1.6),), shutter=0.5)


PLANS: dict[str, tuple[Callable[[Stage], Plan], int]] = {
    "drift": (_drift, 150),
    "scale": (_scale, 150),
    "blur": (_blur, 150),
    "occlusion": (_occlusion, 150),
    "exit": (_exit, 150),
    "distractors": (_distractors, 150),
    "all": (_all, 600),
}
"""Scene name -> how it is planned, and its length in frames where none is asked for."""


def stage_for(width: int, height: int, rng: np.random.Generator) -> Stage:
    """A stage whose phases come from `rng`."""
    return Stage(width, height, tuple(float(p) for p in rng.uniform(0, 1, 12)))
