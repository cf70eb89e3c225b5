"""What the exporters write: valid, static, named, and the same bytes every time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
import torch
from safetensors import safe_open
from torch import nn

from edgetrack.bundle import Manifest, open_bundle
from edgetrack.bundle.archive import pack
from edgetrack.bundle.manifest import TensorInfo
from edgetrack.errors import EdgetrackError
from edgetrack.exporting.pipeline import ExportRequest, export
from edgetrack.exporting.targets import onnx as exporter
from edgetrack.exporting.targets.onnx import OPSETS, to_onnx
from edgetrack.models.base import GraphModule
from edgetrack.runtime.session import load
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


@pytest.mark.parametrize("traced_outside", [False, True])
def test_a_large_graph_has_its_weights_in_further_files(
    tmp_path: Path,
    tiny_recipe: Callable[..., Path],
    exported_tiny: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    traced_outside: bool,
) -> None:
    """With a limit of 200 kB for 2 GiB: the same numbers as in one file, whole after packing, and in the manifest.

    Beyond 2 GiB PyTorch's exporter writes each weight to a file of its own, which is played here.
    """
    trace = exporter._trace

    def outside(graph: GraphModule, path: Path, opset: int) -> None:
        trace(graph, path, opset)
        model = onnx.load(str(path))
        onnx.save(model, str(path), save_as_external_data=True, all_tensors_to_one_file=False, size_threshold=1024)

    if traced_outside:
        monkeypatch.setattr(exporter, "_trace", outside)
    monkeypatch.setattr(exporter, "LARGEST", 200_000)
    monkeypatch.setattr("edgetrack.exporting.parity.DEFAULT_SOURCES", ("synthetic:drift?frames=2",))
    monkeypatch.setattr("edgetrack.exporting.parity.MOMENTS", (1,))
    request = ExportRequest(str(tiny_recipe("spmtrack_b")), "onnx", weights="untrained", output=tmp_path / "large")
    report = export(request)
    (graph,) = report.manifest.graphs
    files = exporter.OnnxExporter.files(None, report.path / graph.file)  # type: ignore[arg-type]
    assert len(files) > 3
    assert {file.name for file in files} <= manifest_of(report.path).files.keys()
    assert all(file.stat().st_size <= 200_000 for file in files[1:])
    whole, split = (onnx.load(str(path / graph.file)) for path in (exported_tiny("spmtrack_b", "onnx"), report.path))
    weights = [{t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer} for model in (whole, split)]
    assert weights[0].keys() == weights[1].keys()
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert len(split.graph.value_info) == len(whole.graph.value_info)
    with open_bundle(report.path) as bundle:
        packed = pack(bundle, tmp_path / "large.zip")
    with load(packed, threads=1) as tracker:
        image = np.zeros((80, 80, 3), np.uint8)
        tracker.init(image, (20, 20, 20, 20))
        assert tracker.update(image).box.w > 0


def test_weights_in_files_that_nobody_named_are_refused(tmp_path: Path) -> None:
    tensor = onnx.numpy_helper.from_array(np.zeros(1000, np.float32), "w")
    onnx.external_data_helper.set_external_data(tensor, "elsewhere.bin")
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], [tensor]))
    with pytest.raises(EdgetrackError, match=r"weights of 'w' lie in a file of their own, 'elsewhere.bin'"):
        exporter.save_onnx(model, tmp_path / "g.onnx")
