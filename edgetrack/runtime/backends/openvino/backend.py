"""OpenVINO: IR files, buffers shared with the runtime, compiled models cached between runs."""

from __future__ import annotations

import io
import logging
import math
import platform
import sys
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from edgetrack.bundle.manifest import SEVEN_BITS, Manifest, split_precision
from edgetrack.errors import BackendMissingError, BundleIntegrityError
from edgetrack.io import encode_json, read_bytes, sha256
from edgetrack.runtime.backends.base import BackendOptions, CompiledGraph, GraphSignature
from edgetrack.runtime.backends.cache import CompiledCache, CompiledKey
from edgetrack.runtime.backends.openvino.devices import (
    HINTS,
    configuration,
    members,
    placement_of,
    plugin_name,
    require_present,
)
from edgetrack.system.machine import cpu_flags, lacks_vnni

log = logging.getLogger(__name__)
_CONVERTER = "openvino.tools.ovc"
MAX_XML_BYTES = 64 << 20
MAX_ELEMENTS = 1 << 29
"""Of one tensor within a graph: 2 GiB of FP32."""
# What OpenVINO makes of ONNX's control flow, by any of these names.
CONTROL_FLOW = {"If": {"If"}, "Loop": {"Loop"}, "TensorIterator": {"Loop", "Scan"}}


