"""Core ML packages, whole: what they say of themselves, their weights, and that damage is found."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.bundle import open_bundle, read_npz
from edgetrack.errors import BundleIntegrityError, DeviceUnavailableError, UsageError
from edgetrack.exporting.lowering import Method
from edgetrack.exporting.pipeline import ExportRequest
from edgetrack.exporting.recipe import find_recipe
from edgetrack.exporting.targets.coreml import CoreMlOptions
from edgetrack.quantization.lower import LoweringRequest, export
from edgetrack.runtime.backends.base import BackendOptions
from edgetrack.runtime.backends.coreml.backend import CoreMlGraph
from edgetrack.runtime.backends.coreml.package import (
    NEURAL_ENGINE,
    coverage,
    hold_against,
    operations,
    plain_name,
    record,
    weights,
)
from edgetrack.runtime.backends.mil.package import read_spec
from edgetrack.runtime.verify import verify_bundle
from tests.builders import rehashed

pytest.importorskip("coremltools", reason="COREMLTOOLS ABSENT: pip install 'edgetrack[coreml]'")
pytestmark = [
    pytest.mark.usefixtures("short_proof"),
    pytest.mark.skipif(CoreMlGraph.runs_here(), reason="MACOS: verify runs the graphs there"),
]


@pytest.fixture(scope="module")
def made(lowered_tiny: Callable[[str, str, str], Path]) -> Callable[[str], Path]:
    """made("int8") -> DASTM for Core ML, small and untrained, exported once."""
    return lambda precision: lowered_tiny("dastm", "coreml", precision)


Made = Callable[[str], Path]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_bundle_is_interpreted_and_says_that_it_was_not_run(made: Made, precision: str) -> None:
    with open_bundle(made(precision)) as bundle:
        found = verify_bundle(bundle, BackendOptions())
        proof = json.loads(bundle.path("parity.json").read_bytes())
    assert (found.ok, found.verified, len(found.findings)) == (True, "interpreted", 2 * 5)
    assert {check.name.partition(" ")[0] for check in found.checks} == {
        "memory/features", "memory/gates", "step/score", "step/boxes"
    }  # fmt: skip
    assert "coreml needs macOS" in found.note
    assert "it is not Core ML" in found.note
    assert proof["proven"] == "mil"
    assert "coreml itself, which needs macOS" in proof["not_run"]


def test_inputs_are_camera_images_and_the_rest_arrays(made: Made) -> None:
    spec = read_spec(made("fp32") / "step.mlpackage")
    image, *state = spec.description.input
    assert (image.type.WhichOneof("Type"), image.type.imageType.width) == ("imageType", 97)
    assert image.type.imageType.ColorSpace.Name(image.type.imageType.colorSpace) == "BGR"
    assert {one.type.WhichOneof("Type") for one in state} == {"multiArrayType"}
    assert spec.specificationVersion == 7, "iOS 16"


@pytest.mark.full
def test_a_selecting_gate_is_lowered_a_package_for_each_attention(
    tiny_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    recipe = str(tiny_recipe("dastm", gate="select"))
    path = export(ExportRequest(recipe, "coreml", "int8", weights="untrained", output=tmp_path / "bundle")).path
    with open_bundle(path) as bundle:
        assert verify_bundle(bundle, BackendOptions()).ok
        roles = {graph.name: graph.role for graph in bundle.manifest.graphs}
        report = json.loads(bundle.path("layers.json").read_bytes())["graphs"]
    assert roles == {"memory": "step", **dict.fromkeys(("se", "ca", "cbam"), "choice"), "step": "step"}
    for name in ("se", "ca", "cbam"):
        # The recipe keeps attention in FP32.
        assert {layer["precision"] for layer in report[name]["layers"]} == {"fp32"}
    assert "fp16" in {layer["precision"] for layer in report["memory"]["layers"]}


def test_metadata_says_whose_it_is(made: Made) -> None:
    known = find_recipe("dastm")
    for precision in ("fp32", "fp16"):
        stated = read_spec(made(precision) / "step.mlpackage").description.metadata
        assert stated.license == known.checkpoint.licence
        assert stated.author == known.checkpoint.source or known.paper.source
        assert "untrained" in stated.shortDescription
        assert json.loads(stated.userDefined["edgetrack.crop rule and procedure"])["search_size"] == 97
        assert not [key for key in stated.userDefined if key.endswith("date")]
    assert "edgetrack.places" not in stated.userDefined


def test_precisions_are_what_they_say(made: Made) -> None:
    kinds, sizes = {}, {}
    for precision in ("fp32", "fp16", "int8"):
        with open_bundle(made(precision)) as bundle:
            report = json.loads(bundle.path("layers.json").read_bytes())
            kinds[precision] = {layer["precision"] for layer in report["graphs"]["step"]["layers"]}
            types = {layer["type"] for layer in report["graphs"]["step"]["layers"]}
            sizes[precision] = bundle.path("memory.mlpackage/Data/com.apple.CoreML/weights/weight.bin").stat().st_size
            exceptions = bundle.manifest.precision_exceptions
        assert ("constexpr_affine_dequantize" in types) is (precision == "int8")
    assert kinds["fp32"] == {"fp32"}
    assert kinds["fp16"] == kinds["int8"] == {"fp16", "fp32"}, "stages that the recipe keeps stay in FP32"
    assert exceptions["activations"] == "fp16"
    assert sizes["int8"] < 0.7 * sizes["fp16"] < 0.7 * 0.6 * sizes["fp32"]


def test_kept_stage_computes_in_fp32_and_keeps_its_weights(made: Made) -> None:
    import coremltools

    found = operations(read_spec(made("int8") / "step.mlpackage"))
    assert {op.outputs[0].type.tensorType.dataType for op in found if op.type == "matmul"} == {11}
    assert coremltools.__version__.startswith("9")


@pytest.fixture
def copied(made: Made, tmp_path: Path) -> Path:
    """The INT8 bundle, to spoil."""
    return Path(shutil.copytree(made("int8"), tmp_path / "copy"))


def test_changed_weights_are_found_although_the_hashes_fit(copied: Path) -> None:
    path = copied / "step.mlpackage" / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"
    data = bytearray(path.read_bytes())
    # Inside the largest weight: every one has a header with this mark.
    marks = [match.start() for match in re.finditer(b"\xef\xbe\xad\xde", data)]
    start = max(pairwise(marks), key=lambda ends: ends[1] - ends[0])[0] + 128
    data[start : start + 2000] = bytes((byte + 90) % 256 for byte in data[start : start + 2000])
    path.write_bytes(data)
    with rehashed(copied) as bundle:
        failed = [finding for finding in CoreMlGraph.check_structure(bundle) if not finding.ok]
    assert [finding.name for finding in failed] == ["step weights"]
    assert re.search(r"\d+ of \d+ are not the network's, such as weights step/", failed[0].detail)


def rewritten(folder: Path, change: Callable[[Any], None]) -> list[str]:
    """Names of the checks that fail after the step package's specification was changed."""
    path = folder / "step.mlpackage" / "Data" / "com.apple.CoreML" / "model.mlmodel"
    spec = read_spec(folder / "step.mlpackage")
    change(spec)
    path.write_bytes(spec.SerializeToString())
    with rehashed(folder) as bundle:
        return [finding.name for finding in CoreMlGraph.check_structure(bundle) if not finding.ok]


