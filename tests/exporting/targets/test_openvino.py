"""Long products of an IR are marked, the short ones are not, and a mark changes no bit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import openvino
import pytest
from openvino import opset13

from edgetrack.exporting.targets.openvino import LONG, TALL, mark_long_products
from edgetrack.runtime.backends.openvino.backend import shared_core

Follow = Callable[[openvino.Output], openvino.Output]


def product(
    rows: int = TALL, summands: int = LONG, *, bias: bool = True, transposed: bool = True, then: Follow | None = None
) -> openvino.Model:
    """x W + b, then what `then` does, then a residual."""
    rng = np.random.default_rng(0)
    x = opset13.parameter([1, rows, summands], np.float32, name="x")
    shape = (24, summands) if transposed else (summands, 24)
    weights = rng.standard_normal(shape).astype(np.float32)
    y = opset13.matmul(x, opset13.constant(weights), False, transposed).output(0)
    if bias:
        y = opset13.add(y, opset13.constant(rng.standard_normal((1, 1, 24)).astype(np.float32))).output(0)
    if then is not None:
        y = then(y)
    other = opset13.parameter([1, rows, 24], np.float32, name="residual")
    return openvino.Model([opset13.result(opset13.add(y, other))], [x, other], "product")


def run(model: openvino.Model, x: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Its output, and by which libraries the products were computed."""
    compiled = shared_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    kinds = [
        str(node.get_rt_info()["primitiveType"].value)
        for node in compiled.get_runtime_model().get_ordered_ops()
        if node.get_rt_info()["layerType"].value == "FullyConnected"
    ]
    return compiled([x, other])[0], kinds


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("transposed", [True, False])
def test_a_mark_changes_no_bit_of_any_value(bias: bool, transposed: bool) -> None:
    model = product(bias=bias, transposed=transposed)
    assert mark_long_products(model) == 1
    (mark,) = (node for node in model.get_ops() if node.get_type_name() == "PRelu")
    x = opset13.parameter([24], np.float32)
    same = opset13.prelu(x, opset13.constant(mark.input_value(1).get_node().data))
    alone = shared_core().compile_model(openvino.Model([same], [x], "mark"), "CPU")
    values = np.random.default_rng(1).standard_normal(24).astype(np.float32)
    values[:4] = np.nan, np.inf, -np.inf, -0.0
    assert alone([values])[0].tobytes() == values.tobytes()


def test_a_marked_product_is_not_computed_by_the_slow_library() -> None:
    x, other = np.ones((1, 64, LONG), np.float32), np.zeros((1, 64, 24), np.float32)
    plain, marked = product(64), product(64)
    assert mark_long_products(marked) == 1
    (expected, before), (found, after) = run(plain, x, other), run(marked, x, other)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    if not any("mlas" in kind for kind in before):
        pytest.skip(f"this processor's plugin computes products by {before}, none of which is slow")
    assert not any("mlas" in kind for kind in after)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(product(summands=LONG - 1), id="few summands"),
        pytest.param(product(rows=TALL - 1), id="few rows"),
        pytest.param(product(then=lambda y: opset13.gelu(y, "erf").output(0)), id="an activation of its own"),
    ],
)
def test_other_products_are_left_alone(model: openvino.Model) -> None:
    before = len(model.get_ops())
    assert mark_long_products(model) == 0
    assert len(model.get_ops()) == before


def test_an_output_of_the_graph_keeps_its_name() -> None:
    x = opset13.parameter([1, TALL, LONG], np.float32, name="x")
    y = opset13.matmul(x, opset13.constant(np.ones((24, LONG), np.float32)), False, True)
    y.output(0).set_names({"y"})
    model = openvino.Model([opset13.result(y)], [x], "product")
    assert mark_long_products(model) == 0
    assert model.output("y").get_names() == {"y"}


def test_marking_twice_marks_once() -> None:
    model = product()
    assert [mark_long_products(model), mark_long_products(model)] == [1, 0]
