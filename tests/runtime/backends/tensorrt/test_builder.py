"""Real networks and engines, built without a GPU; the flags of older versions on a scripted network."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from edgetrack.errors import BundleIntegrityError, EdgetrackError, UsageError
from edgetrack.runtime.backends.tensorrt import builder
from edgetrack.runtime.backends.tensorrt.builder import network_layers, parse_information
from edgetrack.runtime.backends.tensorrt.installation import (
    Installation,
    check_capabilities,
    find_installation,
    numbers,
)

Small = Callable[..., bytes]


@pytest.fixture
def rtx() -> Installation:
    pytest.importorskip("tensorrt_rtx", reason="TENSORRT-RTX ABSENT: pip install 'edgetrack[tensorrt]'")
    return find_installation()


def test_engine_is_built_for_a_gpu_that_is_not_here(rtx: Installation, small_onnx: Small) -> None:
    engines = {capability: builder.build(rtx, small_onnx(), "small.onnx", capability) for capability in ("8.6", "8.9")}
    assert all(len(engine) > 8 * 8 * 9 * 4 for engine in engines.values())
    assert engines["8.6"] != engines["8.9"]


@pytest.mark.parametrize("zero", [None, "int8"])
def test_layers_of_the_parsed_network_have_types(rtx: Installation, small_onnx: Small, zero: str | None) -> None:
    parsed = builder.parse(rtx, small_onnx(zero), "small.onnx")
    layers = network_layers(rtx, parsed.network)
    pair = {"quantize": 1, "dequantize": 1} if zero else {}
    assert layers.types() == {"convolution": 1, **pair}
    assert layers.precisions() == ({"float": 2, "int8": 1} if zero else {"float": 1})
    assert layers.source == "parsed network"


@pytest.mark.parametrize("data", [b"", b"not onnx", b"\x08\x07" * 50], ids=["empty", "text", "noise"])
def test_file_that_is_no_network_is_refused_by_name(rtx: Installation, data: bytes) -> None:
    with pytest.raises(BundleIntegrityError, match=r"tensorrt_rtx .* cannot read broken\.onnx"):
        builder.parse(rtx, data, "broken.onnx")


def test_unsigned_pairs_are_refused(rtx: Installation, small_onnx: Small) -> None:
    with pytest.raises(BundleIntegrityError, match=r"small\.onnx has UINT8 .* clip half"):
        builder.parse(rtx, small_onnx("uint8"), "small.onnx")


def test_capabilities_are_those_of_the_package(rtx: Installation) -> None:
    known = rtx.capabilities()
    assert {"8.6", "8.9", "12.0"} <= set(known)
    check_capabilities(rtx, ("8.6", "12.0"))
    for wanted, words in ((("9.9",), "9.9: tensorrt_rtx .* builds for"), (("8.6", "8.6"), "comes twice")):
        with pytest.raises(UsageError, match=words):
            check_capabilities(rtx, wanted)


def test_classic_package_builds_in_place_only() -> None:
    classic = Installation(SimpleNamespace(), "tensorrt", "10.3.0")
    assert classic.capabilities() == ()
    check_capabilities(classic, ())
    with pytest.raises(UsageError, match="builds for the GPU of this machine only"):
        check_capabilities(classic, ("8.7",))


@pytest.mark.parametrize(
    ("name", "version", "typed"),
    [
        ("tensorrt_rtx", "1.0.0", True),
        ("tensorrt", "10.3.0", False),
        ("tensorrt", "10.11.0.33", False),
        ("tensorrt", "10.12.0.36", True),
        ("tensorrt", "11.0", True),
    ],
)
def test_networks_are_strongly_typed_from_10_12_on(name: str, version: str, typed: bool) -> None:
    assert Installation(None, name, version).strongly_typed is typed


def test_version_ends_at_what_is_no_number() -> None:
    assert numbers("10.12.0rc1") == (10, 12, 0)
    assert numbers("") == ()


class ScriptedLayer:
    """A layer that records what it was bound to."""

    def __init__(self, kind: str, dtype: str) -> None:
        self.type, self.num_outputs, self._dtype = kind, 1, dtype
        self.precision = ""
        self.output_types: dict[int, str] = {}

    def get_output(self, index: int) -> Any:
        return SimpleNamespace(dtype=self._dtype)

    def set_output_type(self, index: int, dtype: str) -> None:
        self.output_types[index] = dtype


def flags_of(layers: list[ScriptedLayer]) -> list[str]:
    """The builder flags that an old version is given for these layers."""
    trt = SimpleNamespace(
        LayerType=SimpleNamespace(QUANTIZE="q", DEQUANTIZE="dq", CONSTANT="const", CAST="cast"),
        DataType=SimpleNamespace(HALF="half", FLOAT="float"),
        BuilderFlag=SimpleNamespace(INT8="int8", FP16="fp16", OBEY_PRECISION_CONSTRAINTS="obey"),
    )
    flags: list[str] = []
    network = SimpleNamespace(num_layers=len(layers), get_layer=lambda index: layers[index])
    builder._flag_precisions(trt, network, SimpleNamespace(set_flag=flags.append))
    return flags


def test_older_versions_are_allowed_what_the_file_holds_and_no_more() -> None:
    assert flags_of([ScriptedLayer("conv", "float")]) == []
    assert flags_of([ScriptedLayer("q", "int8"), ScriptedLayer("dq", "float")]) == ["int8"]
    kept, cast = ScriptedLayer("conv", "float"), ScriptedLayer("cast", "float")
    assert flags_of([ScriptedLayer("conv", "half"), kept, cast]) == ["fp16", "obey"]
    assert (kept.precision, kept.output_types) == ("float", {0: "float"})
    assert cast.output_types == {}


INFORMATION = {
    "Layers": [
        {
            "Name": "/encoder/Conv + /encoder/Relu",
            "LayerType": "CaskConvolution",
            "Inputs": [{"Name": "x", "Dimensions": [1, 3, 8, 8], "Format/Datatype": "Row major linear FP16 format"}],
            "Outputs": [{"Name": "y", "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}],
            "Metadata": "[ONNX Layer: /encoder/Conv]\x1e[ONNX Layer: /encoder/Relu]",
        },
        {"Name": "Reformat", "LayerType": "Reformat", "Inputs": [], "Outputs": [], "Metadata": ""},
    ],
    "Bindings": ["x", "y"],
}


def test_layers_have_precision_and_what_was_fused() -> None:
    found = parse_information(json.dumps(INFORMATION), "tensorrt 10.3")
    assert found.source == "engine inspector"
    assert found.types() == {"CaskConvolution": 1, "Reformat": 1}
    assert [layer.precision for layer in found.layers] == ["int8", "unknown"]
    assert found.layers[0].fused == ("/encoder/Conv", "/encoder/Relu")


@pytest.mark.parametrize("text", ["", "{}", '{"Layers": ["only a name"]}'])
def test_answer_that_is_not_understood_is_an_error(text: str) -> None:
    with pytest.raises(EdgetrackError, match=r"engine inspector of tensorrt 10\.3"):
        parse_information(text, "tensorrt 10.3")
