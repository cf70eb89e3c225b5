"""Logistic regression with both kinds weighing the same, by Newton's method."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from edgetrack.arrays import Floats
from edgetrack.errors import UsageError
from edgetrack.stats.detection import Events

_RIDGE = 1e-3
"""Penalty on the squared weights of standardised features: keeps separable data from infinite weights."""
_STEPS = 50


class Logistic(NamedTuple):
    """log(p / (1 - p)) = bias + features @ weights; weights are (features,)."""

    weights: Floats
    bias: float

    def log_odds(self, features: Floats) -> Floats:
        """Of rows (frames, features)."""
        odds: Floats = features @ self.weights + self.bias
        return odds


def fit_logistic(features: Floats, event: Events) -> Logistic:
    """The regression of an event on features.

    Args:
        features: float64 (frames, features), finite.
        event: bool (frames,).

    Raises:
        UsageError: frames of one kind only.
    """
    if event.all() or not event.any():
        raise UsageError("a logistic regression needs frames of both kinds")
    mean, spread = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-9)
    rows = np.hstack([np.ones((len(features), 1)), (features - mean) / spread])
    weigh = np.where(event, 0.5 / event.mean(), 0.5 / (~event).mean()) / len(event)
    ridge = np.full(rows.shape[1], _RIDGE)
    ridge[0] = 1e-9
    found = np.zeros(rows.shape[1])
    for _ in range(_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(rows @ found, -500, 500)))
        slope = rows.T @ (weigh * (chance - event)) + ridge * found
        curve = (rows * (weigh * chance * (1 - chance))[:, None]).T @ rows + np.diag(ridge)
        step = np.linalg.solve(curve, slope)
        # Far from the optimum a whole step overshoots.
        found -= step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < 1e-9:
            break
    weights = found[1:] / spread
    return Logistic(weights, float(found[0] - mean @ weights))
