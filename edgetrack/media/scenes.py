"""Synthetic scenes with exact ground truth, so that demos, tests and benches need no download."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edgetrack.box import Box
from edgetrack.errors import UnknownNameError, UsageError
from edgetrack.media._plans import PLANS, Plan, Stage, stage_for
from edgetrack.media._raster import Region, mean_coverage, paint, paint_bar, pyramid, span_coverage, union
from edgetrack.media._textures import bar_skin, generator, object_skin, surroundings
from edgetrack.media._types import Frame

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
        seed: tells apart scenes of one name: other textures, other phases of the motion.
    """

    name: str
    width: int
    height: int
    length: int
    fps: float
    seed: int

    def frame(self, index: int) -> Frame:
        """Frame `index` (0 .. length-1): a new uint8 array, (height, width, 3), BGR.

        Raises:
            IndexError: an index outside 0 .. length-1.
        """
        return self._compose(index, with_target=True)

    def frame_without_target(self, index: int) -> Frame:
        """The same as `frame`, with the target left out: what differs between the two is the target."""
        return self._compose(index, with_target=False)

    def box(self, index: int) -> Box | None:
        """The axis-aligned bounds of the whole target, in pixels, or None where nothing of it is to be seen.

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

    def _compose(self, index: int, with_target: bool) -> Frame:
        import cv2

        self._check(index)
        canvas = cv2.getRectSubPix(self._surroundings, (self.width, self.height), self._view(index)).astype(np.uint8)
        for levels, motion in zip(self._distractor_skins, self._plan.distractors, strict=True):
            paint(canvas, levels, (motion(index),))
        if with_target:
            paint(canvas, self._target_skin, self._plan.exposure(index))
        for skin, (left, width) in zip(self._bar_skins, self._bars_at(index), strict=True):
            paint_bar(canvas, skin, left, width)
        return canvas

    def _view(self, index: int) -> tuple[float, float]:
        height, width = self._surroundings.shape[:2]
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
    def _surroundings(self) -> Frame:
        reach_x, reach_y = self._stage.reach
        width, height = self.width + 2 * math.ceil(reach_x + 1), self.height + 2 * math.ceil(reach_y + 1)
        return surroundings(generator(self.seed, self.name, "surroundings"), width, height, self._stage.unit)

    def _object_skin(self, who: str) -> tuple[Frame, ...]:
        pose = self._stage.pose(0, 0, scale=2.0)
        size = math.ceil(2 * pose.a), math.ceil(2 * pose.b)
        return pyramid(object_skin(generator(self.seed, self.name, who), *size))

    @cached_property
    def _target_skin(self) -> tuple[Frame, ...]:
        return self._object_skin("target")

    @cached_property
    def _distractor_skins(self) -> list[tuple[Frame, ...]]:
        return [self._object_skin(f"distractor {k}") for k in range(len(self._plan.distractors))]

    @cached_property
    def _bar_skins(self) -> list[Frame]:
        rng = generator(self.seed, self.name, "bars")
        unit = self._stage.unit
        return [bar_skin(rng, math.ceil(width) + 4, self.height, unit) for _, width in self._plan.bars]


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
        near = difflib.get_close_matches(name, PLANS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise UnknownNameError(f"no scene is called {name!r}{hint}; the scenes are {', '.join(PLANS)}")
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