def test_renamed_output_is_found_although_the_hashes_fit(copied: Path) -> None:
    def rename(spec: Any) -> None:
        spec.description.output[0].name = "another"

    assert rewritten(copied, rename) == ["step outputs"]


def test_operator_outside_the_list_is_found_although_the_hashes_fit(copied: Path) -> None:
    def replace(spec: Any) -> None:
        next(op for op in operations(spec) if op.type == "relu").type = "softplus"

    assert rewritten(copied, replace) == ["step operators"]


def test_a_graph_without_a_large_weight_is_covered_and_one_that_lost_its_own_is_not() -> None:
    large, small = np.ones((32, 16), np.float32), np.ones((8, 8), np.float32)
    assert coverage({"w": small}, record({"w": small})) == 1
    assert coverage({"w": small}, record({"w": large})) == 0
    assert coverage({"other": large}, record({"w": small})) == 0
    assert coverage({"w": large, "w2": large}, record({"w": large})) == 0.5


@pytest.mark.parametrize("kind", ["empty", "cut", "noise"])
def test_damaged_specification_is_refused_by_name(copied: Path, kind: str) -> None:
    path = copied / "step.mlpackage" / "Data" / "com.apple.CoreML" / "model.mlmodel"
    data = path.read_bytes()
    noise = np.random.default_rng(0).bytes(4000)
    path.write_bytes({"empty": b"", "cut": data[: len(data) // 2], "noise": noise}[kind])
    with rehashed(copied) as bundle, pytest.raises(BundleIntegrityError, match=r"step\.mlpackage"):
        CoreMlGraph.check_structure(bundle)


def test_package_of_another_graph_is_found(copied: Path) -> None:
    shutil.rmtree(copied / "step.mlpackage")
    shutil.copytree(copied / "memory.mlpackage", copied / "step.mlpackage")
    with rehashed(copied) as bundle:
        failed = {finding.name for finding in CoreMlGraph.check_structure(bundle) if not finding.ok}
    assert failed >= {"step inputs", "step outputs", "step operators"}


@pytest.mark.parametrize("device", ["cpu", "ane", "cuda:0"])
def test_running_it_here_says_where_it_runs(made: Made, device: str) -> None:
    import edgetrack

    with pytest.raises(DeviceUnavailableError) as caught:
        edgetrack.load(made("fp32"), device=device)
    assert caught.value.exit_code == 4
    assert ("take the bundle to a Mac" if device != "cuda:0" else "not on 'cuda:0'") in str(caught.value)


@pytest.mark.full
def test_same_request_gives_the_same_package(tiny_recipe: Callable[..., Path], tmp_path: Path) -> None:
    recipe = str(tiny_recipe("dastm"))
    first, second = (
        export(ExportRequest(recipe, "coreml", weights="untrained", output=tmp_path / name)).path / "memory.mlpackage"
        for name in ("a", "b")
    )
    for file in (path.relative_to(first) for path in first.rglob("*") if path.is_file()):
        assert (first / file).read_bytes() == (second / file).read_bytes(), file


@pytest.mark.full
def test_smat_is_sound_at_its_newest_deployment(tmp_path: Path) -> None:
    request = ExportRequest(
        "smat", "coreml", "int8", output=tmp_path / "b", options=CoreMlOptions(deployment_target="iOS18")
    )
    with open_bundle(export(request).path) as bundle:
        found = verify_bundle(bundle, BackendOptions())
        assert read_spec(bundle.path("step.mlpackage")).specificationVersion == 9
        share = [finding.detail for finding in found.findings if finding.name == "step weights"]
    assert found.ok, found.findings
    # What the converter makes itself, such as transposed constants, is the rest.
    assert float(share[0].split("%")[0].split()[-1]) > 99


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"options": CoreMlOptions(deployment_target="iOS12")}, "expected one of: iOS16, iOS17, iOS18"),
        ({"onnx": (Path("step.onnx"),)}, "reads no ONNX"),
        (
            {"lowering": LoweringRequest(method=Method(smooth_quant=0.5))},
            "--smooth-quant do not apply",
        ),
        (
            {"lowering": LoweringRequest(control=SimpleNamespace())},
            "accuracy control runs the bundle",
        ),
    ],
)
def test_what_core_ml_does_not_offer_is_refused(change: dict[str, Any], words: str) -> None:
    lowering = change.get("lowering")
    with pytest.raises(UsageError, match=words):
        export(
            ExportRequest("smat", "coreml", "int8", **{k: v for k, v in change.items() if k != "lowering"}), lowering
        )


