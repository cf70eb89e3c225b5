"""What each operation of an ML program computes, with NumPy: elementwise, reductions, shapes, sorting.

Functions take the operation's inputs by MIL's names, floats as float32, and return its value; convolutions, products,
normalisations and compressed weights are in `layers.py`. The list is what our exports hold. What may grow beyond its
inputs states its shape before it is computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from edgetrack.arrays import Array


class Operator(NamedTuple):
    """How an operation is computed; `shape` foretells its first output's shape, of the same inputs."""

    compute: Callable[..., Array | Sequence[Array]]
    shape: Callable[..., Sequence[int]] | None = None


OPERATORS: dict[str, Operator] = {}


def operator(
    *names: str, shape: Callable[..., Sequence[int]] | None = None
) -> Callable[[Callable[..., Array | Sequence[Array]]], Callable[..., Array | Sequence[Array]]]:
    """Enter a function in the table, by its own name where none is given."""

    def enter(function: Callable[..., Array | Sequence[Array]]) -> Callable[..., Array | Sequence[Array]]:
        for name in names or (function.__name__,):
            OPERATORS[name] = Operator(function, shape)
        return function

    return enter


def integers(values: Array) -> tuple[int, ...]:
    """Whole numbers as Python's, which do not overflow."""
    if values.dtype.kind not in "iub":
        raise ValueError(f"{values.dtype} where whole numbers were expected")
    return tuple(values.reshape(-1).tolist())


def integer(value: Array) -> int:
    """One whole number."""
    (found,) = integers(value)
    return found


def require(text: str, known: str) -> None:
    """Raise ValueError where an attribute is not the one that is known here."""
    if text != known:
        raise ValueError(f"{text!r} where only {known!r} is known")


# Elementwise, with broadcasting.


def _broadcast(x: Array, y: Array) -> Sequence[int]:
    return np.broadcast_shapes(x.shape, y.shape)


@operator(shape=_broadcast)
def add(x: Array, y: Array) -> Array:
    return np.add(x, y)


@operator(shape=_broadcast)
def sub(x: Array, y: Array) -> Array:
    return np.subtract(x, y)


@operator(shape=_broadcast)
def mul(x: Array, y: Array) -> Array:
    return np.multiply(x, y)


@operator(shape=_broadcast)
def real_div(x: Array, y: Array) -> Array:
    return np.divide(x, y)


@operator(shape=_broadcast)
def maximum(x: Array, y: Array) -> Array:
    return np.maximum(x, y)


@operator()
def exp(x: Array) -> Array:
    return np.exp(x)


@operator()
def sqrt(x: Array) -> Array:
    return np.sqrt(x)


@operator()
def relu(x: Array) -> Array:
    return np.maximum(x, 0)


@operator()
def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


@operator()
def sigmoid_hard(x: Array, alpha: Array, beta: Array) -> Array:
    return np.clip(alpha * x + beta, 0, 1)


@operator()
def thresholded_relu(x: Array, alpha: Array) -> Array:
    return np.where(x >= alpha, x, np.float32(0))


@operator()
def clip(x: Array, alpha: Array, beta: Array) -> Array:
    return np.clip(x, alpha, beta)


@operator()
def inverse(x: Array, epsilon: Array) -> Array:
    return 1 / (x + epsilon)


@operator()
def gelu(x: Array, mode: str) -> Array:
    require(mode, "EXACT")
    return x * (0.5 + 0.5 * _erf(x * math.sqrt(0.5))).astype(np.float32)


_ENDS, _STEPS = 6.0, 1 << 13


@cache
def _erf_table() -> Array:
    return np.array([math.erf(step / _STEPS) for step in range(int(_ENDS * _STEPS) + 2)])


def _erf(x: Array) -> Array:
    """NumPy has none; between 2**13 points for each unit it is straight to 2e-9, and beyond 6 it is 1."""
    table = _erf_table()
    place = np.minimum(np.abs(np.nan_to_num(x, nan=0.0)), _ENDS).astype(np.float64) * _STEPS
    left = place.astype(np.int64)
    found = table[left] + (place - left) * (table[left + 1] - table[left])
    return np.where(np.isnan(x), np.nan, np.copysign(found, x))


@operator()
def cast(x: Array, dtype: str) -> Array:
    """The value's declared type does it; a type that is none of the program's is refused."""
    kinds = {"fp16": np.float16, "fp32": np.float32, "int32": np.int32, "bool": np.bool_}
    if dtype not in kinds:
        raise ValueError(f"{dtype!r} where only {', '.join(kinds)} are known")
    return x.astype(kinds[dtype])


# Reductions.


def _axes(x: Array, axes: Array | None) -> tuple[int, ...]:
    return tuple(range(x.ndim)) if axes is None else integers(axes)


@operator()
def reduce_mean(x: Array, keep_dims: Array, axes: Array | None = None) -> Array:
    return np.asarray(np.mean(x, _axes(x, axes), dtype=np.float32, keepdims=bool(keep_dims)))


@operator()
def reduce_sum(x: Array, keep_dims: Array, axes: Array | None = None) -> Array:
    return np.asarray(np.sum(x, _axes(x, axes), dtype=x.dtype, keepdims=bool(keep_dims)))


@operator()
def reduce_max(x: Array, keep_dims: Array, axes: Array | None = None) -> Array:
    return np.asarray(np.max(x, _axes(x, axes), keepdims=bool(keep_dims)))


@operator()
def reduce_l2_norm(x: Array, keep_dims: Array, axes: Array | None = None) -> Array:
    return np.asarray(np.sqrt(np.sum(x * x, _axes(x, axes), keepdims=bool(keep_dims))))


