"""ONNX to an engine: one path for every TensorRT; the ONNX alone says which precision each tensor has."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import msgspec

from edgetrack.errors import BundleIntegrityError, EdgetrackError
from edgetrack.io import BAD_JSON
from edgetrack.runtime.backends.tensorrt.installation import Installation
from edgetrack.runtime.verify import GraphLayers, Layer

SETTINGS = 1
"""Part of an engine's key: raise it when the settings below change."""

_UNSIGNED = "UINT8 zero_point"
"""In the parser's only sign of it, a warning (TensorRT-RTX 1.7)."""


@dataclass(frozen=True)
class Network:
    """A parsed ONNX; `parts` are what TensorRT wants kept alive with it."""

    network: Any
    builder: Any
    parts: tuple[Any, ...]


def parse(installation: Installation, onnx: bytes, name: str) -> Network:
    """Let TensorRT read an ONNX file's bytes.

    Raises:
        BundleIntegrityError: it cannot; the message is TensorRT's, and `name` says which file.
    """
    trt, logger = installation.module, installation.logger()
    logger.take()
    builder = trt.Builder(logger)
    if builder is None:
        raise EdgetrackError(f"{installation.name} {installation.version} could not start: {_last(logger)}")
    network = builder.create_network(_creation_flags(installation))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx):
        said = "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors)) or _last(logger)
        raise BundleIntegrityError(f"{installation.name} {installation.version} cannot read {name}: {said}")
    if not network.num_outputs:
        raise BundleIntegrityError(f"{installation.name} {installation.version} cannot read {name}: it has no outputs")
    if any(_UNSIGNED in line for line in logger.take()):
        raise BundleIntegrityError(
            f"{name} has UINT8 quantize/dequantize pairs, which {installation.name} {installation.version} would read "
            "as INT8 and clip half of every range; export the bundle again"
        )
    return Network(network, builder, (parser,))


def build(installation: Installation, onnx: bytes, name: str, capability: str | None = None) -> bytes:
    """Build an engine.

    Args:
        onnx: the file's bytes, typed: casts and quantize/dequantize pairs stand in it.
        name: of the file, for messages.
        capability: compute capability such as `8.6`; None builds for the GPU that is there.

    Raises:
        BundleIntegrityError: TensorRT cannot read the file.
        EdgetrackError: it cannot build the engine.
    """
    parsed = parse(installation, onnx, name)
    config = parsed.builder.create_builder_config()
    _configure(installation, parsed.network, config, capability)
    built = parsed.builder.build_serialized_network(parsed.network, config)
    if built is None:
        raise EdgetrackError(
            f"{installation.name} {installation.version} cannot build an engine of {name}"
            f"{f' for compute capability {capability}' if capability else ''}: {_last(installation.logger())}"
        )
    return bytes(built)


def _creation_flags(installation: Installation) -> int:
    flags = installation.module.NetworkDefinitionCreationFlag
    # TensorRT 11 has no other networks and may drop the flag.
    if not installation.strongly_typed or not hasattr(flags, "STRONGLY_TYPED"):
        return 0
    return 1 << int(flags.STRONGLY_TYPED)


def _configure(installation: Installation, network: Any, config: Any, capability: str | None) -> None:
    trt = installation.module
    # On by default: FP32 would be computed with ten bits of mantissa, unasked.
    config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if capability is not None:
        config.num_compute_capabilities = 1
        wanted = getattr(trt.ComputeCapability, f"SM{capability.replace('.', '')}")
        config.set_compute_capability(wanted, 0)
    if not installation.strongly_typed:
        _flag_precisions(trt, network, config)


