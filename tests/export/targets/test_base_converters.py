"""What the exporters write: valid, static, named, and the same bytes every time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import openvino
import pytest
import torch
from safetensors import safe_open
from torch import nn

from edgetrack.bundle import Manifest, open_bundle
from edgetrack.bundle.manifest import TensorInfo
from edgetrack.errors import EdgetrackError
from edgetrack.export.pipeline import ExportRequest, export
from edgetrack.export.targets.onnx import OPSETS, to_onnx
from edgetrack.models.base import GraphModule
from tests.builders import TARGETS


def manifest_of(folder: Path) -> Manifest:
    with open_bundle(folder) as bundle:
        return bundle.manifest


@pytest.mark.usefixtures("short_proof")
def test_every_opset_exports_and_validates(tmp_path: Path) -> None:
    for opset in OPSETS:
        report = export(ExportRequest("smat", "onnx", opset=opset, output=tmp_path / str(opset)))
        for info in report.manifest.graphs:
            model = onnx.load(str(report.path / info.file))
            onnx.checker.check_model(model, full_check=True)
            assert [(o.domain, o.version) for o in model.opset_import] == [("", opset)]


def test_onnx_shapes_are_static_and_names_are_the_manifests(exported: Callable[..., Path]) -> None:
    folder = exported("onnx")
    for info in manifest_of(folder).graphs:
        graph = onnx.load(str(folder / info.file)).graph
        assert graph.name == info.name
        for values, tensors in ((graph.input, info.inputs), (graph.output, info.outputs)):
            found = [(v.name, tuple(d.dim_value for d in v.type.tensor_type.shape.dim)) for v in values]
            assert found == [(t.name, t.shape) for t in tensors]
        inferred = [v for v in graph.value_info if not v.type.tensor_type.HasField("shape")]
        assert not inferred
        assert all(d.HasField("dim_value") for v in graph.value_info for d in v.type.tensor_type.shape.dim)


def test_onnx_says_what_it_is(exported: Callable[..., Path]) -> None:
    folder = exported("onnx")
    for info in manifest_of(folder).graphs:
        props = {p.key: p.value for p in onnx.load(str(folder / info.file)).metadata_props}
        assert props["tracker"] == "smat"
        assert props["graph"] == info.name
        assert props["weights"] == "untrained"
        assert props["edgetrack"]


def test_onnx_holds_no_path_of_this_machine(exported: Callable[..., Path]) -> None:
    root = str(Path(__file__).resolve().parents[3]).encode()
    for path in exported("onnx").glob("*.onnx"):
        assert root not in path.read_bytes()


def test_openvino_says_what_it_is_and_keeps_fp32(exported: Callable[..., Path]) -> None:
    folder, core = exported("openvino"), openvino.Core()
    for info in manifest_of(folder).graphs:
        model = core.read_model(folder / info.file)
        assert model.get_rt_info(["edgetrack", "tracker"]).astype(str) == "smat"
        assert model.get_rt_info(["edgetrack", "graph"]).astype(str) == info.name
        kinds = {str(op.get_output_element_type(0)) for op in model.get_ops() if op.get_type_name() == "Constant"}
        assert "<Type: 'float16'>" not in kinds
        assert not model.is_dynamic()


def test_openvino_holds_no_path_of_this_machine(exported: Callable[..., Path]) -> None:
    for path in exported("openvino").glob("*.xml"):
        assert ".onnx" not in path.read_text()


def test_torch_bundle_is_the_published_network_once(exported: Callable[..., Path]) -> None:
    folder = exported("torch")
    assert {info.file for info in manifest_of(folder).graphs} == {"weights.safetensors"}
    with safe_open(folder / "weights.safetensors", framework="pt") as file:
        assert len(file.keys()) == 371
        assert file.metadata()["tracker"] == "smat"


@pytest.mark.usefixtures("short_proof")
@pytest.mark.parametrize("target", TARGETS)
def test_same_request_gives_the_same_bytes(tmp_path: Path, target: str) -> None:
    first, second = (export(ExportRequest("smat", target, output=tmp_path / name)).path for name in ("a", "b"))
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(path.name for path in second.iterdir())
    same = [name for name in names if (first / name).read_bytes() == (second / name).read_bytes()]
    assert same == names


@pytest.mark.parametrize("target", TARGETS)
def test_manifest_states_graphs_arithmetic_and_tools(exported: Callable[..., Path], target: str) -> None:
    manifest = manifest_of(exported(target))
    assert [(g.name, g.role) for g in manifest.graphs] == [("template", "init"), ("step", "step")]
    expected = {"torch": (0.304e9, 4.598e9)}.get(target, (0.3903e9, 3.7462e9))
    assert [g.flops for g in manifest.graphs] == [pytest.approx(flops, rel=0.01) for flops in expected]
    assert {"edgetrack", "torch", "onnx"} <= manifest.tools.keys()
    assert manifest.procedure["search_size"] == 256


class _Twice(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + x


def test_graph_that_returns_another_shape_than_declared_is_refused(tmp_path: Path) -> None:
    x = TensorInfo(name="x", dtype="float32", shape=(1, 3))
    wrong = TensorInfo(name="y", dtype="float32", shape=(1, 4))
    with pytest.raises(EdgetrackError, match=r"has 'y' \(1, 3\), expected 'y' \(1, 4\)"):
        to_onnx(GraphModule("g", "step", _Twice().eval(), (x,), (wrong,)), tmp_path / "g.onnx", opset=17, metadata={})