@operator()
def softmax(x: Array, axis: Array) -> Array:
    along = integer(axis)
    found: Array = np.exp(x - x.max(along, keepdims=True))
    return np.asarray(found / found.sum(along, keepdims=True))


# Shapes.


@operator()
def reshape(x: Array, shape: Array) -> Array:
    found: Array = x.reshape(integers(shape))
    return found


@operator()
def transpose(x: Array, perm: Array) -> Array:
    return np.transpose(x, integers(perm))


@operator()
def expand_dims(x: Array, axes: Array) -> Array:
    return np.expand_dims(x, integers(axes))


@operator()
def squeeze(x: Array, axes: Array | None = None) -> Array:
    return x.squeeze(None if axes is None else integers(axes))


@operator()
def concat(values: Array | tuple[Array, ...], axis: Array, interleave: Array | None = None) -> Array:
    if interleave is not None and bool(interleave):
        raise ValueError("interleaved parts are not known")
    return np.concatenate(values if isinstance(values, tuple) else (values,), integer(axis))


@operator()
def split(x: Array, axis: Array, split_sizes: Array | None = None, num_splits: Array | None = None) -> list[Array]:
    along = integer(axis)
    if split_sizes is None:
        if num_splits is None or not 0 < integer(num_splits) <= x.shape[along]:
            raise ValueError("neither sizes nor a count of its parts")
        return np.split(x, integer(num_splits), along)
    sizes = integers(split_sizes)
    if min(sizes, default=0) < 0 or sum(sizes) != x.shape[along]:
        raise ValueError(f"parts of {sizes} are no {x.shape[along]}")
    return np.split(x, np.cumsum(sizes)[:-1].tolist(), along)


@operator()
def slice_by_index(
    x: Array,
    begin: Array,
    end: Array,
    stride: Array | None = None,
    begin_mask: Array | None = None,
    end_mask: Array | None = None,
    squeeze_mask: Array | None = None,
) -> Array:
    """A masked end is open; a squeezed dimension is taken at `begin` and gone."""
    rank = x.ndim
    starts, ends = integers(begin), integers(end)
    steps = (1,) * rank if stride is None else integers(stride)
    masks = [(0,) * rank if mask is None else integers(mask) for mask in (begin_mask, end_mask, squeeze_mask)]
    if {rank} != {len(part) for part in (starts, ends, steps, *masks)}:
        raise ValueError(f"bounds or masks of another rank than {rank}")
    index: list[int | slice] = []
    for start, stop, step, open_start, open_stop, squeezed in zip(starts, ends, steps, *masks, strict=True):
        whole = slice(None if open_start else start, None if open_stop else stop, step)
        index.append((0 if open_start else start) if squeezed else whole)
    return x[tuple(index)]


def _tiled(x: Array, reps: Array) -> Sequence[int]:
    return [size * count for size, count in zip(x.shape, integers(reps), strict=True)]


@operator(shape=_tiled)
def tile(x: Array, reps: Array) -> Array:
    return np.tile(x, integers(reps))


def _margins(x: Array, pad: Array) -> list[tuple[int, int]]:
    sizes = integers(pad)
    if len(sizes) % 2 or len(sizes) > 2 * x.ndim or min(sizes, default=0) < 0:
        raise ValueError(f"margins {sizes} of rank {x.ndim}")
    return [(0, 0)] * (x.ndim - len(sizes) // 2) + list(zip(sizes[::2], sizes[1::2], strict=True))


def _padded(x: Array, pad: Array, **_: object) -> Sequence[int]:
    return [before + size + after for size, (before, after) in zip(x.shape, _margins(x, pad), strict=True)]


@operator("pad", shape=_padded)
def margin(x: Array, pad: Array, mode: str, constant_val: Array) -> Array:
    require(mode, "constant")
    return np.pad(x, _margins(x, pad), constant_values=constant_val)


# Indices.


def _gathered(x: Array, indices: Array, axis: Array, **_: object) -> Sequence[int]:
    along = integer(axis) % x.ndim
    return (*x.shape[:along], *indices.shape, *x.shape[along + 1 :])


@operator(shape=_gathered)
def gather(
    x: Array, indices: Array, axis: Array, batch_dims: Array | None = None, validate_indices: Array | None = None
) -> Array:
    if batch_dims is not None and integer(batch_dims):
        raise ValueError("dimensions of a batch are not known")
    return np.asarray(np.take(x, indices, integer(axis)))


@operator(shape=lambda indices, **_: indices.shape)
def gather_along_axis(x: Array, indices: Array, axis: Array, validate_indices: Array | None = None) -> Array:
    return np.take_along_axis(x, indices, integer(axis))


@operator()
def scatter_along_axis(
    data: Array, indices: Array, updates: Array, axis: Array, mode: str, validate_indices: Array | None = None
) -> Array:
    require(mode, "update")
    found: Array = data.copy()
    np.put_along_axis(found, indices, updates, integer(axis))
    return found


@operator()
def topk(
    x: Array,
    k: Array,
    axis: Array,
    ascending: Array,
    sort: Array | None = None,
    return_indices: Array | None = None,
    output_indices_dtype: str = "int32",
) -> list[Array]:
    """Sorted; of equal values the first comes first."""
    along, count = integer(axis), integer(k)
    if not 0 <= count <= x.shape[along]:
        raise ValueError(f"{count} of {x.shape[along]} values")
    order = np.argsort(x if bool(ascending) else -x, along, kind="stable")
    chosen = np.take(order, range(count), along)
    values = np.take_along_axis(x, chosen, along)
    return [values, chosen.astype(np.int32)] if return_indices is None or bool(return_indices) else [values]
