"""How well the weights track: held-out sequences are tracked by the tracker's own procedure, and overlaps averaged."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from edgetrack.box import Box, clip, iou
from edgetrack.bundle.manifest import GraphInfo, Manifest, WeightsInfo
from edgetrack.capabilities import reference_target
from edgetrack.checkpoints import load_into
from edgetrack.exporting.parity import ModuleGraph
from edgetrack.exporting.recipe import Recipe
from edgetrack.models.base import GraphModule, find_model, make_network
from edgetrack.runtime.prompt import parse_text, prepare_text
from edgetrack.runtime.trackers.base import Procedure, find_family
from edgetrack.training.catalog import TrainingClip, load
from edgetrack.training.method import TrainingMethod

SHIFT = 0.6
"""Largest shift before a frame, on each axis, times the square root of the box's area."""
FRAMES = 40
MARGIN = 10.0
"""Pixels of a shifted box that stay in the frame."""


def average_overlap(
    method: TrainingMethod, tensors: Mapping[str, Tensor], clips: Sequence[TrainingClip], seed: int
) -> dict[str, float]:
    """Mean IoU (0..1) after the first frame by sequence, tracked on the CPU in FP32.

    A training pack's pictures are cut around the target, so a box that never moves would follow it. Before each frame
    the box is therefore shifted by up to 0.6 of its size, always the same way for the same sequence: the tracker has to
    find the target again from where a moving one would have gone.

    Args:
        method: of the tracker.
        tensors: the network's weights.
        clips: at most 40 frames of each are used.
        seed: of the shifts.
    """
    if not clips:
        return {}
    recipe = method.recipe
    network = make_network(recipe.family_name, recipe.configuration)
    load_into(network, {name: tensor.detach().cpu() for name, tensor in tensors.items()}, source="average")
    procedure = procedure_of(recipe, find_model(recipe.family_name).reference(network))
    return {clip.name: _track(procedure, clip, method.images, seed) for clip in clips}


def procedure_of(recipe: Recipe, graphs: Sequence[GraphModule]) -> Procedure:
    """A tracker's procedure on graphs in PyTorch."""
    manifest = Manifest(
        name=recipe.name,
        tracker=recipe.name,
        family=recipe.family_name,
        title=recipe.title,
        target=reference_target().name,
        precision="fp32",
        weights=WeightsInfo(origin="custom"),
        graphs=tuple(
            GraphInfo(name=g.name, role=g.role, file=f"{g.name}.safetensors", inputs=g.inputs, outputs=g.outputs)
            for g in graphs
        ),
        procedure=recipe.procedure,
    )
    return find_family(recipe.family_name)(manifest, {graph.name: ModuleGraph(graph) for graph in graphs})


def _track(procedure: Procedure, held: TrainingClip, images: int, seed: int) -> float:
    rng = np.random.default_rng([seed, zlib.crc32(held.name.encode())])
    lines = [line for line in held.text.splitlines() if line.strip()]
    prepare_text(procedure, parse_text(lines))
    procedure.init(load(held.views[0].picture, images), held.views[0].box)
    overlaps = []
    for view in held.views[1:FRAMES]:
        frame = load(view.picture, images)
        box = procedure.state
        reach = SHIFT * float(np.sqrt(box.w * box.h))
        dx, dy = (float(shift) for shift in rng.uniform(-reach, reach, 2))
        moved = Box(box.x + dx, box.y + dy, box.w, box.h)
        procedure.reset_box(clip(moved, frame.shape[0], frame.shape[1], MARGIN))
        procedure.update(frame, lambda stage: None)
        overlaps.append(iou(procedure.state, view.box))
    return float(np.mean(overlaps))
