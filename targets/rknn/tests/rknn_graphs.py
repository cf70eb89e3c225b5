"""A graph of two inputs, as a tracker's step has them, small enough to be built and simulated in seconds."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def tiny(gain: bool = True, scaled: bool = False) -> onnx.ModelProto:
    """uint8 crop (16, 16, 3) and features (1, 4, 8, 8) to (1, 4, 8, 8): a convolution, a sum, a normalised map."""
    rng = np.random.default_rng(0)
    weights = {
        "kernel": rng.standard_normal((4, 3, 3, 3)).astype(np.float32) / 400,
        "axes": np.array([0], np.int64),
        "small": np.array(1e-5, np.float32),
        "gain": rng.uniform(0.5, 2, (1, 4, 1, 1)).astype(np.float32),
        "shift": rng.standard_normal((1, 4, 1, 1)).astype(np.float32),
        "mean": np.array([100, 110, 120], np.float32),
    }
    crop = [
        helper.make_node("Unsqueeze", ["search", "axes"], ["u"], "/in/Unsqueeze"),
        helper.make_node("Transpose", ["u"], ["t"], "/in/Transpose", perm=(0, 3, 1, 2)),
        helper.make_node("Cast", ["t"], ["image"], "/in/Cast", to=TensorProto.FLOAT),
    ]
    if scaled:
        crop = [
            helper.make_node("Cast", ["search"], ["c"], "/in/Cast", to=TensorProto.FLOAT),
            helper.make_node("Sub", ["c", "mean"], ["s"], "/in/Sub"),
            helper.make_node("Unsqueeze", ["s", "axes"], ["u"], "/in/Unsqueeze"),
            helper.make_node("Transpose", ["u"], ["image"], "/in/Transpose", perm=(0, 3, 1, 2)),
        ]
    norm = {"axes": [1, 2, 3], "keepdims": 1}
    nodes = [
        *crop,
        helper.make_node("Conv", ["image", "kernel"], ["map"], "/Conv", strides=[2, 2], pads=[0, 0, 1, 1]),
        helper.make_node("Add", ["map", "features"], ["sum"], "/Add"),
        helper.make_node("ReduceMean", ["sum"], ["m"], "/norm/ReduceMean", **norm),
        helper.make_node("Sub", ["sum", "m"], ["d"], "/norm/Sub"),
        helper.make_node("Mul", ["d", "d"], ["q"], "/norm/Mul"),
        helper.make_node("ReduceMean", ["q"], ["v"], "/norm/ReduceMean_1", **norm),
        helper.make_node("Add", ["v", "small"], ["e"], "/norm/Add"),
        helper.make_node("Sqrt", ["e"], ["r"], "/norm/Sqrt"),
        helper.make_node("Div", ["d", "r"], ["normal" if gain else "out"], "/norm/Div"),
    ]
    if gain:
        nodes += [
            helper.make_node("Mul", ["normal", "gain"], ["g"], "/norm/Mul_1"),
            helper.make_node("Add", ["g", "shift"], ["out"], "/norm/Add_1"),
        ]
    graph = helper.make_graph(
        nodes,
        "step",
        [
            helper.make_tensor_value_info("search", TensorProto.UINT8, (16, 16, 3)),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, (1, 4, 8, 8)),
        ],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, (1, 4, 8, 8))],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model, True, True, True)


def fed(seed: int = 0) -> dict[str, np.ndarray]:
    """What the tiny graph takes."""
    rng = np.random.default_rng(seed)
    return {
        "search": rng.integers(0, 256, (16, 16, 3), np.uint8),
        "features": rng.standard_normal((1, 4, 8, 8)).astype(np.float32),
    }
