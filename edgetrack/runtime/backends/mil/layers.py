"""Convolutions, products and normalisations of an ML program, and how its compressed weights unfold."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from edgetrack.arrays import Array
from edgetrack.runtime.backends.mil.operators import integer, integers, operator


def _matmul_shape(
    x: Array, y: Array, transpose_x: Array | bool = False, transpose_y: Array | bool = False
) -> Sequence[int]:
    rows = x.shape[-1 if bool(transpose_x) else -2]
    columns = y.shape[-2 if bool(transpose_y) else -1]
    return (*np.broadcast_shapes(x.shape[:-2], y.shape[:-2]), rows, columns)


@operator(shape=_matmul_shape)
def matmul(x: Array, y: Array, transpose_x: Array | bool = False, transpose_y: Array | bool = False) -> Array:
    left = x.swapaxes(-1, -2) if bool(transpose_x) else x
    return np.asarray(np.matmul(left, y.swapaxes(-1, -2) if bool(transpose_y) else y))


@operator(shape=lambda x, weight, **_: (*x.shape[:-1], weight.shape[0]))
def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    found: Array = np.matmul(x, weight.T)
    return found if bias is None else found + bias


_Geometry = list[tuple[int, int, int, int, int]]
"""Of each of two dimensions: size of the kernel and the output, stride, dilation, margin before."""


def _geometry(x: Array, weight: Array, strides: Array, pad_type: str, pad: Array, dilations: Array) -> _Geometry:
    if x.ndim != 4 or weight.ndim != 4:
        raise ValueError(f"a convolution of {list(x.shape)} by {list(weight.shape)}; two dimensions are known")
    if pad_type not in ("valid", "custom"):
        raise ValueError(f"{pad_type!r} where only 'valid' and 'custom' are known")
    margins = integers(pad) if pad_type == "custom" else (0, 0, 0, 0)
    steps, spreads = integers(strides), integers(dilations)
    if (len(steps), len(spreads), len(margins)) != (2, 2, 4) or min(steps + spreads) < 1 or min(margins) < 0:
        raise ValueError(f"strides {steps}, dilations {spreads}, margins {margins}")
    found = []
    for axis in range(2):
        kernel, before, after = weight.shape[2 + axis], margins[2 * axis], margins[2 * axis + 1]
        reach = x.shape[2 + axis] + before + after - spreads[axis] * (kernel - 1) - 1
        if reach < 0:
            raise ValueError(f"a kernel of {kernel} is larger than its input")
        found.append((kernel, reach // steps[axis] + 1, steps[axis], spreads[axis], before))
    return found


def _conv_shape(
    x: Array, weight: Array, strides: Array, pad_type: str, pad: Array, dilations: Array, **_: object
) -> Sequence[int]:
    spots = _geometry(x, weight, strides, pad_type, pad, dilations)
    return (x.shape[0], weight.shape[0], spots[0][1], spots[1][1])


@operator(shape=_conv_shape)
def conv(
    x: Array,
    weight: Array,
    strides: Array,
    pad_type: str,
    pad: Array,
    dilations: Array,
    groups: Array,
    bias: Array | None = None,
) -> Array:
    """One product for each place of the kernel; margins are left out, not stored."""
    spots = _geometry(x, weight, strides, pad_type, pad, dilations)
    parts, (images, channels), (outs, inner) = integer(groups), x.shape[:2], weight.shape[:2]
    if parts < 1 or channels != parts * inner or outs % parts:
        raise ValueError(f"{channels} channels in {parts} groups by a kernel of {list(weight.shape)}")
    (high, rows, *_), (wide, columns, *_) = spots
    found = np.zeros((images, parts, outs // parts, rows, columns), np.float32)
    image = x.reshape(images, parts, inner, *x.shape[2:])
    kernel = weight.reshape(parts, outs // parts, inner, high, wide)
    for place in itertools.product(range(high), range(wide)):
        (out_rows, in_rows), (out_columns, in_columns) = (
            _meeting(size, at, spot) for size, at, spot in zip(x.shape[2:], place, spots, strict=True)
        )
        part = image[..., in_rows, in_columns]
        if not part.size:
            continue
        taps = kernel[..., place[0], place[1]]
        if inner == 1:
            product = taps[..., None] * part
        else:
            flat = np.matmul(taps, part.reshape(images, parts, inner, -1))
            product = flat.reshape(images, parts, outs // parts, *part.shape[3:])
        found[..., out_rows, out_columns] += product
    whole = found.reshape(images, outs, rows, columns)
    return whole if bias is None else whole + bias.reshape(-1, 1, 1)


def _meeting(size: int, tap: int, spot: tuple[int, int, int, int, int]) -> tuple[slice, slice]:
    """The outputs that one place of the kernel meets inside the input, and the inputs that it meets there."""
    _, count, stride, dilation, before = spot
    shift = tap * dilation - before
    first = max(0, -(shift // stride))
    last = min(count - 1, (size - 1 - shift) // stride)
    if last < first:
        return slice(0, 0), slice(0, 0)
    return slice(first, last + 1), slice(first * stride + shift, last * stride + shift + 1, stride)


@operator()
def batch_norm(
    x: Array, mean: Array, variance: Array, epsilon: Array, gamma: Array | None = None, beta: Array | None = None
) -> Array:
    shape = (-1, *(1,) * (x.ndim - 2))
    found = (x - mean.reshape(shape)) / np.sqrt(variance + epsilon).reshape(shape)
    return _scaled(
        found, None if gamma is None else gamma.reshape(shape), None if beta is None else beta.reshape(shape)
    )


@operator()
def layer_norm(x: Array, axes: Array, epsilon: Array, gamma: Array | None = None, beta: Array | None = None) -> Array:
    along = integers(axes)
    centred = x - x.mean(along, keepdims=True)
    found = centred / np.sqrt((centred * centred).mean(along, keepdims=True) + epsilon)
    return _scaled(found, gamma, beta)


def _scaled(x: Array, gamma: Array | None, beta: Array | None) -> Array:
    found = x if gamma is None else x * gamma
    return found if beta is None else found + beta


@operator(shape=lambda quantized_data, **_: quantized_data.shape)
def constexpr_affine_dequantize(quantized_data: Array, zero_point: Array, scale: Array, axis: Array) -> Array:
    """scale (q - zero), a scale and zero for all or for each index along `axis`."""
    shape = [1] * quantized_data.ndim
    shape[integer(axis)] = -1
    zero, factor = (part.reshape(shape) if part.ndim else part for part in (zero_point, scale))
    return factor * (quantized_data.astype(np.float32) - zero.astype(np.float32))


@operator(shape=lambda data, **_: data.shape)
def constexpr_blockwise_shift_scale(data: Array, scale: Array, offset: Array | None = None) -> Array:
    """scale (q - offset), each for a block of equal size."""
    if scale.ndim != data.ndim or any(size % (count or 1) for size, count in zip(data.shape, scale.shape, strict=True)):
        raise ValueError(f"scales {list(scale.shape)} of {list(data.shape)}")
    values = data.astype(np.float32)
    if offset is not None:
        values = values - _per_block(offset.astype(np.float32), values)
    return values * _per_block(scale, values)


def _per_block(part: Array, like: Array) -> Array:
    for axis, (size, count) in enumerate(zip(like.shape, part.shape, strict=True)):
        part = np.repeat(part, size // max(1, count), axis) if count > 1 else part
    return part
