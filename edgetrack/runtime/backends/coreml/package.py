"""What an .mlpackage says without being run, beside its signature: operators, and weights against a record of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetrack.runtime.backends.mil.evaluation import fold
from edgetrack.runtime.backends.mil.package import main_block
from edgetrack.runtime.backends.mil.program import read_program
from edgetrack.runtime.verify import Comparison, GraphLayers, Layer, compare

SUFFIXES = ("_quantized", "_to_fp16")
"""What coremltools adds to a weight's name when it changes its type."""
NEURAL_ENGINE = frozenset({
    "add", "avg_pool", "batch_norm", "cast", "clip", "concat", "const", "constexpr_affine_dequantize",
    "constexpr_blockwise_shift_scale", "conv", "conv_transpose", "expand_dims", "gelu", "instance_norm", "l2_norm",
    "layer_norm", "leaky_relu", "linear", "matmul", "max_pool", "maximum", "minimum", "mul", "pad", "pow", "prelu",
    "real_div", "reduce_max", "reduce_mean", "reduce_sum", "relu", "relu6", "reshape", "rsqrt", "sigmoid",
    "sigmoid_hard", "silu", "slice_by_index", "slice_by_size", "softmax", "split", "sqrt", "square", "squeeze", "sub",
    "tanh", "transpose", "upsample_bilinear", "upsample_nearest_neighbor",
})  # fmt: skip
"""Operators that the Neural Engine takes in FP16, as far as known: Apple publishes no list, and shapes decide too."""
_NUMBERS = {10: "fp16", 11: "fp32", 12: "fp64", 1: "bool", 21: "int8", 22: "int16", 23: "int32", 31: "uint8"}


def layers(spec: Any) -> GraphLayers:
    """Operators in order, constants left out, each with the type of number that it returns."""
    tool = f"Core ML specification {spec.specificationVersion}"
    found = []
    for operation in operations(spec):
        if operation.type == "const":
            continue
        output = operation.outputs[0]
        kind = output.type.tensorType.dataType
        found.append(Layer(name=output.name, type=operation.type, precision=_NUMBERS.get(kind, f"type {kind}")))
    return GraphLayers(source="model specification", tool=tool, layers=tuple(found))


def operations(spec: Any) -> Any:
    """The operations of the main function."""
    return main_block(spec).operations


def weights(path: Path) -> Mapping[str, NDArray[Any]]:
    """Constant tensors of floats by the name of the parameter they come from, de-quantized.

    Raises:
        BundleIntegrityError: they cannot be read.
        BackendMissingError: coremltools is missing.
    """
    found = fold(read_program(path))
    return {plain_name(name): value for name, value in found.items() if value.dtype.kind == "f"}


def plain_name(name: str) -> str:
    """A weight's name without what changes of type added to it."""
    shorter = next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)
    return name if shorter == name else plain_name(shorter)


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
    """Share of the package's weight elements, in tensors of 512 or more, that the record knows by name, 0..1.

    1 where neither has such a tensor: a small graph, such as one attention of a narrow network.
    """
    sizes = {name: weight.size for name, weight in found.items() if weight.size >= SMALLEST}
    known = sum(size for name, size in sizes.items() if f"{name}/largest" in recorded)
    return known / sum(sizes.values()) if sizes else float(not recorded)
