"""Whole bundles of lower precision: they run, verify, say what they are, and come out the same twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest

import edgetrack
from edgetrack.bundle import open_bundle
from edgetrack.errors import (
    BackendMissingError,
    DeviceUnavailableError,
    ParityError,
    RecipeError,
    UnknownNameError,
    UsageError,
)
from edgetrack.evaluation.datasets import open_dataset
from edgetrack.evaluation.protocols.anchored import Anchored
from edgetrack.exporting.lowering import Method, quantized_types
from edgetrack.exporting.pipeline import ExportRequest, export, plan
from edgetrack.exporting.recipe import Tolerance, find_recipe
from edgetrack.media import open_source
from edgetrack.quantization.accuracy_control import AccuracyControl
from edgetrack.quantization.calibration import (
    CalibrationSources,
    CropSampling,
    Part,
    find_set,
    make_set,
    read_set,
    to_toml,
)
from edgetrack.quantization.lower import CALIBRATION_FILE, LoweringRequest, lower
from edgetrack.quantization.lower import export as export_any
from edgetrack.runtime.backends.base import BackendOptions
from edgetrack.runtime.backends.openvino.backend import shared_core
from edgetrack.runtime.frames import with_stand_in
from edgetrack.runtime.prompt import stand_in_text
from edgetrack.runtime.session import load
from edgetrack.runtime.verify import arithmetic_of, verify_bundle

pytestmark = pytest.mark.long
TRACKER = "nanotrack_v2"
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A short calibration list, as a file."""
    (part,) = find_set("synthetic").parts
    made = make_set("few", (Part(dataset=part.dataset, items=part.items[:6]),))
    path = tmp_path_factory.mktemp("set") / "few.toml"
    path.write_text(to_toml(made), "utf-8")
    return str(path)


@pytest.fixture
def make(exported: Make, made_once: Make, tmp_path: Path, few: str) -> Make:
    """make("onnx", "int8", ...) -> a lowered bundle of untrained NanoTrack; with no further wish made once, not to be
    changed."""

    def made(target: str, precision: str, name: str = "", **wishes: Any) -> Path:
        if name or wishes:
            return lowered(tmp_path / (name or "lowered"), target, precision, **wishes)
        return made_once(f"few-{target}-{precision}/lowered", lambda output: lowered(output, target, precision))

    def lowered(output: Path, target: str, precision: str, tolerance: float = 1e3, **request: object) -> Path:
        recipe = find_recipe(TRACKER)
        # Weights from names alone have ranges that no training would leave.
        recipe = type(recipe)(
            **{
                **{field: getattr(recipe, field) for field in recipe.__struct_fields__},
                "parity": {precision: Tolerance(tolerance, 0.0)},
            }
        )
        calibration = None if precision == "bf16" else CalibrationSources((few,))
        lowering = LoweringRequest(**{"calibration": calibration, **request})
        work = plan(ExportRequest(TRACKER, target, precision, output=output))
        work = replace(work, name=output.name, recipe=recipe, allowed=Tolerance(tolerance, 0.0))
        lower(exported(target, tracker=TRACKER), work, lowering, lambda stage: None)
        return output

    return made


def tracked(bundle: Path) -> list[float]:
    with edgetrack.load(bundle, threads=1) as tracker, open_source("synthetic:drift?frames=4&size=320x240") as frames:
        truth = frames.ground_truth
        assert truth is not None
        assert truth[0] is not None
        images = list(frames)
        tracker.init(images[0], truth[0])
        return [value for image in images[1:] for value in tracker.update(image).box]


@pytest.mark.parametrize(
    ("target", "precision"), [("openvino", "int8"), ("openvino", "fp16"), ("onnx", "int8"), ("onnx", "fp16")]
)
def test_a_lowered_bundle_tracks_and_verifies(make: Make, exported: Make, target: str, precision: str) -> None:
    bundle = make(target, precision)
    assert np.isfinite(tracked(bundle)).all()
    with open_bundle(bundle) as opened, open_bundle(exported(target, tracker=TRACKER)) as full:
        verified = verify_bundle(opened, BackendOptions())
        assert (verified.ok, verified.note) == (True, "")
        proof = json.loads(opened.path("parity.json").read_bytes())
        assert proof["arithmetic"] == arithmetic_of(target)
        assert set(proof["boxes"]) == {"0", "3", "6"}
        manifest = opened.manifest
        assert (manifest.precision, manifest.name) == (precision, "lowered")
        assert manifest.calibration is not None
        assert manifest.calibration.size == 6
        assert read_set(opened.path(CALIBRATION_FILE)).sha256 == manifest.calibration.list_sha256
        assert set(manifest.precision_exceptions) >= {f"stage {s}" for s in find_recipe(TRACKER).keep[precision]}
        weights = "step.bin" if target == "openvino" else "step.onnx"
        assert manifest.files[weights].size < 0.8 * full.manifest.files[weights].size


