"""The interpreter's operations against PyTorch's, over shapes and attributes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st

import edgetrack.runtime.backends.mil.layers  # noqa: F401
from edgetrack.runtime.backends.mil.operators import OPERATORS

rng = np.random.default_rng(0)


def drawn(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape, np.float32)


def whole(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def computed(kind: str, **operands: object) -> np.ndarray:
    """What an operation gives, after the shape that it foretold."""
    operator = OPERATORS[kind]
    found = operator.compute(**operands)
    if operator.shape is not None:
        assert tuple(operator.shape(**operands)) == found.shape
    return found


@given(
    st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 2),
    st.integers(0, 5), st.integers(1, 3), st.integers(5, 9), st.sampled_from(["custom", "valid"]),
)  # fmt: skip
def test_convolution(
    groups: int, inner: int, outs: int, stride: int, dilation: int, margin: int, high: int, size: int, kind: str
) -> None:
    x, weight, bias = (
        drawn(2, groups * inner, size, size + 2),
        drawn(groups * outs, inner, high, 2),
        drawn(groups * outs),
    )
    margins = (margin, margin // 2) if kind == "custom" else (0, 0)
    assume(size + 2 * margins[0] > dilation * (high - 1))
    reference = F.conv2d(
        torch.from_numpy(x), torch.from_numpy(weight), torch.from_numpy(bias), stride, margins, dilation, groups
    )
    found = computed(
        "conv",
        x=x,
        weight=weight,
        bias=bias,
        strides=whole(stride, stride),
        pad_type=kind,
        pad=whole(margins[0], margins[0], margins[1], margins[1]),
        dilations=whole(dilation, dilation),
        groups=whole(groups)[0],
    )
    np.testing.assert_allclose(found, reference.numpy(), atol=2e-5)


def test_margins_of_a_convolution_may_differ_on_each_side() -> None:
    x, weight = drawn(1, 2, 6, 6), drawn(3, 2, 3, 3)
    reference = F.conv2d(F.pad(torch.from_numpy(x), (0, 2, 1, 0)), torch.from_numpy(weight))
    found = computed(
        "conv", x=x, weight=weight, strides=whole(1, 1), pad_type="custom", pad=whole(1, 0, 0, 2),
        dilations=whole(1, 1), groups=whole(1)[0],
    )  # fmt: skip
    np.testing.assert_allclose(found, reference.numpy(), atol=1e-5)


X = np.concatenate([drawn(500) * 4, np.float32([0, -0.0, 6, -6, 30, -30])])
UNARY = {
    "gelu": (F.gelu, {"mode": "EXACT"}),
    "sigmoid": (torch.sigmoid, {}),
    "relu": (F.relu, {}),
    "exp": (torch.exp, {}),
    "sigmoid_hard": (F.hardsigmoid, {"alpha": np.float32(1 / 6), "beta": np.float32(0.5)}),
    "thresholded_relu": (lambda x: F.threshold(x, 1.0, 0.0), {"alpha": np.float32(1)}),
    "clip": (lambda x: x.clamp(-1, 2), {"alpha": np.float32(-1), "beta": np.float32(2)}),
    "inverse": (lambda x: 1 / (x + 1e-4), {"epsilon": np.float32(1e-4)}),
}


@pytest.mark.parametrize("kind", UNARY)
def test_elementwise(kind: str) -> None:
    function, more = UNARY[kind]
    reference = function(torch.from_numpy(X).double())
    np.testing.assert_allclose(computed(kind, x=X, **more), reference.numpy(), rtol=2e-6, atol=1e-6)


def test_norms_and_products() -> None:
    x, gamma, beta = drawn(2, 5, 6), drawn(6), drawn(6)
    t = [torch.from_numpy(part) for part in (x, gamma, beta)]
    np.testing.assert_allclose(
        computed("layer_norm", x=x, axes=whole(-1), epsilon=np.float32(1e-5), gamma=gamma, beta=beta),
        F.layer_norm(t[0], (6,), t[1], t[2]).numpy(),
        atol=2e-6,
    )
    mean, variance = drawn(5), np.abs(drawn(5)) + 0.1
    np.testing.assert_allclose(
        computed("batch_norm", x=x, mean=mean, variance=variance, epsilon=np.float32(1e-3), gamma=mean, beta=mean),
        F.batch_norm(t[0], *map(torch.from_numpy, (mean, variance, mean, mean)), eps=1e-3).numpy(),
        atol=2e-6,
    )
    y = drawn(2, 5, 3)
    product = computed("matmul", x=x, y=y, transpose_x=np.True_, transpose_y=np.False_)
    np.testing.assert_allclose(product, (t[0].mT @ torch.from_numpy(y)).numpy(), atol=1e-5)
    weight = drawn(4, 6)
    np.testing.assert_allclose(
        computed("linear", x=x, weight=weight, bias=beta[:4]),
        F.linear(t[0], torch.from_numpy(weight), t[2][:4]).numpy(),
        atol=1e-5,
    )
    np.testing.assert_allclose(computed("softmax", x=x, axis=whole(1)[0]), t[0].softmax(1).numpy(), atol=1e-6)


def test_indices() -> None:
    x, index = drawn(3, 7), rng.integers(0, 7, (3, 4)).astype(np.int32)
    t, at = torch.from_numpy(x), torch.from_numpy(index).long()
    axis, no = whole(1)[0], np.False_
    np.testing.assert_array_equal(computed("gather_along_axis", x=x, indices=index, axis=axis), t.gather(1, at).numpy())
    chosen = whole(2, -1, 0)
    np.testing.assert_array_equal(computed("gather", x=x, indices=chosen, axis=axis), t[:, [2, -1, 0]].numpy())
    values, order = OPERATORS["topk"].compute(x=x, k=whole(3)[0], axis=axis, ascending=no)
    found = t.topk(3, 1)
    np.testing.assert_array_equal(values, found.values.numpy())
    np.testing.assert_array_equal(order, found.indices.numpy())
    spots = np.argsort(drawn(3, 4), 1).astype(np.int32)
    scattered = computed("scatter_along_axis", data=x, indices=spots, updates=drawn(3, 4), axis=axis, mode="update")
    assert (scattered != x).sum() == 12
    np.testing.assert_array_equal(scattered[:, 4:], x[:, 4:])


def test_slices_are_open_where_they_are_masked_and_gone_where_they_are_squeezed() -> None:
    x = drawn(4, 5, 6)
    found = computed(
        "slice_by_index", x=x, begin=whole(1, 3, -2), end=whole(9, 9, 9), stride=whole(1, 2, 1),
        begin_mask=np.array([False, True, False]), end_mask=np.array([False, True, True]),
        squeeze_mask=np.array([True, False, False]),
    )  # fmt: skip
    np.testing.assert_array_equal(found, x[1, ::2, -2:])


def test_weights_of_fewer_bits_unfold_by_their_axis_or_block() -> None:
    few, scale = rng.integers(-127, 128, (4, 6), np.int8), np.float32([0.1, 0.2, 0.3, 0.4])
    zero = np.int8([0, 1, 2, 3])
    along = {"quantized_data": few, "zero_point": zero, "scale": scale, "axis": whole(0)[0]}
    expected = scale[:, None] * (few.astype(np.float32) - zero[:, None])
    np.testing.assert_allclose(computed("constexpr_affine_dequantize", **along), expected)
    blocks = np.float32([[1, 10], [2, 20]])
    found = computed("constexpr_blockwise_shift_scale", data=few, scale=blocks)
    np.testing.assert_allclose(found, few * blocks.repeat(2, 0).repeat(3, 1))
