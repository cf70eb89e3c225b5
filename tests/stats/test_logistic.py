"""The regression against scikit-learn's, and on data whose weights are known."""

from __future__ import annotations

import numpy as np
import pytest

from edgetrack.errors import UsageError
from edgetrack.stats.logistic import fit_logistic


def test_weights_are_those_that_made_the_data() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200_000, 2)) * (1.0, 10.0) + (0.0, 5.0)
    odds = 1.5 * features[:, 0] - 0.1 * (features[:, 1] - 5)
    event = rng.random(len(odds)) < 1 / (1 + np.exp(-odds))
    found = fit_logistic(features, event)
    assert found.weights == pytest.approx([1.5, -0.1], rel=0.03)
    assert found.bias == pytest.approx(0.5, abs=0.05)


def test_weights_are_those_of_scikit_learn() -> None:
    linear = pytest.importorskip("sklearn.linear_model", reason="scikit-learn comes with NNCF")
    rng = np.random.default_rng(1)
    features = rng.normal(size=(500, 3))
    event = features @ (1.0, -2.0, 0.0) + rng.normal(size=500) > 1.2
    spread = (features - features.mean(axis=0)) / features.std(axis=0)
    # Its penalty is 1/2 |w|^2 against C times the sum over frames, whose weights here add up to 1.
    peer = linear.LogisticRegression(C=1000 / len(event), class_weight="balanced", tol=1e-10).fit(spread, event)
    found = fit_logistic(features, event)
    assert found.weights * features.std(axis=0) == pytest.approx(peer.coef_[0], rel=1e-3)
    assert found.log_odds(features) == pytest.approx(peer.decision_function(spread), rel=1e-2, abs=1e-2)


def test_separable_data_has_finite_weights() -> None:
    found = fit_logistic(np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([False, False, True, True]))
    assert np.isfinite(found.weights).all()
    assert (found.log_odds(np.array([[0.0], [3.0]])) > 0).tolist() == [False, True]


def test_a_feature_that_never_varies_weighs_nothing() -> None:
    rng = np.random.default_rng(2)
    features = np.stack([rng.normal(size=100), np.ones(100)], axis=1)
    assert fit_logistic(features, features[:, 0] > 0).weights[1] == pytest.approx(0, abs=1e-6)


def test_one_kind_of_frames_is_refused() -> None:
    with pytest.raises(UsageError, match="both kinds"):
        fit_logistic(np.ones((3, 1)), np.ones(3, np.bool_))