def test_int8_onnx_is_signed_throughout_with_stored_weights(make: Make) -> None:
    model = onnx.load(str(make("onnx", "int8") / "step.onnx"))
    assert quantized_types(model) == {"int8"}
    constants = {tensor.name for tensor in model.graph.initializer}
    assert not [n.name for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] in constants]


@pytest.mark.parametrize("target", [pytest.param("openvino", marks=pytest.mark.full), "onnx"])
def test_the_same_list_gives_the_same_bytes(make: Make, target: str) -> None:
    first, second = make(target, "int8"), make(target, "int8", "second")
    graphs = [path.name for path in first.iterdir() if path.suffix in (".onnx", ".xml", ".bin")]
    assert graphs
    for name in graphs:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_kept_stages_are_not_quantized(make: Make) -> None:
    everything = tuple(find_recipe(TRACKER).stages)
    model = onnx.load(str(make("onnx", "int8", keep=everything) / "step.onnx"))
    assert quantized_types(model) == set()


@pytest.mark.full
def test_methods_change_what_comes_out(make: Make) -> None:
    def weights(name: str, **method: object) -> bytes:
        return (make("openvino", "int8", name, method=Method(**method)) / "step.bin").read_bytes()

    plain = weights("plain")
    others = {
        "percentile": weights("percentile", ranges="percentile"),
        "histogram": weights("histogram", ranges="histogram"),
        "tensor": weights("tensor", per_channel=False),
        "uncorrected": weights("uncorrected", bias_correction="none"),
        "asymmetric": weights("asymmetric", symmetric=False),
    }
    assert all(other != plain for other in others.values())
    assert len(set(others.values())) == len(others)


def test_what_strays_beyond_the_tolerance_is_not_written(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"18 of 18 comparisons"):
        make("onnx", "int8", tolerance=0.0)
    assert not (tmp_path / "lowered").exists()


def test_bf16_is_a_hint_that_the_bundle_carries(make: Make) -> None:
    try:
        bundle = make("openvino", "bf16")  # its parity runs in bfloat16, too
    except DeviceUnavailableError as error:
        pytest.skip(f"NO BFLOAT16 HERE: {error}")
    with open_bundle(bundle) as opened:
        assert (opened.manifest.precision, opened.manifest.calibration) == ("bf16", None)
    with edgetrack.load(bundle) as tracker:
        assert tracker.options.precision_hint == "bf16"


def test_int8_with_bf16_is_quantized_and_asks_for_bfloat16(make: Make) -> None:
    try:
        bundle = make("openvino", "int8-bf16")
    except DeviceUnavailableError as error:
        pytest.skip(f"NO BFLOAT16 HERE: {error}")
    with open_bundle(bundle) as opened:
        manifest = opened.manifest
        assert verify_bundle(opened, BackendOptions(precision_hint="bf16")).ok
    assert (manifest.precision, manifest.calibration is None) == ("int8-bf16", False)
    # What int8 keeps in FP32 is kept here, too, where the recipe names nothing else.
    stages = {f"stage {name}": "bf16" for name in find_recipe(TRACKER).keep["int8"]}
    assert manifest.precision_exceptions == stages
    with edgetrack.load(bundle) as tracker:
        assert tracker.options.precision_hint == "bf16"


@pytest.mark.parametrize("precision", ["bf16", "int8-bf16"])
def test_bfloat16_is_refused_before_anything_is_computed_where_the_processor_has_none(
    monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    class Core:
        def get_property(self, *names: str) -> list[str]:
            return ["FP32", "INT8"]

    monkeypatch.setattr("edgetrack.runtime.backends.openvino.backend.shared_core", Core)
    work = plan(ExportRequest(TRACKER, "openvino", precision))
    with pytest.raises(DeviceUnavailableError, match=r"OpenVINO lists FP32, INT8.*export fp32 or int8"):
        LoweringRequest(CalibrationSources()).check(work)


def golden_outputs(bundle: Path, graph: str, allowed: str) -> list[np.ndarray]:
    """What an ONNX graph gives on its recorded inputs where activations of int8 are refused ("0") or taken ("1")."""
    golden = np.load(bundle / "golden.npz")
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.qdqisint8allowed", allowed)
    if allowed == "0":  # as the backend does, which matters without VNNI
        options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(str(bundle / f"{graph}.onnx"), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {t.name: golden[f"0/{graph}/in/{t.name}"] for t in session.get_inputs()}))


def check_both(bundle: Path) -> None:
    """As x86-64 refuses them and everything else takes them: the same outputs."""
    for file in bundle.glob("*.onnx"):
        pairs = zip(*(golden_outputs(bundle, file.stem, allowed) for allowed in ("0", "1")), strict=True)
        for here, there in pairs:
            np.testing.assert_allclose(there, here, rtol=0, atol=0.02 * np.abs(here).max())


def test_int8_onnx_runs_where_activations_of_int8_are_taken(make: Make) -> None:
    check_both(make("onnx", "int8"))