def import_openvino() -> Any:
    """The package, without its usage reports (a DNS look-up and files under ~/intel at every import).

    OpenVINO and NNCF do without where the package `openvino_telemetry` cannot be imported; that one also wants a home.
    OpenVINO does without its converter as well: 100 modules and 8 MB that nothing needs where a bundle runs. Who asks
    for `openvino.tools.ovc` itself still gets it.

    Raises:
        BackendMissingError: it is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    first = _CONVERTER not in sys.modules
    if first:
        sys.modules[_CONVERTER] = None  # type: ignore[assignment]
    try:
        import openvino
    except ImportError as error:
        raise BackendMissingError(
            f"OpenVINO is not installed ({error}); install it with: pip install 'edgetrack[openvino]'"
        ) from error
    finally:
        if first:
            del sys.modules[_CONVERTER]
    return openvino


@cache
def shared_core() -> Any:
    """The process's one `openvino.Core`, kept to the end.

    Loading its CPU plugin gives the thread an alternate signal stack; unloading it brings back the one before and
    unmaps its own. Two cores that are not unloaded in reverse order leave a stack that is gone, and the next signal
    that Python handles, Ctrl-C for one, kills the process without a word.
    """
    return import_openvino().Core()


def read_ir(core: Any, path: Path, operators: Collection[str] = ()) -> Any:
    """An IR (`.xml` and `.bin`) as an OpenVINO model, without control flow and without tensors of absurd size.

    Args:
        core: `openvino.Core`.
        path: of the `.xml`; other formats, which OpenVINO tells by their names, may lead to other files.
        operators: `Loop`, `If`, `Scan`: those that the tracker's family needs all the same.

    Raises:
        BundleIntegrityError: it is none, or holds what is refused; the message names the node.
        RuntimeError: OpenVINO cannot read it.
    """
    weights = _weights(path)
    _check_layers(path)
    model = core.read_model(path, weights)
    for node in model.get_ops():
        kind = node.get_type_name()
        what = f"graph {path.stem!r}: node {node.get_friendly_name()!r} ({kind})"
        if kind in CONTROL_FLOW and not CONTROL_FLOW[kind] & frozenset(operators):
            raise BundleIntegrityError(f"{what} is control flow, which this tracker's family does not need")
        for output in node.outputs():
            shape = output.get_partial_shape()
            if shape.is_static and math.prod(shape.to_shape()) > MAX_ELEMENTS:
                raise BundleIntegrityError(f"{what} makes {shape} numbers; at most {MAX_ELEMENTS} are allowed")
    return model


def _check_layers(path: Path) -> None:
    """Refuse layers with fewer inputs than their operator reads: OpenVINO reads past what is there, and crashes."""
    data = read_bytes(path, MAX_XML_BYTES)
    if b"<!" in data:
        raise BundleIntegrityError(f"{path.name} holds an XML declaration that no IR has; export the bundle again")
    try:
        layers = list(ElementTree.fromstring(data).iter("layer"))  # noqa: S314 - it declares no entities
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise BundleIntegrityError(f"OpenVINO cannot read {path.name}: it is no XML ({error})") from None
    for layer in layers:
        kind, inputs = layer.get("type", ""), len(layer.findall("input/port"))
        if inputs < (0 if kind in _SOURCES else _INPUTS.get(kind, 1)):
            raise BundleIntegrityError(
                f"graph {path.stem!r}: node {layer.get('name', '')!r} ({kind}) has {inputs} inputs, fewer than it "
                "reads; export the bundle again"
            )


def _weights(path: Path) -> Path:
    """The second file of an IR."""
    if path.suffix != ".xml":
        raise BundleIntegrityError(f"{path.name} is no OpenVINO IR, whose name ends in .xml; export the bundle again")
    if path.is_file() and path.stat().st_size > MAX_XML_BYTES:
        raise BundleIntegrityError(f"{path.name} is larger than the {MAX_XML_BYTES} bytes that an IR's graph may have")
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise BundleIntegrityError(f"OpenVINO cannot read {path.name}: {weights.name} is missing")
    return weights


def _key(openvino: Any, core: Any, name: str, path: Path, options: BackendOptions) -> CompiledKey:
    return {
        "weights": sha256(_weights(path)),
        "graph": sha256(path),
        "openvino": str(openvino.get_version()),
        "device": name,
        "processor": str(core.get_property(name, "FULL_DEVICE_NAME")),
        # A virtual machine's processor has the same name with AVX-512 and without.
        "able": ", ".join([*core.get_property(name, "OPTIMIZATION_CAPABILITIES"), *cpu_flags()]),
        "precision": HINTS[options.precision_hint],
        "threads": options.threads,
        "operators": ", ".join(sorted(options.operators)),
    }


_SOURCES = frozenset({"Const", "Parameter"})
# Inputs that an operator needs (openvino.ai, available opsets), where that is not one.
_INPUTS = {
    name: count
    for count, names in {
        2: "Add Subtract Multiply Divide Power Maximum Minimum Mod FloorMod SquaredDifference Equal NotEqual Greater "
        "GreaterEqual Less LessEqual LogicalAnd LogicalOr LogicalXor MatMul Convolution GroupConvolution "
        "BinaryConvolution ConvolutionBackpropData GroupConvolutionBackpropData Broadcast Reshape Transpose Unsqueeze "
        "Tile Split PRelu ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogicalAnd "
        "ReduceLogicalOr NormalizeL2 Interpolate GridSample TopK GatherND GatherElements FakeConvert",
        3: "Gather StridedSlice Pad Select VariadicSplit Range ScatterNDUpdate RandomUniform "
        "DeformableConvolution ScaledDotProductAttention HardSigmoid Selu",
        4: "Slice ScatterUpdate ScatterElementsUpdate OneHot",
        5: "FakeQuantize",
    }.items()
    for name in names.split()
}


class OpenVinoGraph(CompiledGraph):
    """A graph in OpenVINO."""

    engine = "openvino"
    layer_timer = "edgetrack.runtime.backends.openvino.layers:OpenVinoLayers"
    probe = "edgetrack.runtime.backends.openvino.probe:OpenVinoProbe"

    @classmethod
    def import_package(cls) -> None:
        import_openvino()

    @classmethod
    def require_hint(cls, hint: str) -> None:
        configuration(shared_core(), "CPU", BackendOptions(precision_hint=hint))

    @classmethod
    def devices_here(cls) -> tuple[str, ...]:
        return tuple(name.lower().replace(".", ":") for name in shared_core().available_devices)

    @classmethod
    def require_device_here(cls, device: str) -> None:
        core = shared_core()
        require_present(core, device, members(core, plugin_name(device)))

    @classmethod
    def doubt(cls, manifest: Manifest, options: BackendOptions) -> str:
        method = "" if manifest.calibration is None else manifest.calibration.method
        narrow = split_precision(manifest.precision)[0] != "int8" or SEVEN_BITS in method
        if narrow or options.device != "cpu" or not lacks_vnni(platform.machine(), cpu_flags()):
            return ""
        return (
            "sums of INT8 may saturate, since this processor has no VNNI instructions: export the bundle again with "
            "--weight-bits 7, or run another precision here"
        )

    def _open(self, path: Path, options: BackendOptions) -> None:
        openvino = import_openvino()
        self._compiled = self._compile(openvino, path, options)
        self._check_signature("inputs", self._signature(self._compiled.inputs))
        self._check_signature("outputs", self._signature(self._compiled.outputs))
        self._request = self._compiled.create_infer_request()
        for name, buffer in self.inputs.items():
            self._request.set_tensor(name, openvino.Tensor(buffer, shared_memory=True))
        for name, buffer in self.outputs.items():
            self._request.set_tensor(name, openvino.Tensor(buffer, shared_memory=True))

    def _compile(self, openvino: Any, path: Path, options: BackendOptions) -> Any:
        """Read and compile a graph, or take it from the cache; OpenVINO's own cache trusts any file that it finds."""
        core, name = shared_core(), plugin_name(options.device)
        allowed = members(core, name)
        require_present(core, options.device, allowed)
        config = configuration(core, name, options)
        kept = allowed == (name,) and "EXPORT_IMPORT" in core.get_property(name, "OPTIMIZATION_CAPABILITIES")
        compiled = CompiledCache(options.cache if kept else None, "openvino", "compiled graph")
        try:
            key = _key(openvino, core, allowed[0], path, options)
        except OSError as error:
            raise BundleIntegrityError(f"OpenVINO cannot read {path.name}: {error.strerror or error}") from None
        file = f"{sha256(encode_json(key))[:32]}.blob"
        cached = compiled.read(self.info.name, file, key)
        found = None if cached is None else self._import(core, cached, name, config)
        if found is not None:
            self.placement = placement_of(found, name, allowed)
            return found
        try:
            found = core.compile_model(read_ir(core, path, options.operators), name, config)
        except RuntimeError as error:
            raise BundleIntegrityError(
                f"OpenVINO cannot read {path.name}: {str(error).strip().splitlines()[-1]}"
            ) from None
        self.placement = placement_of(found, name, allowed)
        if compiled.folder is not None:
            blob = io.BytesIO()
            found.export_model(blob)  # returns bytes in some versions, a stream in others
            compiled.keep(file, blob.getvalue(), key)
        return found

    def _import(self, core: Any, blob: bytes, name: str, config: dict[str, Any]) -> Any:
        """A compiled graph of the cache; None where the device's driver has changed and refuses it."""
        try:
            return core.import_model(blob, name, config)
        except RuntimeError as error:
            said = str(error).strip().splitlines()
            log.warning(
                "graph %s: %s refuses the cached compiled graph: building again (%s)", self.info.name, name, said[-1:]
            )
            return None

    @staticmethod
    def _signature(ports: Any) -> GraphSignature:
        return {p.any_name: (str(np.dtype(p.element_type.to_dtype())), tuple(p.shape)) for p in ports}

    def _infer(self) -> None:
        self._request.infer()

    def _close(self) -> None:
        # Both hold on to the buffers and to the compiled code.
        del self._request, self._compiled
