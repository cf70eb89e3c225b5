from __future__ import annotations

import pytest

from edgetrack.capabilities import find_target, targets
from edgetrack.errors import EdgetrackError, UsageError
from edgetrack.runtime.found import FoundHere
from edgetrack.tuning.candidates import Machine, find_candidates

HERE = Machine(
    {
        "openvino": FoundHere(devices=("cpu", "gpu"), refused={"bf16": "no bfloat16", "fp16": "no half precision"}),
        "onnx": FoundHere(devices=("cpu",)),
        "tensorrt": FoundHere(),
        "coreml": FoundHere(problem="not on this system"),
    },
    nvidia=False,
    cores=4,
)


@pytest.fixture
def found(tmp_path, bundle):
    """found("smat", machine) -> (labels, left out, exports) where every export works, but one."""

    def find(*given, machine=HERE, time_left=lambda: True):
        left_out, exports = [], []

        def export(tracker, target, precision):
            exports.append(f"{target} {precision}")
            if exports[-1] == "onnx int8":
                raise EdgetrackError("cannot be exported: no calibration clips")
            return bundle(f"{tracker}-{target}-{precision}", target=target, precision=precision)

        candidates = find_candidates(
            list(map(str, given)),
            machine,
            export=export,
            folder=tmp_path / "out",
            left_out=left_out,
            time_left=time_left,
        )
        return [one.label for one in candidates], {one.what: one.reason for one in left_out}, exports

    return find


def test_a_tracker_is_exported_to_what_runs_here_and_the_rest_is_left_out_with_its_reason(found):
    labels, left_out, exports = found("smat")
    assert exports == ["openvino fp32", "openvino fp16", "openvino int8", "onnx fp32", "onnx fp16", "onnx int8"]
    assert {
        "smat-openvino-int8 on 1 thread",
        "smat-openvino-int8 on 2 threads",
        "smat-openvino-int8 on 4 threads",
        "smat-openvino-int8@gpu on 4 threads",
        "smat-openvino-fp32@fp16@gpu on 4 threads",
        "smat-onnx-fp16 on 2 threads",
    } <= set(labels)
    assert not any("tensorrt" in label or "torch" in label for label in labels)
    assert left_out == {
        "openvino bf16": "no bfloat16",
        "openvino int8-bf16": "no bfloat16",
        "smat-openvino-fp32@fp16": "no half precision",
        "onnx int8": "cannot be exported: no calibration clips",
        "tensorrt": "it needs an NVIDIA GPU",
        "coreml": "not on this system",
    }


def test_what_is_in_the_folder_is_not_exported_again_and_time_ends_exports(found, bundle):
    bundle("smat-openvino-fp32", target="openvino")
    labels, left_out, exports = found("smat", time_left=lambda: False)
    assert exports == []
    assert {label.partition("@")[0].partition(" ")[0] for label in labels} == {"smat-openvino-fp32"}
    assert "half of the time was gone" in left_out["onnx fp32"]


def test_a_profile_says_where_each_target_runs(found):
    labels, left_out, _ = found("smat", machine=Machine({}, nvidia=True, places={"onnx": "cpu"}, cores=1))
    assert labels == ["smat-onnx-fp32 on 1 thread", "smat-onnx-fp16 on 1 thread"]
    assert left_out["openvino"] == "the device does not run it"


def test_a_bundle_with_its_hint_and_device_is_taken_as_given(found, bundle):
    path = bundle("mine", target="openvino")
    labels, _, exports = found(f"{path}@bf16@gpu")
    assert (labels, exports) == (["mine@bf16@gpu on 4 threads"], [])


def test_where_nothing_runs_the_reasons_are_said(found, bundle):
    with pytest.raises(UsageError, match=r"nothing of .* runs here: .*an NVIDIA GPU"):
        found(bundle("engine", target="tensorrt"))
    with pytest.raises(UsageError, match="give a tracker"):
        found()


def test_a_cuda_device_is_taken_where_the_driver_is():
    with_gpu = Machine({"tensorrt": FoundHere()}, nvidia=True, cores=2)
    assert with_gpu.devices(find_target("tensorrt")) == ("cuda:0",)
    with pytest.raises(UsageError, match="not installed; type: "):
        with_gpu.devices(find_target("openvino"))
    assert all(row.exporter is None or row.name for row in targets())
