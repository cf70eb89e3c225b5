"""ONNX Runtime's own: a provider that is silently replaced, a tensor type that is not offered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import onnxruntime
import pytest

from edgetrack.errors import BundleIntegrityError, DeviceUnavailableError


def test_another_provider_than_asked_for_is_refused(
    graph_file: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime.InferenceSession, "get_providers", lambda self: ["AzureExecutionProvider"])
    with pytest.raises(DeviceUnavailableError, match="chose AzureExecutionProvider instead of CPUExecutionProvider"):
        graph_file("onnx").open()


@pytest.mark.parametrize("kind", [onnx.TensorProto.DOUBLE, onnx.TensorProto.BOOL])
def test_tensor_types_without_a_name_here_are_refused(graph_file: Callable[..., Any], kind: int) -> None:
    file = graph_file("onnx")
    (info,) = file.info.inputs
    (output,) = file.info.outputs
    given = onnx.helper.make_tensor_value_info(info.name, kind, info.shape)
    taken = onnx.helper.make_tensor_value_info(output.name, onnx.TensorProto.FLOAT, info.shape)
    node = onnx.helper.make_node("Cast", [info.name], [output.name], to=onnx.TensorProto.FLOAT)
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", [given], [taken]), opset_imports=[onnx.helper.make_opsetid("", 17)]
    )
    model.ir_version = 9
    onnx.save(model, str(file.path))
    with pytest.raises(BundleIntegrityError, match="the file's inputs are"):
        file.open()


def test_open_dimension_is_refused(graph_file: Callable[..., Any]) -> None:
    file = graph_file("onnx")
    model = onnx.load(str(file.path))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "height"
    onnx.save(model, str(file.path))
    with pytest.raises(BundleIntegrityError, match=r"the file's inputs are .*height"):
        file.open()
