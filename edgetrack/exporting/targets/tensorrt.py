"""Typed ONNX for TensorRT, and engines for other devices where the installed TensorRT builds them without a GPU.

The ONNX is the artifact: precision stands in it, one file serves every TensorRT. Engines are a cache.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from edgetrack.bundle.manifest import GraphInfo, Manifest
from edgetrack.errors import EdgetrackError
from edgetrack.exporting.lowering import Ignored, quantized_types
from edgetrack.exporting.targets.base import ExporterOptions, Lowering
from edgetrack.exporting.targets.onnx import OnnxExporter
from edgetrack.io import sha256
from edgetrack.runtime.backends.tensorrt.builder import SETTINGS, build, engine_layers, network_layers, parse
from edgetrack.runtime.backends.tensorrt.cuda import capability_here
from edgetrack.runtime.backends.tensorrt.engines import EngineInfo, packed
from edgetrack.runtime.backends.tensorrt.installation import Installation, check_capabilities, find_installation
from edgetrack.runtime.verify import LAYERS_FILE, GraphLayers, LayerReport

if TYPE_CHECKING:
    from edgetrack.models.base import GraphModule

ENGINES = "engines"
ELEMENTWISE = (
    "Add", "Mul", "Sub", "Div", "Max", "Min", "Clip", "AveragePool", "GlobalAveragePool", "MaxPool", "HardSigmoid",
    "HardSwish", "ReduceSum", "Resize",
)  # fmt: skip
"""Pairs in front of these compute nothing in INT8: each becomes a kernel, with 130 kB of source text in the engine."""


class TensorRtOptions(ExporterOptions, frozen=True, kw_only=True):
    """Engines are built ahead of time for these GPUs, by compute capability."""

    compute_capability: Annotated[
        tuple[str, ...],
        msgspec.Meta(
            description="TensorRT: build engines for these GPUs now, such as 8.6,8.9,12.0; without it each device "
            "builds its own."
        ),
    ] = ()


class TensorRtExporter(OnnxExporter):
    """Writes ONNX that this TensorRT reads, the list of its layers, and engines."""

    options_type = TensorRtOptions
    options: TensorRtOptions

    @cached_property
    def installation(self) -> Installation:
        """The TensorRT that is installed here."""
        return find_installation()

    def prepare(self) -> None:
        """See `Exporter`."""
        check_capabilities(self.installation, self.options.compute_capability)

    def convert(self, graph: GraphModule, folder: Path, *, opset: int, metadata: Mapping[str, str]) -> str:
        """Write `<graph>.onnx`, refuse what TensorRT would read wrongly or not at all.

        Raises:
            EdgetrackError: the graph was given with unsigned quantize/dequantize pairs.
            BundleIntegrityError: TensorRT cannot read the result.
        """
        file = super().convert(graph, folder, opset=opset, metadata=metadata)
        refuse_unsigned(folder / file)
        cast_images_first(folder / file)
        parse(self.installation, (folder / file).read_bytes(), file)
        return file

    def ignored(self, model: Any) -> Ignored:
        """Pairs stand in front of matrix products and full convolutions alone: what TensorRT computes in INT8.

        Depthwise convolutions it computes in float from weights that it de-quantizes at every run.
        """
        known = super().ignored(model)
        depthwise = (re.escape(node.name) for node in model.graph.node if _groups(node) > 1)
        return Ignored((*known.patterns, *depthwise), (*known.types, *ELEMENTWISE))

    def lower(self, path: Path, lowering: Lowering) -> tuple[str, ...]:
        """See `OnnxExporter`."""
        wide = super().lower(path, lowering)
        refuse_unsigned(path)
        return wide

    def complete(self, folder: Path, manifest: Manifest, progress: Callable[[str], None]) -> Manifest:
        """Add the layer report and the engines."""
        layers, graphs = {}, []
        for info in manifest.graphs:
            refuse_unsigned(folder / info.file)
            data = (folder / info.file).read_bytes()
            layers[info.name] = self._layers(data, info.file)
            graphs.append(msgspec.structs.replace(info, engines=self._build(info, data, folder, progress)))
        (folder / LAYERS_FILE).write_bytes(LayerReport(graphs=layers).to_json())
        return msgspec.structs.replace(manifest, graphs=tuple(graphs))

    def _layers(self, data: bytes, file: str) -> GraphLayers:
        """Of the engine where this machine has a GPU that it can be loaded on, else of the parsed network."""
        capability = capability_here()
        known = self.installation.capabilities()
        if capability is None or (known and capability not in known):
            return network_layers(self.installation, parse(self.installation, data, file).network)
        engine = build(self.installation, data, file, capability if known else None)
        return engine_layers(self.installation, engine)

    def _build(
        self, info: GraphInfo, data: bytes, folder: Path, progress: Callable[[str], None]
    ) -> tuple[dict[str, str | int], ...]:
        found = []
        for capability in self.options.compute_capability:
            progress(f"building the engine of graph {info.name} for compute capability {capability}")
            engine = packed(build(self.installation, data, info.file, capability))
            name = f"{ENGINES}/{info.name}-{self.installation.name}-{capability}.engine.zlib"
            (folder / ENGINES).mkdir(exist_ok=True)
            (folder / name).write_bytes(engine)
            engine_info = EngineInfo(
                file=name,
                sha256=sha256(engine),
                onnx_sha256=sha256(data),
                package=self.installation.name,
                version=self.installation.version,
                capability=capability,
                settings=SETTINGS,
            )
            found.append(msgspec.to_builtins(engine_info))
        return tuple(found)


def _groups(node: Any) -> int:
    return next((int(a.i) for a in node.attribute if a.name == "group"), 1) if node.op_type == "Conv" else 1


def cast_images_first(path: Path) -> None:
    """Make FP32 of uint8 inputs before anything else, in place: TensorRT takes UINT8 in a cast alone. Exact."""
    import onnx

    model = onnx.load(str(path))
    graph = model.graph
    casts = []
    for image in graph.input:
        users = [node for node in graph.node if image.name in node.input]
        if image.type.tensor_type.elem_type != onnx.TensorProto.UINT8 or all(n.op_type == "Cast" for n in users):
            continue
        wide = f"{image.name}_float"
        for node in users:
            node.input[:] = [wide if name == image.name else name for name in node.input]
        casts.append(onnx.helper.make_node("Cast", [image.name], [wide], f"/{wide}/Cast", to=onnx.TensorProto.FLOAT))
    if not casts:
        return
    nodes = list(graph.node)
    del graph.node[:], graph.value_info[:]
    graph.node.extend((*casts, *nodes))
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def refuse_unsigned(path: Path) -> None:
    """Refuse UINT8 quantize/dequantize pairs: some versions refuse them too, others read them as INT8 and clip half.

    Raises:
        EdgetrackError: the file holds some.
    """
    import onnx

    found = quantized_types(onnx.load(str(path))) - {"int8"}
    if found:
        raise EdgetrackError(
            f"{path.name} has quantize/dequantize pairs of {', '.join(sorted(found))}, expected int8 with zero point "
            "0, the only ones that TensorRT reads rightly; quantize it symmetrically with signed integers"
        )
