"""How a graph's precision is lowered: INT8 by NNCF, quantize/dequantize pairs in ONNX, typed FP16 in ONNX."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from edgetrack.arrays import Array
from edgetrack.bundle.manifest import SEVEN_BITS
from edgetrack.errors import BackendMissingError, EdgetrackError, UnknownNameError, UsageError

Inputs = dict[str, Array]
"""What a graph is fed at one moment, by input name."""
Ranges = Literal["minmax", "percentile", "histogram"]
Correction = Literal["fast", "full", "none"]


@dataclass(frozen=True)
class Method:
    """How to quantize.

    Attributes:
        ranges: of activations. `minmax`: mean over crops of each crop's extremes; `percentile`: the same with 0.01 % of
            the values left out at either end; `histogram`: the range that loses least (NNCF's histogram aggregator).
        bias_correction: of the means that rounding weights shifts, layer by layer (`fast`), by running the graph up to
            each layer (`full`, minutes), or `none`.
        per_channel: weights have a scale for each output channel, not one for the tensor.
        smooth_quant: alpha in 0..1 by which matrix products move range from activations to weights (Xiao et al.,
            "SmoothQuant", ICML 2023); None leaves it off.
        symmetric: activations are symmetric where their sign allows.
        weight_bits: 7 leaves half the range of INT8 weights unused, so that two products of bytes fit 16 bits, in which
            x86 processors without VNNI add them; else 8 (docs/decisions/0033-int8-without-vnni.md).
    """

    ranges: Ranges = "minmax"
    bias_correction: Correction = "fast"
    per_channel: bool = True
    smooth_quant: float | None = None
    symmetric: bool = True
    weight_bits: int = 8

    def __post_init__(self) -> None:
        if self.ranges not in get_args(Ranges):
            more = "entropy/KL is not among what NNCF does"
            raise UnknownNameError.of("--calib-method", self.ranges, get_args(Ranges), more)
        if self.bias_correction not in get_args(Correction):
            raise UnknownNameError.of("--bias-correction", self.bias_correction, get_args(Correction))
        if self.smooth_quant is not None and not 0 <= self.smooth_quant <= 1:
            raise UsageError(f"--smooth-quant {self.smooth_quant}: expected a number in 0..1")
        if self.weight_bits not in (7, 8):
            raise UsageError(f"--weight-bits {self.weight_bits}: expected 7 or 8")

    def describe(self, quantizer: str) -> str:
        """As the manifest states it, such as `nncf minmax, fast bias correction, per channel, symmetric`."""
        parts = [
            f"{quantizer} {self.ranges}",
            f"{self.bias_correction} bias correction" if self.bias_correction != "none" else "no bias correction",
            "per channel" if self.per_channel else "per tensor",
            "symmetric" if self.symmetric else "asymmetric where it fits",
        ]
        if self.smooth_quant is not None:
            parts.append(f"SmoothQuant {self.smooth_quant:g}")
        if self.weight_bits == 7:
            parts.append(SEVEN_BITS)
        return ", ".join(parts)


@dataclass(frozen=True)
class Ignored:
    """Nodes that are not quantized: regular expressions for their whole names, and operator types."""

    patterns: tuple[str, ...] = ()
    types: tuple[str, ...] = field(default=())

    def whole_names(self) -> list[str]:
        """The patterns for NNCF, which matches them against the beginning of a name: `Mul_1` would take `Mul_10` too.

        OpenVINO splits the bias from a layer, and names what is left `LAYER/WithoutBiases`.
        """
        return [rf"(?:{pattern})(?:/WithoutBiases)?\Z" for pattern in self.patterns]


def quantize(model: Any, inputs: Sequence[Inputs], method: Method, ignored: Ignored) -> Any:
    """Quantize an OpenVINO or ONNX model.

    Args:
        model: of either package.
        inputs: what it is fed, by input name.
        method, ignored: how, and what not.

    Raises:
        BackendMissingError: NNCF is not installed.
    """
    nncf = _import()
    if not inputs:
        raise UsageError("no calibration crop; a quantization needs one or more")
    # SmoothQuant is off with a negative alpha. NNCF's defaults for transformers would turn it on unasked.
    alpha = -1.0 if method.smooth_quant is None else method.smooth_quant
    params = nncf.quantization.advanced_parameters
    weights = None if method.per_channel else params.QuantizationParameters(per_channel=False)
    advanced = params.AdvancedQuantizationParameters(
        # NNCF's default halves the range of the first layer alone.
        overflow_fix=params.OverflowFix.ENABLE if method.weight_bits == 7 else None,
        disable_bias_correction=method.bias_correction == "none",
        weights_quantization_params=weights,
        activations_range_estimator_params=_estimator(method.ranges),
        smooth_quant_alphas=params.AdvancedSmoothQuantParameters(convolution=-1, matmul=alpha),
    )
    presets = nncf.QuantizationPreset
    with _quiet():
        return nncf.quantize(
            model,
            nncf.Dataset(list(inputs)),
            preset=presets.PERFORMANCE if method.symmetric else presets.MIXED,
            subset_size=len(inputs),
            fast_bias_correction=method.bias_correction != "full",
            ignored_scope=nncf.IgnoredScope(patterns=ignored.whole_names(), types=list(ignored.types), validate=False),
            advanced_parameters=advanced,
        )


def _estimator(ranges: Ranges) -> Any:
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet as Sets

    return {"minmax": Sets.MEAN_MINMAX, "percentile": Sets.MEAN_QUANTILE, "histogram": Sets.HISTOGRAM}[ranges]


def _import() -> Any:
    # NNCF reports its use over the network unless this is set.
    os.environ.setdefault("NNCF_CI", "1")
    try:
        import nncf
        import nncf.quantization.advanced_parameters
    except ImportError as error:
        raise BackendMissingError(
            f"INT8 needs NNCF, which is not installed ({error}); install it with: pip install 'edgetrack[int8]'"
        ) from error
    import logging

    # Not `nncf.set_log_level`, which changes every handler on that logger, those of whoever listens too.
    logging.getLogger("nncf").setLevel(logging.ERROR)
    return nncf


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """NNCF draws its bars on stdout, which carries our results."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def signed(model: Any) -> None:
    """Make every pair INT8 with zero point 0, in place: a UINT8 one with zero point 0 gets twice the scale.

    Raises:
        EdgetrackError: a pair has another zero point, so that no symmetric pair covers its range alike.
    """
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    doubled: set[str] = set()
    for node in _pairs(model):
        zero = constants.get(node.input[2]) if len(node.input) > 2 else None
        if zero is None:
            raise EdgetrackError(f"{node.op_type} {node.name!r} has no stored zero point; it cannot be made signed")
        point = numpy_helper.to_array(zero)
        if point.dtype == np.int8 and not point.any():
            continue
        if point.dtype != np.uint8 or point.any():
            raise EdgetrackError(
                f"{node.op_type} {node.name!r} is not symmetric (zero point {point.ravel()[0]} of {point.dtype}); "
                "quantize with the symmetric preset"
            )
        doubled.add(node.input[1])
    for node in _pairs(model):
        if node.input[1] in doubled:
            zero = constants[node.input[2]]
            zero.CopyFrom(numpy_helper.from_array(np.zeros(tuple(zero.dims), np.int8), zero.name))
    for name in doubled:
        scale = constants[name]
        # 256 steps from -128: 0..255 of the old scale is 0..127.5 of twice that.
        scale.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(scale), name))
    _declare_signed(model)


