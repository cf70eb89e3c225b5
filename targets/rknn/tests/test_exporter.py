"""Options and what they refuse; what the toolkit is handed; and, where it is set up, the whole way to a bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from edgetrack_rknn.exporter import RknnExporter, RknnOptions, write_samples
from rknn_graphs import fed

from edgetrack.capabilities import find_target, full_target
from edgetrack.errors import BackendMissingError, UnknownNameError, UsageError
from edgetrack.exporting.lowering import Method
from edgetrack.exporting.parity import proof_of
from edgetrack.exporting.pipeline import ExportPlan, ExportRequest, plan
from edgetrack.exporting.recipe import Tolerance, find_recipe
from edgetrack.exporting.targets.base import read_options
from edgetrack.quantization.lower import LoweringRequest


def exporter(**options: str) -> RknnExporter:
    return RknnExporter(find_recipe("nanotrack_v2"), RknnOptions(**options))


def test_package_is_found_with_its_options(installed: Path) -> None:
    target = find_target("rknn")
    assert target.quantizer == "rknn-toolkit2"
    assert read_options(target, {"platform": "rk3566"}) == RknnOptions(platform="rk3566")
    assert target.runs_on("npu:2")
    assert not target.runs_on("cuda:0")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"platform": "rk3399"}, "--platform 'rk3399' is not known"),
        ({"quantized_algorithm": "kl"}, "--quantized-algorithm 'kl' is not known"),
    ],
)
def test_unknown_option_is_refused(options: dict[str, str], words: str) -> None:
    with pytest.raises(UnknownNameError, match=words):
        exporter(**options).prepare()


def test_environment_that_is_not_set_up_is_a_missing_backend(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGETRACK_ENVIRONMENTS", str(tmp_path / "none"))
    with pytest.raises(BackendMissingError, match="edgetrack target setup rknn"):
        plan(ExportRequest("nanotrack_v2", "rknn", "fp16", weights="untrained"))


def test_fp16_is_refused_for_a_chip_that_computes_in_integers() -> None:
    exporter(platform="rv1106").check_method(Method(), "int8")
    with pytest.raises(UsageError, match="NPU of rv1106 computes in integers alone; export with --precision int8"):
        exporter(platform="rv1106").check_method(Method(), "fp16")


@pytest.mark.parametrize(
    "method", [Method(ranges="percentile"), Method(bias_correction="none"), Method(symmetric=False)]
)
def test_methods_of_another_quantizer_are_refused(method: Method) -> None:
    with pytest.raises(UsageError, match="--quantized-algorithm"):
        exporter().check_method(method, "int8")


def test_manifest_says_what_the_toolkit_does() -> None:
    said = exporter(quantized_algorithm="mmse").describe_method(Method(per_channel=False), "rknn-toolkit2")
    assert said == "rknn-toolkit2 mmse, per tensor, asymmetric"


def test_stages_can_be_kept_in_fp16_by_int8_alone(installed: Path, tmp_path: Path) -> None:
    assert exporter().kept_in("int8") == "fp16"
    assert exporter(platform="rv1103").kept_in("int8") == exporter().kept_in("fp16") == ""
    recipe, request = find_recipe("nanotrack_v2"), ExportRequest("nanotrack_v2", "rknn", "fp16")
    exact = Tolerance(atol=0, rtol=0)
    work = ExportPlan(request, recipe, {}, find_target("rknn"), exporter(), "one", tmp_path, exact, exact)
    with pytest.raises(UsageError, match="computes all of a graph in fp16; leave --keep out"):
        LoweringRequest(keep=("reg",)).check(work)


def test_samples_are_written_as_float_images_with_the_batch(tmp_path: Path) -> None:
    samples = [fed(0), fed(1)]
    assert write_samples(tmp_path, samples) == ["search", "features"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "0-000000.npy", "0-000001.npy", "1-000000.npy", "1-000001.npy",
    ]  # fmt: skip
    image = np.load(tmp_path / "0-000001.npy")
    assert (image.dtype, image.shape) == (np.float32, (1, 3, 16, 16))
    np.testing.assert_array_equal(image[0].transpose(1, 2, 0), samples[1]["search"])
    np.testing.assert_array_equal(np.load(tmp_path / "1-000000.npy"), samples[0]["features"])


def test_no_samples_are_no_files(tmp_path: Path) -> None:
    assert write_samples(tmp_path, ()) == []


def test_report_says_that_no_board_ran(installed: Path) -> None:
    target = find_target("rknn")
    assert proof_of(full_target(target)) == ("onnxruntime", "")
    proven, not_run = proof_of(target)
    assert proven == "rknn"
    assert not_run.startswith("rknn itself, which needs a board with a Rockchip NPU; compared were simulations of it.")
