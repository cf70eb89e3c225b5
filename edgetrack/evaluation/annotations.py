"""What a data set says of every frame, beside the target's box, and how a tracker's diagnostics go with it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np

from edgetrack.arrays import Floats
from edgetrack.evaluation.datasets.clip import Clip
from edgetrack.evaluation.protocols.one_pass import OnePassRun
from edgetrack.runtime.diagnostics import MOST_STRETCHES

FIGURES = ("speed", "growth")
"""Annotations that are amounts; all others are 1 in the frames of which they hold, and 0."""


def frame_annotations(clip: Clip, count: int) -> dict[str, Floats]:
    """What is annotated of each frame after the first, of `count` frames; NaN where it is not known.

    Returns:
        `speed`: the path of the true centre since the frame before in square roots of the box's area. `growth`: the
        absolute logarithm of what its area was multiplied by. `hidden`: 1 where the target is not there to be scored.
        And the data set's own tags of frames by their names (VOT: `occlusion`, CDTB: `background-clutter`). Nothing
        where not every frame is annotated.
    """
    if not clip.scored or clip.every != 1 or count < 2:
        return {}
    truth = clip.truth[:count]
    with np.errstate(all="ignore"):
        area, centres = truth[:, 2] * truth[:, 3], truth[:, :2] + truth[:, 2:] / 2
        amounts = {
            "speed": np.linalg.norm(np.diff(centres, axis=0), axis=1) / np.sqrt(area[:-1]),
            "growth": np.abs(np.diff(np.log(area))),
        }
    return {
        **{name: flags[1:count].astype(np.float64) for name, flags in clip.tags.items()},
        # Of a box without an area neither is known.
        **{name: np.where(np.isfinite(series), series, np.nan) for name, series in amounts.items()},
        "hidden": 1.0 - clip.visible[1:count],
    }


def course(found: Mapping[str, Floats]) -> dict[str, list[float | None]]:
    """The mean of each over equal stretches of the frames, as of a gate's weights; None where nothing is known.

    What is 0 throughout is left out.
    """
    return {name: _means(series) for name, series in found.items() if np.nan_to_num(series).any()}


def _means(series: Floats) -> list[float | None]:
    pieces = np.array_split(series, min(MOST_STRETCHES, len(series)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a stretch of NaN alone
        means = [float(np.nanmean(piece)) for piece in pieces]
    return [None if np.isnan(mean) else round(mean, 4) for mean in means]


def correlations(clip: Clip, run: OnePassRun) -> dict[str, dict[str, dict[str, float]]]:
    """How the tracker's diagnostics go with what is annotated, frame by frame, after the first: Pearson's coefficient.

    Returns:
        Diagnostic -> part -> annotation (see `frame_annotations`) -> -1..1. What does not vary, or has fewer than three
        frames, is left out.
    """
    count = len(run.boxes)
    annotated = frame_annotations(clip, count)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, parts in run.shares.items():
        for part, values in parts.items():
            if len(values) != count - 1:
                continue  # a frame whose weights were not finite has none
            for what, series in annotated.items():
                known = np.isfinite(series)
                pair = np.array(values)[known], series[known]
                if known.sum() > 2 and all(np.ptp(one) > 0 for one in pair):
                    value = float(np.corrcoef(*pair)[0, 1])
                    found.setdefault(name, {}).setdefault(part, {})[what] = value
    return found
