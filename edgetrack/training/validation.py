"""How well the weights track: held-out sequences are tracked, and their overlap is averaged."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from edgetrack.arrays import all_finite
from edgetrack.box import Box, clip, iou
from edgetrack.runtime.crop import Image
from edgetrack.runtime.trackers.center import CenterDecoder
from edgetrack.training.augment import cut
from edgetrack.training.catalog import TrainingClip, load
from edgetrack.training.settings import TrainConfig, TrainDevice, to_images

SHIFT = 0.6
"""Largest shift before a frame, on each axis, times the square root of the box's area."""
FRAMES = 40


@dataclass
class _Run:
    """One sequence while it is tracked."""

    clip: TrainingClip
    rng: np.random.Generator
    box: Box
    overlaps: list[float] = field(default_factory=list)


def average_overlap(
    network: nn.Module, clips: Sequence[TrainingClip], config: TrainConfig, device: TrainDevice
) -> dict[str, float]:
    """Mean IoU (0..1) after the first frame by sequence; all are tracked side by side as one batch.

    A training pack's pictures are cut around the target, so a box that never moves would follow it. Before each frame
    the box is therefore shifted by up to 0.6 of its size, always the same way for the same sequence: the tracker has to
    find the target again from where a moving one would have gone.

    Args:
        network: left in the mode that it had.
        clips: at most 40 frames of each are used.
        config: crops, margin and seed.
        device: where and in which precision.
    """
    if not clips:
        return {}
    training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            return _track(network, clips, config, device)
    finally:
        network.train(training)


def _track(
    network: nn.Module, clips: Sequence[TrainingClip], config: TrainConfig, device: TrainDevice
) -> dict[str, float]:
    runs = [_Run(c, np.random.default_rng([config.seed, zlib.crc32(c.name.encode())]), c.views[0].box) for c in clips]
    templates = [cut(load(run.clip.views[0].picture), run.box, config.template)[0] for run in runs]
    z = to_images(np.stack(templates), device.device)
    decode: CenterDecoder | None = None
    for index in range(1, FRAMES):
        active = [n for n, run in enumerate(runs) if index < len(run.clip.views)]
        if not active:
            break
        frames = [load(runs[n].clip.views[index].picture) for n in active]
        for n, frame in zip(active, frames, strict=True):
            runs[n].box = _shifted(runs[n], frame, config.clip_margin)
        cuts = [cut(frame, runs[n].box, config.search) for n, frame in zip(active, frames, strict=True)]
        with device.autocast():
            maps = network(z[active], to_images(np.stack([image for image, _ in cuts]), device.device))
        maps = [m.float().cpu().numpy() for m in maps]
        decode = decode or CenterDecoder(config.search, config.clip_margin, cells=maps[0].shape[-1])
        for row, n in enumerate(active):
            run, (score, size, offset) = runs[n], (m[row : row + 1] for m in maps)
            if all_finite(score, size, offset):  # else the last box is kept, as while tracking
                run.box, _ = decode(score, size, offset, frames[row], run.box, cuts[row][1])
            run.overlaps.append(iou(run.box, run.clip.views[index].box))
    return {run.clip.name: float(np.mean(run.overlaps)) for run in runs}


def _shifted(run: _Run, frame: Image, margin: float) -> Box:
    box, reach = run.box, SHIFT * float(np.sqrt(run.box.w * run.box.h))
    dx, dy = run.rng.uniform(-reach, reach, 2)
    return clip(Box(box.x + float(dx), box.y + float(dy), box.w, box.h), frame.shape[0], frame.shape[1], margin)
