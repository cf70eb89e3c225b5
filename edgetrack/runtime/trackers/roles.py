"""Graphs whose inputs are named by their role, and the templates that they are fed: shared by the families.

| input | what the runtime writes there |
|---|---|
| `search` | uint8 (S, S, 3): the crop around the last box |
| `template` | uint8 (T, T, 3): the first frame's crop |
| `online_template` | uint8 (T, T, 3): the newest one that the update policy took |
| `templates` | uint8 (N, T, T, 3): the first frame's crop and the N - 1 newest that the policy took, oldest first |
| `target_box` | float32 (..., 4): the target in its template crop, one for each of `templates` |
| `search_mask`, `template_mask` | uint8 (size, size): 1 where a crop shows nothing of the frame |
| any other name | what an `init` graph returned under it |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Literal, NamedTuple

import cv2
import numpy as np

from edgetrack.arrays import Array
from edgetrack.box import Box
from edgetrack.bundle.manifest import Manifest
from edgetrack.errors import BundleError
from edgetrack.media.frames import Frame
from edgetrack.runtime.backends.base import CompiledGraph
from edgetrack.runtime.crop import LARGEST_COPY, CropRule, Image, PixelSquare

TEMPLATE_ROLES = ("template", "online_template", "templates", "target_box", "template_mask")
SEARCH_ROLES = ("search", "search_mask")

Cut = Callable[[Frame, Box, CropRule, Image], PixelSquare]
"""Cuts the square around a box into an image; returns the square."""


class UpdatePolicy(NamedTuple):
    """When a later frame's crop becomes a template; both comparisons are strict.

    Attributes:
        kind: `fixed`, never; `interval`, every `interval`-th frame whose score is above `above`; `best`, every
            `interval`-th frame the best-scored crop above `above` since the last time, or the first template again
            where there is none.
        interval: in tracked frames, the first of which is number 1.
        above: a score, 0..1.
        decay: `best`: factor on the best score so far after each frame, 0..1.
    """

    kind: Literal["fixed", "interval", "best"] = "fixed"
    interval: int = 0
    above: float = 0.0
    decay: float = 1.0


def target_box(box: Box, rule: CropRule, convention: Literal["xyxy", "xywh"]) -> tuple[float, float, float, float]:
    """Where a target lies in its own template crop, in fractions of it.

    Args:
        box: the target, in pixels of the frame.
        rule: of the template crop.
        convention: `xyxy`, corners over the crop's size; `xywh`, corner and size over its size less one.
    """
    side, size = max(1, math.ceil(rule.factor * math.sqrt(box.w * box.h))), rule.size
    if convention == "xyxy":
        middle, w, h = (size - 1) / (2 * size), box.w / side, box.h / side
        return middle - w / 2, middle - h / 2, middle + w / 2, middle + h / 2
    w, h = (extent * size / (side * (size - 1)) for extent in (box.w, box.h))
    return 0.5 - w / 2, 0.5 - h / 2, w, h


def padding_mask(square: PixelSquare, frame: Frame, out: Array) -> None:
    """Write 1 where a crop of the square, resized to the size of `out`, touches what the frame does not hold.

    The last row and column of the frame count as padding where a square reaches them, as in `crop_square`.
    """
    edges = []
    for start, length, size in zip((square.y, square.x), frame.shape[:2], out.shape, strict=True):
        if square.side > LARGEST_COPY:  # without a list of its pixels: both that each pixel of the crop mixes
            first = np.floor((np.arange(size) + 0.5) * (square.side / size) - 0.5) + float(start)
            edges.append((first < 0) | (first + 1 >= length - 1))
            continue
        place = np.arange(start, start + square.side)
        line = ((place < 0) | (place >= length - 1)).astype(np.float32)[None]
        edges.append(cv2.resize(line, (size, 1), interpolation=cv2.INTER_LINEAR)[0] > 0)
    np.logical_or.outer(*edges, out=out.view(np.bool_))


class Templates:
    """Fills what the graphs see of the target's past, and runs the `init` graphs on it.

    Args:
        graphs: of the bundle, in order.
        roles: graph -> its role, `init` or `step`.
        rule: of the template crop.
        cut: how it is cut.
        policy: when it is replaced.
        convention: of `target_box`.
    """

    def __init__(
        self,
        graphs: Mapping[str, CompiledGraph],
        roles: Mapping[str, str],
        rule: CropRule,
        cut: Cut,
        policy: UpdatePolicy,
        convention: Literal["xyxy", "xywh"] = "xyxy",
    ) -> None:
        self.graphs, self.rule, self.cut, self.policy, self.convention = graphs, rule, cut, policy, convention
        self.init_graphs = [name for name, role in roles.items() if role == "init"]
        size = rule.size
        self._crop = np.empty((size, size, 3), np.uint8)
        self._first, self._candidate = self._entry(), self._entry()
        self._best, self._frames, self._square = -1.0, 0, PixelSquare(0, 0, 1)

    def _entry(self) -> tuple[Image, Array]:
        """Memory for a template and its box."""
        return np.empty_like(self._crop), np.empty(4, np.float32)

    def start(self, frame: Frame, box: Box) -> None:
        """Take the first template."""
        self._frames, self._best = 0, -1.0
        self._take(frame, box, self._first)
        for graph in self.graphs.values():
            for name, array in graph.inputs.items():
                if name in ("template", "online_template", "templates"):
                    array[...] = self._first[0]
                elif name == "target_box":
                    array[...] = self._first[1]
                elif name == "template_mask":
                    padding_mask(self._square, frame, array)
        self._encode(self.init_graphs)

    def after(self, frame: Frame, box: Box, score: float | None) -> None:
        """Count a tracked frame, and take its crop where the policy says so; None for a frame without a result."""
        kind, interval, above, decay = self.policy
        if kind == "fixed":
            return
        self._frames += 1
        due = self._frames % interval == 0
        if kind == "interval":
            if due and score is not None and score > above:
                self._take(frame, box, self._candidate)
                self._show(self._candidate)
            return
        self._best *= decay
        if score is not None and score > above and score > self._best:
            self._best = score
            self._take(frame, box, self._candidate)
        if due:
            self._show(self._candidate if self._best >= 0 else self._first)
            self._best = -1.0

    def _take(self, frame: Frame, box: Box, entry: tuple[Image, Array]) -> None:
        self._square = self.cut(frame, box, self.rule, entry[0])
        entry[1][...] = target_box(box, self.rule, self.convention)

    def _show(self, entry: tuple[Image, Array]) -> None:
        """Put a template into the graphs: in place of the online one, or last in the row of which the first stays."""
        changed = []
        for graph_name, graph in self.graphs.items():
            row = graph.inputs.get("templates")
            if row is not None:
                row[1:-1] = row[2:]
                row[-1] = entry[0]
                boxes = graph.inputs.get("target_box")
                if boxes is not None:
                    flat = boxes.reshape(-1, 4)
                    flat[1:-1] = flat[2:]
                    flat[-1] = entry[1]
            elif "online_template" in graph.inputs:
                graph.inputs["online_template"][...] = entry[0]
            else:
                continue
            changed.append(graph_name)
        self._encode([name for name in self.init_graphs if name in changed])

    def _encode(self, names: list[str]) -> None:
        """Run `init` graphs, and hand on what they return."""
        for name in names:
            self.graphs[name].run()
            for output, array in self.graphs[name].outputs.items():
                for graph in self.graphs.values():
                    if output in graph.inputs:
                        np.copyto(graph.inputs[output], array)


def check_roles(
    manifest: Manifest, *, template_size: int, search_size: int, policy: UpdatePolicy, outputs: Collection[str]
) -> None:
    """Check that every input of a bundle's graphs has a role that is filled, in the dtype and shape of that role.

    Raises:
        BundleError: one has none, or another shape; an output is missing; the update policy has no input to write to.
    """
    given = {info.name for info in manifest.graph("step").outputs}
    if missing := [name for name in outputs if name not in given]:
        raise _unfit(manifest, f"'step' has the outputs {', '.join(sorted(given))}; {missing[0]!r} is missing")
    image, mask = ("uint8", (template_size, template_size, 3)), ("uint8", (template_size, template_size))
    roles: dict[str, tuple[str, tuple[int, ...]]] = {"template": image, "online_template": image, "template_mask": mask}
    search = {"search": ("uint8", (search_size, search_size, 3)), "search_mask": ("uint8", (search_size, search_size))}
    made: dict[str, tuple[str, tuple[int, ...]]] = {}
    filled: dict[str, tuple[int, ...]] = {}
    for graph in manifest.graphs:
        if graph.role == "batch":
            continue
        known = made | roles | (search if graph.role == "step" else {})
        for info in graph.inputs:
            wanted = known.get(info.name)
            if info.name == "templates":
                wanted = ("uint8", (max(2, *info.shape[:1]), template_size, template_size, 3))
            elif info.name == "target_box":
                wanted = ("float32", (*info.shape[:-1], 4))
            if wanted is None:
                raise _unfit(
                    manifest,
                    f"input {info.name!r} of {graph.name!r} has no role; expected one of "
                    f"{', '.join((*SEARCH_ROLES, *TEMPLATE_ROLES))}, or an output of an init graph",
                )
            if (info.dtype, info.shape) != wanted:
                raise _unfit(
                    manifest,
                    f"input {info.name!r} of {graph.name!r} is {info.dtype} {info.shape}, expected {wanted[0]} "
                    f"{wanted[1]}",
                )
            filled[info.name] = info.shape
        if graph.role == "init":
            made |= {info.name: (info.dtype, info.shape) for info in graph.outputs}
    if "search" not in filled:
        raise _unfit(manifest, "none has an input 'search'; nothing would be searched")
    boxes = math.prod(filled.get("target_box", (4,))) // 4
    if boxes > 1 and boxes != filled.get("templates", (0,))[0]:
        raise _unfit(manifest, f"they take {boxes} target boxes, expected one for each of `templates`")
    writable = {"fixed": (), "interval": ("templates", "online_template"), "best": ("online_template",)}[policy.kind]
    if writable and not any(role in filled for role in writable):
        raise _unfit(
            manifest, f"update policy {policy.kind!r} needs an input {' or '.join(writable)}; leave update out"
        )


def _unfit(manifest: Manifest, problem: str) -> BundleError:
    return BundleError(f"the graphs of bundle {manifest.name!r} do not suit its procedure: {problem}")
