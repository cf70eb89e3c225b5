"""A graph for several targets: each row computes what the graph of one computes; what cannot be is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetrack.bundle.manifest import batch_shape
from edgetrack.bundle.reader import open_bundle
from edgetrack.errors import UsageError
from edgetrack.exporting.batch import batched
from edgetrack.exporting.pipeline import ExportRequest, export, plan
from edgetrack.quantization.calibration import CalibrationSources, CropSampling
from edgetrack.quantization.lower import LoweringRequest
from edgetrack.quantization.lower import export as export_lowered
from edgetrack.runtime.backends.base import BackendOptions
from edgetrack.runtime.verify import verify_bundle

COUNT = 3
RNG = np.random.Generator(np.random.PCG64(0))
IMAGE, ROW, TABLE = (1, 4, 6, 6), (1, 5), (4, 5)

# Shapes of the inputs x, y; nodes as (operator, inputs, attributes), the last one giving the output; constants by name.
Case = tuple[list[tuple[int, ...]], list[tuple[str, str, dict[str, Any]]], dict[str, Any]]
CASES: dict[str, Case] = {
    "channels added": ([IMAGE], [("Add", "x c", {})], {"c": np.ones((4, 1, 1), "f")}),
    "a row and a table": ([ROW, TABLE], [("Mul", "x y", {})], {}),
    "a vector and an image": ([(6,), IMAGE], [("Sub", "x y", {})], {}),
    "two tables, one of fewer axes": ([TABLE, (3, 4, 5)], [("Add", "x y", {})], {}),
    "clipped": ([TABLE], [("Clip", "x low high", {})], {"low": np.float32(-0.5), "high": np.float32(0.5)}),
    "expanded": ([ROW], [("Expand", "x s", {})], {"s": [4, 5]}),
    "convolution": ([IMAGE], [("Conv", "x w", {"pads": [1] * 4})], {"w": RNG.standard_normal((2, 4, 3, 3))}),
    "convolution of several": ([(4, 4, 5, 5)], [("Conv", "x w", {})], {"w": RNG.standard_normal((2, 4, 3, 3))}),
    "pooling": ([IMAGE], [("MaxPool", "x", {"kernel_shape": [2, 2]}), ("GlobalAveragePool", "0", {})], {}),
    "mean of an image": ([IMAGE], [("ReduceMean", "x", {"axes": [2, 3], "keepdims": 0})], {}),
    "mean of a table": ([TABLE], [("ReduceMean", "x", {"axes": [0]})], {}),
    "mean of all": ([IMAGE], [("ReduceMean", "x", {"keepdims": 0})], {}),
    "sum by an input": ([TABLE], [("ReduceSum", "x a", {"keepdims": 0})], {"a": [-2]}),
    "softmax over rows": ([TABLE], [("Softmax", "x", {"axis": 0})], {}),
    "softmax, last axis": ([IMAGE], [("Softmax", "x", {})], {}),
    "layer norm": ([TABLE], [("LayerNormalization", "x g", {"axis": -1})], {"g": np.ones(5, "f")}),
    "joined, in front": ([ROW, TABLE], [("Concat", "x y", {"axis": 0})], {}),
    "joined with a constant": ([IMAGE], [("Concat", "x c", {"axis": 1})], {"c": np.ones((1, 2, 6, 6), "f")}),
    "gathered": ([TABLE], [("Gather", "x i", {"axis": 0})], {"i": [2, 0]}),
    "a pixel's channels turned": ([(6, 6, 3)], [("Gather", "x i", {"axis": -1})], {"i": [2, 1, 0]}),
    "best, and what belongs to it": (
        [TABLE, TABLE],
        [("TopK", "x k", {"axis": 1}), ("GatherElements", "y 0b", {"axis": 1})],
        {"k": [2]},
    ),
    "counted up": ([TABLE], [("CumSum", "x a", {})], {"a": np.int64(0)}),
    "cut in front": ([TABLE], [("Slice", "x s e", {})], {"s": [1], "e": [3]}),
    "cut by steps": ([IMAGE], [("Slice", "x s e a t", {})], {"s": [0], "e": [6], "a": [-1], "t": [2]}),
    "padded": ([IMAGE], [("Pad", "x p", {})], {"p": [0, 0, 1, 1, 0, 0, 1, 1]}),
    "padded in front": ([TABLE], [("Pad", "x p v", {})], {"p": [1, 0, 0, 2], "v": np.float32(2)}),
    "repeated": ([TABLE], [("Tile", "x r", {})], {"r": [2, 1]}),
    "steps of a table's columns": (
        [TABLE],
        [("QuantizeLinear", "x s z", {}), ("DequantizeLinear", "0 s z", {})],
        {"s": np.array([1, 2, 0.5, 0.25, 1], "f") / 16, "z": np.zeros(5, np.int8)},
    ),
    "an image turned": ([IMAGE], [("Transpose", "x", {"perm": [0, 2, 3, 1]})], {}),
    "the first axis moved": ([IMAGE], [("Transpose", "x", {"perm": [2, 0, 1, 3]})], {}),
    "a table turned": ([TABLE], [("Transpose", "x", {})], {}),
    "a table's product": ([TABLE, (5, 3)], [("MatMul", "x y", {})], {}),
    "a row's product": ([ROW, (5, 3)], [("MatMul", "x y", {})], {}),
    "a product of one summand": ([(4, 1), (1, 3)], [("MatMul", "x y", {})], {}),
    "products of stacks": ([(1, 2, 4, 5), (1, 2, 5, 3)], [("MatMul", "x y", {})], {}),
    "weights in front": ([(5, 3)], [("MatMul", "w x", {})], {"w": RNG.standard_normal((2, 5))}),
    "a linear layer": ([TABLE], [("Gemm", "x w b", {})], {"w": RNG.standard_normal((5, 3)), "b": np.ones(3, "f")}),
    "a shape that is asked for": (
        [IMAGE],
        [("Shape", "x", {}), ("Slice", "0 s e", {}), ("Concat", "1 m", {"axis": 0}), ("Reshape", "x 2", {})],
        {"s": [0], "e": [2], "m": [-1]},
    ),
    "batch made, dropped, made": (
        [(6, 6, 3)],
        [("Unsqueeze", "x a", {}), ("Relu", "0", {}), ("Squeeze", "1 a", {}), ("Flatten", "2", {"axis": 1})],
        {"a": [0]},
    ),
    "quantized": (
        [TABLE],
        [("QuantizeLinear", "x s z", {}), ("DequantizeLinear", "0 s z", {})],
        {"s": np.float32(0.05), "z": np.int8(0)},
    ),
}


def model(case: Case) -> onnx.ModelProto:
    shapes, nodes, constants = case
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip("xy", shapes, strict=False)]
    made = []
    for place, (kind, names, attributes) in enumerate(nodes):
        last = place == len(nodes) - 1
        outputs = ["out"] if last else [str(place), *([f"{place}b"] if kind == "TopK" else [])]
        made.append(helper.make_node(kind, names.split(), outputs, name=f"/{kind}_{place}", **attributes))
    arrays = {name: np.asarray(value) for name, value in constants.items()}
    weights = [
        numpy_helper.from_array(a.astype("float32") if a.dtype == np.float64 else a, name) for name, a in arrays.items()
    ]
    output = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    graph = helper.make_graph(made, "step", inputs, [output], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def run(found: onnx.ModelProto, feed: dict[str, np.ndarray]) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(found.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["out"], feed)[0])


@pytest.mark.parametrize("name", CASES)
def test_every_row_is_what_the_graph_of_one_gives(name: str) -> None:
    one = model(CASES[name])
    many = batched(one, COUNT)
    onnx.checker.check_model(many, full_check=True)
    rows = [
        {n: RNG.standard_normal(shape).astype(np.float32) for n, shape in zip("xy", CASES[name][0], strict=False)}
        for _ in range(COUNT)
    ]
    expected = [run(one, row) for row in rows]
    feed = {n: np.stack([row[n] for row in rows]).reshape(batch_shape(rows[0][n].shape, COUNT)) for n in rows[0]}
    found = run(many, feed)
    assert found.shape == batch_shape(expected[0].shape, COUNT)
    np.testing.assert_allclose(found.reshape(COUNT, *expected[0].shape), expected, rtol=1e-5, atol=1e-6)
    # Stages are chosen by the names of nodes.
    assert {node.name for node in one.graph.node if node.op_type in ("Conv", "MatMul")} <= {
        node.name for node in many.graph.node
    }


@pytest.mark.parametrize(
    ("case", "said"),
    [
        (([IMAGE, (2, 4, 3, 3)], [("Conv", "x y", {})], {}), "/Conv_0' .Conv.: its parameters depend on the input"),
        (([TABLE], [("Det", "x", {})], {}), "/Det_0' .Det.: there is no rule"),
        (([(5,), (5, 3)], [("MatMul", "x y", {})], {}), "/MatMul_0' .MatMul.: an operand is a vector"),
        (([TABLE, (4, 3)], [("Gemm", "x w y", {})], {"w": np.ones((5, 3), "f")}), "its parameters depend on the input"),
        (([TABLE], [("Identity", "c", {})], {"c": np.ones((1, 2), "f")}), "output 'out' depends on no input"),
    ],
    ids=["kernels from the input", "no rule", "vector", "matrix added", "no input"],
)
def test_what_cannot_be_is_refused_by_the_nodes_name(case: Case, said: str) -> None:
    shapes, nodes, constants = case
    if nodes[0][0] == "Det":
        shapes = [(5, 5)]
    with pytest.raises(UsageError, match=said):
        batched(model((shapes, nodes, constants)), COUNT)


def test_an_export_has_one_more_graph_and_proves_each_of_its_rows(
    tiny_recipe: Callable[..., Path], tmp_path: Path, short_proof: None
) -> None:
    request = ExportRequest(str(tiny_recipe("spmtrack_b")), "onnx", weights="untrained", output=tmp_path / "b", batch=2)
    report = export(request)
    batch = report.manifest.batch
    assert batch is not None
    step = report.manifest.graph("step")
    for side in ("inputs", "outputs"):
        shapes = {t.name: batch_shape(t.shape, 2) for t in getattr(step, side)}
        assert {t.name: t.shape for t in getattr(batch, side)} == shapes
    assert batch.flops == 2 * step.flops
    names = [one.name for one in report.parity.comparisons]
    assert any(name.startswith("graph batch/") for name in names)
    with open_bundle(report.path) as bundle:
        verified = verify_bundle(bundle, BackendOptions())
    assert verified.ok
    assert {check.name.partition("/")[0] for check in verified.checks} == {"step", "batch"}


@pytest.mark.full
def test_a_lower_precision_has_it_too(tiny_recipe: Callable[..., Path], tmp_path: Path) -> None:
    request = ExportRequest(
        str(tiny_recipe("spmtrack_b")), "onnx", "fp16", weights="untrained", output=tmp_path / "b", batch=2
    )
    calibration = CalibrationSources(("synthetic:drift?frames=12",), None, CropSampling(5))
    report = export_lowered(request, LoweringRequest(calibration))
    assert {graph.name for graph in report.manifest.graphs} == {"step", "batch"}
    assert any(one.name.startswith("fp16 batch/") for one in report.parity.comparisons)


@pytest.mark.parametrize(
    ("tracker", "target", "batch", "said"),
    [
        ("smat", "onnx", 65, "batch 65: expected 1 to 64 targets"),
        ("smat", "onnx", 0, "batch 0: expected 1 to 64 targets"),
        ("smat", "torch", 2, "target 'torch' is converted from PyTorch, for one target; leave --batch out"),
        ("dastm", "onnx", 2, "tracker 'dastm' chooses its graphs frame by frame"),
    ],
)
def test_what_has_no_graph_for_several_is_refused(tracker: str, target: str, batch: int, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        plan(ExportRequest(tracker, target, weights="untrained", batch=batch))
