"""coremltools, and what it reads of an .mlpackage without running it: inputs, outputs, operators, weights."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetrack.errors import BackendMissingError, BundleIntegrityError
from edgetrack.runtime.backends.base import GraphSignature
from edgetrack.runtime.verify import Comparison, GraphLayers, Layer, compare

REMEDY = "install it with: pip install 'edgetrack[coreml]'"
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
_ARRAYS = {65568: "float32", 65552: "float16", 131104: "int32"}
_NUMBERS = {10: "fp16", 11: "fp32", 12: "fp64", 1: "bool", 21: "int8", 22: "int16", 23: "int32", 31: "uint8"}


def import_coremltools() -> Any:
    """The package.

    Raises:
        BackendMissingError: it is not installed, or numpy is too new for it.
    """
    # It logs what is absent on other systems, and versions that it was not tested with.
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    with quiet():
        try:
            import coremltools
        except ImportError as error:
            raise BackendMissingError(f"coremltools is not installed ({error}); {REMEDY}") from error
    major, minor = (int(part) for part in np.__version__.split(".")[:2])
    if (major, minor) >= (2, 4):
        raise BackendMissingError(f"coremltools 9 fails with numpy {np.__version__}, it needs one below 2.4; {REMEDY}")
    return coremltools


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """coremltools draws bars on stderr and warns of every constant."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def read_spec(path: Path) -> Any:
    """The specification of a package.

    Raises:
        BundleIntegrityError: it is not one, or not an ML program.
        BackendMissingError: coremltools is missing.
    """
    coremltools = import_coremltools()
    try:
        with quiet():
            spec = coremltools.utils.load_spec(str(path))
    except Exception as error:  # protobuf's, the package reader's and the file system's errors share no base
        raise BundleIntegrityError(f"Core ML package {path.name} cannot be read: {error}") from None
    if spec.WhichOneof("Type") != "mlProgram" or "main" not in spec.mlProgram.functions:
        raise BundleIntegrityError(f"Core ML package {path.name} holds no ML program; export the bundle again")
    return spec


def signatures(spec: Any) -> tuple[GraphSignature, GraphSignature]:
    """Inputs and outputs as the manifest states them: an image is uint8 (H, W, 3), BGR."""
    return {i.name: _tensor(i.type) for i in spec.description.input}, {
        o.name: _tensor(o.type) for o in spec.description.output
    }


def _tensor(kind: Any) -> tuple[str, tuple[int, ...]]:
    if kind.WhichOneof("Type") == "imageType":
        image = kind.imageType
        order = image.ColorSpace.Name(image.colorSpace)
        return ("uint8" if order == "BGR" else f"{order} image"), (image.height, image.width, 3)
    array = kind.multiArrayType
    return _ARRAYS.get(array.dataType, f"type {array.dataType}"), tuple(array.shape)


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
    function = spec.mlProgram.functions["main"]
    return function.block_specializations[function.opset].operations


def weights(path: Path, smallest: int = 1) -> Mapping[str, NDArray[Any]]:
    """Constant tensors by the name of the parameter they come from, de-quantized.

    Raises:
        BundleIntegrityError: they cannot be read.
    """
    coremltools = import_coremltools()
    from coremltools.optimize import coreml as optimize

    try:
        with quiet():
            model = coremltools.models.MLModel(str(path), skip_model_load=True)
            # It refuses a model without a compressed weight in some versions, and returns others as they are.
            if any(operation.type.startswith("constexpr") for operation in operations(model.get_spec())):
                model = optimize.decompress_weights(model)
            found = optimize.get_weights_metadata(model, weight_threshold=smallest - 1)
    except Exception as error:  # damaged blobs end in errors of many classes
        raise BundleIntegrityError(f"the weights of Core ML package {path.name} cannot be read: {error}") from None
    return {plain_name(name): np.asarray(info.val) for name, info in found.items()}


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
