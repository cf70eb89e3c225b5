"""Layers as TensorRT sees them: of the parsed network anywhere, of the engine where there is a GPU to load it on."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from edgetrack.errors import EdgetrackError
from edgetrack.runtime.layers import GraphLayers, Layer
from edgetrack.runtime.nvidia.installation import Installation

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
    except msgspec.MsgspecError as error:
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
