"""What moves how in each synthetic scene. Times are in frames and may be fractional; lengths are in pixels.

Motion depends on the frame number alone, so a shorter clip is the beginning of a longer one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgetrack.media._raster import Pose

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
