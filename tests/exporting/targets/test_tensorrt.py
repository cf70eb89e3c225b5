"""Bundles for TensorRT, whole: typed ONNX, engines built without a GPU, INT8 that is INT8."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetrack.bundle import open_bundle, read_json
from edgetrack.capabilities import find_target
from edgetrack.errors import EdgetrackError, UsageError
from edgetrack.exporting.lowering import quantized_types
from edgetrack.exporting.pipeline import ExportRequest
from edgetrack.exporting.targets.tensorrt import TensorRtOptions, cast_images_first, refuse_unsigned
from edgetrack.io import sha256
from edgetrack.quantization.calibration import CalibrationSources, Part, find_set, make_set, to_toml
from edgetrack.quantization.lower import LoweringRequest, export
from edgetrack.runtime.backends.tensorrt.engines import unpacked
from edgetrack.runtime.verify import LAYERS_FILE, LayerReport

pytest.importorskip("tensorrt_rtx", reason="TENSORRT-RTX ABSENT: pip install 'edgetrack[tensorrt]'")
pytestmark = pytest.mark.usefixtures("short_proof")
Lowered = Callable[..., Path]


@pytest.fixture
def bundle_of(tmp_path: Path) -> Lowered:
    """bundle_of("nanotrack_v2", "int8") -> a bundle with engines for compute capability 8.6."""
    (part,) = find_set("synthetic").parts
    calib = tmp_path / "few.toml"
    calib.write_text(to_toml(make_set("few", (Part(dataset=part.dataset, items=part.items[:4]),))), "utf-8")

    def make(tracker: str, precision: str, name: str = "bundle") -> Path:
        request = ExportRequest(
            tracker,
            "tensorrt",
            precision,
            output=tmp_path / name,
            options=TensorRtOptions(compute_capability=("8.6",)),
        )
        return export(request, LoweringRequest(calibration=CalibrationSources((str(calib),)))).path

    return make


def engine_of(folder: Path, graph: str) -> bytes:
    """The unpacked engine of a graph."""
    with open_bundle(folder) as bundle:
        (engine,) = bundle.manifest.graph(graph).engines
        assert engine["onnx_sha256"] == sha256(bundle.path(f"{graph}.onnx").read_bytes())
        return unpacked(bundle.path(engine["file"]).read_bytes(), engine["file"])


def int8_weights(path: Path) -> list[np.ndarray[Any, Any]]:
    """The de-quantized constants of a file that are large enough to be looked for."""
    graph = onnx.load(str(path)).graph
    fed = {node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    arrays = [numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name in fed]
    assert {array.dtype for array in arrays} == {np.dtype(np.int8)}
    return [array for array in arrays if array.size >= 64]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_bundle_holds_onnx_layers_and_engines(bundle_of: Lowered, precision: str) -> None:
    folder = bundle_of("nanotrack_v2", precision)
    with open_bundle(folder) as bundle:
        manifest = bundle.manifest
        report = read_json(bundle.path(LAYERS_FILE), LayerReport)
        proof = bundle.path("parity.json").read_text()
    assert manifest.precision == precision
    assert [len(graph.engines) for graph in manifest.graphs] == [1, 1]
    assert set(report.graphs) == {"template", "step"}
    types = report.graphs["step"].precisions()
    assert {"fp32": "half" not in types, "fp16": types.get("half", 0) > 50, "int8": types.get("int8", 0) > 10}[
        precision
    ]
    assert '"proven": "onnxruntime"' in proof
    assert "tensorrt itself, which needs an NVIDIA GPU" in proof
    assert "tensorrt_rtx_cu13" in " ".join(manifest.tools)
    assert engine_of(folder, "step")


def test_int8_engine_holds_int8_weights(bundle_of: Lowered) -> None:
    folder = bundle_of("nanotrack_v2", "int8")
    assert quantized_types(onnx.load(str(folder / "step.onnx"))) == {"int8"}
    engine, weights = engine_of(folder, "step"), int8_weights(folder / "step.onnx")
    total = sum(weight.nbytes for weight in weights)
    assert total > 50_000
    # TensorRT rearranges some for its kernels; as FP32 none of them is there.
    assert sum(weight.nbytes for weight in weights if weight.tobytes() in engine) > 0.5 * total
    assert not any(weight.astype(np.float32).tobytes() in engine for weight in weights)


def test_only_matrix_products_and_full_convolutions_are_quantized(bundle_of: Lowered) -> None:
    graph = onnx.load(str(bundle_of("nanotrack_v2", "int8") / "step.onnx")).graph
    pairs = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    fed = [node for node in graph.node if pairs & set(node.input)]
    assert {node.op_type for node in fed} <= {"Conv", "MatMul", "Gemm", "Transpose", "Reshape", "Unsqueeze"}
    groups = [attribute.i for node in fed for attribute in node.attribute if attribute.name == "group"]
    assert set(groups) == {1}


@pytest.mark.full
def test_a_selecting_gate_is_lowered_and_each_attention_has_an_engine(
    bundle_of: Lowered, tiny_recipe: Callable[..., Path]
) -> None:
    folder = bundle_of(str(tiny_recipe("dastm", gate="select")), "int8")
    with open_bundle(folder) as bundle:
        roles = {graph.name: (graph.role, len(graph.engines)) for graph in bundle.manifest.graphs}
    assert roles == {"memory": ("step", 1), **dict.fromkeys(("se", "ca", "cbam"), ("choice", 1)), "step": ("step", 1)}
    types = {name: quantized_types(onnx.load(str(folder / f"{name}.onnx"))) for name in roles}
    # The recipe keeps attention in FP32.
    assert types == {"memory": {"int8"}, "se": set(), "ca": set(), "cbam": set(), "step": {"int8"}}


def test_same_request_gives_the_same_onnx(bundle_of: Lowered) -> None:
    first, second = (bundle_of("nanotrack_v2", "fp32", name) for name in ("a", "b"))
    for file in ("template.onnx", "step.onnx", LAYERS_FILE):
        assert (first / file).read_bytes() == (second / file).read_bytes()


def unsigned(path: Path) -> Path:
    """A file with a UINT8 pair, zero point 0: what NNCF leaves behind ReLUs."""
    constants = [numpy_helper.from_array(np.array(0.1, np.float32), "s"), numpy_helper.from_array(np.uint8(0), "z")]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "unsigned", sides[:1], sides[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


def test_unsigned_pairs_are_refused_with_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(EdgetrackError, match=r"u\.onnx has quantize/dequantize pairs of uint8, expected int8"):
        refuse_unsigned(unsigned(tmp_path / "u.onnx"))


def image_graph(path: Path, first: str) -> Path:
    """A uint8 image that is transposed and cast, in one order or the other."""
    ops = {"Cast": {"to": TensorProto.FLOAT}, "Transpose": {"perm": [2, 0, 1]}}
    order = [first, *(name for name in ops if name != first)]
    nodes = [
        helper.make_node(op, [fed], [out], **ops[op])
        for op, fed, out in zip(order, ("image", "between"), ("between", "y"), strict=True)
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [4, 5, 3])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 4, 5])
    model = helper.make_model(helper.make_graph(nodes, "g", [image], [out]), ir_version=9,
                              opset_imports=[helper.make_opsetid("", 17)])  # fmt: skip
    onnx.save(onnx.shape_inference.infer_shapes(model), str(path))
    return path


def test_images_are_cast_before_anything_else_and_mean_the_same(tmp_path: Path) -> None:
    import onnxruntime

    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    path = image_graph(tmp_path / "late.onnx", "Transpose")
    cast_images_first(path)
    assert onnx.load(str(path)).graph.node[0].op_type == "Cast"
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert np.array_equal(session.run(None, {"image": image})[0], image.transpose(2, 0, 1).astype(np.float32))
    early = image_graph(tmp_path / "early.onnx", "Cast")
    before = early.read_bytes()
    cast_images_first(early)
    assert early.read_bytes() == before


@pytest.mark.parametrize(("wanted", "words"), [(("9.9",), "9.9: tensorrt_rtx"), (("8.6", "8.6"), "comes twice")])
def test_capability_that_cannot_be_built_for_is_refused_before_anything_is_done(
    tmp_path: Path, wanted: tuple[str, ...], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        export(
            ExportRequest("smat", "tensorrt", output=tmp_path / "b", options=TensorRtOptions(compute_capability=wanted))
        )
    assert not any(tmp_path.iterdir())


def test_accuracy_control_is_refused_with_the_way_round() -> None:
    control: Any = SimpleNamespace()
    with pytest.raises(UsageError, match="needs an NVIDIA GPU; find the stages with another target and give them as"):
        export(ExportRequest("smat", "tensorrt", "int8"), LoweringRequest(control=control))


def test_versions_are_those_of_what_is_installed() -> None:
    assert {"cuda-bindings", "tensorrt_rtx_cu13"} <= find_target("tensorrt").versions().keys()