@pytest.mark.parametrize("name", ["w", "w_to_fp16", "w_to_fp16_quantized", "w_quantized"])
def test_weight_is_known_under_what_was_added_to_its_name(name: str) -> None:
    assert plain_name(name) == "w"


def test_weights_are_the_records_own(made: Made) -> None:
    with open_bundle(made("fp32")) as bundle:
        found, recorded = weights(bundle.path("step.mlpackage")), read_npz(bundle.path("step.source.npz"))
    names = {key.removesuffix("/largest") for key in recorded if key.endswith("/largest")}
    assert names
    assert names <= set(found)


def test_allow_list_is_of_operators_that_exist() -> None:
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    known = set(SSAOpRegistry.ops["core"]) if hasattr(SSAOpRegistry, "ops") else set()
    assert not known or known >= NEURAL_ENGINE


@given(st.integers(600, 4000), st.floats(1e-3, 10), st.integers(0, 2**32 - 1))
def test_rounding_is_within_what_is_granted_and_a_shift_is_not(size: int, scale: float, seed: int) -> None:
    weight = (np.random.default_rng(seed).normal(size=(1, size)) * scale).astype(np.float32)
    recorded = record({"w": weight})
    step = np.float32(np.abs(weight).max() / 127)
    rounded = {
        "fp32": weight,
        "fp16": weight.astype(np.float16),
        "int8": (np.rint(weight / step) * np.float32(step)).astype(np.float16),
    }
    for precision, value in rounded.items():
        assert all(check.ok for check in hold_against("g", {"w": value}, recorded, precision))
        (shifted,) = hold_against("g", {"w": np.roll(value, 1)}, recorded, precision)
        assert not shifted.ok
    (turned,) = hold_against("g", {"w": weight.T}, recorded, "fp32")
    assert not turned.ok
