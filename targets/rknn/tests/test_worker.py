"""The graph as rknn-toolkit2 takes it, against ONNX Runtime; and its configuration, line by line."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from edgetrack_rknn import worker
from rknn_graphs import fed, tiny


def run(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "scaled"])
@pytest.mark.parametrize("gain", [False, True])
def test_prepared_graph_computes_the_same_from_float_images(gain: bool, scaled: bool) -> None:
    given, inputs = tiny(gain, scaled), fed()
    wanted = run(given, inputs)
    made = worker.prepared(tiny(gain, scaled))
    image = inputs["search"].transpose(2, 0, 1)[None].astype(np.float32)
    np.testing.assert_allclose(run(made, {**inputs, "search": image}), wanted, rtol=1e-5, atol=1e-5)
    assert [info.name for info in made.graph.input] == ["search", "features"]
    assert ("Transpose" in {node.op_type for node in made.graph.node}) == scaled


def test_gain_behind_a_normalisation_becomes_a_depthwise_convolution_of_its_name() -> None:
    made = worker.prepared(tiny())
    (convolution,) = (node for node in made.graph.node if node.name == "/norm/Mul_1")
    assert convolution.op_type == "Conv"
    assert {one.name: one.i for one in convolution.attribute if one.name == "group"} == {"group": 4}


def test_bytes_that_are_no_crop_are_refused() -> None:
    model = tiny()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 4
    with pytest.raises(worker.UsageError, match=r"'search' is uint8 \(16, 16, 4\)"):
        worker.prepared(model)


CONFIGURATION = """custom_quantize_layers: {}
quantize_parameters:
    search:
        qtype: asym
        dtype: int8
        min:
        -   0.0
        max:
        -   1.0
        scale:
        -   0.00392156862745098
        ori_min:
        -   0.0
    '/a:0':
        min:
        -   -1e-05
        -   -2.5
        max:
        -   3.0
        -   4.0
    out_rs:
        min: []
        max: []
"""
RANGES = {"search": [[0.0], [255.0]], "/a:0": [[-1.5, -2.0], [3.25, 4.5]], "out_rs": [[], []]}


def test_ranges_are_read_and_put_back_and_nothing_else_changes() -> None:
    assert worker._ranges(CONFIGURATION) == {
        "search": [[0.0], [1.0]], "/a:0": [[-1e-05, -2.5], [3.0, 4.0]], "out_rs": [[], []],
    }  # fmt: skip
    made = worker._decided(CONFIGURATION, {"ranges": RANGES, "float16": []})
    assert worker._ranges(made) == RANGES
    before, after = CONFIGURATION.splitlines(), made.splitlines()
    changed = [number for number, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    assert [before[number].split()[1] for number in changed] == ["1.0", "-1e-05", "-2.5", "3.0", "4.0"]


def test_tensors_of_kept_nodes_are_listed_for_fp16() -> None:
    nodes = {"/a": "/first/Conv", "/a:0": "/kept/Conv", "out": "/kept/Add"}
    kept = worker._kept(RANGES, nodes, ["/kept/.*"])
    assert kept == ["/a:0", "out_rs"]
    made = worker._decided(CONFIGURATION, {"ranges": RANGES, "float16": kept})
    assert made.startswith('custom_quantize_layers:\n    "/a:0": float16\n    "out_rs": float16\nquantize_parameters:')


@pytest.mark.parametrize("record", [{"search": [[0.0], [1.0]]}, {**RANGES, "out_rs": [[1.0], [2.0]]}])
def test_record_of_another_graph_is_refused(record: dict[str, list[list[float]]]) -> None:
    with pytest.raises(worker.BundleIntegrityError, match="not those whose ranges are on record"):
        worker._decided(CONFIGURATION, {"ranges": record})
