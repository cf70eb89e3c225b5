"""Core ML on macOS: camera images in, arrays out. Elsewhere its files are read, and interpreted to prove them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from edgetrack.bundle import Bundle, read_json, read_npz
from edgetrack.bundle.manifest import GraphInfo, TensorInfo
from edgetrack.errors import BackendMissingError, BundleIntegrityError, DeviceUnavailableError
from edgetrack.runtime.backends.base import BackendOptions, CompiledGraph, GraphSignature, StructureFinding
from edgetrack.runtime.backends.coreml.package import NEURAL_ENGINE, coverage, hold_against, layers, weights
from edgetrack.runtime.backends.mil.package import (
    REMEDY,
    as_stated,
    import_coremltools,
    is_image,
    quiet,
    read_spec,
    signatures,
)
from edgetrack.runtime.verify import LAYERS_FILE, LayerReport

UNITS = {"cpu": "CPU_ONLY", "gpu": "CPU_AND_GPU", "ane": "CPU_AND_NE", "all": "ALL"}
COVERED = 0.95
"""Share of weight elements that must be recorded by name; what the converter fused or made itself is the rest."""


def source_file(graph: str) -> str:
    """The bundle's file with the record of a graph's source weights."""
    return f"{graph}.source.npz"


class CoreMlGraph(CompiledGraph):
    """A graph in Core ML."""

    engine = "coreml"

    @classmethod
    def import_package(cls) -> None:
        import_coremltools()

    @classmethod
    def runs_here(cls) -> bool:
        """Whether this system is macOS."""
        return sys.platform == "darwin"

    @classmethod
    def check_structure(cls, bundle: Bundle) -> list[StructureFinding]:
        """Signatures, operators and weights of the packages, read without running them.

        Raises:
            BundleError: a file is missing or cannot be read.
            BackendMissingError: coremltools is missing.
        """
        report = read_json(bundle.path(LAYERS_FILE), LayerReport)
        return [finding for info in bundle.manifest.graphs for finding in _check_graph(bundle, info, report)]

    def _open(self, path: Path, options: BackendOptions) -> None:
        coremltools = import_coremltools()
        options.refuse_hint("Core ML", "coreml")
        if options.device not in UNITS:
            raise DeviceUnavailableError(
                f"Core ML bundles run on {', '.join(UNITS)} (the Neural Engine is ane), not on {options.device!r}"
            )
        if not self.runs_here():
            raise DeviceUnavailableError(
                f"Core ML bundles run on macOS only, this is {sys.platform}; take the bundle to a Mac, or compute its "
                "recorded outputs here, in the reference interpreter, with: edgetrack verify"
            )
        inputs, outputs = signatures(read_spec(path))
        self._check_signature("inputs", as_stated(inputs, self.info.inputs))
        self._check_signature("outputs", outputs)
        try:
            from PIL import Image
        except ImportError as error:
            raise BackendMissingError(f"Core ML takes images by Pillow, which is not installed; {REMEDY}") from error
        self._image: Any = Image
        try:
            with quiet():
                unit = getattr(coremltools.ComputeUnit, UNITS[options.device])
                self._model = coremltools.models.MLModel(str(path), compute_units=unit)
        except Exception as error:  # what the framework refuses comes as errors of many classes
            raise BundleIntegrityError(f"Core ML cannot load {path.name}: {error}") from None

    def _infer(self) -> None:
        found = self._model.predict({tensor.name: self._fed(tensor) for tensor in self.info.inputs})
        for name, buffer in self.outputs.items():
            np.copyto(buffer, np.asarray(found[name], buffer.dtype).reshape(buffer.shape))

    def _fed(self, tensor: TensorInfo) -> Any:
        value = self.inputs[tensor.name]
        if is_image(tensor):
            # Pillow's images are RGB; the framework puts them in the order that the model declares.
            return self._image.fromarray(np.ascontiguousarray(value[..., ::-1]))
        return value.astype(np.float32) if tensor.dtype == "uint8" else value

    def _close(self) -> None:
        del self._model


def _check_graph(bundle: Bundle, info: GraphInfo, report: LayerReport) -> list[StructureFinding]:
    path = bundle.path(info.file)
    spec = read_spec(path)
    inputs, outputs = signatures(spec)
    inputs = as_stated(inputs, info.inputs)
    found = layers(spec)
    recorded = report.graphs.get(info.name)
    counts = ", ".join(f"{count} {kind}" for kind, count in found.types().items())
    unsupported = sorted({layer.type for layer in found.layers} - NEURAL_ENGINE)
    wide = found.precisions().get("fp32", 0)
    return [
        StructureFinding(name=f"{info.name} inputs", ok=inputs == _declared(info.inputs), detail=_shown(inputs)),
        StructureFinding(name=f"{info.name} outputs", ok=outputs == _declared(info.outputs), detail=_shown(outputs)),
        StructureFinding(name=f"{info.name} operators", ok=recorded == found, detail=f"{len(found.layers)}: {counts}"),
        StructureFinding(
            name=f"{info.name} Neural Engine",
            ok=True,
            detail=(
                "every operator is known to run there"
                if not unsupported
                else f"not known to run there: {', '.join(unsupported)}"
            )
            + (f"; {wide} operators in fp32 run elsewhere" if wide else ""),
        ),
        _check_weights(bundle, info, path),
    ]


def _check_weights(bundle: Bundle, info: GraphInfo, path: Path) -> StructureFinding:
    found, recorded = weights(path), read_npz(bundle.path(source_file(info.name)))
    checks = list(hold_against(info.name, found, recorded, bundle.manifest.precision))
    share, wrong = coverage(found, recorded), [check.name for check in checks if not check.ok]
    worst = max((check.max_abs for check in checks), default=0.0)
    return StructureFinding(
        name=f"{info.name} weights",
        ok=bool(checks or not recorded) and not wrong and share >= COVERED,
        detail=f"{len(checks)} tensors, {share:.1%} of all elements, are the network's to {worst:.2g}"
        if not wrong
        else f"{len(wrong)} of {len(checks)} are not the network's, such as {wrong[0]}",
    )


def _declared(tensors: Any) -> GraphSignature:
    return {t.name: (t.dtype, t.shape) for t in tensors}


def _shown(signature: GraphSignature) -> str:
    return ", ".join(f"{name} {dtype}{list(shape)}" for name, (dtype, shape) in signature.items())
