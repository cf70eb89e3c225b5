"""Whether the target is lost, by a calibrated model: features of a frame, their confidence, and the hysteresis.

- `score`: logit of the tracker's score, which is first cut to 1e-6 .. 1 - 1e-6; alone, with weight 1, it is the score;
- `psr`: logarithm of the peak to side-lobe ratio of the windowed map: peak less mean, over the standard deviation, of
  all cells but those around the peak (Bolme et al., "Visual Object Tracking using Adaptive Correlation Filters", 2010);
- `entropy`: of the score map as shares, 0 where one cell has all, 1 where all have the same;
- `jump`: path of the box's centre since the frame before, in square roots of that box's area, as log(1 + path);
- `scale`: absolute logarithm of what the box's area was multiplied by.

All come of what was decoded anyway, and none is computed unless the model weighs it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import get_args

import numpy as np

from edgetrack.arrays import Array
from edgetrack.box import Box
from edgetrack.bundle.manifest import LostFeature, LostModel
from edgetrack.runtime.decode import ScoreMaps
from edgetrack.runtime.trackers.base import Decision, Procedure

FEATURES: tuple[LostFeature, ...] = get_args(LostFeature)
OF_MAPS: tuple[LostFeature, ...] = ("psr", "entropy")
"""Features that need a score map, which not every family has."""
_LEAST = 1e-6
_LOBE = 8
"""The main lobe reaches a map's side over this to each side of the peak, 5 x 5 of 16 x 16 cells."""


def measure(
    wanted: Iterable[LostFeature], score: float, before: Box, box: Box, maps: ScoreMaps | None
) -> dict[LostFeature, float]:
    """The features of a frame; all are finite.

    Args:
        wanted: which.
        score: the tracker's, 0..1.
        before, box: the boxes of the frame before and of this one.
        maps: the tracker's; needed for `OF_MAPS`.
    """
    found = {name: _value(name, score, before, box, maps) for name in wanted}
    return {name: value if math.isfinite(value) else 0.0 for name, value in found.items()}


def _value(name: LostFeature, score: float, before: Box, box: Box, maps: ScoreMaps | None) -> float:
    if name == "score":
        known = min(max(score, _LEAST), 1 - _LEAST)
        return math.log(known / (1 - known))
    if name == "jump":
        path = math.dist(before.center, box.center)
        return math.log1p(path / max(math.sqrt(before.area), _LEAST))
    if name == "scale":
        return abs(math.log(max(box.area, _LEAST) / max(before.area, _LEAST)))
    if maps is None:
        return 0.0
    return _psr(maps.windowed) if name == "psr" else _entropy(maps.score)


def _psr(response: Array) -> float:
    """The logarithm of the peak to side-lobe ratio of a map (n, n)."""
    size = response.shape[-1]
    cells = np.asarray(response, np.float64).reshape(size, size)
    row, column = divmod(int(cells.argmax()), size)
    reach = max(1, size // _LOBE)
    beside = np.ones((size, size), np.bool_)
    beside[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1] = False
    lobes = cells[beside]
    ratio = (cells[row, column] - lobes.mean()) / max(float(lobes.std()), _LEAST) if lobes.size else 1.0
    return math.log(max(float(ratio), _LEAST))


def _entropy(score: Array) -> float:
    """Of a map of scores, 0 or more, as shares: 0..1."""
    shares = np.maximum(np.asarray(score, np.float64).ravel(), 1e-12)
    shares /= shares.sum()
    return float(-(shares * np.log(shares)).sum() / math.log(len(shares)))


def logistic(weights: Mapping[LostFeature, float], bias: float, features: Mapping[LostFeature, float]) -> float:
    """The confidence that features make, 0..1."""
    total = bias + sum(weight * features[name] for name, weight in weights.items())
    return 1 / (1 + math.exp(-total)) if total > -700 else 0.0


def evidence(
    procedure: Procedure, before: Box, found: Decision, wanted: Iterable[LostFeature]
) -> dict[LostFeature, float]:
    """The features of the frame that a procedure has just decoded; `before` is the box that it searched around."""
    maps = None if procedure.chooser is None else procedure.chooser.maps
    return measure(wanted, found.score, before, found.box, maps)


class LostJudge:
    """Holds a tracker lost or found, frame by frame."""

    def __init__(self, model: LostModel) -> None:
        self.model = model
        self.restart()

    def restart(self) -> None:
        """A new target, which is there."""
        self.lost, self._against = False, 0

    def confidence(self, procedure: Procedure, before: Box, found: Decision) -> float:
        """Of the frame that a procedure has just decoded, 0..1; 0 where it failed. `before` as in `evidence`."""
        if found.reason is not None:
            return 0.0
        return logistic(self.model.weights, self.model.bias, evidence(procedure, before, found, self.model.weights))

    def trusts(self, value: float) -> bool:
        """Whether a confidence is above the threshold, or at it."""
        return value >= self.model.threshold

    def judge(self, value: float) -> str | None:
        """Take a frame's confidence; why the target is lost, or None.

        The state changes after `frames` frames in a row against it.
        """
        low = not self.trusts(value)
        self._against = self._against + 1 if low != self.lost else 0
        if self._against >= self.model.frames:
            self.lost, self._against = low, 0
        if not self.lost:
            return None
        below = f"is below {self.model.threshold:.3f}" if low else "is not yet steady"
        return f"confidence {value:.3f} {below}"
