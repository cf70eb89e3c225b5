"""Trackers that remember at lower precisions, in small configurations: their state is calibrated by running them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgetrack.bundle import open_bundle
from edgetrack.export.pipeline import ExportRequest, export, plan
from edgetrack.export.recipe import find_recipe
from edgetrack.media import open_source
from edgetrack.quantization.collect import Wish
from edgetrack.quantization.lower import LoweringRequest, lower
from edgetrack.quantization.sources import Sources
from edgetrack.runtime.backends.base import BackendOptions
from edgetrack.runtime.backends.openvino.backend import shared_core
from edgetrack.runtime.frames import with_stand_in
from edgetrack.runtime.prompt import stand_in_text
from edgetrack.runtime.session import load
from edgetrack.runtime.verify import verify_bundle

SCENE = "synthetic:drift?frames=5&size=160x120"


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgetrack.runtime.session.usable_cores", lambda: 1)
    monkeypatch.setattr("edgetrack.quantization.lower_bundle.usable_cores", lambda: 1)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("target", ["onnx", "openvino"])
@pytest.mark.parametrize("name", ["dmtrack", "spmtrack_b", "atstrack", "dastm"])
def test_lower_precisions_track(
    exported_tiny: Callable[..., Path],
    tiny_recipe: Callable[..., Path],
    tmp_path: Path,
    name: str,
    target: str,
    precision: str,
) -> None:
    full, output = exported_tiny(name, target), tmp_path / "lower"
    wish = LoweringRequest(calibration=Sources((SCENE,), wish=Wish(size=3)))
    work = plan(ExportRequest(str(tiny_recipe(name)), target, precision, output=output))
    lower(full, work, wish, lambda what: None)
    kept = find_recipe(name).keep[precision]
    with open_bundle(output) as bundle:
        manifest = bundle.manifest
        assert manifest.precision == precision
        assert {f"stage {stage}" for stage in kept} <= set(manifest.precision_exceptions)
        assert manifest.calibration is not None
        assert manifest.calibration.size == 3
        assert verify_bundle(bundle, BackendOptions()).ok
    sizes = [sum(f.stat().st_size for f in p.glob("step.*")) for p in (full, output)]
    assert sizes[1] < 0.9 * sizes[0]
    frames = list(open_source(SCENE))
    with load(output, threads=1) as tracker:
        if tracker.attributes:
            tracker.set_text(stand_in_text(tracker.attributes))
        tracker.init(with_stand_in(frames[0], tracker.modalities), (40, 40, 30, 30))
        for frame in frames[1:]:
            found = tracker.update(with_stand_in(frame, tracker.modalities))
            assert np.isfinite(found.box).all()
            assert "NaN" not in str(found.reason)


@pytest.mark.usefixtures("short_proof")
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_marked_products_are_lowered_like_all_others(
    tiny_recipe: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    # Only full-size networks have products that are long enough: here each one counts as long.
    monkeypatch.setattr("edgetrack.export.targets.openvino.LONG", 1)
    monkeypatch.setattr("edgetrack.export.targets.openvino.TALL", 1)
    recipe, full, output = tiny_recipe("dmtrack"), tmp_path / "full", tmp_path / "lower"
    export(ExportRequest(str(recipe), "openvino", weights="untrained", output=full))
    wish = LoweringRequest(calibration=Sources((SCENE,), wish=Wish(size=3)))
    work = plan(ExportRequest(str(recipe), "openvino", precision, output=output))
    lower(full, work, wish, lambda what: None)
    with open_bundle(output) as bundle:
        assert verify_bundle(bundle, BackendOptions()).ok
        model = shared_core().read_model(bundle.path("step.xml"))
    assert any(node.get_type_name() == "PRelu" for node in model.get_ops())
    compiled = shared_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).get_runtime_model()
    infos = [node.get_rt_info() for node in compiled.get_ops()]
    kinds = [str(info["primitiveType"].value) for info in infos if info["layerType"].value == "FullyConnected"]
    # The activation is part of the product in either precision.
    assert not any(info["layerType"].value in ("PRelu", "Eltwise") for info in infos)
    assert any("i8" in kind for kind in kinds) == (precision == "int8")
