"""A record of the weights that a package was converted from, small enough to travel in the bundle.

Of every weight up to 256 evenly spread values and the largest magnitude: enough to see that a package's weights are the
network's, in place, to the precision that was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetrack.runtime.parity import Comparison, compare

SAMPLES = 256
SMALLEST = 512
"""Elements of the smallest weight that is recorded; biases and scales are folded into others."""


def record(weights: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Arrays of the record: `NAME/values`, `NAME/largest` and `NAME/shape`."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, weight in weights.items():
        if weight.size >= SMALLEST:
            arrays[f"{name}/values"] = sample(weight).astype(np.float32)
            arrays[f"{name}/largest"] = np.abs(weight).max().astype(np.float32)
            arrays[f"{name}/shape"] = np.array(weight.shape, np.int32)
    return arrays


def sample(weight: NDArray[Any]) -> NDArray[Any]:
    """Up to 256 values, evenly spread over the flattened weight."""
    flat: NDArray[Any] = weight.reshape(-1)
    chosen: NDArray[Any] = flat[np.linspace(0, flat.size - 1, min(SAMPLES, flat.size)).round().astype(np.int64)]
    return chosen


def hold_against(
    graph: str, found: Mapping[str, NDArray[Any]], recorded: Mapping[str, NDArray[Any]], precision: str
) -> Iterator[Comparison]:
    """Every recorded weight that the package has under its name, to the rounding of the precision."""
    for key, largest in recorded.items():
        name, _, part = key.rpartition("/")
        if part != "largest" or name not in found:
            continue
        weight, values = found[name], recorded[f"{name}/values"]
        fits = tuple(weight.shape) == tuple(recorded[f"{name}/shape"])
        # Symmetric INT8 by channel: half a step is at most the tensor's largest value / 254. FP16: half a unit in the
        # last of 11 bits, and half the smallest subnormal.
        quantized = float(largest) / 254 * 1.01 if precision == "int8" else 0.0
        half = 0.0 if precision == "fp32" else 2.0**-11
        seen = sample(weight).astype(np.float32) if fits else np.full(1, np.nan, np.float32)
        yield compare(
            f"weights {graph}/{name}", seen, values, atol=quantized + (2.0**-25 if half else 0.0), rtol=2 * half
        )


def coverage(found: Mapping[str, NDArray[Any]], recorded: Mapping[str, NDArray[Any]]) -> float:
    """Share of the package's weight elements, in tensors of 512 or more, that the record knows by name, 0..1."""
    sizes = {name: weight.size for name, weight in found.items() if weight.size >= SMALLEST}
    known = sum(size for name, size in sizes.items() if f"{name}/largest" in recorded)
    return known / sum(sizes.values()) if sizes else 0.0