@pytest.mark.full
def test_int8_onnx_of_a_mobile_vit_runs_there_too(
    exported_tiny: Callable[..., Path], tiny_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    """Its activations behind convolutions once had a scale for each channel, which Arm's QLinearConv refuses."""
    work = plan(ExportRequest(str(tiny_recipe("smat")), "onnx", "int8", output=tmp_path / "lower"))
    request = LoweringRequest(calibration=CalibrationSources((SCENE,), sampling=CropSampling(size=3)))
    lower(exported_tiny("smat", "onnx"), work, request, lambda what: None)
    check_both(tmp_path / "lower")


def test_wishes_that_cannot_be_met_are_refused(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownNameError, match=r"stage 'nose' is not known.*gates"):
        make("onnx", "int8", keep=("nose",))
    with pytest.raises(UsageError, match="give --calib"):
        LoweringRequest().check(plan(ExportRequest(TRACKER, "onnx", "int8")))
    with pytest.raises(UsageError, match="--weight-bits 7 does not apply to this target"):
        LoweringRequest(CalibrationSources(), Method(weight_bits=7)).check(plan(ExportRequest(TRACKER, "onnx", "int8")))
    for wrong in ({"ranges": "entropy"}, {"bias_correction": "some"}, {"smooth_quant": 2.0}, {"weight_bits": 6}):
        with pytest.raises(UsageError, match="expected"):
            Method(**wrong)
    monkeypatch.setitem(__import__("sys").modules, "nncf", None)
    with pytest.raises(BackendMissingError, match=r"edgetrack\[int8\]"):
        make("onnx", "int8", "without")


def test_crops_can_be_collected_by_the_tracker_that_is_exported(make: Make) -> None:
    sources = CalibrationSources(("synthetic:drift?frames=8&size=320x240",), None, CropSampling(size=5))
    with open_bundle(make("onnx", "int8", calibration=sources)) as opened:
        found = read_set(opened.path(CALIBRATION_FILE))
    assert found.size == 5
    assert "tracker" in found.about


SCENE = "synthetic:drift?frames=5&size=160x120"


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("target", ["onnx", "openvino"])
@pytest.mark.parametrize(
    ("name", "procedure"),
    [
        ("dastm", {}),
        *(pytest.param(name, {}, marks=pytest.mark.full) for name in ("dmtrack", "spmtrack_b", "atstrack")),
        pytest.param("dastm", {"gate": "select"}, marks=pytest.mark.full),
    ],
)
def test_lower_precisions_track(
    exported_tiny: Callable[..., Path],
    tiny_recipe: Callable[..., Path],
    tmp_path: Path,
    name: str,
    procedure: dict[str, str],
    target: str,
    precision: str,
) -> None:
    full, output = exported_tiny(name, target, **procedure), tmp_path / "lower"
    request = LoweringRequest(calibration=CalibrationSources((SCENE,), sampling=CropSampling(size=3)))
    work = plan(ExportRequest(str(tiny_recipe(name, **procedure)), target, precision, output=output))
    lower(full, work, request, lambda what: None)
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


@pytest.mark.full
@pytest.mark.usefixtures("short_proof")
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_marked_products_are_lowered_like_all_others(
    tiny_recipe: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    # Only full-size networks have products that are long enough: here each one counts as long.
    monkeypatch.setattr("edgetrack.exporting.targets.openvino.LONG", 1)
    monkeypatch.setattr("edgetrack.exporting.targets.openvino.TALL", 1)
    recipe, full, output = tiny_recipe("dmtrack"), tmp_path / "full", tmp_path / "lower"
    export(ExportRequest(str(recipe), "openvino", weights="untrained", output=full))
    request = LoweringRequest(calibration=CalibrationSources((SCENE,), sampling=CropSampling(size=3)))
    work = plan(ExportRequest(str(recipe), "openvino", precision, output=output))
    lower(full, work, request, lambda what: None)
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


def test_accuracy_control_of_a_tracker_without_stages_is_refused(tmp_path: Path) -> None:
    work = plan(ExportRequest(TRACKER, "onnx", "int8", output=tmp_path / "lowered"))
    recipe = msgspec.structs.replace(work.recipe, stages={}, keep={})
    control = AccuracyControl(open_dataset(SCENE), 0.01, Anchored(3, 3))
    with pytest.raises(RecipeError, match=r"has no \[stages\] table"):
        export_any(replace(work, recipe=recipe), LoweringRequest(control=control))


def test_the_manifest_names_the_targets_quantizer() -> None:
    assert Method().describe("nncf") == "nncf minmax, fast bias correction, per channel, symmetric"
    assert Method(smooth_quant=0.5).describe("mine").startswith("mine minmax")
    assert Method(weight_bits=7).describe("nncf").endswith("symmetric, 7-bit weights")


def test_lower_precisions_are_not_exported_by_the_pipeline_alone(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"call edgetrack\.quantization\.lower\.export"):
        export(ExportRequest(TRACKER, "onnx", "int8", output=tmp_path / "lowered"))
