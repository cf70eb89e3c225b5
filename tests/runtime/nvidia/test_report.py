"""The engine inspector's JSON, as TensorRT documents it, becomes our report."""

from __future__ import annotations

import json

import pytest

from edgetrack.errors import EdgetrackError
from edgetrack.runtime.nvidia.report import parse_information

INFORMATION = {
    "Layers": [
        {
            "Name": "/encoder/Conv + /encoder/Relu",
            "LayerType": "CaskConvolution",
            "Inputs": [{"Name": "x", "Dimensions": [1, 3, 8, 8], "Format/Datatype": "Row major linear FP16 format"}],
            "Outputs": [{"Name": "y", "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}],
            "Metadata": "[ONNX Layer: /encoder/Conv]\x1e[ONNX Layer: /encoder/Relu]",
        },
        {"Name": "Reformat", "LayerType": "Reformat", "Inputs": [], "Outputs": [], "Metadata": ""},
    ],
    "Bindings": ["x", "y"],
}


def test_layers_have_precision_and_what_was_fused() -> None:
    found = parse_information(json.dumps(INFORMATION), "tensorrt 10.3")
    assert found.source == "engine inspector"
    assert found.types() == {"CaskConvolution": 1, "Reformat": 1}
    assert [layer.precision for layer in found.layers] == ["int8", "unknown"]
    assert found.layers[0].fused == ("/encoder/Conv", "/encoder/Relu")


@pytest.mark.parametrize("text", ["", "{}", '{"Layers": ["only a name"]}'])
def test_answer_that_is_not_understood_is_an_error(text: str) -> None:
    with pytest.raises(EdgetrackError, match=r"engine inspector of tensorrt 10\.3"):
        parse_information(text, "tensorrt 10.3")