def _declare_signed(model: Any) -> None:
    """Types of integers and zero points, which the file may state a second time: the checker compares them."""
    from onnx import TensorProto

    integers = {node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    integers.update(node.input[2] for node in _pairs(model))
    for info in model.graph.value_info:
        if info.name in integers:
            info.type.tensor_type.elem_type = TensorProto.INT8


def fold_weights(model: Any) -> int:
    """Store quantized constants as INT8 behind their DequantizeLinear, in place; returns how many there were."""
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    folded = []
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] not in constants:
            continue
        weight, scale, zero = (numpy_helper.to_array(constants[name]) for name in node.input)
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        stored = numpy_helper.from_array(quantized(weight, scale, zero, axis), f"{node.output[0]}_int8")
        model.graph.initializer.append(stored)
        for user in model.graph.node:
            for index, name in enumerate(user.input):
                if name == node.output[0]:
                    user.input[index] = stored.name
        folded.append(node)
    for node in folded:
        model.graph.node.remove(node)
    drop_unread(model)
    return len(folded)


def unshare_weights(model: Any) -> int:
    """Give each reader of a quantized constant a DequantizeLinear and constants of its own, in place.

    ONNX Runtime's exact mode for processors without VNNI replaces constants; 1.31 fails where two nodes share one.

    Returns:
        How many constants were copied.
    """
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    taken: set[str] = set()
    copies = []

    def own(node: Any) -> None:
        for at in range(0, len(node.input), 2):  # values and zero points; scales are not replaced
            name = node.input[at]
            if name in taken:
                copies.append(type(stored[name])())
                copies[-1].CopyFrom(stored[name])
                copies[-1].name = node.input[at] = f"{name}/{node.output[0]}"
            taken.add(name)

    twins = []
    for node in [one for one in _pairs(model) if one.op_type == "DequantizeLinear" and one.input[0] in stored]:
        output = node.output[0]
        readers = [(user, at) for user in model.graph.node for at, name in enumerate(user.input) if name == output]
        for index, (user, at) in enumerate(readers[1:], 1):
            twin = type(node)()
            twin.CopyFrom(node)
            twin.name, twin.output[0] = f"{node.name}_{index}", f"{output}_{index}"
            user.input[at] = twin.output[0]
            twins.append(twin)
        own(node)
    for twin in twins:
        own(twin)
        model.graph.node.insert(0, twin)
    model.graph.initializer.extend(copies)
    return len(copies)


