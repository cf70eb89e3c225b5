"""Scripted bundles: SMAT's procedure on graphs without a network."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetrack.bundle import BundleWriter, Manifest, open_bundle
from edgetrack.bundle.manifest import GraphInfo, TensorInfo, WeightsInfo
from edgetrack.runtime.backends.base import Options
from edgetrack.runtime.session import Tracker

RULES = {"score": 0.9, "size": 0.2, "offset": 0.5}


def tensor(name: str, *shape: int, dtype: str = "float32") -> TensorInfo:
    return TensorInfo(name=name, dtype=dtype, shape=shape)


@pytest.fixture
def fake_manifest() -> Manifest:
    features = tensor("template_features", 1, 4, 1, 4)
    crops = [tensor("template", 128, 128, 3, dtype="uint8"), tensor("search", 256, 256, 3, dtype="uint8")]
    maps = (tensor("score", 1, 1, 16, 16), tensor("size", 1, 2, 16, 16), tensor("offset", 1, 2, 16, 16))
    return Manifest(
        name="scripted",
        tracker="smat",
        title="SMAT",
        target="fake",
        precision="fp32",
        weights=WeightsInfo(origin="untrained"),
        graphs=(
            GraphInfo(name="template", role="init", file="t.json", inputs=(crops[0],), outputs=(features,)),
            GraphInfo(name="step", role="step", file="s.json", inputs=(crops[1], features), outputs=maps),
        ),
        procedure={
            "template_factor": 2.0,
            "template_size": 128,
            "search_factor": 4.0,
            "search_size": 256,
            "clip_margin": 10.0,
            "lost_below": 0.1,
        },
    )


@pytest.fixture
def scripted(tmp_path: Path, fake_manifest: Manifest) -> Callable[..., Path]:
    """scripted(score=0.05) -> a bundle whose step fills its maps by those rules, features from the template's mean."""

    def make(manifest: Manifest = fake_manifest, **rules: Any) -> Path:
        with BundleWriter(tmp_path / "scripted", overwrite=True) as writer:
            for graph in manifest.graphs:
                given = RULES | rules
                script = {t.name: given.get(t.name, f"input:{graph.inputs[0].name}") for t in graph.outputs}
                (writer.folder / graph.file).write_text(json.dumps(script))
            return writer.commit(manifest)

    return make


@pytest.fixture
def scripted_tracker(scripted: Callable[..., Path]) -> Iterator[Callable[..., Tracker]]:
    """scripted_tracker(score="nan", clock=...) -> a tracker on such a bundle, closed at the end."""
    with ExitStack() as stack:

        def make(clock: Callable[[], int] | None = None, **rules: Any) -> Tracker:
            options = {} if clock is None else {"clock": clock}
            return stack.enter_context(Tracker(open_bundle(scripted(**rules)), Options(), **options))

        yield make


@pytest.fixture
def frame() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