def _flag_precisions(trt: Any, network: Any, config: Any) -> None:
    """Before 10.12: allow what the ONNX holds, and bind layers that the ONNX has in FP32 to FP32."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    outputs = [(layer, index) for layer in layers for index in range(layer.num_outputs)]
    types = [layer.get_output(index).dtype for layer, index in outputs]
    quantized = any(layer.type in (trt.LayerType.QUANTIZE, trt.LayerType.DEQUANTIZE) for layer in layers)
    half = trt.DataType.HALF in types
    if quantized:
        config.set_flag(trt.BuilderFlag.INT8)
    if half:
        config.set_flag(trt.BuilderFlag.FP16)
        config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
        for (layer, index), dtype in zip(outputs, types, strict=True):
            if dtype == trt.DataType.FLOAT and layer.type not in (trt.LayerType.CONSTANT, trt.LayerType.CAST):
                layer.precision = dtype
                layer.set_output_type(index, dtype)


def _last(logger: Any) -> str:
    lines = logger.take()
    return lines[-1] if lines else "no reason was given"


_SOURCE_LAYER = re.compile(r"\[ONNX Layer: ([^\]]+)\]")


class _Tensor(msgspec.Struct, rename={"kind": "Format/Datatype"}):
    kind: str = ""


class _EngineLayer(msgspec.Struct, rename="pascal"):
    name: str
    layer_type: str = ""
    outputs: tuple[_Tensor, ...] = ()
    metadata: str = ""


class _Engine(msgspec.Struct, rename="pascal"):
    layers: tuple[_EngineLayer, ...]


def network_layers(installation: Installation, network: Any) -> GraphLayers:
    """Layers of a parsed network: one for each operation, constants left out, nothing fused yet."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    constant = installation.module.LayerType.CONSTANT
    return GraphLayers(
        source="parsed network",
        tool=f"{installation.name} {installation.version}",
        layers=tuple(
            Layer(name=layer.name, type=_short(layer.type), precision=_short(layer.get_output(0).dtype))
            for layer in layers
            if layer.type != constant
        ),
    )


def engine_layers(installation: Installation, data: bytes) -> GraphLayers:
    """Layers of an engine that was just built, as its inspector tells: fused groups, and what each computes in.

    Raises:
        EdgetrackError: the engine cannot be loaded here, or the inspector's answer is not understood.
    """
    loader = installation.module.Runtime(installation.logger())
    engine = loader.deserialize_cuda_engine(data)
    if engine is None:
        said = "; ".join(installation.logger().take()) or "no reason was given"
        raise EdgetrackError(f"{installation.name} {installation.version} does not load the engine it built: {said}")
    inspector = engine.create_engine_inspector()
    text = inspector.get_engine_information(installation.module.LayerInformationFormat.JSON)
    return parse_information(text, f"{installation.name} {installation.version}")


def parse_information(text: str, tool: str) -> GraphLayers:
    """The inspector's JSON as our report.

    Raises:
        EdgetrackError: it is not the JSON that an engine built with detailed verbosity gives.
    """
    try:
        found = msgspec.json.decode(text, type=_Engine)
    except BAD_JSON as error:
        raise EdgetrackError(f"the engine inspector of {tool} gave what is not understood: {error}") from None
    return GraphLayers(
        source="engine inspector",
        tool=tool,
        layers=tuple(
            Layer(
                name=layer.name,
                type=layer.layer_type,
                precision=_precision(layer),
                fused=tuple(_SOURCE_LAYER.findall(layer.metadata)),
            )
            for layer in found.layers
        ),
    )


def _precision(layer: _EngineLayer) -> str:
    # Such as "Channel major FP16 format where C % 8 == 0", or "Row major Int8 format".
    match = re.search(r"\b(FP16|FP32|BF16|FP8|INT8|INT32|INT64|UINT8|Bool)\b", layer.outputs[0].kind if layer.outputs
                      else "", re.IGNORECASE)  # fmt: skip
    return match[1].lower() if match else "unknown"


def _short(member: Any) -> str:
    """`LayerType.CONVOLUTION` -> `convolution`."""
    return str(member).rsplit(".", 1)[-1].lower()
