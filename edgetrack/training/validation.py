"""How well the weights track: sequences kept out of training are followed, and their overlap averaged."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from edgetrack.box import Box, clip, iou
from edgetrack.runtime.crop import CropRule, Image, crop_square
from edgetrack.runtime.decode import decode_center, hann_open, map_back
from edgetrack.training.catalog import TrainingClip, load
from edgetrack.training.settings import TrainConfig, TrainDevice, to_images

SHAKE = 0.6
"""Largest shift before a frame, on each axis, times the square root of the box's area."""
FRAMES = 40


@dataclass
class _Run:
    """One sequence while it is followed."""

    clip: TrainingClip
    rng: np.random.Generator
    box: Box
    overlaps: list[float] = field(default_factory=list)


def average_overlap(
    network: nn.Module, clips: Sequence[TrainingClip], config: TrainConfig, machine: TrainDevice
) -> dict[str, float]:
    """Mean IoU (0..1) after the first frame, by sequence, all followed side by side as one batch.

    A training pack's pictures are cut around the target, so a box that never moves would follow it. Before each frame
    the box is therefore shifted by up to 0.6 of its size, always the same way for the same sequence: the tracker has to
    find the target again from where a moving one would have gone.

    Args:
        network: left in the mode that it had.
        clips: at most 40 frames of each are used.
        config: crops, margin and seed.
        machine: where and in which precision.
    """
    if not clips:
        return {}
    training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            return _follow(network, clips, config, machine)
    finally:
        network.train(training)


def _follow(
    network: nn.Module, clips: Sequence[TrainingClip], config: TrainConfig, machine: TrainDevice
) -> dict[str, float]:
    runs = [_Run(c, np.random.default_rng([config.seed, zlib.crc32(c.name.encode())]), c.views[0].box) for c in clips]
    templates = [_cut(load(r.clip.views[0].picture), r.box, config.template)[0] for r in runs]
    z = to_images(np.stack(templates), machine.device)
    for index in range(1, FRAMES):
        active = [n for n, run in enumerate(runs) if index < len(run.clip.views)]
        if not active:
            break
        frames = [load(runs[n].clip.views[index].picture) for n in active]
        for n, frame in zip(active, frames, strict=True):
            runs[n].box = _shaken(runs[n].box, runs[n].rng, frame, config.clip_margin)
        cuts = [_cut(frame, runs[n].box, config.search) for n, frame in zip(active, frames, strict=True)]
        x = to_images(np.stack([image for image, _ in cuts]), machine.device)
        with machine.autocast():
            maps = network(z[active], x)
        numbers = [m.float().cpu() for m in maps]
        for place, n in enumerate(active):
            found = _decode([m[place : place + 1] for m in numbers], runs[n].box, config, cuts[place][1])
            height, width = frames[place].shape[:2]
            runs[n].box = clip(found, height, width, config.clip_margin)
            runs[n].overlaps.append(iou(runs[n].box, runs[n].clip.views[index].box))
    return {run.clip.name: float(np.mean(run.overlaps)) for run in runs}


def _shaken(box: Box, rng: np.random.Generator, frame: Image, margin: float) -> Box:
    reach = SHAKE * float(np.sqrt(box.w * box.h))
    dx, dy = rng.uniform(-reach, reach, 2)
    return clip(Box(box.x + float(dx), box.y + float(dy), box.w, box.h), frame.shape[0], frame.shape[1], margin)


def _cut(frame: Image, box: Box, rule: CropRule) -> tuple[Image, float]:
    out = np.empty((rule.size, rule.size, 3), np.uint8)
    return out, crop_square(frame, box, rule, out)


def _decode(maps: list[Tensor], previous: Box, config: TrainConfig, resize_factor: float) -> Box:
    score, size, offset = (m.numpy() for m in maps)
    window = hann_open(score.shape[-1])
    peak = decode_center(score, size, offset, window, np.empty_like(window))
    return map_back(peak, previous, config.search.size, resize_factor)
