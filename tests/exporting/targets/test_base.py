"""What exporters share: options that belong to one target, and where a row of the table finds its exporter."""

from __future__ import annotations

import pytest

from edgetrack.capabilities import find_target
from edgetrack.errors import UsageError
from edgetrack.exporting.pipeline import ExportRequest, plan
from edgetrack.exporting.targets.base import exporter_of, option_fields, read_options
from edgetrack.exporting.targets.coreml import CoreMlOptions
from edgetrack.exporting.targets.tensorrt import TensorRtOptions


def test_options_are_for_their_target_alone() -> None:
    with pytest.raises(UsageError, match="target 'onnx' has no option --compute-capability; leave it out"):
        read_options(find_target("onnx"), {"compute_capability": ("8.6",)})
    with pytest.raises(UsageError, match="target 'tensorrt' has no option --deployment-target"):
        read_options(find_target("tensorrt"), {"deployment_target": "iOS17"})
    with pytest.raises(UsageError, match="TensorRtOptions is for another target than 'onnx'"):
        plan(ExportRequest("smat", "onnx", options=TensorRtOptions(compute_capability=("8.6",))))


def test_options_are_read_by_the_names_of_the_fields() -> None:
    read = read_options(find_target("tensorrt"), {"compute_capability": ("8.6", "8.9")})
    assert read == TensorRtOptions(compute_capability=("8.6", "8.9"))
    assert read_options(find_target("coreml"), {}) == CoreMlOptions()


def test_every_option_has_a_help_text_and_says_whether_it_may_be_repeated() -> None:
    found = {name: (text, several) for name, text, several in option_fields()}
    assert {name: several for name, (_, several) in found.items()} == {
        "compute_capability": True,
        "deployment_target": False,
    }
    assert all(text.endswith(".") for text, _ in found.values())


def test_target_that_nothing_is_exported_to_has_no_exporter() -> None:
    with pytest.raises(UsageError, match="nothing is exported to target 'fake'"):
        exporter_of(find_target("fake"))