def quantized(
    values: NDArray[Any], scale: NDArray[Any], zero: NDArray[Any], axis: int
) -> NDArray[np.int8] | NDArray[np.uint8]:
    """QuantizeLinear of ONNX (opset 13): round half to even, then saturate to the zero point's type."""
    shape = [1] * values.ndim
    if scale.ndim:
        shape[axis] = -1
    steps = np.rint(values / scale.reshape(shape)) + zero.astype(np.float64).reshape(shape)
    limits = np.iinfo(zero.dtype)
    found: NDArray[np.int8] = np.clip(steps, limits.min, limits.max).astype(zero.dtype)
    return found


def quantized_types(model: Any) -> set[str]:
    """The integer types that a model's pairs have, such as {"int8"}."""
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    return {
        str(numpy_helper.to_array(constants[node.input[2]]).dtype)
        for node in _pairs(model)
        if len(node.input) > 2 and node.input[2] in constants
    }


def _pairs(model: Any) -> list[Any]:
    return [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]


def drop_unread(model: Any) -> None:
    """Remove the constants of an ONNX model that nothing reads, and what only dequantizes them."""
    read = {name for node in model.graph.node for name in node.input}
    read.update(output.name for output in model.graph.output)
    for node in [node for node in _pairs(model) if node.output[0] not in read]:
        model.graph.node.remove(node)
    read = {name for node in model.graph.node for name in node.input} | {output.name for output in model.graph.output}
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in read]:
        model.graph.initializer.remove(tensor)


LARGEST = 65504.0
HEADROOM = 8.0
"""A node stays in FP32 where an observed value comes nearer than this factor to the largest half-precision number."""
KEPT_TYPES = ("ReduceMean", "ReduceSum", "Softmax", "Exp", "Sqrt", "Pow")
"""Sums over many elements, and what makes large numbers of small ones."""
OBSERVED = 8
"""Crops on which ranges are observed: extremes of activations, not their distribution, are wanted."""


def to_half(model: Any, inputs: Sequence[Inputs], kept: Sequence[str]) -> tuple[Any, tuple[str, ...]]:
    """A copy with casts to and from FP16; inputs and outputs of the graph keep their types.

    Args:
        model: ONNX, FP32.
        inputs: what it is fed; ranges are observed on a few of them.
        kept: regular expressions for the whole names of nodes that stay in FP32.

    Returns:
        The model, and the names of the nodes that stayed for their observed range.
    """
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    wide = _out_of_range(model, inputs[:: max(1, len(inputs) // OBSERVED)])
    patterns = [re.compile(text) for text in kept]
    named = [node.name for node in model.graph.node if any(p.fullmatch(node.name) for p in patterns)]
    half = convert_float_to_float16(
        model,
        keep_io_types=True,
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, *KEPT_TYPES],
        node_block_list=sorted({*named, *wide}),
    )
    _drop_repeated(half)
    _join_kept(half)
    # The converter appends the casts of inputs behind their readers, which the standard forbids.
    OnnxModel(half).topological_sort(is_deterministic=True)
    return half, tuple(wide)


def _drop_repeated(model: Any) -> None:
    """The converter writes the same cast once for every use of a tensor by kept nodes; one of them is enough."""
    seen: set[str] = set()
    for node in list(model.graph.node):
        if node.op_type == "Cast" and node.output[0] in seen:
            model.graph.node.remove(node)
        seen.update(node.output)


def _join_kept(model: Any) -> None:
    """Between two kept nodes the converter casts to FP16 and back, which large values do not survive: leave it out."""
    from onnx import TensorProto

    casts = {node.output[0]: node for node in model.graph.node if node.op_type == "Cast"}
    outputs = {output.name for output in model.graph.output}
    whole = {}
    for name, node in casts.items():
        before = casts.get(node.input[0])
        back = _to(node) == TensorProto.FLOAT and before is not None and _to(before) == TensorProto.FLOAT16
        if back and before is not None and name not in outputs:
            whole[name] = before.input[0]
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = whole.get(name, name)
    used = {name for node in model.graph.node for name in node.input} | outputs
    while dead := [node for node in model.graph.node if node.op_type == "Cast" and node.output[0] not in used]:
        for node in dead:
            model.graph.node.remove(node)
        used = {name for node in model.graph.node for name in node.input} | outputs


def _to(cast: Any) -> int:
    return int(next(attribute.i for attribute in cast.attribute if attribute.name == "to"))


def _out_of_range(model: Any, inputs: Sequence[Inputs]) -> list[str]:
    """Names of nodes that read or write a value near or beyond FP16's range, in the graph's order."""
    import onnx
    import onnxruntime

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    known = {output.name for output in watched.graph.output}
    floats = {
        info.name
        for info in (*watched.graph.value_info, *watched.graph.output)
        if info.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    watched.graph.output.extend(info for info in watched.graph.value_info if info.name in floats - known)
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    largest = dict.fromkeys(names, 0.0)
    for fed in inputs:
        for name, value in zip(names, session.run(names, dict(fed)), strict=True):
            if name in floats:
                largest[name] = max(largest[name], float(np.abs(value).max(initial=0.0)))
    limit = LARGEST / HEADROOM
    return [
        node.name
        for node in model.graph.node
        if any(largest.get(name, 0.0) > limit for name in (*node.input, *node.output))
    ]
