"""Scripted bundles: SMAT's procedure on graphs without a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgetrack.bundle import Manifest, open_bundle
from edgetrack.runtime.backends.base import BackendOptions
from edgetrack.runtime.session import Tracker
from tests.builders import scripted_manifest, write_scripted

RULES = {"score": 0.9, "size": 0.2, "offset": 0.5}


@pytest.fixture
def fake_manifest() -> Manifest:
    return scripted_manifest()


@pytest.fixture
def scripted(tmp_path: Path) -> Callable[..., Path]:
    """scripted(score=0.05) -> a bundle whose step fills its maps by those rules, features from the template's mean."""

    def make(manifest: Manifest | None = None, **rules: Any) -> Path:
        rules = RULES | {"template_features": None} | rules
        return write_scripted(tmp_path / "scripted", manifest or scripted_manifest(), overwrite=True, **rules)

    return make


@pytest.fixture
def scripted_tracker(scripted: Callable[..., Path]) -> Iterator[Callable[..., Tracker]]:
    """scripted_tracker(score="nan", clock=...) -> a tracker on such a bundle, closed at the end."""
    with ExitStack() as stack:

        def make(clock: Callable[[], int] | None = None, **rules: Any) -> Tracker:
            options = {} if clock is None else {"clock": SimpleNamespace(now_ns=clock)}
            return stack.enter_context(Tracker(open_bundle(scripted(**rules)), BackendOptions(), **options))

        yield make


@pytest.fixture
def frame() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
