"""Graphs that hurt, on every backend that runs here: an error of ours that names the graph and, if known, the node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetrack.bundle.manifest import GraphInfo, TensorInfo
from edgetrack.capabilities import backend_of
from edgetrack.errors import BundleError, BundleIntegrityError
from edgetrack.runtime.backends.base import BackendOptions, CompiledGraph
from edgetrack.runtime.backends.openvino.backend import shared_core

each_target = pytest.mark.parametrize("target", ["onnx", "openvino"])
FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def info(x: tuple[int, ...] = (1, 4), y: tuple[int, ...] = (1, 4), dtype: Any = "float32") -> GraphInfo:
    ends = TensorInfo(name="x", dtype="float32", shape=x), TensorInfo(name="y", dtype=dtype, shape=y)
    return GraphInfo(name="step", role="step", file="step.x", inputs=ends[:1], outputs=ends[1:])


def model_of(*nodes: Any, x: Any = (1, 4), y: Any = (1, 4), kind: int = FLOAT, **constants: Any) -> Any:
    values = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    ends = [helper.make_tensor_value_info("x", FLOAT, x)], [helper.make_tensor_value_info("y", kind, y)]
    graph = helper.make_graph(list(nodes), "g", *ends, values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def opened(target: str, folder: Path, model: Any, described: GraphInfo | None = None) -> CompiledGraph:
    """The model in a backend; OpenVINO gets it as an IR."""
    path = folder / "step.onnx"
    onnx.save(model, str(path))
    if target == "openvino":
        import openvino

        graph = shared_core().read_model(path)
        openvino.save_model(graph, folder / "step.xml", compress_to_fp16=False)
        path = folder / "step.xml"
    return backend_of(target)(described or info(), path, BackendOptions())


def node(kind: str, *inputs: str, out: str = "y", **attributes: Any) -> Any:
    return helper.make_node(kind, list(inputs), [out], f"/head/{kind}", **attributes)


@each_target
def test_a_plain_graph_runs(tmp_path: Path, target: str) -> None:
    graph = opened(target, tmp_path, model_of(node("Add", "x", "x")))
    graph.inputs["x"][...] = 3
    graph.run()
    assert graph.outputs["y"].tolist() == [[6.0] * 4]


@each_target
@pytest.mark.parametrize(
    ("model", "words"),
    [
        (model_of(node("Add", "x", "x"), x=("n", 4), y=("n", 4)), "step"),
        (model_of(node("Add", "x", "x"), x=None, y=None), "step"),
        (model_of(node("Cast", "x", to=BOOL), kind=BOOL), "step"),
        (model_of(node("Cast", "x", to=TensorProto.DOUBLE), kind=TensorProto.DOUBLE), "step"),
        (model_of(node("Identity", "x"), x=(2, 2), y=(2, 2)), "step.*inputs"),
    ],
    ids=["dynamic", "without rank", "bool", "double", "other shape"],
)
def test_ports_that_the_manifest_does_not_describe_are_refused(
    tmp_path: Path, target: str, model: Any, words: str
) -> None:
    with pytest.raises(BundleIntegrityError, match=words):
        opened(target, tmp_path, model)


def test_float8_is_refused(tmp_path: Path) -> None:
    model = model_of(node("Cast", "x", to=TensorProto.FLOAT8E4M3FN), kind=TensorProto.FLOAT8E4M3FN)
    model.opset_import[0].version = 19
    with pytest.raises(BundleIntegrityError, match="step"):
        opened("onnx", tmp_path, model)
    import openvino
    from openvino import opset13

    x = opset13.parameter([1, 4], np.float32, "x")
    x.output(0).set_names({"x"})
    y = opset13.convert(x, "f8e4m3")
    y.output(0).set_names({"y"})
    openvino.save_model(openvino.Model([y], [x]), tmp_path / "step.xml", compress_to_fp16=False)
    with pytest.raises(BundleIntegrityError, match="step"):
        backend_of("openvino")(info(), tmp_path / "step.xml", BackendOptions())


def test_ports_without_names_are_refused(tmp_path: Path) -> None:
    import openvino
    from openvino import opset13

    x = opset13.parameter([1, 4], np.float32)
    openvino.save_model(openvino.Model([opset13.add(x, x)], [x]), tmp_path / "step.xml", compress_to_fp16=False)
    with pytest.raises(BundleIntegrityError, match="step"):
        backend_of("openvino")(info(), tmp_path / "step.xml", BackendOptions())


def test_outputs_of_another_shape_than_the_file_declares_are_an_error(tmp_path: Path) -> None:
    # The shape that Reshape makes is a number of the input: only a run shows that it is not the declared one.
    model = model_of(
        node("Cast", "x", out="n", to=INT64),
        node("Slice", "n", "first", "last", "axis", out="length"),
        node("Squeeze", "length", "zero", out="shape"),
        node("ConstantOfShape", "shape"),
        y=(1, 4),
        first=[0], last=[2], axis=[1], zero=[0],
    )  # fmt: skip
    graph = opened("onnx", tmp_path, model)
    for shape in ([1, 5], [2, 4], [1, 2**40], [-1, 4]):
        graph.inputs["x"][0, :2] = shape
        with pytest.raises(BundleError, match=r"graph 'step' fails while it runs in onnxruntime"):
            graph.run()
    # In OpenVINO it is a port of open shape, which is refused before.
    with pytest.raises(BundleIntegrityError, match="step"):
        opened("openvino", tmp_path, model)


@each_target
def test_a_node_that_fails_while_it_runs_is_named(tmp_path: Path, target: str) -> None:
    model = model_of(
        node("Cast", "x", out="n", to=INT64),
        node("Gather", "table", "n"),
        y=(1, 4),
        table=np.float32([1, 2, 3]),
    )
    graph = opened(target, tmp_path, model)
    graph.inputs["x"][...] = 2
    graph.run()
    assert graph.outputs["y"].tolist() == [[3.0] * 4]
    graph.inputs["x"][...] = 1e6
    if target == "openvino":  # its specification gives zeros for indices out of range
        graph.run()
        assert graph.outputs["y"].tolist() == [[0.0] * 4]
        return
    with pytest.raises(BundleError, match=r"graph 'step' fails while it runs in onnxruntime: .*/head/Gather"):
        graph.run()


@each_target
def test_a_constant_of_terabytes_is_refused(tmp_path: Path, target: str) -> None:
    huge = model_of(
        node("ConstantOfShape", "shape", out="c"),
        node("ReduceSum", "c", out="s", keepdims=0),
        node("Add", "x", "s"),
        shape=[2**20, 2**20],
    )
    with pytest.raises(BundleError, match="step"):
        opened(target, tmp_path, huge).run()


def test_an_ir_with_tensors_of_absurd_size_is_refused_by_node(tmp_path: Path) -> None:
    big = model_of(
        node("Expand", "x", "shape", out="wide"),
        node("ReduceMax", "wide", axes=[0]),
        shape=[2**28, 4],
    )
    with pytest.raises(BundleIntegrityError, match=r"graph 'step': node '.*' \(.*\) makes .* numbers; at most"):
        opened("openvino", tmp_path, big)


LOOP_BODY = helper.make_graph(
    [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Concat", ["v", "v"], ["w"], axis=0)],
    "body",
    [
        helper.make_tensor_value_info("i", INT64, []),
        helper.make_tensor_value_info("go", BOOL, []),
        helper.make_tensor_value_info("v", FLOAT, None),
    ],
    [helper.make_tensor_value_info("on", BOOL, []), helper.make_tensor_value_info("w", FLOAT, None)],
)


@each_target
def test_a_loop_that_grows_without_end_is_refused_before_it_runs(tmp_path: Path, target: str) -> None:
    loop = helper.make_node("Loop", ["", "yes", "x"], ["grown"], "/grow", body=LOOP_BODY)
    model = model_of(loop, node("ReduceMax", "grown", axes=[0]), yes=np.bool_(True))
    with pytest.raises(BundleIntegrityError, match=r"step.*node '.*' \(Loop\) is control flow"):
        opened(target, tmp_path, model)


def test_nothing_of_a_graph_reaches_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    steering = helper.make_node("Gather", ["table", "n"], ["y"], "\x1b]0;owned\x07")
    graph = opened("onnx", tmp_path, model_of(node("Cast", "x", out="n", to=INT64), steering, table=np.float32([1, 2])))
    graph.inputs["x"][...] = 1e6
    with pytest.raises(BundleError, match="step"):
        graph.run()
    wrong = model_of(helper.make_node("Add", ["x", "absent"], ["y"], "\x1b[2J"))
    with pytest.raises(BundleIntegrityError, match="step"):
        opened("onnx", tmp_path, wrong)
    (tmp_path / "step.onnx").write_bytes(model_of(node("Add", "x", "x")).SerializeToString().replace(b"Add", b"\xffdd"))
    with pytest.raises(BundleIntegrityError, match="step"):
        backend_of("onnx")(info(), tmp_path / "step.onnx", BackendOptions())
    assert capfd.readouterr() == ("", "")


def test_openvino_reads_irs_only(tmp_path: Path) -> None:
    onnx.save(model_of(node("Add", "x", "x")), str(tmp_path / "step.onnx"))
    with pytest.raises(BundleIntegrityError, match=r"step\.onnx is no OpenVINO IR"):
        backend_of("openvino")(info(), tmp_path / "step.onnx", BackendOptions())


def test_onnx_runtime_reads_no_file_at_another_place(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (tmp_path / "secret").write_bytes(np.float32([1, 2, 3, 4]).tobytes())
    model = model_of(node("Add", "x", "w"), w=np.float32([[0, 0, 0, 0]]))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../secret"
    (bundle / "step.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BundleIntegrityError, match=r"tensor 'w' has its data in '\.\./secret'"):
        backend_of("onnx")(info(), bundle / "step.onnx", BackendOptions())
